use filters::config::Session;
use proto::tcp_proxy::weighted_cluster::ClusterWeight;
use proto::tcp_proxy::{ClusterSpecifier as Specifier, WeightedCluster};

use super::*;

fn base() -> proto::TcpProxy {
    proto::TcpProxy {
        stat_prefix: "p".into(),
        cluster_specifier: Some(Specifier::Cluster("c".into())),
        ..proto::TcpProxy::default()
    }
}

fn parse(config: proto::TcpProxy) -> Result<TcpProxyConfig, String> {
    TcpProxyConfig::parse(&Session::default().root(), config).map_err(|error| error.to_string())
}

fn weighted(clusters: &[(&str, u32)]) -> proto::TcpProxy {
    let clusters = clusters
        .iter()
        .map(|(name, weight)| ClusterWeight { name: (*name).into(), weight: *weight, metadata_match: None })
        .collect();
    proto::TcpProxy { cluster_specifier: Some(Specifier::WeightedClusters(WeightedCluster { clusters })), ..base() }
}

#[test]
fn defaults_are_envoys() {
    let config = parse(base()).expect("valid");
    assert_eq!(config.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(config.max_connect_attempts.get(), 1);
    assert_eq!(config.max_downstream_connection_duration, None);
    assert_eq!(&*config.cluster.pick(7).cluster, "c");
}

#[test]
fn a_zero_idle_timeout_disables_it() {
    let config = parse(proto::TcpProxy { idle_timeout: Some(wkt::Duration::default()), ..base() }).expect("valid");
    assert_eq!(config.idle_timeout, None);
}

#[test]
fn weights_divide_the_random_numbers_exactly() {
    let config = parse(weighted(&[("a", 1), ("b", 2), ("c", 1)])).expect("valid");
    let picks: String = (0..8).map(|random| config.cluster.pick(random).cluster.to_string()).collect();
    assert_eq!(picks, "abbcabbc");
    assert_eq!(config.cluster.names().count(), 3);
}

#[test]
fn what_envoy_rejects_is_rejected() {
    for (config, expected) in [
        (proto::TcpProxy { stat_prefix: String::new(), ..base() }, "stat_prefix: value length must be"),
        (proto::TcpProxy { cluster_specifier: None, ..base() }, "cluster_specifier: value is required"),
        (weighted(&[]), "weighted_clusters.clusters: value must contain at least 1 item(s)"),
        (weighted(&[("a", 0)]), "weighted_clusters.clusters[0].weight: value must be greater"),
        (
            proto::TcpProxy { upstream_connect_mode: 1, ..base() },
            "max_early_data_bytes must be set when upstream_connect_mode is not IMMEDIATE",
        ),
    ] {
        let error = parse(config).expect_err(expected);
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn facts_are_merged_by_policy() {
    let tlv = |kind, value: &'static str| Tlv { kind, value: value.into() };
    let merged = |policy: TlvMerge, said: Option<Vec<Tlv>>| -> Vec<(u8, String)> {
        let configured = || vec![tlv(1, "c"), tlv(2, "c")];
        let text = |tlv: Tlv| (tlv.kind, String::from_utf8_lossy(&tlv.value).into_owned());
        policy.merge(said, configured).into_iter().map(text).collect()
    };
    let said = || Some(vec![tlv(2, "s"), tlv(3, "s")]);
    let list = |all: &[(u8, &str)]| all.iter().map(|(kind, text)| (*kind, (*text).to_owned())).collect::<Vec<_>>();
    for (policy, said, expected) in [
        (TlvMerge::AddIfAbsent, None, list(&[(1, "c"), (2, "c")])),
        (TlvMerge::AddIfAbsent, said(), list(&[(2, "s"), (3, "s")])),
        (TlvMerge::OverwriteByType, said(), list(&[(1, "c"), (2, "c"), (3, "s")])),
        (TlvMerge::Append, said(), list(&[(2, "s"), (3, "s"), (1, "c"), (2, "c")])),
    ] {
        assert_eq!(merged(policy, said), expected, "{policy:?}");
    }
}

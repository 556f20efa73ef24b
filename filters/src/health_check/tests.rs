use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::SystemTime;

use envoy_types::pb::envoy::config::route::v3::HeaderMatcher as MatcherProto;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::google::protobuf::BoolValue;

use super::*;
use crate::config::Session;
use crate::http::HeaderName;
use crate::matcher::NoRuntime;
use crate::stream_info::{Address, ConnectionInfo, StreamInfo};

/// A proxy with clusters `half` (one host of two is healthy) and `empty`.
#[derive(Default)]
struct Proxy {
    failed: Cell<bool>,
}

impl Server for Proxy {
    fn health_check_failed(&self) -> bool {
        self.failed.get()
    }

    fn membership(&self, cluster: &str) -> Option<(usize, usize)> {
        match cluster {
            "half" => Some((1, 2)),
            "empty" => Some((0, 0)),
            _ => None,
        }
    }
}

fn proto(pass_through: bool) -> Proto {
    let path = StringMatcher { match_pattern: Some(MatchPattern::Exact("/hz".into())), ignore_case: false };
    let matcher = MatcherProto {
        name: ":path".into(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(path)),
        ..MatcherProto::default()
    };
    Proto { pass_through_mode: Some(BoolValue { value: pass_through }), headers: vec![matcher], ..Proto::default() }
}

fn parsed(proto: Proto) -> Result<Rc<HealthCheck>, String> {
    let session = Session::default();
    let config = HealthCheckConfig::parse(proto, session.root(), RegexLimits::default(), "mine");
    let config = config.map_err(|error| error.message)?;
    let stats = stats::Store::new(1, stats::StoreOptions::default()).group::<HealthCheckFilterStats>("h.").shard(0);
    Ok(HealthCheck::new(Arc::new(config), stats))
}

fn filter(proto: Proto) -> Rc<HealthCheck> {
    parsed(proto).unwrap()
}

/// What becomes of a request: the answer's status, its headers, and why; the status of others is 201.
fn run(filter: &Rc<HealthCheck>, path: &'static str, proxy: &Proxy) -> (u16, Vec<String>, Option<&'static str>) {
    let nowhere = || Address::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let connection = Rc::new(ConnectionInfo::between(nowhere(), nowhere()));
    let mut info = StreamInfo::new(connection, Instant::now(), SystemTime::now(), 0);
    let request = RequestHead { path: path.into(), ..RequestHead::default() };
    let mut stream = HealthCheckStream::new(filter);
    let mut context = RequestContext::new(None, &NoRuntime, proxy, &mut info);
    let (mut head, why) = match stream.decode_head(&request, &mut context) {
        Verdict::Take => {
            let Reply { status, headers, details, flags, .. } = stream.reply(proxy);
            assert_eq!(flags.contains(ResponseFlags::LOCAL_HEALTH_CHECK_FAILED), status != 200);
            let Cow::Borrowed(details) = details else { panic!("{details} is no constant") };
            (ResponseHead { status, headers, ..ResponseHead::default() }, Some(details))
        }
        verdict => {
            assert!(matches!(verdict, Verdict::Continue));
            (ResponseHead { status: 201, ..ResponseHead::default() }, None)
        }
    };
    assert_eq!(info.health_check, path == "/hz");
    stream.encode_head(&mut head, proxy);
    let line = |name: &HeaderName, value: &Bytes| format!("{}: {}", name.as_str(), String::from_utf8_lossy(value));
    (head.status, head.headers.iter().map(|header| line(&header.name, &header.value)).collect(), why)
}

const CLUSTER: &str = "x-envoy-upstream-healthchecked-cluster: mine";
const FAILING: &str = "x-envoy-immediate-health-check-fail: true";

#[test]
fn what_matches_is_answered_and_what_does_not_passes() {
    let (filter, proxy) = (filter(proto(false)), Proxy::default());
    assert_eq!(run(&filter, "/hz", &proxy), (200, vec![CLUSTER.into()], Some("health_check_ok")));
    assert_eq!(run(&filter, "/other", &proxy), (201, vec![], None));
    proxy.failed.set(true);
    let failed = (503, vec![CLUSTER.into(), FAILING.into()], Some("health_check_failed"));
    assert_eq!(run(&filter, "/hz", &proxy), failed);
    assert_eq!(run(&filter, "/other", &proxy), (201, vec![FAILING.into()], None));
}

#[test]
fn clusters_need_so_many_healthy_hosts() {
    for (cluster, percent, expected) in [
        ("half", 0.0, "health_check_ok_cluster_healthy"),
        ("half", 50.0, "health_check_ok_cluster_healthy"),
        ("half", 50.9, "health_check_ok_cluster_healthy"),
        ("half", 51.0, "health_check_failed_cluster_unhealthy"),
        ("empty", 0.0, "health_check_ok_cluster_healthy"),
        ("empty", 0.9, "health_check_ok_cluster_healthy"),
        ("empty", 1.0, "health_check_failed_cluster_empty"),
        ("none", 0.0, "health_check_failed_no_cluster_found"),
    ] {
        let clusters = HashMap::from([(cluster.to_owned(), Percent { value: percent })]);
        let filter = filter(Proto { cluster_min_healthy_percentages: clusters, ..proto(false) });
        let (status, _, why) = run(&filter, "/hz", &Proxy::default());
        assert_eq!(why, Some(expected), "{cluster} {percent}");
        assert_eq!(status == 200, expected.contains("ok"), "{cluster} {percent}");
    }
}

#[test]
fn what_passes_is_answered_while_the_proxy_fails_or_the_last_answer_is_fresh() {
    let (plain, proxy) = (filter(proto(true)), Proxy::default());
    assert_eq!(run(&plain, "/hz", &proxy), (201, vec![CLUSTER.into()], None));
    proxy.failed.set(true);
    assert_eq!(run(&plain, "/hz", &proxy).0, 503);
    proxy.failed.set(false);
    let time = ProtoDuration { seconds: 3600, nanos: 0 };
    let cached = filter(Proto { cache_time: Some(time), ..proto(true) });
    assert_eq!(run(&cached, "/hz", &proxy), (201, vec![CLUSTER.into()], None));
    let again = cached.config.cache.as_ref().unwrap();
    assert_eq!(again.last(), (201, false));
    let mut head = ResponseHead { status: 200, ..ResponseHead::default() };
    head.headers.append(Known::XEnvoyDegraded, Bytes::new());
    again.keep(Instant::now(), &head);
    let degraded = vec!["x-envoy-degraded: ".to_owned(), CLUSTER.to_owned()];
    assert_eq!(run(&cached, "/hz", &proxy), (200, degraded, Some("health_check_cached")));
}

#[test]
fn an_answer_is_fresh_until_its_period_ends() {
    let cache = Cache::new(Duration::from_secs(10));
    let at = |seconds| cache.began + Duration::from_secs(seconds);
    assert!(!cache.is_fresh(at(0)));
    cache.keep(at(8), &ResponseHead { status: 599, ..ResponseHead::default() });
    assert!(cache.is_fresh(at(1)) && cache.is_fresh(at(9)));
    assert!(!cache.is_fresh(at(10)) && !cache.is_fresh(at(25)));
    assert_eq!(cache.last(), (599, false));
}

#[test]
fn settings_that_contradict_are_refused() {
    let time = |seconds, nanos| Some(ProtoDuration { seconds, nanos });
    let contradiction = "cache_time_ms must not be set when path_through_mode is disabled";
    for (proto, expected) in [
        (Proto::default(), "value is required"),
        (Proto { cache_time: time(1, 0), ..proto(false) }, contradiction),
        (
            Proto { cache_time: time(-1, 0), ..proto(true) },
            "Invalid duration: Expected positive duration: seconds: -1 nanos: 0",
        ),
        (
            Proto {
                cluster_min_healthy_percentages: HashMap::from([("a".into(), Percent { value: 101.0 })]),
                ..proto(false)
            },
            "value must be inside range [0, 100]",
        ),
    ] {
        assert_eq!(parsed(proto).err().as_deref(), Some(expected));
    }
    assert!(
        parsed(Proto { cache_time: time(0, 900_000), ..proto(false) }).is_ok(),
        "less than a millisecond is no time"
    );
}

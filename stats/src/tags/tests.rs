use super::*;

fn prometheus(producer: &TagProducer, name: &str) -> String {
    let set = producer.produce(name);
    let mut text = "envoy_".to_owned();
    append_metric_name(&set.extracted_name(name), &mut text);
    format!("{text}{{{}}}", set.labels())
}

/// Three hundred names and what Envoy 1.40 printed for them.
#[test]
fn default_tags_are_those_of_envoy() {
    let producer = TagProducer::default();
    let table = include_str!("../../tests/data/envoy-1.40-tags.tsv");
    let rows: Vec<_> = table.lines().filter_map(|line| line.split_once('\t')).collect();
    assert!(rows.len() > 250);
    for (name, expected) in rows {
        assert_eq!(prometheus(&producer, name), expected, "{name}");
    }
}

/// Names that end in their tag's value, which the table cannot have.
#[test]
fn default_tags_at_the_end_of_names() {
    let producer = TagProducer::default();
    let cases = [
        ("cluster.c.upstream_rq_200", r#"envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="c"}"#),
        (
            "cluster.c.upstream_rq_2xx",
            r#"envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="c"}"#,
        ),
        ("cluster.c.upstream_rq_2000", r#"envoy_cluster_upstream_rq_2000{envoy_cluster_name="c"}"#),
        (
            "vhost.vh.vcluster.vc.upstream_rq_503",
            r#"envoy_vhost_vcluster_upstream_rq{envoy_response_code="503",envoy_virtual_cluster="vc",envoy_virtual_host="vh"}"#,
        ),
        (
            "listener.127.0.0.1_80.ssl.ciphers.TLS_AES_128_GCM_SHA256",
            r#"envoy_listener_ssl_ciphers{envoy_ssl_cipher="TLS_AES_128_GCM_SHA256",envoy_listener_address="127.0.0.1_80"}"#,
        ),
        (
            "listener.[__1]_80.ssl.versions.TLSv1.3",
            r#"envoy_listener_ssl_versions{envoy_ssl_version="TLSv1.3",envoy_listener_address="[__1]_80"}"#,
        ),
        ("cluster.c.ssl.curves.X25519", r#"envoy_cluster_ssl_curves{envoy_ssl_curve="X25519",envoy_cluster_name="c"}"#),
        (
            "http.p.rbac.pfx.policy.pol.shadow_denied",
            r#"envoy_http_rbac_policy_shadow_denied{envoy_rbac_http_prefix="pfx",envoy_rbac_policy_name="pol",envoy_http_conn_manager_prefix="p"}"#,
        ),
        (
            "proxy_proto.pfx.versions.v1.found",
            r#"envoy_proxy_proto_found{envoy_proxy_protocol_prefix="pfx",envoy_proxy_protocol_version="1"}"#,
        ),
        (
            "cluster.c.ssl.ciphers.ECDHE-RSA-AES128-GCM-SHA256",
            r#"envoy_cluster_ssl_ciphers{cipher_suite="ECDHE-RSA-AES128-GCM-SHA256",envoy_cluster_name="c"}"#,
        ),
        ("http.p.rbac.allowed", r#"envoy_http_rbac_allowed{envoy_http_conn_manager_prefix="p"}"#),
        (
            "mongo.p.collection.c.query.total",
            r#"envoy_mongo_collection_query_total{envoy_mongo_collection="c",envoy_mongo_prefix="p"}"#,
        ),
        (
            "http.p.dynamodb.table.t.capacity.op.__partition_id=ABCDEFG",
            r#"envoy_http_dynamodb_table_capacity{envoy_dynamo_partition_id="ABCDEFG",envoy_dynamo_operation="op",envoy_dynamo_table="t",envoy_http_conn_manager_prefix="p"}"#,
        ),
    ];
    for (name, expected) in cases {
        assert_eq!(prometheus(&producer, name), expected, "{name}");
    }
}

#[test]
fn values_are_escaped_and_names_made_fit() {
    let producer = TagProducer::default();
    let name = "cluster.a\"b\\c\nd|é.é-x";
    assert_eq!(prometheus(&producer, name), "envoy_cluster____x{envoy_cluster_name=\"a\\\"b\\\\c\\nd|é\"}");
}

/// Configured tags among the defaults, in their place, and instead of them; with what Envoy 1.40 printed.
#[test]
fn configured_tags_are_those_of_envoy() {
    let regex = |regex: &str| TagValue::Regex(regex.into());
    let mixed = [
        ("fixed1", TagValue::Fixed("x y".into())),
        ("my.prefix", regex(r"^cluster\.((c1)\.)")),
        ("envoy.cluster_name", regex(r"^cluster\.((.+?)\.canary\.)")),
        ("dup", regex("(pfx)")),
        ("dup", regex("(ing)")),
        ("onegroup", regex(r"\.(ssl)")),
        ("nogroup", regex("redis")),
        ("optional", regex("(zz)?mongo")),
        ("empty", regex("()vhost")),
    ];
    let few = [
        ("envoy.cluster_name", TagValue::Default),
        ("envoy.http_conn_manager_prefix", TagValue::Default),
        ("late", regex(r"^cluster\.(?:.*)\.(ok)$")),
    ];
    let configurations = [
        producer(true, false, &mixed).unwrap(),
        producer(true, true, &mixed).unwrap(),
        producer(false, false, &few).unwrap(),
    ];
    let table = include_str!("../../tests/data/envoy-1.40-configured-tags.tsv");
    for line in table.lines() {
        let [configuration, name, expected] = line.splitn(3, '\t').collect::<Vec<_>>().try_into().unwrap();
        let configuration = configuration.parse::<usize>().unwrap() - 1;
        assert_eq!(prometheus(&configurations[configuration], name), expected, "{line}");
    }
}

fn producer(use_all_default_tags: bool, overrides: bool, tags: &[(&str, TagValue)]) -> Result<TagProducer, TagError> {
    let tags = tags.iter().map(|(name, value)| TagSpecifier { name: (*name).into(), value: value.clone() }).collect();
    TagProducer::new(&TagOptions { use_all_default_tags, allow_default_tag_overrides: overrides, tags })
}

#[test]
fn bad_configurations_are_named() {
    let regex = |regex: &str| TagValue::Regex(regex.into());
    assert_eq!(producer(true, false, &[("", regex("(a)"))]).unwrap_err(), TagError::EmptyName);
    assert_eq!(producer(true, false, &[("mine", TagValue::Default)]).unwrap_err(), TagError::NoDefault("mine".into()));
    let error = producer(true, false, &[("mine", regex("^http(?=x)"))]).unwrap_err().to_string();
    assert!(error.contains("'mine'") && error.contains("look-around"), "{error}");
}

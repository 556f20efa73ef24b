use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;

use super::*;
use crate::proto::{CheckError, CheckOptions, CheckReport, JsonOptions, check, to_json};

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

fn yaml(text: &str) -> Result<Document, Diagnostics> {
    load(text.as_bytes(), Format::Yaml, BOOTSTRAP, &LoadOptions { source: "b.yaml", ..LoadOptions::default() })
}

fn errors(text: &str) -> String {
    yaml(text).expect_err(text).to_string()
}

fn checked(text: &str) -> Result<CheckReport, CheckError> {
    check(BOOTSTRAP, yaml(text).expect(text).bytes(), &CheckOptions::default())
}

fn json(document: &Document) -> serde_json::Value {
    to_json(BOOTSTRAP, document.bytes(), &JsonOptions::default()).expect("own bytes")
}

/// A listener around one network filter.
fn listener(filter: &str) -> String {
    format!(
        "static_resources: {{listeners: [{{name: a, address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}, \
         filter_chains: [{{filters: [{{name: x, typed_config: {filter}}}]}}]}}]}}"
    )
}

#[test]
fn a_bootstrap_in_yaml_becomes_the_message() {
    let document = yaml(
        "admin:\n  address:\n    socketAddress: {address: 127.0.0.1, port_value: 9901}\n\
         node: {id: a, cluster: b, metadata: {n: 5, f: 1.5, y: yes}}\n\
         static_resources:\n  clusters:\n  - name: c\n    connect_timeout: 0.25s\n    type: strict_dns\n",
    )
    .expect("valid");
    let bootstrap: Bootstrap = document.decode().expect("own bytes");
    let cluster = &bootstrap.static_resources.expect("resources").clusters[0];
    assert_eq!(cluster.name, "c");
    assert_eq!(cluster.connect_timeout.as_ref().map(|timeout| timeout.nanos), Some(250_000_000));
    assert_eq!(
        json(&document),
        serde_json::json!({
            "node": {"id": "a", "cluster": "b", "metadata": {"n": 5, "f": "1.5", "y": true}},
            "static_resources": {"clusters": [{"name": "c", "type": "STRICT_DNS", "connect_timeout": "0.250s"}]},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}},
        })
    );
}

#[test]
fn errors_name_field_and_place() {
    for (text, expected) in [
        ("foo: 1", "b.yaml:1:1: foo: no such field: 'foo'"),
        (
            "node: {ide: 1}",
            "(did you mean 'id'?): Protobuf message (type envoy.config.core.v3.Node) has unknown fields",
        ),
        ("node:\n  id: [1]", "b.yaml:2:7: node.id: Unable to parse JSON as proto: expected a string, found a list"),
        ("node: {id: 5}", "node.id: Unable to parse JSON as proto: expected a string, found a number"),
        ("node: {id: a, id: b}", "b.yaml:1:15: duplicate key 'id'"),
        ("node: {id: a}\nnode: {id: b}", "b.yaml:2:1: duplicate key 'node'"),
        ("node: {userAgentName: a, user_agent_name: b}", "'user_agent_name' has already been set"),
        (
            "static_resources: {clusters: [{type: STATIC, cluster_type: {name: b}}]}",
            "'cluster_type' has already been set",
        ),
        (
            "static_resources: {clusters: [{connect_timeout: hello}]}",
            "static_resources.clusters[0].connect_timeout: Unable to parse JSON as proto: duration must start with an \
             integer: 'hello'",
        ),
        ("static_resources: {clusters: [{lb_policy: FOO}]}", "clusters[0].lb_policy: unknown enum value: 'FOO'"),
        (
            "admin: {address: {socket_address: {port_value: 99999999999}}}",
            "port_value: Unable to parse JSON as proto: integer out of range: '99999999999'",
        ),
        ("admin: {address: {socket_address: {port_value: -1}}}", "integer out of range"),
        (
            "admin: {address: {socket_address: {port_value: 1.5}}}",
            "expected integer, but JSON number had fractional part",
        ),
        ("stats_sinks: 5", "stats_sinks[0]: Unable to parse JSON as proto: expected an object, found a number"),
        ("[1]", "expected an object, found a list"),
        ("5", "Unable to convert YAML as JSON"),
        ("", "the document is empty"),
        ("a: b: c", "not YAML"),
        ("node: {id: !foo a}", "the tag '!foo' is not supported"),
        ("node: {id: a}\n---\nnode: {}", "more than one YAML document"),
        ("node: &a {id: *a}", "an alias refers to a node it is part of"),
        ("a: &x {id: 1}\nnode: {<<: *x}", "no such field: '<<'"),
    ] {
        let found = errors(text);
        assert!(found.contains(expected), "{text}\nfound:    {found}\nexpected: {expected}");
    }
}

#[test]
fn every_error_of_a_document_is_reported() {
    assert_eq!(yaml("foo: 1\nnode: {bar: 2, id: []}").expect_err("three errors").0.len(), 3);
}

#[test]
fn errors_inside_any_have_the_whole_path() {
    let text =
        listener("{'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, clustr: b}");
    assert!(
        errors(&text).contains(
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.clustr: no such field: 'clustr' \
             (did you mean 'cluster'?)"
        ),
        "{}",
        errors(&text)
    );
    assert!(errors(&listener("{stat_prefix: a}")).contains("typed_config: missing @type in google.protobuf.Any"));
}

#[test]
fn an_unknown_extension_is_no_parse_error() {
    let document = yaml(&listener("{'@type': type.googleapis.com/foo.Bar, x: 1}")).expect("for others to refuse");
    let path = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
    let expected = [UnknownType { path: path.into(), type_url: "type.googleapis.com/foo.Bar".into() }];
    assert_eq!(document.unknown_types(), expected);
    let report = check(BOOTSTRAP, document.bytes(), &CheckOptions::default()).expect("not an error");
    assert_eq!(report.unknown_types, expected);
}

#[test]
fn unknown_fields_can_be_tolerated() {
    let options = LoadOptions { source: "b", unknown_fields: UnknownFields::Warn };
    let document = load(b"{node: {id: a, foo: 1}}", Format::Yaml, BOOTSTRAP, &options).expect("tolerated");
    assert_eq!(document.unknown_fields().len(), 1);
    assert_eq!(document.unknown_fields()[0].path, "node.foo");
    let options = LoadOptions { unknown_fields: UnknownFields::Ignore, ..options };
    let document = load(b"{node: {id: a, foo: 1}}", Format::Yaml, BOOTSTRAP, &options).expect("tolerated");
    assert_eq!(document.unknown_fields(), []);
}

#[test]
fn any_of_well_known_types() {
    for (written, read) in [
        (
            r#"{"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1.5s"}"#,
            r#"{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1.500s"}"#,
        ),
        (
            r#"{"@type": "t/google.protobuf.Struct", "value": {"a": [1, null]}}"#,
            r#"{"@type":"t/google.protobuf.Struct","value":{"a":[1,null]}}"#,
        ),
        (
            r#"{"@type": "t/google.protobuf.UInt64Value", "value": 5}"#,
            r#"{"@type":"t/google.protobuf.UInt64Value","value":"5"}"#,
        ),
        (r#"{"@type": "t/google.protobuf.Empty"}"#, r#"{"@type":"t/google.protobuf.Empty"}"#),
        (
            r#"{"@type": "t/google.protobuf.Any", "value": {"@type": "t/google.protobuf.BoolValue", "value": true}}"#,
            r#"{"@type":"t/google.protobuf.Any","value":{"@type":"t/google.protobuf.BoolValue","value":true}}"#,
        ),
        (r#"{"@type": "t/un.known", "value": "AQI="}"#, r#"{"@type":"t/un.known","value":"AQI="}"#),
        (r#"{}"#, r#"{}"#),
    ] {
        let document = yaml(&listener(written)).expect(written);
        let json = json(&document);
        let config = &json["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
        assert_eq!(config.to_string(), read, "{written}");
    }
}

#[test]
fn bombs_are_cut_off() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = level - 1;
        let list = vec![format!("*a{below}"); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    assert!(errors(&bomb).contains("aliases stand for more than"), "{}", errors(&bomb));
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        for depth in [200, 5000, 100_000] {
            let text = format!("node: {{metadata: {}{}}}", open.repeat(depth), close.repeat(depth));
            assert!(yaml(&text).is_err(), "{open} {depth}");
        }
    }
    let block: String = (0..300).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(errors(&block).contains("nested deeper than"), "{}", errors(&block));
    let any = "{'@type': t/google.protobuf.Any, value: ";
    let text = listener(&format!("{}{{}}{}", any.repeat(40), "}".repeat(40)));
    assert!(errors(&text).contains("google.protobuf.Any is nested too deep"), "{}", errors(&text));
}

#[test]
fn anchors_can_be_kept_under_an_ignored_key() {
    let document = yaml("!ignore anchors: &node {id: \"1\", cluster: c}\nnode: *node").expect("as Envoy");
    assert_eq!(json(&document), serde_json::json!({"node": {"id": "1", "cluster": "c"}}));
}

#[test]
fn an_overlay_merges() {
    let mut document = yaml("node: {id: a, cluster: b}\nstatic_resources: {clusters: [{name: x}]}").expect("valid");
    document.merge(yaml("node: {id: z}\nstatic_resources: {clusters: [{name: second}]}").expect("valid"));
    assert_eq!(
        json(&document),
        serde_json::json!({
            "node": {"id": "z", "cluster": "b"},
            "static_resources": {"clusters": [{"name": "x"}, {"name": "second"}]},
        })
    );
    let bootstrap: Bootstrap = document.decode().expect("own bytes");
    assert_eq!(bootstrap.static_resources.expect("resources").clusters[1].name, "second");
}

#[test]
fn fields_are_found_again() {
    let mut document =
        yaml("node: {id: a}\nstatic_resources:\n  clusters:\n  - name: x\n  - connectTimeout: 1s\n").expect("valid");
    let at =
        |document: &Document, path: &str| document.locate(path).map(|at| (at.source.to_string(), at.position.line));
    assert_eq!(at(&document, "static_resources.clusters[1].connect_timeout"), Some(("b.yaml".into(), 5)));
    assert_eq!(at(&document, "static_resources.clusters[0].lb_policy"), Some(("b.yaml".into(), 4)));
    let over = LoadOptions { source: "--config-yaml", ..LoadOptions::default() };
    document.merge(
        load(b"\n{static_resources: {clusters: [{name: second}]}}", Format::Yaml, BOOTSTRAP, &over).expect("valid"),
    );
    assert_eq!(at(&document, "static_resources.clusters[2].name"), Some(("--config-yaml".into(), 2)));
    assert_eq!(at(&document, "static_resources.clusters[1].connect_timeout"), Some(("b.yaml".into(), 5)));
    assert_eq!(at(&document, "node.id"), Some(("b.yaml".into(), 1)));
}

#[test]
fn secrets_are_not_quoted() {
    let secret = "envoy.extensions.transport_sockets.tls.v3.Secret";
    let text = b"{name: a, tls_certificate: {password: {inline_bytes: 'hunter2!'}}}";
    let error = load(text, Format::Yaml, secret, &LoadOptions::default()).expect_err("not base64").to_string();
    assert!(error.contains("corrupt base64") && !error.contains("hunter2"), "{error}");
    let text = b"{name: a, tls_certificate: {certificate_chain: {inline_bytes: 'hunter2!'}}}";
    let error = load(text, Format::Yaml, secret, &LoadOptions::default()).expect_err("not base64").to_string();
    assert!(error.contains("hunter2"), "{error}");
}

#[test]
fn the_same_in_json() {
    let json = br#"{"node": {"id": "\u00e9\ud83d\ude00"}, "static_resources": {"clusters": [{"name": "c", "connect_timeout": "1s"}]}}"#;
    let document = load(json, Format::Json, BOOTSTRAP, &LoadOptions::default()).expect("valid");
    let same = yaml("node: {id: é😀}\nstatic_resources: {clusters: [{name: c, connect_timeout: 1s}]}").expect("valid");
    assert_eq!(document.bytes(), same.bytes());
    for (text, expected) in [
        (&br#"{"node": {"id": "a", "id": "b"}}"#[..], "1:22: duplicate key 'id'"),
        (b"{\"node\": {\n\"id\": 5}}", "2:7: node.id: Unable to parse JSON as proto: expected a string"),
        (b"{\"a\": 1,}", "not JSON"),
        (b"{} x", "text after the end"),
        (b"{\"node\": ", "cut short"),
        (b"\xff", "not UTF-8"),
    ] {
        let found = load(text, Format::Json, BOOTSTRAP, &LoadOptions::default()).expect_err("invalid").to_string();
        assert!(found.contains(expected), "{found} / {expected}");
    }
}

#[test]
fn text_format_is_refused_by_name() {
    let found = load(b"node {}", Format::Text, BOOTSTRAP, &LoadOptions::default()).expect_err("refused").to_string();
    assert!(found.contains("text format is not supported"));
    assert_eq!(Format::of_path(std::path::Path::new("/etc/a.YAML")), Format::Yaml);
    assert_eq!(Format::of_path(std::path::Path::new("/etc/a.pb_text")), Format::Text);
    assert_eq!(Format::of_path(std::path::Path::new("/etc/a")), Format::Json);
}

/// Chains as the real Envoy 1.40 prints them for the same documents.
#[test]
fn validation_rules_speak_as_envoy_does() {
    let cluster = |fields: &str| format!("static_resources: {{clusters: [{{name: a, {fields}}}]}}");
    let in_cluster = |chain: &str| {
        format!(
            "(BootstrapValidationError.StaticResources: embedded message failed validation | caused by \
             StaticResourcesValidationError.Clusters[0]: embedded message failed validation | caused by {chain})"
        )
    };
    for (text, expected) in [
        (cluster("connect_timeout: 0s"), in_cluster("ClusterValidationError.ConnectTimeout: value must be greater than 0s")),
        (cluster("dns_refresh_rate: 0.0001s"), in_cluster("ClusterValidationError.DnsRefreshRate: value must be greater than 1ms")),
        (cluster("lb_policy: 77"), in_cluster("ClusterValidationError.LbPolicy: value must be one of the defined enum values")),
        (
            cluster("health_checks: [{timeout: 1s}]"),
            in_cluster("ClusterValidationError.HealthChecks[0]: embedded message failed validation | caused by HealthCheckValidationError.Interval: value is required"),
        ),
        (
            cluster("health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1}]"),
            in_cluster("ClusterValidationError.HealthChecks[0]: embedded message failed validation | caused by field: \"health_checker\", reason: is required"),
        ),
        (
            cluster("health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: \"a\\nb\"}}]"),
            in_cluster("ClusterValidationError.HealthChecks[0]: embedded message failed validation | caused by HealthCheckValidationError.HttpHealthCheck: embedded message failed validation | caused by HttpHealthCheckValidationError.Path: value does not match regex pattern \"^[^\\x00-\\b\\n-\\x1f\\x7f]*$\""),
        ),
        (
            "admin: {address: {socket_address: {address: 1.1.1.1, port_value: 70000}}}".to_owned(),
            "(BootstrapValidationError.Admin: embedded message failed validation | caused by AdminValidationError.Address: embedded message failed validation | caused by AddressValidationError.SocketAddress: embedded message failed validation | caused by SocketAddressValidationError.PortValue: value must be less than or equal to 65535)".to_owned(),
        ),
        (
            "node: {listening_addresses: [null]}".to_owned(),
            "(BootstrapValidationError.Node: embedded message failed validation | caused by NodeValidationError.ListeningAddresses[0]: embedded message failed validation | caused by field: \"address\", reason: is required)".to_owned(),
        ),
        (
            listener("{'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: '', cluster: b}"),
            "(TcpProxyValidationError.StatPrefix: value length must be at least 1 characters)".to_owned(),
        ),
    ] {
        let error = checked(&text).expect_err(&text);
        let CheckError::Constraints(violations) = &error else { panic!("{error}") };
        assert_eq!(format!("({})", violations[0].chain), expected, "{text}");
        assert!(error.to_string().starts_with("Proto constraint validation failed ("), "{error}");
    }
}

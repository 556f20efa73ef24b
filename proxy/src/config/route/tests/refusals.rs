//! What Envoy 1.40 refuses, in its words.

use super::*;

#[test]
fn what_is_refused_is_refused_in_the_known_words() {
    let cluster = |name: &str| RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(name.into())),
        ..RouteAction::default()
    };
    let direct = |status, body: Option<String>| {
        let body =
            body.map(|text| DataSource { specifier: Some(Specifier::InlineString(text)), watched_directory: None });
        of_route(route(prefix("/"), Action::DirectResponse(DirectResponseAction { status, body, body_format: None })))
    };
    let from = |specifier| {
        let body = Some(DataSource { specifier: Some(specifier), watched_directory: None });
        of_route(route(
            prefix("/"),
            Action::DirectResponse(DirectResponseAction { status: 200, body, body_format: None }),
        ))
    };
    let upgrades = |types: &[&str], connect: bool| {
        let upgrade = |name: &&str| UpgradeConfig {
            upgrade_type: (*name).to_owned(),
            enabled: None,
            connect_config: connect.then(ConnectConfig::default),
        };
        of_route(forward(RouteAction {
            upgrade_configs: types.iter().map(upgrade).collect(),
            ..RouteAction::default()
        }))
    };
    let regex = |text: &str| {
        let regex = RegexMatcher { regex: text.into(), engine_type: None };
        of_route(named("", matching(PathSpecifier::SafeRegex(regex))))
    };
    let retry = |base, max| {
        let retry_back_off = Some(RetryBackOff { base_interval: base, max_interval: max });
        let policy = RetryProto { retry_on: "5xx".into(), retry_back_off, ..RetryProto::default() };
        of_route(forward(RouteAction { retry_policy: Some(policy), ..RouteAction::default() }))
    };
    let mirror = |cluster: &str, cluster_header: &str| {
        let policy = RequestMirrorPolicy {
            cluster: cluster.into(),
            cluster_header: cluster_header.into(),
            ..RequestMirrorPolicy::default()
        };
        of_route(forward(RouteAction { request_mirror_policies: vec![policy], ..RouteAction::default() }))
    };
    let two = |a: &str, b: &str| of_hosts(vec![host("a", &[a], vec![]), host("b", &[b], vec![])]);
    let duplicate = |domain: &str| {
        format!("Only unique values for domains are permitted. Duplicate entry of domain {domain} in route rc")
    };
    let one_rewrite = "Specify only one of prefix_rewrite, regex_rewrite or path_rewrite_policy";
    let both_names = ClusterWeight { cluster_header: "h".into(), ..weight("c", Some(1)) };
    for (what, proto, error) in [
        ("same domain, other case", two("x.com", "X.com"), duplicate("x.com")),
        ("same suffix", two("*.x", "*.X"), duplicate("*.x")),
        ("same prefix", two("x.*", "x.*"), duplicate("x.*")),
        ("two defaults", two("*", "*"), "Only a single wildcard domain is permitted in route rc".into()),
        ("cluster", of_route(forward(cluster("nope"))), "route: unknown cluster 'nope'".into()),
        (
            "weighted cluster",
            of_route(forward(weighted(vec![weight("nope", Some(1))]))),
            "route: unknown weighted cluster 'nope'".into(),
        ),
        (
            "weights of 0",
            of_route(forward(weighted(vec![weight("c", Some(0))]))),
            "Sum of weights in the weighted_cluster must be greater than 0.".into(),
        ),
        ("no weight", of_route(forward(weighted(vec![weight("c", None)]))), "Field 'weight' is missing".into()),
        (
            "large weights",
            of_route(RouteProto {
                name: "rn".into(),
                ..forward(weighted(vec![weight("c", Some(u32::MAX)), weight("d", Some(1))]))
            }),
            "The sum of weights of all weighted clusters of route rn exceeds 4294967295".into(),
        ),
        (
            "name and header",
            of_route(forward(weighted(vec![both_names]))),
            "Only one of name or cluster_header can be specified".into(),
        ),
        (
            "neither",
            of_route(forward(weighted(vec![weight("", Some(1))]))),
            "At least one of name or cluster_header need to be specified".into(),
        ),
        ("regex", regex("(a"), "missing ): (a".into()),
        (
            "two rewrites",
            of_route(forward(RouteAction {
                prefix_rewrite: "/a".into(),
                path_rewrite: "/x".into(),
                ..RouteAction::default()
            })),
            one_rewrite.into(),
        ),
        (
            "path format",
            of_route(forward(RouteAction { path_rewrite: "%NOPE%".into(), ..RouteAction::default() })),
            "Failed to create path rewrite formatter: Not supported field in StreamInfo: NOPE".into(),
        ),
        ("two upgrades", upgrades(&["websocket", "WebSocket"], false), "Duplicate upgrade WebSocket".into()),
        ("no CONNECT", upgrades(&["websocket"], true), "Non-CONNECT upgrade type websocket has ConnectConfig".into()),
        ("body", direct(200, Some("x".repeat(4097))), "response body size is 4097 bytes; maximum is 4096".into()),
        ("low status", direct(99, None), "value must be inside range [200, 600)".into()),
        ("high status", direct(600, None), "value must be inside range [200, 600)".into()),
        ("no file", from(Specifier::Filename("/nonexistent".into())), "file /nonexistent does not exist".into()),
        (
            "no variable",
            from(Specifier::EnvironmentVariable("NOPE_X".into())),
            "Environment variable doesn't exist: NOPE_X".into(),
        ),
        (
            "back-off",
            retry(seconds(2), seconds(1)),
            "retry_policy.max_interval must greater than or equal to the base_interval".into(),
        ),
        (
            "negative timeout",
            of_route(forward(RouteAction { timeout: seconds(-1), ..RouteAction::default() })),
            "Invalid duration: Expected positive duration: seconds: -1 nanos: 0".into(),
        ),
        (
            "mirror to two",
            mirror("c", "x"),
            "Only one of cluster 'c' or cluster_header 'x' in request mirror policy can be specified".into(),
        ),
        (
            "mirror to none",
            mirror("", ""),
            "Exactly one of cluster or cluster_header in request mirror policy need to be specified".into(),
        ),
        ("mirror to unknown", mirror("nope", ""), "route: unknown shadow cluster 'nope'".into()),
    ] {
        assert_eq!(parse(proto).expect_err(what).message, error, "{what}");
    }
    let unchecked = of_route(forward(cluster("nope")));
    let unchecked = RouteConfiguration { validate_clusters: Some(BoolValue { value: false }), ..unchecked };
    assert_eq!(parse(unchecked).expect("not validated").clusters(), [Arc::from("nope")]);
    parse(direct(200, Some("x".repeat(4096)))).expect("as large as allowed");
}

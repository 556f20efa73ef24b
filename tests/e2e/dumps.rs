//! What admin pages say of what a control plane sent.

use serde_json::{Value, json};

use crate::control::{Control, eds_cluster};
use crate::support::eventually;
use crate::support::proxy::{Kind, Proxy};

/// `/config_dump?include_eds`: the assignments of static and of discovered clusters.
fn assignments(proxy: &Proxy) -> (Vec<Value>, Vec<Value>) {
    let page = proxy.get("/config_dump?include_eds").body;
    let page: Value = serde_json::from_str(&page).expect("JSON");
    let mut sections = page["configs"].as_array().into_iter().flatten();
    let endpoints =
        sections.find(|section| section["@type"].as_str().is_some_and(|t| t.ends_with(".EndpointsConfigDump")));
    let list = |kind: &str| -> Vec<Value> {
        let entries = endpoints.and_then(|section| section[kind].as_array());
        entries.into_iter().flatten().map(|entry| entry["endpoint_config"].clone()).collect()
    };
    (list("static_endpoint_configs"), list("dynamic_endpoint_configs"))
}

#[test]
fn endpoints_are_shown_as_they_are_now() {
    let control = Control::start();
    control.clusters(&[eds_cluster("found", "")]);
    let host = |ip: &str, more: &str| {
        let check = match ip {
            "10.0.0.2" => ", health_check_config: {hostname: checks.example, port_value: 2}",
            "::1" => ", health_check_config: {disable_active_health_check: true, port_value: 1}",
            _ => "",
        };
        format!("{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: 1}}}}{check}}}{more}}}")
    };
    control.endpoints(&[format!(
        "{{cluster_name: found, policy: {{overprovisioning_factor: 120, drop_overloads: [{{category: c, drop_percentage: {{numerator: 5}}}}]}}, endpoints: [\
         {{load_balancing_weight: 3, lb_endpoints: [{}]}}, \
         {{priority: 1, locality: {{region: z}}, load_balancing_weight: 2, lb_endpoints: [{}]}}, \
         {{priority: 1, locality: {{region: a}}, lb_endpoints: [{}]}}]}}",
        host("10.0.0.1", ", load_balancing_weight: 4"),
        host("10.0.0.2", ", health_status: UNHEALTHY"),
        host("::1", ", metadata: {filter_metadata: {envoy.lb: {stage: one}}}"),
    )]);
    control.listeners(&[]);
    let proxy = Proxy::start(Kind::under_test(), &control.bootstrap("GRPC"));
    let (of_bootstrap, found) = eventually("endpoints", || Some(assignments(&proxy)).filter(|all| !all.1.is_empty()));
    assert_eq!(of_bootstrap[0]["cluster_name"], "control");
    assert_eq!(of_bootstrap[0]["policy"], json!({"overprovisioning_factor": 140}));
    let endpoint =
        |ip: &str| json!({"address": {"socket_address": {"address": ip, "port_value": 1}}, "health_check_config": {}});
    let mut checked = endpoint("10.0.0.2");
    checked["health_check_config"] = json!({"port_value": 2, "hostname": "checks.example"});
    let expected = json!([{
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "found",
        "endpoints": [
            // Without a locality there is no weight of one.
            {"locality": {}, "load_balancing_weight": 0, "lb_endpoints": [
                {"endpoint": endpoint("10.0.0.1"), "health_status": "HEALTHY", "load_balancing_weight": 4}]},
            {"locality": {"region": "a"}, "priority": 1, "load_balancing_weight": 0, "lb_endpoints": [
                {"endpoint": endpoint("::1"), "health_status": "HEALTHY", "load_balancing_weight": 1,
                 "metadata": {"filter_metadata": {"envoy.lb": {"stage": "one"}}}}]},
            {"locality": {"region": "z"}, "priority": 1, "load_balancing_weight": 2, "lb_endpoints": [
                {"endpoint": checked, "health_status": "UNHEALTHY", "load_balancing_weight": 1}]},
        ],
        "policy": {
            "overprovisioning_factor": 120,
            "drop_overloads": [{"category": "c", "drop_percentage": {"numerator": 50_000, "denominator": "MILLION"}}],
        },
    }]);
    assert_eq!(Value::Array(found), expected);
}

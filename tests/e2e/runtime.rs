//! Layers of the runtime that come from a control plane.

use std::time::{Duration, Instant};

use xds_client::{RUNTIME, Resource};

use crate::control::Control;
use crate::support::bootstrap::http_listener;
use crate::support::client::get;
use crate::support::eventually;
use crate::support::proxy::{Kind, Proxy};

/// A bootstrap with a layer below the discovered one, which is waited for no longer than this.
fn bootstrap(control: &Control, api_type: &str, patience: &str) -> String {
    let layers = format!(
        "layered_runtime: {{layers: [{{name: base, static_layer: {{share: 0, other: 7}}}}, \
         {{name: remote, rtds_layer: {{name: rollout, rtds_config: {{ads: {{}}, resource_api_version: V3, initial_fetch_timeout: {patience}}}}}}}]}}"
    );
    format!("{}\n{layers}\n", control.bootstrap(api_type))
}

/// Answers 201 as often as the runtime says, else 200.
fn listener() -> String {
    let answer = |status: u16| format!("direct_response: {{status: {status}}}");
    let routes = format!(
        r#"[{{match: {{prefix: "/", runtime_fraction: {{runtime_key: share, default_value: {{numerator: 0}}}}}}, {}}}, {{match: {{prefix: "/"}}, {}}}]"#,
        answer(201),
        answer(200)
    );
    let table =
        format!(r#"route_config: {{name: inline, virtual_hosts: [{{name: all, domains: ["*"], routes: {routes}}}]}}"#);
    http_listener("main", &table, "", "")
}

fn layer(values: &str) -> String {
    format!("{{name: rollout, layer: {{{values}}}}}")
}

/// What `/runtime` says of a key: each layer's value, and the one that counts.
fn entry(proxy: &Proxy, key: &str) -> (Vec<String>, String) {
    let page: serde_json::Value = serde_json::from_str(&proxy.get("/runtime").body).expect("JSON");
    let entry = &page["entries"][key];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (entry["layer_values"].as_array().into_iter().flatten().map(text).collect(), text(&entry["final_value"]))
}

fn wait_for_status(proxy: &Proxy, status: u16) {
    eventually("the status", || get(proxy.listener("main"), "/").filter(|reply| reply.status() == status));
}

#[test]
fn a_discovered_layer_decides_which_route_is_taken() {
    for api_type in ["GRPC", "DELTA_GRPC"] {
        let control = Control::start();
        control.clusters(&[]);
        control.listeners(&[listener()]);
        control.runtime(&[layer("share: 100")]);
        let proxy = Proxy::start(Kind::under_test(), &bootstrap(&control, api_type, "15s"));
        // It was there before the listener was.
        assert_eq!(get(proxy.listener("main"), "/").map(|reply| reply.status()), Some(201));
        assert_eq!(entry(&proxy, "share"), (vec!["0".to_owned(), "100".to_owned()], "100".to_owned()));
        assert_eq!(entry(&proxy, "other").1, "7");
        assert_eq!((proxy.stat("runtime.update_success"), proxy.stat("runtime.num_layers")), (1, 2));

        // A list is no value: refused by name, and nothing changes.
        control.runtime(&[layer("share: 0, wrong: [1]")]);
        let nack = control.nack(RUNTIME);
        assert!(nack.contains("wrong"), "{nack}");
        proxy.wait_for_stat("runtime.update_rejected", |count| count >= 1);
        assert_eq!(get(proxy.listener("main"), "/").map(|reply| reply.status()), Some(201));

        // The layer is replaced as a whole: what it no longer has is the layer's below.
        control.runtime(&[layer("other: 8")]);
        wait_for_status(&proxy, 200);
        assert_eq!(entry(&proxy, "share").1, "0");
        assert_eq!(entry(&proxy, "other").1, "8");

        if api_type == "DELTA_GRPC" {
            control.plane.remove(RUNTIME, "rollout");
            eventually("an empty layer", || (entry(&proxy, "other").1 == "7").then_some(()));
        }
    }
}

#[test]
fn start_up_waits_for_a_layer_and_not_for_ever() {
    let control = Control::start();
    control.clusters(&[]);
    control.listeners(&[listener()]);
    // Somebody else's layer: an answer, and none to what was asked.
    control.plane.set(RUNTIME, vec![Resource::new("somebody", "", Vec::new())]);
    let started = Instant::now();
    let proxy = Proxy::start(Kind::under_test(), &bootstrap(&control, "GRPC", "2s"));
    wait_for_status(&proxy, 200);
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(proxy.stat("runtime.init_fetch_timeout"), 1);
    control.runtime(&[layer("share: 100")]);
    wait_for_status(&proxy, 201);
}

#[test]
fn a_file_that_is_not_the_layer_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("layer.yaml");
    let write = |name: &str| {
        let next = directory.path().join("next");
        let url = RUNTIME;
        std::fs::write(&next, format!("resources: [{{\"@type\": {url}, name: {name}, layer: {{other: 9}}}}]\n"))
            .expect("a file");
        std::fs::rename(&next, &path).expect("a file");
    };
    write("somebody");
    let control = Control::start();
    control.clusters(&[]);
    control.listeners(&[listener()]);
    let ads = "rtds_config: {ads: {}";
    let file = format!("rtds_config: {{path_config_source: {{path: {}}}", path.display());
    let text = bootstrap(&control, "GRPC", "60s").replace(ads, &file);
    // A refusal is an answer: start-up goes on.
    let proxy = Proxy::start(Kind::under_test(), &text);
    proxy.wait_for_stat("runtime.update_rejected", |count| count == 1);
    assert_eq!(entry(&proxy, "other").1, "7");
    write("rollout");
    eventually("the layer", || (entry(&proxy, "other").1 == "9").then_some(()));
    assert_eq!(proxy.stat("runtime.update_success"), 1);
}

//! Which requests an access log has lines of: every filter, against replies of every kind.

use super::{clusters, routed};
use crate::manifest::{Area, Case, case, get, h2, request};
use crate::support::bootstrap::access_log;
use crate::support::h2_client::H2Request;
use crate::support::h2_upstream::Behaviour;

const ROUTES: &str = "{name: all, domains: ['*'], routes: [\
    {match: {prefix: /none}, direct_response: {status: 404}},\
    {match: {prefix: /dead}, route: {cluster: dead}},\
    {match: {prefix: /slow}, route: {cluster: up, timeout: 0.15s}},\
    {match: {prefix: /grpc}, route: {cluster: h2}},\
    {match: {prefix: /up}, route: {cluster: up}}]}";

const FILTERS: &[(&str, &str)] = &[
    ("status_ge", "status_code_filter: {comparison: {op: GE, value: {default_value: 400, runtime_key: none}}}"),
    ("status_le", "status_code_filter: {comparison: {op: LE, value: {default_value: 200, runtime_key: none}}}"),
    ("status_eq", "status_code_filter: {comparison: {op: EQ, value: {default_value: 404, runtime_key: none}}}"),
    ("status_ne", "status_code_filter: {comparison: {op: NE, value: {default_value: 404, runtime_key: none}}}"),
    (
        "status_runtime",
        "status_code_filter: {comparison: {op: GE, value: {default_value: 100, runtime_key: log.status}}}",
    ),
    ("duration", "duration_filter: {comparison: {op: GE, value: {default_value: 100, runtime_key: none}}}"),
    ("duration_le", "duration_filter: {comparison: {op: LE, value: {default_value: 100, runtime_key: none}}}"),
    ("not_health", "not_health_check_filter: {}"),
    ("traceable", "traceable_filter: {}"),
    ("runtime_all", "runtime_filter: {runtime_key: log.all, percent_sampled: {numerator: 0}}"),
    ("runtime_none", "runtime_filter: {runtime_key: none, percent_sampled: {numerator: 0}}"),
    (
        "runtime_full",
        "runtime_filter: {runtime_key: none, percent_sampled: {numerator: 1000000, denominator: MILLION}, use_independent_randomness: true}",
    ),
    ("header", "header_filter: {header: {name: x-log, string_match: {exact: please}}}"),
    ("header_absent", "header_filter: {header: {name: x-log, present_match: false}}"),
    ("flags_any", "response_flag_filter: {}"),
    ("flags_some", "response_flag_filter: {flags: [UF, UT]}"),
    ("grpc", "grpc_status_filter: {statuses: [UNAVAILABLE, NOT_FOUND]}"),
    ("grpc_not", "grpc_status_filter: {statuses: [OK, UNAVAILABLE], exclude: true}"),
    ("types", "log_type_filter: {types: [DownstreamEnd]}"),
    ("types_not", "log_type_filter: {types: [DownstreamEnd], exclude: true}"),
    ("types_start", "log_type_filter: {types: [DownstreamStart]}"),
    ("metadata", "metadata_filter: {matcher: {filter: a, path: [{key: b}], value: {bool_match: true}}}"),
    (
        "metadata_absent",
        "metadata_filter: {matcher: {filter: a, path: [{key: b}], value: {bool_match: true}}, match_if_key_not_found: false}",
    ),
    (
        "metadata_result",
        "metadata_filter: {matcher: {filter: envoy.filters.http.rbac, path: [{key: shadow_engine_result}], value: {string_match: {exact: allowed}}}}",
    ),
    (
        "metadata_result_not",
        "metadata_filter: {matcher: {filter: envoy.filters.http.rbac, path: [{key: shadow_engine_result}], value: {string_match: {exact: allowed}}, invert: true}, match_if_key_not_found: false}",
    ),
    (
        "metadata_policy",
        "metadata_filter: {matcher: {filter: envoy.filters.http.rbac, path: [{key: shadow_effective_policy_id}], value: {present_match: true}, invert: true}, match_if_key_not_found: false}",
    ),
    (
        "metadata_no_policy",
        "metadata_filter: {matcher: {filter: envoy.filters.http.rbac, path: [{key: shadow_effective_policy_id}], value: {present_match: false}}, match_if_key_not_found: false}",
    ),
    ("metadata_any", "metadata_filter: {}"),
    ("metadata_never", "metadata_filter: {match_if_key_not_found: false}"),
    (
        "and",
        "and_filter: {filters: [{status_code_filter: {comparison: {op: GE, value: {default_value: 500, runtime_key: none}}}}, {response_flag_filter: {flags: [UF]}}]}",
    ),
    (
        "or",
        "or_filter: {filters: [{header_filter: {header: {name: x-log, present_match: true}}}, {status_code_filter: {comparison: {op: EQ, value: {default_value: 503, runtime_key: none}}}}]}",
    ),
];

const WITH_METADATA: &str = r#"http_filters: [
    {name: rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, shadow_rules: {policies: {asked: {
        permissions: [{header: {name: x-log, present_match: true}}], principals: [{any: true}]}}}}},
    {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}], "#;

/// The area.
pub fn area() -> Area {
    let filtered = |name: &str, filter: &str| {
        access_log(name).replacen("{name: file,", &format!("{{name: file, filter: {{{filter}}},"), 1)
    };
    let listener = |(name, filter): &(&'static str, &str)| {
        // Also one that writes a line when a request begins, and a filter that leaves something in the metadata.
        let options = match name.split('_').next() {
            Some("types") => "access_log_options: {flush_access_log_on_new_request: true}, ",
            Some("metadata") => WITH_METADATA,
            _ => "",
        };
        routed(name, &format!("{options}access_log: [{}]", filtered(name, filter)), ROUTES)
    };
    let listeners = FILTERS.iter().map(listener).collect();
    let more = "layered_runtime: {layers: [{name: a, static_layer: {log: {status: 500, all: 100}}}]}";
    Area { name: "log_filters", listeners, clusters: clusters(), more, cases: FILTERS.iter().flat_map(cases).collect() }
}

fn cases((listener, _): &(&'static str, &'static str)) -> Vec<Case> {
    let row = "4.8 access log filters";
    let name = |of: &str| -> &'static str { Box::leak(format!("{listener} {of}").into_boxed_str()) };
    let call = || {
        H2Request::post("http://a.test/grpc", "\0\0\0\0\x01a")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
    };
    let mut cases = vec![
        get(name("ok"), row, listener, "/up", &[]),
        get(name("asked"), row, listener, "/up", &["x-log: please"]),
        get(name("health"), row, listener, "/up", &["user-agent: Envoy/HC"]),
        get(name("none"), row, listener, "/none", &[]),
        get(name("dead"), row, listener, "/dead", &[]),
        get(name("lost"), row, listener, "/nowhere", &[]),
    ];
    if listener.contains("grpc") || *listener == "or" {
        cases.push(h2(name("grpc"), row, listener, vec![call()]).h2_upstream(Behaviour::Grpc(5)));
        cases.push(h2(name("grpc_ok"), row, listener, vec![call()]).h2_upstream(Behaviour::Grpc(0)));
        cases.push(h2(name("grpc_bad"), row, listener, vec![call()]).h2_upstream(Behaviour::Reply(
            200,
            vec![("grpc-status", "x")],
            "",
        )));
    }
    if listener.contains("duration") || listener.contains("flags") {
        cases.push(
            case(name("slow"), row, listener, request("GET", "/slow", &[]))
                .acts(vec![crate::support::upstream::Act::Request, crate::support::upstream::Act::Hold]),
        );
    }
    cases
}

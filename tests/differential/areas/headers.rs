//! Reference 2.4 and 2.6: header changes and the values they may have.

use super::{clusters, routed};
use crate::manifest::{Area, get};

/// The area.
pub fn area() -> Area {
    let add = |key: &str, value: &str, action: &str| {
        let action = if action.is_empty() { String::new() } else { format!(", append_action: {action}") };
        format!(r#"{{header: {{key: {key}, value: "{value}"}}{action}}}"#)
    };
    let actions = [
        add("x-append", "new", ""),
        add("x-absent", "new", "ADD_IF_ABSENT"),
        add("x-over", "new", "OVERWRITE_IF_EXISTS_OR_ADD"),
        add("x-exists", "new", "OVERWRITE_IF_EXISTS"),
    ]
    .join(", ");
    let values = [
        add("x-path", "%REQ(:PATH)%", ""),
        add("x-missing", "a%REQ(nope)%b", ""),
        add("x-dropped", "%REQ(nope)%", ""),
        add("x-first", "%REQ(nope?x-in)%", ""),
        add("x-cut", "%REQ(x-in):3%", ""),
        add("x-percent", "100%%", ""),
        add("x-proto", "%PROTOCOL%", ""),
        add("x-client", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", ""),
        add("x-route", "%ROUTE_NAME%", ""),
        add("x-cluster", "%UPSTREAM_CLUSTER%", ""),
        add("x-method", "%REQ(:METHOD)%", ""),
        add("x-query", "%PATH(NQ)%", ""),
        add("x-param", "%QUERY_PARAM(a)%", ""),
        add("x-params", "%QUERY_PARAMS%", ""),
    ]
    .join(", ");
    let kept = r#"{header: {key: x-kept, value: "%REQ(nope)%"}, keep_empty_value: true}"#;
    let levels = format!(
        r#"request_headers_to_add: [{}], response_headers_to_add: [{}], virtual_hosts: [
          {{name: all, domains: ["*"], request_headers_to_add: [{}], response_headers_to_add: [{}], request_headers_to_remove: [x-gone],
            include_request_attempt_count: true, include_attempt_count_in_response: true, routes: [
            {{name: weighted, match: {{prefix: "/w"}}, route: {{weighted_clusters: {{clusters: [
               {{name: up, weight: 1, request_headers_to_add: [{}], response_headers_to_add: [{}], request_headers_to_remove: [x-w], host_rewrite_literal: weighted.test}}]}}}},
              request_headers_to_add: [{}]}},
            {{name: up, match: {{prefix: "/"}}, route: {{cluster: up}}, request_headers_to_add: [{}], response_headers_to_add: [{}],
              response_headers_to_remove: [x-secret, server]}}]}}]"#,
        add("x-level", "config", ""),
        add("x-level", "config", ""),
        add("x-level", "host", ""),
        add("x-level", "host", ""),
        add("x-level", "cluster", ""),
        add("x-level", "cluster", ""),
        add("x-level", "route", ""),
        add("x-level", "route", ""),
        add("x-level", "route", ""),
    );
    let host = |routes: &str| format!(r#"{{name: all, domains: ["*"], routes: [{routes}]}}"#);
    let listeners = vec![
        routed(
            "actions",
            "",
            &host(&format!(
                r#"{{name: up, match: {{prefix: "/"}}, route: {{cluster: up}}, request_headers_to_add: [{actions}], response_headers_to_add: [{actions}]}}"#
            )),
        ),
        routed(
            "values",
            "",
            &host(&format!(
                r#"{{name: up, match: {{prefix: "/"}}, route: {{cluster: up}}, request_headers_to_add: [{values}, {kept}],
                response_headers_to_add: [{}, {}, {}]}}"#,
                add("x-code", "%RESPONSE_CODE%", ""),
                add("x-details", "%RESPONSE_CODE_DETAILS%", ""),
                add("x-from", "%RESP(x-theirs)%", ""),
            )),
        ),
        routed("levels", &format!("route_config: {{name: r, {levels}}}"), ""),
        routed(
            "specific_wins",
            &format!("route_config: {{name: r, most_specific_header_mutations_wins: true, {levels}}}"),
            "",
        ),
        routed(
            "internal_only",
            "route_config: {name: r, internal_only_headers: [x-inside], virtual_hosts: [{name: all, domains: [\"*\"], routes: [{match: {prefix: /}, route: {cluster: up, append_x_forwarded_host: true, host_rewrite_literal: other.test}}]}]}",
            "",
        ),
    ];
    let present = ["x-append: old", "x-absent: old", "x-over: old", "x-over: older", "x-exists: old"];
    let reply = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-append: old\r\nx-absent: old\r\nx-over: old\r\nx-exists: old\r\n\r\n";
    let secret = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-secret: s\r\nx-theirs: t\r\n\r\n";
    let cases = vec![
        get("actions_present", "2.6 append_action", "actions", "/", &present).reply(reply).status(200),
        get("actions_absent", "2.6 append_action", "actions", "/", &[]).status(200),
        get("values", "2.6 values", "values", "/a/b?a=1&b=2", &["x-in: abcdef"]).reply(secret).status(200),
        get("levels", "2.6 header mutation order", "levels", "/", &["x-gone: 1", "x-w: 2"]).reply(secret).status(200),
        get("levels_weighted", "2.6 header mutation order", "levels", "/w", &["x-gone: 1", "x-w: 2"])
            .reply(secret)
            .status(200),
        get("specific_wins", "2.6 header mutation order", "specific_wins", "/", &["x-gone: 1"])
            .reply(secret)
            .status(200),
        get("specific_wins_weighted", "2.6 header mutation order", "specific_wins", "/w", &[])
            .reply(secret)
            .status(200),
        get(
            "internal_only",
            "2.3 internal_only_headers",
            "internal_only",
            "/",
            &["x-inside: 1", "x-forwarded-host: before"],
        )
        .status(200),
    ];
    Area { name: "headers", listeners, clusters: clusters(), more: "", cases }
}

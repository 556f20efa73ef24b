//! Reference 4.1 to 4.3: filter chains and listener filters.

use super::clusters;
use crate::manifest::{Area, Case, Step, case, frames, get, request, steps};
use crate::support::bootstrap::{TO_UP, http_filter, listener_of};
use crate::support::frames as h2;

/// The area.
pub fn area() -> Area {
    let filter = |kind: &str, more: &str| {
        format!(
            r#"{{name: {kind}, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.listener.{kind}.v3.{}{more}}}}}"#,
            pascal(kind)
        )
    };
    let chain = |name: &str, on: &str, listener: &str| {
        format!(
            "{{name: {name}, filter_chain_match: {{{on}}}, filters: [{}]}}",
            http_filter(listener, &format!("server_name: {name}"), TO_UP)
        )
    };
    let default = |listener: &str| {
        format!(
            "default_filter_chain: {{name: default, filters: [{}]}}",
            http_filter(listener, "server_name: default", TO_UP)
        )
    };
    let chains = |listener: &str, list: &[(&str, &str)]| {
        let list: Vec<String> = list.iter().map(|(name, on)| chain(name, on, listener)).collect();
        format!("filter_chains: [{}]", list.join(", "))
    };
    let whole =
        |listener: &str| format!("filter_chains: [{{name: whole, filters: [{}]}}]", http_filter(listener, "", TO_UP));
    let filters = |list: &[String]| format!("listener_filters: [{}]", list.join(", "));
    let listeners = vec![
        (
            "inspected",
            listener_of(
                "inspected",
                &(chains(
                    "inspected",
                    &[
                        ("tls_chain", "transport_protocol: tls"),
                        ("h2_chain", "application_protocols: [h2c]"),
                        ("raw_h1", "transport_protocol: raw_buffer, application_protocols: [http/1.1]"),
                        ("raw_any", "transport_protocol: raw_buffer"),
                    ],
                ) + ", "
                    + &default("inspected")),
                &filters(&[filter("tls_inspector", ""), filter("http_inspector", "")]),
            ),
        ),
        (
            "by_source",
            listener_of(
                "by_source",
                &(chains(
                    "by_source",
                    &[
                        ("far", "source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]"),
                        ("near", "source_type: SAME_IP_OR_LOOPBACK"),
                    ],
                ) + ", "
                    + &default("by_source")),
                "",
            ),
        ),
        (
            "by_destination",
            listener_of(
                "by_destination",
                &(chains(
                    "by_destination",
                    &[
                        ("wide", "prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]"),
                        ("exact", "prefix_ranges: [{address_prefix: 127.0.0.1, prefix_len: 32}]"),
                        ("port", "destination_port: 1"),
                    ],
                )),
                "",
            ),
        ),
        (
            "no_backtracking",
            listener_of(
                "no_backtracking",
                &(chains(
                    "no_backtracking",
                    &[
                        (
                            "exact_far",
                            "prefix_ranges: [{address_prefix: 127.0.0.1, prefix_len: 32}], source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]",
                        ),
                        ("wide", "prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]"),
                    ],
                ) + ", "
                    + &default("no_backtracking")),
                "",
            ),
        ),
        (
            "none",
            listener_of(
                "none",
                &chains("none", &[("never", "destination_port: 1")]),
                &format!("access_log: [{}]", crate::support::bootstrap::access_log("none")),
            ),
        ),
        ("proxied", listener_of("proxied", &whole("proxied"), &filters(&[filter("proxy_protocol", "")]))),
        (
            "perhaps_proxied",
            listener_of(
                "perhaps_proxied",
                &whole("perhaps_proxied"),
                &filters(&[filter("proxy_protocol", ", allow_requests_without_proxy_protocol: true")]),
            ),
        ),
        (
            "impatient",
            listener_of(
                "impatient",
                &whole("impatient"),
                &format!("listener_filters_timeout: 0.06s, {}", filters(&[filter("tls_inspector", "")])),
            ),
        ),
        (
            "impatient_continues",
            listener_of(
                "impatient_continues",
                &whole("impatient_continues"),
                &format!(
                    "listener_filters_timeout: 0.06s, continue_on_listener_filters_timeout: true, {}",
                    filters(&[filter("tls_inspector", "")])
                ),
            ),
        ),
        (
            "small_buffer",
            listener_of("small_buffer", &whole("small_buffer"), "per_connection_buffer_limit_bytes: 1024"),
        ),
    ];
    let cases = [chain_cases(), proxy_protocol_cases()].concat();
    Area { name: "listeners", listeners, clusters: clusters(), more: "", cases }
}

fn chain_cases() -> Vec<Case> {
    vec![
        get("inspected_http1", "4.2 filter chain match", "inspected", "/", &[]).status(200),
        case("inspected_http10", "4.3 http_inspector", "inspected", "GET / HTTP/1.0\r\nhost: a\r\n\r\n").status(426),
        frames("inspected_http2", "4.3 http_inspector", "inspected", &[h2::request(1, &h2::get("/", &[]))]),
        case("inspected_garbage", "4.3 http_inspector", "inspected", "nonsense\r\n\r\n"),
        steps(
            "inspected_split",
            "4.3 http_inspector",
            "inspected",
            vec![
                Step::Send(b"GE".to_vec()),
                Step::Send(b"T / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
                Step::Responses(1),
            ],
        )
        .status(200),
        steps("inspected_half_close", "4.3 listener filters", "inspected", vec![Step::HalfClose, Step::End]),
        get("source_type", "4.2 filter chain match", "by_source", "/", &[]).status(200),
        get("longest_prefix", "4.2 filter chain match", "by_destination", "/", &[]).status(200),
        get("no_backtracking", "4.2 no backtracking", "no_backtracking", "/", &[]).status(200),
        steps("no_chain", "4.1 no_filter_chain_match", "none", vec![Step::End]),
        steps("filters_time_out", "4.1 listener_filters_timeout", "impatient", vec![Step::End]),
        steps(
            "filters_time_out_continue",
            "4.1 continue_on_listener_filters_timeout",
            "impatient_continues",
            vec![
                Step::Pause(std::time::Duration::from_millis(120)),
                Step::Send(request("GET", "/", &[])),
                Step::Responses(1),
            ],
        )
        .status(200),
        get("small_buffer", "4.1 per_connection_buffer_limit_bytes", "small_buffer", "/", &[])
            .reply(format!("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{}", "b".repeat(100_000)))
            .status(200),
    ]
}

fn proxy_protocol_cases() -> Vec<Case> {
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let v1 = |line: &str| format!("{line}\r\n{get}").into_bytes();
    let signature = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let v2 = |command: u8, family: u8, rest: &[u8]| {
        let length = u16::try_from(rest.len()).unwrap_or(0).to_be_bytes();
        [signature.clone(), vec![command, family], length.to_vec(), rest.to_vec(), get.as_bytes().to_vec()].concat()
    };
    let four = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];
    let row = "4.3 proxy_protocol";
    vec![
        case("v1_tcp4", row, "proxied", v1("PROXY TCP4 1.2.3.4 5.6.7.8 1111 80")).status(200),
        case("v1_tcp6", row, "proxied", v1("PROXY TCP6 2001:db8::1 2001:db8::2 1111 80")).status(200),
        case("v1_unknown", row, "proxied", v1("PROXY UNKNOWN")).status(200),
        case("v1_bad_address", row, "proxied", v1("PROXY TCP4 1.2.3 5.6.7.8 1111 80")),
        case("v1_bad_port", row, "proxied", v1("PROXY TCP4 1.2.3.4 5.6.7.8 99999 80")),
        case("v1_bad_family", row, "proxied", v1("PROXY TCP9 1.2.3.4 5.6.7.8 1 80")),
        case("v1_too_long", row, "proxied", v1(&format!("PROXY TCP4 1.2.3.4 5.6.7.8 1 80 {}", "x".repeat(120)))),
        case("v2_tcp4", row, "proxied", v2(0x21, 0x11, &four)).status(200),
        case("v2_local", row, "proxied", v2(0x20, 0x00, &[])).status(200),
        case("v2_with_tlv", row, "proxied", v2(0x21, 0x11, &[&four[..], &[0x04, 0, 2, 9, 9]].concat())).status(200),
        case("v2_bad_version", row, "proxied", v2(0x31, 0x11, &four)),
        case("v2_short", row, "proxied", v2(0x21, 0x11, &four[..6])),
        case("v2_udp", row, "proxied", v2(0x21, 0x12, &four)),
        steps(
            "v2_split",
            row,
            "proxied",
            v2(0x21, 0x11, &four).chunks(7).map(|part| Step::Send(part.to_vec())).chain([Step::Responses(1)]).collect(),
        )
        .status(200),
        case("absent", row, "proxied", get),
        case("absent_allowed", row, "perhaps_proxied", get).status(200),
        case("present_allowed", row, "perhaps_proxied", v1("PROXY TCP4 1.2.3.4 5.6.7.8 1111 80")).status(200),
        case("partial_allowed", row, "perhaps_proxied", "PRI"),
    ]
}

/// `proxy_protocol` is `ProxyProtocol`.
fn pascal(name: &str) -> String {
    name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

//! HTTP/2 upstreams that break the protocol, frame by frame: what the client is told, and whether the next request is served.

use std::time::Duration;

use super::{routed, upstream};
use crate::manifest::{Area, Case, Step, case, h2, request, steps};
use crate::support::bootstrap::protocol;
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS,
    fields, frame, goaway, reset, settings, window,
};
use crate::support::h2_client::H2Request;
use crate::support::upstream::Act;

/// The area.
pub fn area() -> Area {
    let to = |cluster: &str| {
        format!(r#"{{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: {cluster}}}}}]}}"#)
    };
    let http2 = |options: &str| protocol(&format!("explicit_http_config: {{http2_protocol_options: {{{options}}}}}"));
    let listeners = vec![
        routed("raw", "", &to("raw")),
        routed("with_trailers", "http_protocol_options: {enable_trailers: true}", &to("raw")),
        routed("lenient", "", &to("lenient")),
        routed("small_windows", "", &to("small_windows")),
        routed("tight", "", &to("tight")),
        routed("pinged", "", &to("pinged")),
        routed("two_streams", "", &to("two_streams")),
        routed("impatient", "stream_idle_timeout: 0.3s", &to("raw")),
        routed(
            "hurried",
            "",
            r#"{name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: raw, timeout: 0.3s}}]}"#,
        ),
    ];
    let clusters = vec![
        upstream("raw", "${UP}", &http2("")),
        upstream("lenient", "${UP}", &http2("override_stream_error_on_invalid_http_message: true")),
        upstream(
            "small_windows",
            "${UP}",
            &http2("initial_stream_window_size: 65535, initial_connection_window_size: 65535"),
        ),
        upstream("tight", "${UP}", &format!("per_connection_buffer_limit_bytes: 32768, {}", http2(""))),
        upstream("pinged", "${UP}", &http2("connection_keepalive: {interval: 0.1s, timeout: 0.1s}")),
        upstream("two_streams", "${UP}", &http2("max_concurrent_streams: 2")),
    ];
    let cases = [heads(), bodies(), control(), going_away(), windows(), grpc()].concat();
    Area { name: "h2_upstreams", listeners, clusters, more: "", cases }
}

/// Response fields as a block.
fn head(status: &str, more: &[(&str, &str)]) -> Vec<u8> {
    fields(&[&[(":status", status)], more].concat())
}

/// HEADERS that go on.
fn open(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, block)
}

/// HEADERS that end their stream.
fn last(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
}

fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, 0, stream, bytes)
}

fn end(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, bytes)
}

/// A whole good response.
fn ok(stream: u32) -> Vec<u8> {
    [open(stream, &head("200", &[])), end(stream, b"ok")].concat()
}

fn send(frames: &[Vec<u8>]) -> Act {
    Act::Send([settings(&[]), frames.concat()].concat())
}

/// The first request is answered with these frames; a second one, from another client, with what is right, on whichever
/// connection it comes.
fn answered(name: &'static str, row: &'static str, frames: &[Vec<u8>]) -> Case {
    at("raw", name, row, frames)
}

fn at(listener: &'static str, name: &'static str, row: &'static str, frames: &[Vec<u8>]) -> Case {
    let get = |path| Step::Send(request("GET", path, &[]));
    let list = vec![get("/1"), Step::Responses(1), Step::Reconnect, get("/2"), Step::Responses(1)];
    scripted(steps(name, row, listener, list), frames)
}

fn scripted(case: Case, frames: &[Vec<u8>]) -> Case {
    case.upstream(vec![
        vec![Act::Frame(HEADERS), send(frames), Act::Frame(HEADERS), Act::Send(ok(3)), Act::Hold],
        vec![Act::Frame(HEADERS), send(&[ok(1)]), Act::Hold],
    ])
}

fn heads() -> Vec<Case> {
    let row = "issue: hostile upstreams, heads";
    let one = |name, frames: &[Vec<u8>]| answered(name, row, frames);
    let with = |more: &[(&str, &str)]| [open(1, &head("200", more)), end(1, b"ok")];
    let block = |list: &[(&str, &str)]| [open(1, &fields(list)), end(1, b"ok")];
    let long = "a".repeat(10_000);
    vec![
        one("good", &[ok(1)]).status(200),
        one("no_status", &block(&[("x-a", "b")])),
        one("empty_head", &block(&[])),
        one("empty_status", &block(&[(":status", "")])),
        one("two_statuses", &block(&[(":status", "200"), (":status", "201")])),
        one("status_text", &block(&[(":status", "abc")])),
        one("status_99", &block(&[(":status", "99")])),
        one("status_1000", &block(&[(":status", "1000")])),
        one("status_plus", &block(&[(":status", "+200")])),
        one("status_600", &block(&[(":status", "600")])),
        one("status_999", &block(&[(":status", "999")])),
        one("status_space", &block(&[(":status", " 200")])),
        one("status_000", &block(&[(":status", "000")])),
        one("status_late", &block(&[("x-a", "b"), (":status", "200")])),
        one("request_pseudo", &with(&[(":path", "/")])),
        one("unknown_pseudo", &with(&[(":x", "y")])),
        one("uppercase_name", &with(&[("X-A", "b")])),
        one("space_in_name", &with(&[("x a", "b")])),
        one("empty_name", &with(&[("", "b")])),
        one("nul_in_value", &with(&[("x-a", "b\0c")])),
        one("break_in_value", &with(&[("x-a", "b\r\nx-evil: c")])),
        one("return_in_value", &with(&[("x-a", "b\rc")])),
        one("control_in_value", &with(&[("x-a", "b\x01c")])),
        one("delete_in_value", &with(&[("x-a", "b\x7fc")])),
        one("tab_in_value", &with(&[("x-a", "b\tc")])),
        one("high_in_value", &with(&[("x-a", "b\u{e9}c")])),
        one("space_around_value", &with(&[("x-a", "  b  ")])),
        one("connection", &with(&[("connection", "close")])),
        one("keep_alive", &with(&[("keep-alive", "timeout=5")])),
        one("proxy_connection", &with(&[("proxy-connection", "close")])),
        one("transfer_encoding", &with(&[("transfer-encoding", "chunked")])),
        one("upgrade", &with(&[("upgrade", "h2c")])),
        one("te", &with(&[("te", "gzip")])),
        one("host", &with(&[("host", "a")])),
        at("lenient", "lenient_uppercase_name", row, &with(&[("X-A", "b")])),
        at("lenient", "lenient_connection", row, &with(&[("connection", "close")])),
        at("lenient", "lenient_no_status", row, &block(&[("x-a", "b")])),
        at("lenient", "lenient_nul", row, &with(&[("x-a", "b\0c")])),
        at("lenient", "lenient_unknown_pseudo", row, &with(&[(":x", "y")])),
        one("many_fields", &with(&[("x-a", "b"); 120])),
        one("few_enough_fields", &with(&[("x-a", "b"); 90])),
        one("long_value", &with(&[("x-a", &long)])).status(200),
        one("set_cookies", &with(&[("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-b", "1")])).status(200),
        one(
            "too_large",
            &[
                frame(HEADERS, 0, 1, &head("200", &[("x-a", &long)])),
                [0; 6].map(|_| frame(CONTINUATION, 0, 1, &fields(&[("x-a", &long)]))).concat(),
                frame(CONTINUATION, END_HEADERS, 1, &[]),
                end(1, b"ok"),
            ],
        ),
        one(
            "continued",
            &[
                frame(HEADERS, 0, 1, &head("200", &[])),
                frame(CONTINUATION, 0, 1, &fields(&[("x-a", "b")])),
                frame(CONTINUATION, END_HEADERS, 1, &[]),
                end(1, b"ok"),
            ],
        )
        .status(200),
        one(
            "continued_by_another",
            &[frame(HEADERS, 0, 1, &head("200", &[])), frame(CONTINUATION, END_HEADERS, 3, &[]), end(1, b"ok")],
        ),
        one("block_interrupted", &[frame(HEADERS, 0, 1, &head("200", &[])), frame(PING, 0, 0, &[0; 8])]),
        one("continuation_alone", &[frame(CONTINUATION, END_HEADERS, 1, &head("200", &[]))]),
        one(
            "padded",
            &[frame(HEADERS, END_HEADERS | PADDED, 1, &[&[3], &head("200", &[])[..], &[0; 3]].concat()), end(1, b"ok")],
        )
        .status(200),
        one("too_padded", &[frame(HEADERS, END_HEADERS | PADDED, 1, &[200, 0]), end(1, b"ok")]),
        one(
            "with_priority",
            &[
                frame(HEADERS, END_HEADERS | 0x20, 1, &[&[0, 0, 0, 0, 16], &head("200", &[])[..]].concat()),
                end(1, b"ok"),
            ],
        )
        .status(200),
        one("bad_hpack", &[open(1, &[0xff; 6])]),
        one("table_too_big", &[open(1, &[&[0x3f, 0xff, 0xff, 0x03], &head("200", &[])[..]].concat())]),
        one("on_zero", &[open(0, &head("200", &[]))]),
        one("on_even", &[open(2, &head("200", &[])), ok(1)]),
        one("on_idle", &[open(7, &head("200", &[])), ok(1)]),
        one("informational", &[open(1, &head("103", &[("link", "x")])), ok(1)]).status(200),
        one("continue_unasked", &[open(1, &head("100", &[])), ok(1)]).status(200),
        one("informational_that_ends", &[last(1, &head("103", &[]))]),
        one("informational_with_body", &[open(1, &head("103", &[])), data(1, b"abc"), ok(1)]),
        one("switching", &[open(1, &head("101", &[])), ok(1)]),
        one("processing_twice", &[open(1, &head("102", &[])), open(1, &head("102", &[])), ok(1)]).status(200),
        one("informational_with_length", &[open(1, &head("103", &[("content-length", "5")])), ok(1)]),
        one("two_heads", &[open(1, &head("200", &[])), open(1, &head("200", &[])), end(1, b"ok")]),
        one("two_last_heads", &[open(1, &head("200", &[])), last(1, &head("200", &[]))]),
    ]
}

fn bodies() -> Vec<Case> {
    let row = "issue: hostile upstreams, bodies";
    let one = |name, frames: &[Vec<u8>]| answered(name, row, frames);
    let length = |length: &str| open(1, &head("200", &[("content-length", length)]));
    let post = |name, frames: &[Vec<u8>]| {
        let again = vec![
            Step::Send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc".to_vec()),
            Step::Responses(1),
            Step::Reconnect,
            Step::Send(request("GET", "/2", &[])),
            Step::Responses(1),
        ];
        scripted(steps(name, row, "raw", again), frames)
    };
    let h2_get = |name, frames: &[Vec<u8>]| {
        let requests = vec![H2Request::get("http://a.test/1"), H2Request::get("http://a.test/2")];
        scripted(h2(name, row, "raw", requests), frames)
    };
    vec![
        one("data_before_head", &[data(1, b"abc"), ok(1)]),
        one("empty_data_before_head", &[data(1, b""), ok(1)]),
        one("length_too_small", &[length("1"), end(1, b"ok")]),
        one("length_too_big", &[length("9"), end(1, b"ok")]),
        one("length_without_body", &[last(1, &head("200", &[("content-length", "9")]))]),
        one("length_zero_with_body", &[length("0"), end(1, b"ok")]),
        one("length_bad", &[length("x"), end(1, b"ok")]),
        one("length_negative", &[length("-1"), end(1, b"ok")]),
        one("length_plus", &[length("+2"), end(1, b"ok")]),
        one("length_list", &[length("2, 2"), end(1, b"ok")]),
        one("length_huge", &[length("99999999999999999999"), end(1, b"ok")]),
        one("length_empty", &[length(""), end(1, b"ok")]),
        one(
            "two_lengths",
            &[open(1, &head("200", &[("content-length", "2"), ("content-length", "3")])), end(1, b"ok")],
        ),
        one(
            "two_equal_lengths",
            &[open(1, &head("200", &[("content-length", "2"), ("content-length", "2")])), end(1, b"ok")],
        ),
        one("no_content_with_body", &[open(1, &head("204", &[])), end(1, b"ok")]),
        one("no_content_with_length", &[last(1, &head("204", &[("content-length", "2")]))]),
        one("not_modified_with_length", &[last(1, &head("304", &[("content-length", "2")]))]),
        one("not_modified_with_body", &[open(1, &head("304", &[("content-length", "2")])), end(1, b"ok")]),
        h2_get("h2_length_too_big", &[length("9"), end(1, b"ok")]),
        h2_get("h2_length_too_small", &[length("1"), end(1, b"ok")]),
        h2_get("h2_no_content_with_body", &[open(1, &head("204", &[])), end(1, b"ok")]),
        h2_get("h2_uppercase_name", &[open(1, &head("200", &[("X-A", "b")])), end(1, b"ok")]),
        h2_get("h2_connection", &[open(1, &head("200", &[("connection", "close")])), end(1, b"ok")]),
        h2_get("h2_trailers_pseudo", &[open(1, &head("200", &[])), data(1, b"ok"), last(1, &head("200", &[]))]),
        scripted(
            case("head_with_body", row, "raw", request("HEAD", "/", &[])).methods(&["HEAD"]),
            &[open(1, &head("200", &[])), end(1, b"ok")],
        ),
        scripted(
            case("head_with_length", row, "raw", request("HEAD", "/", &[])).methods(&["HEAD"]),
            &[last(1, &head("200", &[("content-length", "9")]))],
        )
        .status(200),
        one("padded_data", &[open(1, &head("200", &[])), frame(DATA, END_STREAM | PADDED, 1, b"\x03ok\0\0\0")])
            .status(200),
        one("only_padding", &[open(1, &head("200", &[])), frame(DATA, END_STREAM | PADDED, 1, b"\x03\0\0\0")])
            .status(200),
        one("too_much_padding", &[open(1, &head("200", &[])), frame(DATA, END_STREAM | PADDED, 1, b"\x09ok")]),
        one("no_pad_length", &[open(1, &head("200", &[])), frame(DATA, END_STREAM | PADDED, 1, b"")]),
        one("frame_too_big", &[open(1, &head("200", &[])), end(1, &[b'a'; 20_000])]),
        one("data_on_zero", &[open(1, &head("200", &[])), data(0, b"abc")]),
        one("data_on_idle", &[open(1, &head("200", &[])), data(9, b"abc"), end(1, b"ok")]),
        one("data_after_end", &[ok(1), data(1, b"late")]),
        one("head_after_end", &[ok(1), open(1, &head("200", &[]))]),
        one("trailers_after_end", &[ok(1), last(1, &fields(&[("x-t", "1")]))]),
        one("empty_data", &[open(1, &head("200", &[])), data(1, b""), end(1, b"ok")]),
        one("empty_data_flood", &[open(1, &head("200", &[])), [0; 5].map(|_| data(1, b"")).concat(), end(1, b"ok")]),
        one("trailers", &[open(1, &head("200", &[])), data(1, b"ok"), last(1, &fields(&[("x-t", "1")]))]).status(200),
        at(
            "with_trailers",
            "trailers_kept",
            row,
            &[open(1, &head("200", &[])), data(1, b"ok"), last(1, &fields(&[("x-t", "1")]))],
        )
        .status(200),
        at(
            "with_trailers",
            "trailers_forbidden",
            row,
            &[open(1, &head("200", &[])), data(1, b"ok"), last(1, &fields(&[("connection", "close")]))],
        ),
        at("with_trailers", "trailers_empty", row, &[open(1, &head("200", &[])), data(1, b"ok"), last(1, &[])]),
        one("trailers_pseudo", &[open(1, &head("200", &[])), data(1, b"ok"), last(1, &head("200", &[]))]),
        one("trailers_path", &[open(1, &head("200", &[])), data(1, b"ok"), last(1, &fields(&[(":path", "/")]))]),
        one("trailers_uppercase", &[open(1, &head("200", &[])), data(1, b"ok"), last(1, &fields(&[("X-T", "1")]))]),
        one("trailers_open", &[open(1, &head("200", &[])), data(1, b"ok"), open(1, &fields(&[("x-t", "1")]))]),
        one("trailers_short", &[length("9"), data(1, b"ok"), last(1, &fields(&[("x-t", "1")]))]),
        one("cut_off", &[open(1, &head("200", &[])), data(1, b"ok")]).upstream(vec![
            vec![Act::Frame(HEADERS), send(&[open(1, &head("200", &[])), data(1, b"ok")]), Act::Close],
            vec![Act::Frame(HEADERS), send(&[ok(1)]), Act::Hold],
        ]),
        one("closed_at_once", &[]).upstream(vec![
            vec![Act::Frame(HEADERS), Act::Close],
            vec![Act::Frame(HEADERS), send(&[ok(1)]), Act::Hold],
        ]),
        one("reset_at_once", &[]).upstream(vec![
            vec![Act::Frame(HEADERS), send(&[]), Act::Reset],
            vec![Act::Frame(HEADERS), send(&[ok(1)]), Act::Hold],
        ]),
        one("no_settings", &[]).upstream(vec![
            vec![Act::Frame(HEADERS), Act::Send(ok(1)), Act::Hold],
            vec![Act::Frame(HEADERS), send(&[ok(1)]), Act::Hold],
        ]),
        one("speaks_http1", &[]).upstream(vec![
            vec![Act::Frame(HEADERS), Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()), Act::Hold],
            vec![Act::Frame(HEADERS), send(&[ok(1)]), Act::Hold],
        ]),
        one("speaks_http1_error", &[]).upstream(vec![
            vec![
                Act::Frame(HEADERS),
                Act::Send(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n".to_vec()),
                Act::Close,
            ],
            vec![Act::Frame(HEADERS), send(&[ok(1)]), Act::Hold],
        ]),
        post("early_reply", &[ok(1)]),
        at("impatient", "never_ends", row, &[open(1, &head("200", &[])), data(1, b"ok")]),
        at("impatient", "never_begins", row, &[]),
        at("hurried", "late", row, &[]),
        at("hurried", "late_in_body", row, &[open(1, &head("200", &[])), data(1, b"ok")]),
    ]
}

fn control() -> Vec<Case> {
    let row = "issue: hostile upstreams, control frames";
    let one = |name, frames: &[Vec<u8>]| answered(name, row, frames);
    let promise = |block: &[u8]| frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], block].concat());
    let begun = || open(1, &head("200", &[]));
    let mut cases = vec![
        one(
            "push_promise",
            &[
                frame(SETTINGS, 1, 0, &[]),
                promise(&fields(&[(":method", "GET"), (":path", "/"), (":scheme", "http")])),
                ok(1),
            ],
        ),
        one("unknown_frame", &[frame(0x42, 0xff, 0, b"x"), frame(0x42, 0, 1, b"x"), ok(1)]).status(200),
        one("priority", &[frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), ok(1)]).status(200),
        one("priority_short", &[frame(PRIORITY, 0, 1, &[0; 4]), ok(1)]),
        one("ping", &[frame(PING, 0, 0, &[7; 8]), ok(1)]).status(200),
        one("ping_answer", &[frame(PING, 1, 0, &[7; 8]), ok(1)]),
        one("ping_short", &[frame(PING, 0, 0, &[0; 7]), ok(1)]),
        one("ping_on_stream", &[frame(PING, 0, 1, &[0; 8]), ok(1)]),
        one("settings_on_stream", &[frame(SETTINGS, 0, 1, &[]), ok(1)]),
        one("settings_odd", &[frame(SETTINGS, 0, 0, &[0; 5]), ok(1)]),
        one("settings_answer_with_body", &[frame(SETTINGS, 1, 0, &[0; 6]), ok(1)]),
        one("settings_answer_twice", &[frame(SETTINGS, 1, 0, &[]), frame(SETTINGS, 1, 0, &[]), ok(1)]),
        one("settings_window_too_big", &[settings(&[(4, 0x8000_0000)]), ok(1)]),
        one("settings_frame_too_small", &[settings(&[(5, 100)]), ok(1)]),
        one("settings_frame_too_big", &[settings(&[(5, 0x0100_0000)]), ok(1)]),
        one("settings_push_2", &[settings(&[(2, 2)]), ok(1)]),
        one("settings_push_1", &[settings(&[(2, 1)]), ok(1)]),
        one("settings_unknown", &[settings(&[(0x99, 1)]), ok(1)]).status(200),
        one("settings_table_0", &[settings(&[(1, 0)]), ok(1)]).status(200),
        one("settings_connect", &[settings(&[(8, 1)]), ok(1)]).status(200),
        one("settings_connect_2", &[settings(&[(8, 2)]), ok(1)]),
        one("settings_list_size", &[settings(&[(6, 10)]), ok(1)]).status(200),
        one("window_zero", &[window(1, 0), ok(1)]),
        one("window_zero_connection", &[window(0, 0), ok(1)]),
        one("window_overflow", &[window(1, 0x7fff_ffff), ok(1)]),
        one("window_overflow_connection", &[window(0, 0x7fff_ffff), ok(1)]),
        one("window_short", &[frame(8, 0, 1, &[0; 3]), ok(1)]),
        one("window_on_idle", &[window(9, 1), ok(1)]),
        one("reset_short", &[frame(RST_STREAM, 0, 1, &[0; 3])]),
        one("reset_on_zero", &[reset(0, 1)]),
        one("reset_on_idle", &[reset(9, 1), ok(1)]),
        one("reset_after_end", &[ok(1), reset(1, 0)]).status(200),
        one("reset_after_end_cancel", &[ok(1), reset(1, 8)]),
        one("reset_twice", &[reset(1, 2), reset(1, 2)]),
        one("informational_then_reset", &[open(1, &head("103", &[])), reset(1, 2)]),
        one("pings", &[[0; 50].map(|_| frame(PING, 0, 0, &[0; 8])).concat(), ok(1)]).status(200),
        one("settings_many", &[[0; 50].map(|_| settings(&[])).concat(), ok(1)]).status(200),
        steps(
            "settings_no_streams",
            row,
            "raw",
            vec![
                Step::Send(request("GET", "/1", &[])),
                Step::Responses(1),
                Step::Reconnect,
                Step::Send(request("GET", "/2", &[])),
                Step::Responses(1),
            ],
        )
        .upstream(vec![
            vec![
                Act::Frame(HEADERS),
                send(&[settings(&[(3, 0)]), ok(1)]),
                Act::Frame(HEADERS),
                Act::Send(ok(3)),
                Act::Hold,
            ],
            vec![Act::Frame(HEADERS), send(&[ok(1)]), Act::Hold],
        ]),
        at("pinged", "keepalive_unanswered", row, &[begun(), data(1, b"ok")]),
    ];
    for (name, code) in [
        ("reset_no_error", 0),
        ("reset_protocol", 1),
        ("reset_internal", 2),
        ("reset_flow_control", 3),
        ("reset_stream_closed", 5),
        ("reset_frame_size", 6),
        ("reset_refused", 7),
        ("reset_cancel", 8),
        ("reset_compression", 9),
        ("reset_connect", 10),
        ("reset_calm", 11),
        ("reset_inadequate", 12),
        ("reset_http11", 13),
        ("reset_unknown", 99),
    ] {
        cases.push(one(name, &[reset(1, code)]));
    }
    for (name, code) in [
        ("reset_begun_no_error", 0),
        ("reset_begun_internal", 2),
        ("reset_begun_refused", 7),
        ("reset_begun_cancel", 8),
        ("reset_begun_unknown", 99),
    ] {
        cases.push(one(name, &[begun(), data(1, b"abc"), reset(1, code)]));
    }
    cases
}

fn going_away() -> Vec<Case> {
    let row = "3.9 GOAWAY";
    let one = |name, frames: &[Vec<u8>]| answered(name, row, frames);
    vec![
        one("goaway_then_reply", &[goaway(1, 0), ok(1)]).status(200),
        one("reply_then_goaway", &[ok(1), goaway(1, 0)]).status(200),
        one("goaway_in_reply", &[open(1, &head("200", &[])), goaway(1, 0), end(1, b"ok")]).status(200),
        one("goaway_unserved", &[goaway(0, 0)]),
        one("goaway_unserved_error", &[goaway(0, 2)]),
        one("goaway_error_served", &[goaway(1, 2), ok(1)]),
        one("goaway_calm", &[goaway(1, 11), ok(1)]),
        one("goaway_max", &[goaway(0x7fff_ffff, 0), ok(1)]).status(200),
        one("goaway_then_reset", &[goaway(1, 0), reset(1, 2)]),
        one(
            "goaway_then_trailers",
            &[goaway(1, 0), open(1, &head("200", &[])), data(1, b"ok"), last(1, &fields(&[("x-t", "1")]))],
        )
        .status(200),
        one("goaway_then_bad", &[goaway(1, 0), open(1, &head("200", &[("X-A", "b")]))]),
        at("hurried", "goaway_then_late", row, &[goaway(1, 0)]),
        one("goaway_twice", &[goaway(0x7fff_ffff, 0), goaway(1, 0), ok(1)]).status(200),
        one("goaway_growing", &[goaway(1, 0), goaway(3, 0), ok(1)]),
        one("goaway_short", &[frame(7, 0, 0, &[0; 7])]),
        one("goaway_on_stream", &[frame(7, 0, 1, &[0; 8]), ok(1)]),
        one("goaway_close", &[]).upstream(vec![
            vec![Act::Frame(HEADERS), send(&[goaway(0, 0)]), Act::Close],
            vec![Act::Frame(HEADERS), send(&[ok(1)]), Act::Hold],
        ]),
        one("goaway_reply_close", &[]).upstream(vec![
            vec![Act::Frame(HEADERS), send(&[goaway(1, 0), ok(1)]), Act::Close],
            vec![Act::Frame(HEADERS), send(&[ok(1)]), Act::Hold],
        ]),
        h2("goaway_between", row, "raw", vec![H2Request::get("http://a.test/1"), H2Request::get("http://a.test/2")])
            .upstream(vec![
                vec![
                    Act::Frame(HEADERS),
                    send(&[ok(1), goaway(1, 0)]),
                    Act::Frame(HEADERS),
                    Act::Send(ok(3)),
                    Act::Hold,
                ],
                vec![Act::Frame(HEADERS), send(&[ok(1)]), Act::Hold],
            ]),
    ]
}

fn windows() -> Vec<Case> {
    let row = "issue: windows";
    let post = |name, listener, length: usize| {
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
        let bytes = [head.into_bytes(), vec![b'p'; length]].concat();
        // What the upstream's SETTINGS say is known by the second request.
        let first = Step::Send(request("GET", "/first", &[]));
        let list = vec![first, Step::Responses(1), Step::Reconnect, Step::Send(bytes), Step::Responses(1)];
        steps(name, row, listener, list)
    };
    let acts = |list: Vec<Act>| vec![list];
    let pause = || Act::Pause(Duration::from_millis(60));
    let big = |stream, n: usize| (0..n).map(|_| data(stream, &[b'r'; 16_000])).collect::<Vec<_>>().concat();
    // All of the body waits for a window that never opens, until its stream is reset.
    let stalled = || {
        acts(vec![
            Act::Frame(HEADERS),
            Act::Send([settings(&[(4, 0)]), ok(1)].concat()),
            Act::Frame(HEADERS),
            Act::Pause(Duration::from_millis(250)),
            Act::Send(reset(3, 2)),
            Act::Hold,
        ])
    };
    vec![
        post("no_window_little", "tight", 20_000).upstream(stalled()),
        post("no_window_backed_up", "tight", 200_000).upstream(stalled()),
        post("no_window_backed_up_small", "small_windows", 3_000_000).upstream(stalled()),
        post("no_window_backed_up_raw", "raw", 1_800_000).upstream(stalled()),
        post("no_window_then_some", "raw", 10).upstream(acts(vec![
            Act::Frame(HEADERS),
            Act::Send([settings(&[(4, 0)]), ok(1)].concat()),
            Act::Frame(HEADERS),
            pause(),
            Act::Send(window(3, 4)),
            Act::Frame(DATA),
            Act::Send(window(3, 100)),
            Act::Frame(DATA),
            Act::Send(ok(3)),
            Act::Hold,
        ])),
        post("window_by_settings", "raw", 100).upstream(acts(vec![
            Act::Frame(HEADERS),
            Act::Send([settings(&[(4, 10)]), ok(1)].concat()),
            Act::Frame(HEADERS),
            pause(),
            Act::Send(settings(&[(4, 1000)])),
            Act::Frame(DATA),
            pause(),
            Act::Send(ok(3)),
            Act::Hold,
        ])),
        post("window_shrinks", "raw", 100_000).upstream(acts(vec![
            Act::Frame(HEADERS),
            Act::Send([settings(&[(4, 65_535)]), ok(1)].concat()),
            Act::Frame(HEADERS),
            pause(),
            Act::Send([settings(&[(4, 0)]), window(3, 200_000), window(0, 200_000)].concat()),
            pause(),
            Act::Send(ok(3)),
            Act::Hold,
        ])),
        post("reply_while_blocked", "raw", 100_000).upstream(acts(vec![
            Act::Frame(HEADERS),
            Act::Send([settings(&[(4, 0)]), ok(1)].concat()),
            Act::Frame(HEADERS),
            pause(),
            Act::Send(ok(3)),
            Act::Hold,
        ])),
        post("reset_while_blocked", "raw", 100_000).upstream(acts(vec![
            Act::Frame(HEADERS),
            Act::Send([settings(&[(4, 0)]), ok(1)].concat()),
            Act::Frame(HEADERS),
            pause(),
            Act::Send(reset(3, 2)),
            Act::Hold,
        ])),
        post("blocked_for_ever", "impatient", 1_000).upstream(acts(vec![
            Act::Frame(HEADERS),
            Act::Send([settings(&[(4, 0)]), ok(1)].concat()),
            Act::Frame(HEADERS),
            Act::Hold,
        ])),
        post("blocked_until_timeout", "hurried", 1_000).upstream(acts(vec![
            Act::Frame(HEADERS),
            Act::Send([settings(&[(4, 0)]), ok(1)].concat()),
            Act::Frame(HEADERS),
            Act::Hold,
        ])),
        case("stream_window_ignored", row, "small_windows", request("GET", "/", &[])).upstream(acts(vec![
            Act::Frame(HEADERS),
            send(&[open(1, &head("200", &[])), big(1, 5)]),
            Act::Hold,
        ])),
        case("big_reply", row, "small_windows", request("GET", "/", &[]))
            .upstream(acts(vec![
                Act::Frame(HEADERS),
                send(&[open(1, &head("200", &[])), big(1, 4)]),
                Act::Frame(8),
                Act::Send(big(1, 2)),
                Act::Send(end(1, b"")),
                Act::Hold,
            ]))
            .status(200),
        h2(
            "one_stream_at_a_time",
            row,
            "raw",
            vec![H2Request::get("http://a.test/1"), H2Request::get("http://a.test/2")],
        )
        .upstream(vec![vec![
            Act::Send(settings(&[(3, 1)])),
            Act::Frame(HEADERS),
            Act::Send(ok(1)),
            Act::Frame(HEADERS),
            Act::Send(ok(3)),
            Act::Hold,
        ]])
        .status(200),
    ]
}

fn grpc() -> Vec<Case> {
    let row = "2.10 gRPC";
    let listener = "raw";
    let call = || {
        H2Request::post("http://a.test/s/m", "\0\0\0\0\x01a")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
    };
    let one = |name, frames: &[Vec<u8>]| scripted(h2(name, row, listener, vec![call()]), frames);
    let kind = ("content-type", "application/grpc");
    vec![
        one("grpc_trailers_only", &[last(1, &head("200", &[kind, ("grpc-status", "5"), ("grpc-message", "no")]))]),
        one("grpc_trailers_only_ok", &[last(1, &head("200", &[kind, ("grpc-status", "0")]))]),
        one("grpc_no_status", &[open(1, &head("200", &[kind])), end(1, b"\0\0\0\0\x01a")]),
        one("grpc_bad_status", &[open(1, &head("200", &[kind])), last(1, &fields(&[("grpc-status", "x")]))]),
        one("grpc_big_status", &[open(1, &head("200", &[kind])), last(1, &fields(&[("grpc-status", "99")]))]),
        one("grpc_http_error", &[last(1, &head("503", &[]))]),
        one("grpc_http_error_kind", &[last(1, &head("404", &[kind]))]),
        one("grpc_not_grpc", &[open(1, &head("200", &[("content-type", "text/html")])), end(1, b"<p>")]),
        one("grpc_reset", &[reset(1, 2)]),
        one("grpc_refused", &[reset(1, 7)]),
        one("grpc_cancelled", &[open(1, &head("200", &[kind])), reset(1, 8)]),
        one("grpc_no_status_field", &[open(1, &fields(&[kind]))]),
        one("grpc_length_disagrees", &[open(1, &head("200", &[kind, ("content-length", "99")])), end(1, b"a")]),
        one("grpc_goaway", &[goaway(0, 0)]),
        one("grpc_cut_off", &[]).upstream(vec![vec![
            Act::Frame(HEADERS),
            send(&[open(1, &head("200", &[kind])), data(1, b"\0\0\0\0\x01a")]),
            Act::Close,
        ]]),
        one("grpc_trailers_pseudo", &[open(1, &head("200", &[kind])), last(1, &head("200", &[("grpc-status", "0")]))]),
    ]
}

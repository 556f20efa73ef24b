//! HTTP/2 clients at the level of frames: windows, settings that change, odd but legal frames, and what must not survive the
//! way to another protocol.

use std::time::Duration;

use super::{clusters, plain, routed, upstream};
use crate::manifest::{Area, Case, Step, talk};
use crate::support::bootstrap::http2;
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PRIORITY, fields, frame, get, goaway, preface,
    request as head, reset, settings, window,
};
use crate::support::upstream::Act;

/// The area.
pub fn area() -> Area {
    let to = |cluster: &str, more: &str| {
        format!(
            r#"{{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: {cluster}{more}}}}}]}}"#
        )
    };
    let connect = r#"{name: all, domains: ["*"], routes: [{match: {connect_matcher: {}}, route: {cluster: raw}}, {match: {prefix: "/"}, route: {cluster: raw}}]}"#;
    let listeners = vec![
        plain("down", ""),
        plain("trailers", "http_protocol_options: {enable_trailers: true}"),
        plain("impatient", "stream_idle_timeout: 0.3s"),
        plain("lenient", "http2_protocol_options: {override_stream_error_on_invalid_http_message: true}"),
        plain(
            "small_windows",
            "http2_protocol_options: {initial_stream_window_size: 65535, initial_connection_window_size: 65535}",
        ),
        routed("timed", "", &to("up", ", timeout: 0.3s")),
        routed("to_h2", "http_protocol_options: {enable_trailers: true}", &to("h2", "")),
        routed(
            "tunnel",
            "upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}], http2_protocol_options: {allow_connect: true}",
            connect,
        ),
    ];
    let cases = [windows(), oddities(), messages(), tunnels()].concat();
    let clusters = [clusters(), vec![upstream("raw", "${UP}", &http2())]].concat();
    Area { name: "h2_clients", listeners, clusters, more: "", cases }
}

fn fields_of(method: &str, more: &[(&str, &str)]) -> Vec<u8> {
    fields(&[&[(":method", method), (":scheme", "http"), (":authority", "a"), (":path", "/")], more].concat())
}

fn open(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &fields_of("POST", more))
}

fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, 0, stream, bytes)
}

fn end(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, bytes)
}

fn trailers(stream: u32, list: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields(list))
}

/// A preface with these SETTINGS, then these frames.
fn hello(parameters: &[(u16, u32)], frames: &[Vec<u8>]) -> Step {
    Step::Send([preface(), settings(parameters), frames.concat()].concat())
}

fn pause() -> Step {
    Step::Pause(Duration::from_millis(60))
}

fn send(frames: &[Vec<u8>]) -> Step {
    Step::Send(frames.concat())
}

fn windows() -> Vec<Case> {
    let row = "issue: windows";
    let simple = |stream| head(stream, &get("/", &[]));
    let body = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "r".repeat(length));
    let one = |name, list| talk(name, row, "down", list);
    vec![
        one(
            "no_window_at_first",
            vec![hello(&[(4, 0)], &[simple(1)]), pause(), send(&[window(1, 100)]), Step::Streams(1)],
        )
        .reply(body(50)),
        one(
            "window_in_pieces",
            vec![
                hello(&[(4, 10)], &[simple(1)]),
                pause(),
                send(&[window(1, 20)]),
                pause(),
                send(&[window(1, 100)]),
                Step::Streams(1),
            ],
        )
        .reply(body(50)),
        one(
            "window_by_settings",
            vec![hello(&[(4, 0)], &[simple(1)]), pause(), send(&[settings(&[(4, 1000)])]), Step::Streams(1)],
        )
        .reply(body(50)),
        one(
            "window_shrinks_below_zero",
            vec![
                hello(&[(4, 30)], &[simple(1)]),
                pause(),
                send(&[settings(&[(4, 0)]), window(1, 20)]),
                pause(),
                send(&[window(1, 100)]),
                Step::Streams(1),
            ],
        )
        .reply(body(50)),
        one(
            "connection_window",
            vec![
                hello(&[(4, 1_000_000)], &[simple(1)]),
                pause(),
                pause(),
                send(&[window(0, 100_000)]),
                Step::Streams(1),
            ],
        )
        .reply(body(100_000)),
        one("empty_body_needs_no_window", vec![hello(&[(4, 0)], &[simple(1)]), Step::Streams(1)])
            .reply("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        talk("blocked_for_ever", row, "impatient", vec![hello(&[(4, 0)], &[simple(1)]), Step::Streams(1)])
            .reply(body(50)),
        talk("blocked_big", row, "impatient", vec![hello(&[(4, 10)], &[simple(1)]), Step::Streams(1)])
            .reply(body(3_000_000)),
        talk("blocked_by_route", row, "timed", vec![hello(&[(4, 0)], &[simple(1)]), Step::Streams(1)]).reply(body(50)),
        one(
            "reset_while_blocked",
            vec![
                hello(&[(4, 0)], &[simple(1)]),
                pause(),
                send(&[reset(1, 8), simple(3), window(3, 100)]),
                Step::Streams(1),
            ],
        )
        .reply(body(50)),
        one("overflow_of_stream", vec![hello(&[], &[open(1, &[]), window(1, 0x7fff_ffff)]), Step::Streams(1)]),
        one(
            "overflow_by_settings",
            vec![hello(&[], &[open(1, &[]), window(1, 100), settings(&[(4, 0x7fff_ffff)])]), Step::Streams(1)],
        ),
        one("zero_of_stream", vec![hello(&[], &[open(1, &[]), window(1, 0)]), Step::Streams(1)]),
        one("window_on_idle", vec![hello(&[], &[window(7, 10), simple(1)]), Step::Streams(1)]),
        one(
            "window_after_end",
            vec![hello(&[], &[simple(1)]), Step::Streams(1), send(&[window(1, 10), simple(3)]), Step::Streams(2)],
        ),
        one("table_of_zero", vec![hello(&[(1, 0)], &[simple(1)]), Step::Streams(1)]),
        one("list_size", vec![hello(&[(6, 10)], &[simple(1)]), Step::Streams(1)]),
        one("frame_size", vec![hello(&[(5, 20_000)], &[simple(1)]), Step::Streams(1)]).reply(body(40_000)),
        one("no_streams_of_theirs", vec![hello(&[(3, 0)], &[simple(1)]), Step::Streams(1)]),
        one("push_wanted", vec![hello(&[(2, 1)], &[simple(1)]), Step::Streams(1)]),
        one(
            "settings_between",
            vec![
                hello(
                    &[],
                    &[open(1, &[]), settings(&[(4, 5)]), data(1, b"ab"), settings(&[(4, 70_000)]), end(1, b"c")],
                ),
                Step::Streams(1),
            ],
        ),
    ]
}

fn oddities() -> Vec<Case> {
    let row = "RFC 9113 6";
    let one = |name, frames: &[Vec<u8>]| talk(name, row, "down", vec![hello(&[], frames), Step::Streams(1)]);
    let block = get("/", &[("x-a", "b")]);
    let (first, rest) = block.split_at(9);
    let simple = |stream| head(stream, &get("/", &[]));
    let padded = |flags: u8, padding: &[u8], block: &[u8]| {
        frame(HEADERS, flags | PADDED, 1, &[&[u8::try_from(padding.len()).unwrap_or(0)], block, padding].concat())
    };
    let priority = [0, 0, 0, 0, 15];
    vec![
        one("split_in_a_name", &[frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, rest)]),
        one(
            "split_to_single_bytes",
            &[
                frame(HEADERS, END_STREAM, 1, block.get(..1).unwrap_or_default()),
                frame(CONTINUATION, 0, 1, block.get(1..2).unwrap_or_default()),
                frame(CONTINUATION, END_HEADERS, 1, block.get(2..).unwrap_or_default()),
            ],
        ),
        one("empty_head_frame", &[frame(HEADERS, END_STREAM, 1, b""), frame(CONTINUATION, END_HEADERS, 1, &block)]),
        one(
            "empty_last_continuation",
            &[frame(HEADERS, END_STREAM, 1, &block), frame(CONTINUATION, END_HEADERS, 1, b"")],
        ),
        one("padded_head", &[padded(END_HEADERS | END_STREAM, &[0; 40], &block)]),
        one("padded_head_not_zero", &[padded(END_HEADERS | END_STREAM, &[7; 40], &block)]),
        one("padded_and_continued", &[padded(END_STREAM, &[0; 4], first), frame(CONTINUATION, END_HEADERS, 1, rest)]),
        one(
            "head_with_priority",
            &[frame(HEADERS, END_HEADERS | END_STREAM | 0x20, 1, &[&priority, &block[..]].concat())],
        ),
        one(
            "exclusive_priority",
            &[frame(HEADERS, END_HEADERS | END_STREAM | 0x20, 1, &[&[0x80, 0, 0, 0, 15], &block[..]].concat())],
        ),
        one("priority_on_idle", &[frame(PRIORITY, 0, 9, &priority), simple(1)]),
        one("priority_between", &[open(1, &[]), frame(PRIORITY, 0, 1, &priority), end(1, b"a")]),
        one("priority_on_zero", &[frame(PRIORITY, 0, 0, &priority), simple(1)]),
        one("priority_long", &[frame(PRIORITY, 0, 1, &[0; 6]), simple(1)]),
        one("unknown_on_stream", &[open(1, &[]), frame(0x77, 0xff, 1, b"abc"), end(1, b"a")]),
        one(
            "unknown_in_block",
            &[frame(HEADERS, END_STREAM, 1, first), frame(0x77, 0, 1, b""), frame(CONTINUATION, END_HEADERS, 1, rest)],
        ),
        one("altsvc", &[frame(10, 0, 0, b"\0\0"), simple(1)]),
        one("origin", &[frame(12, 0, 0, b""), simple(1)]),
        one("priority_update", &[frame(16, 0, 0, &[0, 0, 0, 1, b'u', b'=', b'1']), simple(1)]),
        one(
            "undefined_flags",
            &[frame(HEADERS, END_HEADERS | END_STREAM | 0x52, 1, &get("/", &[])), frame(DATA, 0xf6, 3, b"")],
        ),
        one("reserved_bit", &[frame(HEADERS, END_HEADERS | END_STREAM, 0x8000_0001, &get("/", &[]))]),
        one("data_all_padding", &[open(1, &[]), frame(DATA, PADDED, 1, &[3, 0, 0, 0]), end(1, b"a")]),
        one("empty_last_data", &[open(1, &[]), data(1, b"abc"), end(1, b"")]),
        one("ping_answered_unasked", &[frame(PING, 1, 0, &[9; 8]), simple(1)]),
        one("goaway_and_more", &[goaway(0, 0), simple(1)]),
        one("goaway_error", &[simple(1), goaway(0, 2)]),
        one("goaway_with_text", &[frame(7, 0, 0, b"\0\0\0\0\0\0\0\0bye"), simple(1)]),
        one("reset_no_error", &[open(1, &[]), reset(1, 0), simple(3)]),
        one("reset_unknown_code", &[open(1, &[]), reset(1, 77), simple(3)]),
        one("reset_then_data", &[open(1, &[]), reset(1, 8), data(1, b"abc"), simple(3)]),
        one("reset_then_trailers", &[open(1, &[]), reset(1, 8), trailers(1, &[("x-t", "1")]), simple(3)]),
        talk(
            "data_after_reply",
            row,
            "down",
            vec![hello(&[], &[simple(1)]), Step::Streams(1), send(&[data(1, b"late"), simple(3)]), Step::Streams(2)],
        ),
        talk(
            "head_after_reply",
            row,
            "down",
            vec![hello(&[], &[simple(1)]), Step::Streams(1), send(&[simple(1), simple(3)]), Step::Streams(2)],
        ),
        talk(
            "reset_after_reply",
            row,
            "down",
            vec![hello(&[], &[simple(1)]), Step::Streams(1), send(&[reset(1, 8), simple(3)]), Step::Streams(2)],
        ),
    ]
}

fn messages() -> Vec<Case> {
    let row = "issue: downgrade";
    let on = |listener, name, frames: &[Vec<u8>]| talk(name, row, listener, vec![hello(&[], frames), Step::Streams(1)]);
    let one = |name, frames: &[Vec<u8>]| on("down", name, frames);
    let get = |more: &[(&str, &str)]| head(1, &fields_of("GET", more));
    let cookies: Vec<(&str, &str)> = vec![("cookie", "a=b"); 60];
    let pseudo = |list: &[(&str, &str)]| head(1, &fields(list));
    let odd_path =
        |path: &str| pseudo(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]);
    let at =
        |authority: &str| pseudo(&[(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", "/")]);
    let mut cases = vec![
        one(
            "length_with_trailers_short",
            &[open(1, &[("content-length", "9")]), data(1, b"abc"), trailers(1, &[("x-t", "1")])],
        ),
        one(
            "length_with_trailers",
            &[open(1, &[("content-length", "3")]), data(1, b"abc"), trailers(1, &[("x-t", "1")])],
        ),
        one("length_on_get", &[get(&[("content-length", "0")])]),
        one(
            "length_on_get_with_body",
            &[frame(HEADERS, END_HEADERS, 1, &fields_of("GET", &[("content-length", "2")])), end(1, b"ab")],
        ),
        one("body_on_get", &[frame(HEADERS, END_HEADERS, 1, &fields_of("GET", &[])), end(1, b"ab")]),
        one("length_list", &[open(1, &[("content-length", "3, 3")]), end(1, b"abc")]),
        one("length_plus", &[open(1, &[("content-length", "+3")]), end(1, b"abc")]),
        one("length_space", &[open(1, &[("content-length", " 3")]), end(1, b"abc")]),
        one("length_twice_equal", &[open(1, &[("content-length", "3"), ("content-length", "3")]), end(1, b"abc")]),
        one("length_empty", &[open(1, &[("content-length", "")]), end(1, b"")]),
        one("length_leading_zeros", &[open(1, &[("content-length", "003")]), end(1, b"abc")]),
        one("post_without_body", &[head(1, &fields_of("POST", &[]))]),
        one("post_length_zero", &[head(1, &fields_of("POST", &[("content-length", "0")]))]),
        one("chunked_as_value", &[open(1, &[("x-transfer-encoding", "chunked")]), end(1, b"0\r\n\r\n")]),
        on(
            "lenient",
            "lenient_transfer_encoding",
            &[open(1, &[("transfer-encoding", "chunked")]), end(1, b"0\r\n\r\n"), head(3, &fields_of("GET", &[]))],
        ),
        on(
            "lenient",
            "lenient_short_trailers",
            &[open(1, &[("content-length", "9")]), data(1, b"abc"), trailers(1, &[("x-t", "1")])],
        ),
        one("many_cookies", &[get(&cookies)]),
        one("cookies_of_all_kinds", &[get(&[("cookie", "a=1"), ("cookie", "b=2; c=3"), ("cookie", "")])]),
        one("host_same", &[get(&[("host", "a")])]),
        one("host_other", &[get(&[("host", "b")])]),
        one("te_twice", &[get(&[("te", "trailers"), ("te", "trailers")])]),
        one("te_list", &[get(&[("te", "trailers, deflate")])]),
        one("proxy_connection", &[get(&[("proxy-connection", "close")])]),
        one("http2_settings", &[get(&[("http2-settings", "AAMAAABk")])]),
        one("expect", &[open(1, &[("expect", "100-continue")]), end(1, b"abc")]),
        one("expect_other", &[open(1, &[("expect", "magic")]), end(1, b"abc")]),
        one("authority_port", &[at("a:80")]),
        one("authority_upper", &[at("A.Test")]),
        one("authority_empty", &[at("")]),
        one("authority_v6", &[at("[::1]:80")]),
        one("authority_slash", &[at("a/b")]),
        one(
            "authority_two",
            &[pseudo(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "a"),
                (":authority", "b"),
                (":path", "/"),
            ])],
        ),
        one("path_double_slash", &[odd_path("//x/y")]),
        one("path_dots", &[odd_path("/a/../b")]),
        one("path_absolute", &[odd_path("http://b/x")]),
        one("path_question", &[odd_path("/?a=b?c")]),
        one("path_escapes", &[odd_path("/%2e%2E/%00")]),
        one("path_break", &[odd_path("/a\r\nx: y")]),
        one(
            "method_break",
            &[pseudo(&[
                (":method", "GET / HTTP/1.1\r\nx: y"),
                (":scheme", "http"),
                (":authority", "a"),
                (":path", "/"),
            ])],
        ),
        one("method_lower", &[pseudo(&[(":method", "get"), (":scheme", "http"), (":authority", "a"), (":path", "/")])]),
        one(
            "method_twice",
            &[pseudo(&[
                (":method", "GET"),
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "a"),
                (":path", "/"),
            ])],
        ),
        one("status_in_request", &[get(&[(":status", "200")])]),
        one("value_tab", &[get(&[("x-a", "a\tb")])]),
        one("value_delete", &[get(&[("x-a", "a\x7fb")])]),
        one("value_control", &[get(&[("x-a", "a\x02b")])]),
        one("value_high", &[get(&[("x-a", "\u{e4}")])]),
        one("value_empty", &[get(&[("x-a", "")])]),
        one("two_invalid", &[open(1, &[("X-A", "b")]), open(3, &[("X-A", "b")])]),
    ];
    for (name, listener) in [("trailers_dropped", "down"), ("trailers_kept", "trailers")] {
        cases.push(on(listener, name, &[open(1, &[]), data(1, b"abc"), trailers(1, &[("x-t", "1"), ("x-t", "2")])]));
    }
    for (name, field) in [
        ("trailer_te", ("te", "trailers")),
        ("trailer_connection", ("connection", "close")),
        ("trailer_upper", ("X-T", "1")),
        ("trailer_pseudo", (":path", "/")),
        ("trailer_break", ("x-t", "a\r\nb: c")),
        ("trailer_underscore", ("x_t", "1")),
        ("trailer_transfer_encoding", ("transfer-encoding", "chunked")),
    ] {
        cases.push(on("trailers", name, &[open(1, &[]), data(1, b"abc"), trailers(1, &[field])]));
    }
    cases.push(on("to_h2", "trailers_to_h2", &[open(1, &[]), data(1, b"abc"), trailers(1, &[("x-t", "1")])]));
    cases.push(on("to_h2", "only_trailers_to_h2", &[open(1, &[]), trailers(1, &[("x-t", "1")])]));
    cases.push(on("trailers", "only_trailers", &[open(1, &[]), trailers(1, &[("x-t", "1")])]));
    cases.push(on("trailers", "trailers_empty", &[open(1, &[]), data(1, b"abc"), trailers(1, &[])]));
    cases
}

/// Extended CONNECT, to an upstream that may grant it or not.
fn tunnels() -> Vec<Case> {
    let row = "2.1 allow_connect";
    let ask = |protocol: &str| {
        let usual = [
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "http"),
            (":path", "/c"),
            (":authority", "a"),
        ];
        frame(HEADERS, END_HEADERS, 1, &fields(&usual))
    };
    let plain = || frame(HEADERS, END_HEADERS, 1, &fields(&[(":method", "CONNECT"), (":authority", "a:80")]));
    let answer = |status: &str| frame(HEADERS, END_HEADERS, 1, &fields(&[(":status", status)]));
    let bye = || frame(DATA, END_STREAM, 1, b"bye");
    let list = |asked: Vec<u8>| {
        vec![hello(&[], &[asked]), Step::Pause(Duration::from_millis(80)), send(&[end(1, b"hi")]), Step::Streams(1)]
    };
    let one = |name, asked: Vec<u8>, acts: Vec<Act>| talk(name, row, "tunnel", list(asked)).acts(acts);
    let granting = || settings(&[(8, 1)]);
    vec![
        one(
            "extended_granted",
            ask("websocket"),
            vec![
                Act::Send(granting()),
                Act::Frame(HEADERS),
                Act::Send(answer("200")),
                Act::Frame(DATA),
                Act::Send(bye()),
                Act::Hold,
            ],
        ),
        one(
            "extended_refused",
            ask("websocket"),
            vec![
                Act::Send(granting()),
                Act::Frame(HEADERS),
                Act::Send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[(":status", "403")]))),
                Act::Hold,
            ],
        ),
        one(
            "extended_reset",
            ask("websocket"),
            vec![Act::Send(granting()), Act::Frame(HEADERS), Act::Send(reset(1, 1)), Act::Hold],
        ),
        one(
            "extended_unknown_protocol",
            ask("smtp"),
            vec![Act::Send(granting()), Act::Frame(HEADERS), Act::Send(answer("200")), Act::Hold],
        ),
        one(
            "plain_granted",
            plain(),
            vec![
                Act::Send(settings(&[])),
                Act::Frame(HEADERS),
                Act::Send(answer("200")),
                Act::Frame(DATA),
                Act::Send(bye()),
                Act::Hold,
            ],
        ),
        one(
            "plain_refused",
            plain(),
            vec![
                Act::Send(settings(&[])),
                Act::Frame(HEADERS),
                Act::Send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[(":status", "403")]))),
                Act::Hold,
            ],
        ),
        one(
            "plain_reset",
            plain(),
            vec![Act::Send(settings(&[])), Act::Frame(HEADERS), Act::Send(reset(1, 10)), Act::Hold],
        ),
    ]
}

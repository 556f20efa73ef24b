//! HTTP/2 on either side: what is translated, what is refused, and how.

use h2::Reason;

use super::{clusters, plain, routed};
use crate::manifest::{Area, Case, case, frames as raw, h2, request};
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    fields, frame, get, request as head,
};
use crate::support::h2_client::H2Request;
use crate::support::h2_upstream::Behaviour;

/// The area.
pub fn area() -> Area {
    let to_h2 = r#"{name: all, domains: ["*"], routes: [{name: h2, match: {prefix: "/"}, route: {cluster: h2}}]}"#;
    let listeners = vec![
        plain("down", ""),
        routed("up", "", to_h2),
        routed("up_trailers", "http_protocol_options: {enable_trailers: true}", to_h2),
        plain("no_underscores", "common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}"),
        plain("two_requests", "common_http_protocol_options: {max_requests_per_connection: 2}"),
        plain("small", "max_request_headers_kb: 2"),
        plain("stream_error", "http2_protocol_options: {override_stream_error_on_invalid_http_message: true}"),
        plain("only_http2", "codec_type: HTTP2"),
        plain("few_streams", "http2_protocol_options: {max_concurrent_streams: 2}"),
        plain("few_resets", "http2_protocol_options: {stream_reset_burst: 3, stream_reset_rate: 1}"),
        plain("dropped_underscores", "common_http_protocol_options: {headers_with_underscores_action: DROP_HEADER}"),
        plain("keepalive", "http2_protocol_options: {connection_keepalive: {interval: 0.1s, timeout: 0.1s}}"),
        plain("connect", "upgrade_configs: [{upgrade_type: websocket}], http2_protocol_options: {allow_connect: true}"),
    ];
    let cases = [requests(), upstreams(), frames(), limits()].concat();
    Area { name: "http2", listeners, clusters: clusters(), more: "", cases }
}

fn requests() -> Vec<Case> {
    let one = |name, row, listener, request| h2(name, row, listener, vec![request]);
    let get = || H2Request::get("http://a.test/x?y=1");
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-Mixed-Case: v\r\n\r\nok";
    let mut body = H2Request::post("http://a.test/", "abc");
    body.body.push("def".into());
    vec![
        one("get", "2.4 order of headers", "down", get()).reply(ok).status(200),
        one("post", "2.4 order of headers", "down", body).status(200),
        one(
            "post_with_length",
            "10 content-length disagreement",
            "down",
            H2Request::post("http://a.test/", "abc").header("content-length", "3"),
        )
        .status(200),
        one(
            "length_too_small",
            "10 content-length disagreement",
            "down",
            H2Request::post("http://a.test/", "abcd").header("content-length", "3"),
        ),
        one(
            "length_too_big",
            "10 content-length disagreement",
            "down",
            H2Request::post("http://a.test/", "ab").header("content-length", "3"),
        ),
        one("trailers", "2.1 enable_trailers", "down", H2Request::post("http://a.test/", "abc").trailer("x-t", "1"))
            .status(200),
        one("te_trailers", "2.3 hop-by-hop", "down", get().header("te", "trailers")).status(200),
        one("cookies", "DESIGN 5 cookie crumbs", "down", get().header("cookie", "a=1").header("cookie", "b=2"))
            .status(200),
        one("host_and_authority", "issue: host against :authority", "down", get().header("host", "b.test")),
        one(
            "many_values",
            "2.4 order of headers",
            "down",
            get().header("x-a", "1").header("x-b", "2").header("x-a", "3"),
        )
        .status(200),
        one(
            "expect",
            "2.1 proxy_100_continue",
            "down",
            H2Request::post("http://a.test/", "abc").header("expect", "100-continue"),
        ),
        one("chunked_reply", "2.10 normal", "down", get())
            .reply("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            .status(200),
        one("reply_trailers", "2.1 enable_trailers", "up", get()).h2_upstream(Behaviour::Grpc(0)).status(200),
        one("early_hints", "2.1 1xx", "down", get())
            .reply("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .status(200),
        one("connection_header_in_reply", "2.4 response headers", "down", get())
            .reply("HTTP/1.1 200 OK\r\nconnection: close\r\nkeep-alive: x\r\ncontent-length: 0\r\n\r\n")
            .status(200),
        one("underscore", "2.1 headers_with_underscores_action", "no_underscores", get().header("x_a", "b")),
        one("gone", "2.10 upstream closed", "down", get())
            .acts(vec![crate::support::upstream::Act::Request, crate::support::upstream::Act::Close])
            .status(503),
        one("truncated", "2.10 truncated body", "down", get())
            .reply_and_close("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"),
        one("head", "2.10 HEAD", "down", H2Request { method: "HEAD", ..get() })
            .reply("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
            .status(200),
        one("odd_method", "2.2 unknown method", "down", H2Request { method: "FOO", ..get() }),
        h2("two_requests", "2.1 max_requests_per_connection", "two_requests", vec![get(), get()]),
        h2("one_connection", "3.9 HTTP/2", "up", vec![get(), get(), get()]).status(200),
    ]
}

fn upstreams() -> Vec<Case> {
    let one =
        |name, row, behaviour| h2(name, row, "up", vec![H2Request::get("http://a.test/x")]).h2_upstream(behaviour);
    let h1 = |name, row, behaviour| case(name, row, "up", request("GET", "/x", &[])).h2_upstream(behaviour);
    let grpc = || {
        H2Request::post("http://a.test/s/m", "\0\0\0\0\x01a")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
    };
    vec![
        one("ok", "3.9 HTTP/2", Behaviour::Ok).status(200),
        h1("h1_ok", "3.9 HTTP/2", Behaviour::Ok).status(200),
        case(
            "h1_post",
            "3.9 HTTP/2",
            "up",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        )
        .status(200),
        case(
            "h1_hop_by_hop",
            "2.3 hop-by-hop",
            "up",
            request("GET", "/", &["connection: x-a", "x-a: 1", "keep-alive: 2", "te: trailers", "X-Case: 3"]),
        )
        .status(200),
        case(
            "h1_trailers",
            "2.1 enable_trailers",
            "up_trailers",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
        )
        .h2_upstream(Behaviour::Grpc(3))
        .status(200),
        h1("h1_no_trailers", "2.1 enable_trailers", Behaviour::Grpc(3)).status(200),
        one("reset_refused", "2.10 REFUSED_STREAM", Behaviour::Reset(Reason::REFUSED_STREAM)).status(503),
        one("reset_internal", "2.10 upstream H2 RST_STREAM", Behaviour::Reset(Reason::INTERNAL_ERROR)).status(503),
        one("reset_cancel", "2.10 upstream H2 RST_STREAM", Behaviour::Reset(Reason::CANCEL)).status(503),
        one("reset_protocol", "2.10 upstream H2 RST_STREAM", Behaviour::Reset(Reason::PROTOCOL_ERROR)),
        one("reset_after_head", "2.10 truncated body", Behaviour::ResetAfterHead(Reason::INTERNAL_ERROR)),
        h1("h1_reset", "2.10 upstream H2 RST_STREAM", Behaviour::Reset(Reason::INTERNAL_ERROR)).status(503),
        h1("h1_reset_after_head", "2.10 truncated body", Behaviour::ResetAfterHead(Reason::INTERNAL_ERROR)),
        h2("goaway", "3.9 GOAWAY", "up", vec![H2Request::get("http://a.test/1"), H2Request::get("http://a.test/2")])
            .h2_upstream(Behaviour::GoAway)
            .status(200),
        one("reply_204", "2.10 normal", Behaviour::Reply(204, vec![], "")).status(204),
        one("reply_length", "2.10 normal", Behaviour::Reply(200, vec![("content-length", "3"), ("x-a", "1")], "abc"))
            .status(200),
        one(
            "reply_wrong_length",
            "10 content-length disagreement",
            Behaviour::Reply(200, vec![("content-length", "9")], "abc"),
        ),
        h1(
            "h1_reply_wrong_length",
            "10 content-length disagreement",
            Behaviour::Reply(200, vec![("content-length", "9")], "abc"),
        ),
        h2("grpc", "2.10 gRPC", "up", vec![grpc()]).h2_upstream(Behaviour::Grpc(0)).status(200),
        h2("grpc_error", "2.10 gRPC", "up", vec![grpc()]).h2_upstream(Behaviour::Grpc(5)).status(200),
        h2("grpc_trailers_only", "2.10 gRPC", "up", vec![grpc()]).h2_upstream(Behaviour::TrailersOnly(7)).status(200),
        h2("grpc_reset", "2.10 gRPC", "up", vec![grpc()])
            .h2_upstream(Behaviour::Reset(Reason::INTERNAL_ERROR))
            .status(200),
        h2("echo_trailers", "2.10 normal", "up", vec![H2Request::post("http://a.test/", "abc").trailer("x-t", "v")])
            .h2_upstream(Behaviour::Echo)
            .status(200),
    ]
}

fn frames() -> Vec<Case> {
    let down = |name, row, bytes: &[Vec<u8>]| raw(name, row, "down", bytes);
    let one = |name, row, block: Vec<u8>| raw(name, row, "down", &[head(1, &block)]);
    let with = |more: &[(&str, &str)]| get("/", more);
    let pseudo = |list: &[(&str, &str)]| fields(list);
    let post = |more: &[(&str, &str)]| {
        fields(&[&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")], more].concat())
    };
    let open = || frame(HEADERS, END_HEADERS, 1, &post(&[]));
    vec![
        one("plain", "2.1 codec_type", with(&[])),
        one("uppercase_name", "2.10 http2.*", with(&[("X-A", "b")])),
        one("connection_field", "2.10 http2.*", with(&[("connection", "close")])),
        one("keep_alive_field", "2.10 http2.*", with(&[("keep-alive", "1")])),
        one("transfer_encoding", "10 smuggling", with(&[("transfer-encoding", "chunked")])),
        one("upgrade_field", "10 smuggling", with(&[("upgrade", "websocket")])),
        one("te_gzip", "2.10 http2.*", with(&[("te", "gzip")])),
        one("nul_in_value", "10 header value confusion", with(&[("x-a", "b\0c")])),
        one("newline_in_value", "10 header value confusion", with(&[("x-a", "b\nc: d")])),
        one("return_in_value", "10 header value confusion", with(&[("x-a", "b\rc")])),
        one("space_around_value", "10 header value confusion", with(&[("x-a", " b ")])),
        one("space_in_name", "10 header value confusion", with(&[("x a", "b")])),
        one("empty_name", "10 header value confusion", with(&[("", "b")])),
        one("colon_in_name", "10 header value confusion", with(&[("x:a", "b")])),
        one(
            "pseudo_after_field",
            "2.10 http2.*",
            pseudo(&[(":method", "GET"), ("x-a", "b"), (":scheme", "http"), (":path", "/"), (":authority", "a")]),
        ),
        one("unknown_pseudo", "2.10 http2.*", with(&[(":x", "b")])),
        one(
            "two_paths",
            "2.10 http2.*",
            pseudo(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":path", "/b"), (":authority", "a")]),
        ),
        one("no_path", "2.10 missing :path", pseudo(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")])),
        one(
            "empty_path",
            "2.10 missing :path",
            pseudo(&[(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "a")]),
        ),
        one(
            "relative_path",
            "2.10 missing :path",
            pseudo(&[(":method", "GET"), (":scheme", "http"), (":path", "x"), (":authority", "a")]),
        ),
        one(
            "star_path",
            "2.2 OPTIONS *",
            pseudo(&[(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "a")]),
        ),
        one("space_in_path", "2.2 GET ok", get("/a b", &[])),
        one("fragment", "2.2 fragment", get("/a#b", &[])),
        one("control_in_path", "2.2 GET ok", get("/a\x01b", &[])),
        one("no_method", "2.10 http2.*", pseudo(&[(":scheme", "http"), (":path", "/"), (":authority", "a")])),
        one(
            "bad_method",
            "2.2 bad token in method",
            pseudo(&[(":method", "G T"), (":scheme", "http"), (":path", "/"), (":authority", "a")]),
        ),
        one("no_scheme", "2.10 http2.*", pseudo(&[(":method", "GET"), (":path", "/"), (":authority", "a")])),
        one(
            "odd_scheme",
            "10 scheme case",
            pseudo(&[(":method", "GET"), (":scheme", "ftp"), (":path", "/"), (":authority", "a")]),
        ),
        one(
            "scheme_case",
            "10 scheme case",
            pseudo(&[(":method", "GET"), (":scheme", "HTTP"), (":path", "/"), (":authority", "a")]),
        ),
        one(
            "https_scheme",
            "10 scheme case",
            pseudo(&[(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a")]),
        ),
        one("no_authority", "2.2 missing Host", pseudo(&[(":method", "GET"), (":scheme", "http"), (":path", "/")])),
        one(
            "host_only",
            "2.2 missing Host",
            pseudo(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "h.test")]),
        ),
        one(
            "authority_userinfo",
            "issue: userinfo",
            pseudo(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "u@a")]),
        ),
        one(
            "authority_space",
            "issue: userinfo",
            pseudo(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a b")]),
        ),
        one("two_hosts", "issue: host against :authority", with(&[("host", "b"), ("host", "c")])),
        one("two_lengths", "10 content-length disagreement", with(&[("content-length", "0"), ("content-length", "1")])),
        one("bad_length", "10 content-length disagreement", with(&[("content-length", "x")])),
        one("length_without_body", "10 content-length disagreement", post(&[("content-length", "5")])),
        one("plain_connect", "2.2 CONNECT without config", pseudo(&[(":method", "CONNECT"), (":authority", "a:80")])),
        one(
            "extended_connect_off",
            "2.1 allow_connect",
            pseudo(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "a"),
            ]),
        ),
        raw(
            "header_list_too_big",
            "2.1 max_request_headers_kb",
            "small",
            &[head(1, &with(&[("x-big", &"a".repeat(3000))]))],
        ),
        down("too_many_headers", "2.1 max_headers_count", &[head(1, &with(&[("x-a", "b"); 120]))]),
        raw(
            "stream_error_kept",
            "2.1 override_stream_error_on_invalid_http_message",
            "stream_error",
            &[head(1, &with(&[("X-A", "b")]))],
        ),
        raw(
            "underscore_frame",
            "2.1 headers_with_underscores_action",
            "no_underscores",
            &[head(1, &with(&[("x_a", "b")]))],
        ),
        down("even_stream", "RFC 9113 5.1.1", &[head(2, &with(&[]))]),
        down("stream_zero", "RFC 9113 6.2", &[head(0, &with(&[]))]),
        down("data_on_idle", "RFC 9113 5.1", &[frame(DATA, 0, 1, b"abc")]),
        down("continuation_alone", "RFC 9113 6.10", &[frame(CONTINUATION, END_HEADERS, 1, b"")]),
        down(
            "frame_inside_block",
            "RFC 9113 6.10",
            &[frame(HEADERS, END_STREAM, 1, &with(&[])), frame(PING, 0, 0, &[0; 8])],
        ),
        down(
            "continued",
            "RFC 9113 6.10",
            &[frame(HEADERS, END_STREAM, 1, &with(&[])), frame(CONTINUATION, END_HEADERS, 1, &fields(&[("x-a", "b")]))],
        ),
        down("bad_ping_length", "RFC 9113 6.7", &[frame(PING, 0, 0, &[0; 7])]),
        down("bad_settings_length", "RFC 9113 6.5", &[frame(SETTINGS, 0, 0, &[0; 5])]),
        down("window_of_zero", "RFC 9113 6.9", &[frame(WINDOW_UPDATE, 0, 0, &[0; 4])]),
        down("window_overflow", "RFC 9113 6.9", &[frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])]),
        down("bad_hpack", "RFC 9113 4.3", &[head(1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff])]),
        down("reset_idle", "RFC 9113 6.4", &[frame(RST_STREAM, 0, 1, &[0; 4])]),
        down("self_dependency", "RFC 9113 5.3", &[frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]), head(1, &with(&[]))]),
        down("frame_too_big", "RFC 9113 4.2", &[open(), frame(DATA, END_STREAM, 1, &vec![b'a'; 20_000])]),
        down("unknown_frame", "RFC 9113 4.1", &[frame(0x42, 0, 0, b"x"), head(1, &with(&[]))]),
        down(
            "trailers_with_pseudo",
            "issue: forbidden trailers",
            &[open(), frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(&[(":path", "/")]))],
        ),
        down(
            "trailers_without_end",
            "10 SETTINGS / GOAWAY / reset state bugs",
            &[open(), frame(HEADERS, END_HEADERS, 1, &fields(&[("x-t", "1")]))],
        ),
        down("padded_data", "RFC 9113 6.1", &[open(), frame(DATA, END_STREAM | 8, 1, b"\x02ab\0\0")]),
        down("too_much_padding", "RFC 9113 6.1", &[open(), frame(DATA, END_STREAM | 8, 1, b"\x09ab")]),
        down("data_after_end", "RFC 9113 5.1", &[head(1, &post(&[])), frame(DATA, END_STREAM, 1, b"late")]),
        down(
            "empty_data_flood",
            "2.1 max_consecutive_inbound_frames_with_empty_payload",
            &[open(), frame(DATA, 0, 1, b""), frame(DATA, 0, 1, b""), frame(DATA, 0, 1, b"")],
        ),
    ]
}

/// Floods and other limits.
fn limits() -> Vec<Case> {
    let many = |n: usize, bytes: Vec<u8>| vec![bytes; n];
    let row = "2.1 floods";
    let down = |name, frames: &[Vec<u8>]| raw(name, row, "down", frames);
    let at = |name, listener, frames: &[Vec<u8>]| raw(name, row, listener, frames);
    let simple = |stream| head(stream, &get("/", &[]));
    let cancel = |stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    let post = fields(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")]);
    let unfinished = |stream| frame(HEADERS, END_HEADERS, stream, &post);
    let window = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    let long = "c".repeat(15_000);
    let in_pieces = |field| {
        let more = |flags| frame(CONTINUATION, flags, 1, &fields(&[field]));
        vec![frame(HEADERS, END_STREAM, 1, &get("/", &[field])), more(0), more(0), more(0), more(END_HEADERS)]
    };
    let streams = |n: u32| (0..n).map(|i| 2 * i + 1);
    vec![
        case("http1_to_http2", row, "only_http2", request("GET", "/", &[])),
        at("http2_to_http2", "only_http2", &[simple(1)]),
        down("priorities", &[many(100, frame(PRIORITY, 0, 1, &[0; 5])), vec![simple(1)]].concat()),
        down("priority_flood", &[vec![unfinished(1)], many(201, frame(PRIORITY, 0, 1, &[0; 5]))].concat()),
        down("window_updates", &[many(5, window.clone()), vec![simple(1)]].concat()),
        down("window_update_flood", &[vec![unfinished(1)], many(8, window)].concat()),
        down("ping_flood", &[vec![unfinished(1)], many(1_001, frame(PING, 0, 0, &[0; 8]))].concat()),
        down("settings_flood", &[vec![unfinished(1)], many(1_001, frame(SETTINGS, 0, 0, &[]))].concat()),
        down(
            "continuation_flood",
            &[vec![frame(HEADERS, 0, 1, &post)], many(20, frame(CONTINUATION, 0, 1, &fields(&[("x", "y")])))].concat(),
        ),
        down(
            "empty_continuations",
            &[vec![frame(HEADERS, 0, 1, &post)], many(3, frame(CONTINUATION, 0, 1, b""))].concat(),
        ),
        at("reset_burst", "few_resets", &streams(5).flat_map(|s| [unfinished(s), cancel(s)]).collect::<Vec<_>>()),
        down("premature_resets", &streams(300).flat_map(|s| [unfinished(s), cancel(s)]).collect::<Vec<_>>()),
        at("too_many_streams", "few_streams", &[unfinished(1), unfinished(3), unfinished(5)]),
        at(
            "too_many_streams_settled",
            "few_streams",
            &[frame(SETTINGS, 1, 0, &[]), unfinished(1), unfinished(3), unfinished(5)],
        ),
        down("unexpected_settings_answer", &[frame(SETTINGS, 1, 0, &[]), frame(SETTINGS, 1, 0, &[])]),
        down("many_settings", &[frame(SETTINGS, 0, 0, &[0; 6 * 33])]),
        down("cookies_too_large", &in_pieces(("cookie", &long))),
        down("fields_too_large", &in_pieces(("x-a", &long))),
        down("cookie_crumbs", &[head(1, &get("/", &[("cookie", "a=b"); 120]))]),
        down("depends_on_itself", &[frame(HEADERS, 0x25, 1, &[&[0, 0, 0, 1, 0], &get("/", &[])[..]].concat())]),
        at("dropped_underscore", "dropped_underscores", &[head(1, &get("/", &[("x_a", "b"), ("x-b", "c")]))]),
        at("huge_field", "small", &[head(1, &get("/", &[("x-big", &"a".repeat(14_000))]))]),
        at("bad_value_kept", "stream_error", &[head(1, &get("/", &[("x-a", "b\0c")])), head(3, &get("/", &[]))]),
        at("unfinished_kept", "stream_error", &[head(1, &fields(&[(":method", "GET")])), simple(3)]),
        at(
            "trailers_kept",
            "stream_error",
            &[unfinished(1), frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(&[(":path", "/")])), simple(3)],
        ),
        at("silent_client", "keepalive", &[unfinished(1)]),
        down("reset_by_client", &[unfinished(1), cancel(1)]),
        down("refused_by_client", &[unfinished(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 7])]),
        down("goaway_by_client", &[simple(1), frame(GOAWAY, 0, 0, &[0; 8])]),
        down("push_promise", &[frame(5, END_HEADERS, 1, &[0, 0, 0, 2])]),
        down("stale_headers", &[simple(3), simple(1)]),
    ]
}

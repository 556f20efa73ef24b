//! Reference 2.2: what a connection manager accepts and refuses, byte by byte.

use super::{clusters, plain};
use crate::manifest::{Area, Case, Step, case, get, request, steps};

/// The area.
pub fn area() -> Area {
    let listeners = vec![
        plain("usual", ""),
        plain("h1", "codec_type: HTTP1"),
        plain("h10", r#"http_protocol_options: {accept_http_10: true, default_host_for_http_10: "ten.test"}"#),
        plain("both_lengths", "http_protocol_options: {allow_chunked_length: true}"),
        plain("trailers", "http_protocol_options: {enable_trailers: true}"),
        plain("keep_open", "stream_error_on_invalid_http_message: true"),
        plain("small", "max_request_headers_kb: 1"),
        plain("few", "common_http_protocol_options: {max_headers_count: 5}"),
        plain("no_underscores", "common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}"),
        plain("drop_underscores", "common_http_protocol_options: {headers_with_underscores_action: DROP_HEADER}"),
        plain("relative", "http_protocol_options: {allow_absolute_url: false}"),
        plain(
            "case_kept",
            r#"http_protocol_options: {header_key_format: {stateful_formatter: {name: preserve_case, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}}}}"#,
        ),
        plain("proper_case", "http_protocol_options: {header_key_format: {proper_case_words: {}}}"),
        plain("custom_methods", "http_protocol_options: {allow_custom_methods: true}"),
    ];
    let mut cases = refused();
    cases.extend(accepted());
    cases.extend(options());
    Area { name: "http1_requests", listeners, clusters: clusters(), more: "", cases }
}

/// One request line and header block with a body, as it is.
fn raw(name: &'static str, row: &'static str, bytes: &str) -> Case {
    case(name, row, "usual", bytes)
}

fn refused() -> Vec<Case> {
    vec![
        raw("missing_host", "2.2 missing Host", "GET /ok HTTP/1.1\r\n\r\n").status(400),
        raw("http_10", "2.2 HTTP/1.0", "GET /ok HTTP/1.0\r\nhost: a\r\n\r\n").status(426),
        raw("http_09", "2.2 HTTP/1.0", "GET /ok\r\n\r\n"),
        raw("http_12", "2.2 HTTP/1.0", "GET /ok HTTP/1.2\r\nhost: a\r\n\r\n"),
        raw("http_20", "2.2 HTTP/1.0", "GET /ok HTTP/2.0\r\nhost: a\r\n\r\n"),
        raw("lowercase_version", "2.2 HTTP/1.0", "GET /ok http/1.1\r\nhost: a\r\n\r\n"),
        raw("unknown_method", "2.2 unknown method", "FOO /ok HTTP/1.1\r\nhost: a\r\n\r\n").status(400),
        raw("bad_method", "2.2 bad token in method", "GE(T /ok HTTP/1.1\r\nhost: a\r\n\r\n").status(400),
        raw("lowercase_method", "2.2 unknown method", "get /ok HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw("no_slash", "2.2 GET ok", "GET ok HTTP/1.1\r\nhost: a\r\n\r\n").status(400),
        raw("two_spaces", "2.2 GET ok", "GET  /ok HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw("space_in_path", "2.2 GET ok", "GET /o k HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw("control_in_path", "2.2 GET ok", "GET /o\x01k HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw("high_byte_in_path", "2.2 GET ok", "GET /\u{e4} HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw(
            "length_and_chunked",
            "2.2 CL+TE",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        )
        .status(400),
        raw(
            "chunked_and_length",
            "2.2 CL+TE",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
        )
        .status(400),
        raw(
            "length_twice_equal",
            "2.2 dup CL",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        )
        .status(400),
        raw(
            "length_twice",
            "2.2 dup CL",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        )
        .status(400),
        raw("length_list", "2.2 dup CL", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc"),
        raw("length_letters", "2.2 invalid CL", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: abc\r\n\r\nabc")
            .status(400),
        raw("length_negative", "2.2 invalid CL", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n")
            .status(400),
        raw("length_plus", "2.2 invalid CL", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc"),
        raw(
            "length_huge",
            "2.2 invalid CL",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\nabc",
        )
        .status(400),
        raw("length_empty", "2.2 invalid CL", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n"),
        raw("length_hex", "2.2 invalid CL", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x3\r\n\r\nabc"),
        raw("space_before_colon", "2.2 space before colon", "GET / HTTP/1.1\r\nhost: a\r\nx-a : b\r\n\r\n").status(400),
        raw("tab_before_colon", "2.2 space before colon", "GET / HTTP/1.1\r\nhost: a\r\nx-a\t: b\r\n\r\n"),
        raw("empty_name", "2.2 space before colon", "GET / HTTP/1.1\r\nhost: a\r\n: b\r\n\r\n"),
        raw("name_with_bracket", "2.2 space before colon", "GET / HTTP/1.1\r\nhost: a\r\nx(a: b\r\n\r\n"),
        raw("no_colon", "2.2 space before colon", "GET / HTTP/1.1\r\nhost: a\r\nnonsense\r\n\r\n"),
        raw("first_line_folded", "2.2 obs-fold", "GET / HTTP/1.1\r\n x: y\r\nhost: a\r\n\r\n"),
        raw(
            "chunk_letters",
            "2.2 bad chunk size",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        )
        .status(400),
        raw(
            "chunk_negative",
            "2.2 bad chunk size",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
        ),
        raw(
            "chunk_overflow",
            "2.2 bad chunk size",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        ),
        raw(
            "chunk_empty_size",
            "2.2 bad chunk size",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n",
        ),
        raw(
            "chunk_no_end",
            "2.2 bad chunk size",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n",
        ),
        raw("te_identity", "2.2 TE identity", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n")
            .status(501),
        raw(
            "te_twice_chunked",
            "2.2 TE chunked, chunked",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        )
        .status(501),
        raw(
            "te_two_lines",
            "2.2 TE chunked, chunked",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        raw(
            "te_gzip_chunked",
            "2.2 TE unknown coding",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        )
        .status(501),
        raw("te_gzip", "2.2 TE unknown coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n")
            .status(501),
        raw(
            "te_uppercase",
            "2.2 TE unknown coding",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        raw(
            "te_vertical_tab",
            "2.2 TE unknown coding",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        ),
        raw(
            "te_on_get",
            "2.2 TE unknown coding",
            "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        raw("nul_in_value", "2.2 NUL in value", "GET / HTTP/1.1\r\nhost: a\r\nx-a: b\0c\r\n\r\n").status(400),
        raw("control_in_value", "2.2 NUL in value", "GET / HTTP/1.1\r\nhost: a\r\nx-a: b\x01c\r\n\r\n"),
        raw("delete_in_value", "2.2 NUL in value", "GET / HTTP/1.1\r\nhost: a\r\nx-a: b\x7fc\r\n\r\n"),
        raw("options_star", "2.2 OPTIONS *", "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").status(404),
        raw("connect", "2.2 CONNECT without config", "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n")
            .status(404)
            .methods(&["CONNECT"]),
        raw("connect_no_port", "2.2 CONNECT without config", "CONNECT a HTTP/1.1\r\nhost: a\r\n\r\n")
            .methods(&["CONNECT"]),
        raw("fragment", "2.2 fragment", "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n").status(400),
        raw("bad_host", "2.2 missing Host", "GET / HTTP/1.1\r\nhost: a b\r\n\r\n"),
        raw("host_userinfo", "2.2 missing Host", "GET / HTTP/1.1\r\nhost: user@a\r\n\r\n"),
        raw("empty_host", "2.2 missing Host", "GET / HTTP/1.1\r\nhost:\r\n\r\n"),
        raw("garbage", "2.2 bad token in method", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
        case(
            "headers_too_large",
            "2.2 header block > 60 KiB",
            "usual",
            request("GET", "/", &[&format!("x-big: {}", "a".repeat(62_000))]),
        )
        .status(431),
        case(
            "many_small_too_large",
            "2.2 header block > 60 KiB",
            "usual",
            request("GET", "/", &vec![format!("x-pad: {}", "a".repeat(700)).as_str(); 95]),
        ),
        case(
            "path_too_large",
            "2.2 header block > 60 KiB",
            "usual",
            request("GET", &format!("/{}", "a".repeat(62_000)), &[]),
        ),
        case("hundred_headers", "2.1 max_headers_count", "usual", request("GET", "/", &vec!["x-a: b"; 99])),
        case("hundred_and_one_headers", "2.1 max_headers_count", "usual", request("GET", "/", &vec!["x-a: b"; 100])),
    ]
}

fn accepted() -> Vec<Case> {
    let two = |first: &str, second: &str| vec![Step::Send(first.into()), Step::Send(second.into()), Step::Responses(1)];
    vec![
        raw("simple", "2.4 order of headers", "GET /ok HTTP/1.1\r\nhost: a\r\n\r\n").status(200),
        raw("bare_cr", "2.2 bare CR inside value", "GET / HTTP/1.1\r\nhost: a\r\nx-a: b\rc\r\n\r\n"),
        raw("obs_fold", "2.2 obs-fold", "GET / HTTP/1.1\r\nhost: a\r\nx-a: b\r\n  c\r\n\r\n").status(200),
        raw("obs_fold_tab", "2.2 obs-fold", "GET / HTTP/1.1\r\nhost: a\r\nx-a: b\r\n\tc\r\n\td\r\n\r\n").status(200),
        raw("bare_lf", "2.2 bare LF line ends", "GET / HTTP/1.1\nhost: a\nx-a: b\n\n").status(200),
        raw("mixed_line_ends", "2.2 bare LF line ends", "GET / HTTP/1.1\r\nhost: a\nx-a: b\r\n\n").status(200),
        raw("bare_lf_in_chunks", "2.2 bare LF line ends", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\n0\n\n"),
        raw("duplicate_host", "2.2 duplicate Host", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").status(200),
        raw("duplicate_host_equal", "2.2 duplicate Host", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"),
        raw("leading_empty_lines", "2.2 bare LF line ends", "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n").status(200),
        raw("spaces_around_value", "2.2 obs-fold", "GET / HTTP/1.1\r\nhost: a\r\nx-a:   b c \t \r\nx-b:\r\nx-c: \r\n\r\n").status(200),
        raw("high_bytes_in_value", "2.2 NUL in value", "GET / HTTP/1.1\r\nhost: a\r\nx-a: \u{e4}\u{f6}\r\n\r\n").status(200),
        raw("duplicates_kept_in_order", "2.4 order of headers", "GET / HTTP/1.1\r\nX-B: 1\r\nhost: a\r\nx-a: 2\r\nx-b: 3\r\ncookie: a=1\r\ncookie: b=2\r\n\r\n").status(200),
        raw("absolute_form", "2.1 allow_absolute_url", "GET http://other.test/x?y=1 HTTP/1.1\r\nhost: a\r\n\r\n").status(200),
        raw("absolute_form_port", "2.1 allow_absolute_url", "GET http://other.test:8080 HTTP/1.1\r\nhost: a\r\n\r\n").status(200),
        raw("absolute_form_https", "2.1 allow_absolute_url", "GET https://other.test/x HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw("absolute_form_userinfo", "2.1 allow_absolute_url", "GET http://u:p@other.test/x HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw("absolute_form_ftp", "2.1 allow_absolute_url", "GET ftp://other.test/x HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw("absolute_form_uppercase", "2.1 allow_absolute_url", "GET HTTP://OTHER.test/x HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw("chunked", "2.2 bad chunk size", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").status(200),
        raw("chunk_extension", "2.2 bad chunk size", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0;c\r\n\r\n"),
        raw("chunk_leading_zeros", "2.2 bad chunk size", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0003\r\nabc\r\n000\r\n\r\n"),
        raw("trailers_dropped", "2.1 enable_trailers", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: v\r\n\r\n").status(200),
        raw("length_zero", "2.2 invalid CL", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").status(200),
        raw("length_leading_zeros", "2.2 invalid CL", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 003\r\n\r\nabc"),
        raw("post_without_length", "2.2 invalid CL", "POST / HTTP/1.1\r\nhost: a\r\n\r\n").status(200),
        raw("get_with_body", "2.2 CL+TE", "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").status(200),
        raw("delete", "2.2 unknown method", "DELETE / HTTP/1.1\r\nhost: a\r\n\r\n").status(200),
        raw("patch", "2.2 unknown method", "PATCH / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx").status(200),
        raw("trace", "2.2 unknown method", "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw("propfind", "2.2 unknown method", "PROPFIND / HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw("connection_close", "2.3 hop-by-hop", "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").status(200),
        raw("connection_close_case", "2.3 hop-by-hop", "GET / HTTP/1.1\r\nhost: a\r\nConnection: Close\r\n\r\n").status(200),
        raw("hop_by_hop", "2.3 hop-by-hop", "GET / HTTP/1.1\r\nhost: a\r\nconnection: x-a, keep-alive\r\nx-a: 1\r\nkeep-alive: timeout=1\r\nproxy-connection: x\r\nte: gzip\r\n\r\n"),
        raw("te_trailers", "2.3 hop-by-hop", "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n").status(200),
        raw("te_list", "2.3 hop-by-hop", "GET / HTTP/1.1\r\nhost: a\r\nte: gzip, trailers;q=0.5\r\n\r\n").status(200),
        raw("connection_names_host", "2.10 connection_header_rejected", "GET / HTTP/1.1\r\nhost: a\r\nconnection: host\r\n\r\n"),
        raw("connection_names_xff", "2.10 connection_header_rejected", "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.2.3.4\r\nconnection: x-forwarded-for\r\n\r\n"),
        raw("head", "2.10 HEAD", "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").methods(&["HEAD"]).reply("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").status(200),
        raw("options", "2.2 OPTIONS *", "OPTIONS /x HTTP/1.1\r\nhost: a\r\n\r\n").status(200),
        raw("query", "2.2 GET ok", "GET /a?b=c&d=%20e?f HTTP/1.1\r\nhost: a\r\n\r\n").status(200),
        steps("pipelined", "2.2 pipelining", "usual", vec![
            Step::Send([request("GET", "/1", &[]), request("GET", "/2", &[]), request("GET", "/3", &["connection: close"])].concat()),
            Step::Responses(3),
        ]).status(200),
        steps("pipelined_with_body", "2.2 pipelining", "usual", vec![
            Step::Send(b"POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
            Step::Responses(2),
        ]).status(200),
        steps("pipelined_then_bad", "2.2 pipelining", "usual", vec![
            Step::Send([request("GET", "/1", &[]), b"BAD\r\n\r\n".to_vec()].concat()), Step::Responses(2),
        ]).status(400),
        steps("split_in_line_end", "2.2 bare LF line ends", "usual", two("GET / HTTP/1.1\r\nhost: a\r", "\n\r\n")).status(200),
        steps("split_in_name", "2.2 bare LF line ends", "usual", two("GET / HTTP/1.1\r\nho", "st: a\r\n\r\n")).status(200),
        steps("split_in_chunk_size", "2.2 bad chunk size", "usual", two("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1", "0\r\n0123456789abcdef\r\n0\r\n\r\n")).status(200),
        steps("byte_by_byte", "2.2 bare LF line ends", "usual", {
            let mut steps: Vec<Step> = request("GET", "/slow", &["x-a: b"]).iter().map(|byte| Step::Send(vec![*byte])).collect();
            steps.push(Step::Responses(1));
            steps
        }).status(200),
        steps("half_close_after_request", "4.4 half-close", "usual", vec![Step::Send(request("GET", "/", &[])), Step::HalfClose, Step::Responses(1)]),
        steps("half_close_in_head", "4.4 half-close", "usual", vec![Step::Send(b"GET / HT".to_vec()), Step::HalfClose, Step::End]),
        steps("half_close_in_body", "4.4 half-close", "usual", vec![Step::Send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc".to_vec()), Step::HalfClose, Step::End]),
        steps("close_at_once", "4.4 half-close", "usual", vec![]),
        steps("expect_continue", "2.1 proxy_100_continue", "usual", vec![
            Step::Send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n".to_vec()), Step::Until("100 Continue"), Step::Send(b"abc".to_vec()), Step::Responses(1),
        ]).status(200),
        steps("expect_continue_body_sent", "2.1 proxy_100_continue", "usual", vec![
            Step::Send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc".to_vec()), Step::Responses(1),
        ]).status(200),
        raw("expect_other", "2.1 proxy_100_continue", "GET / HTTP/1.1\r\nhost: a\r\nexpect: tea\r\n\r\n"),
        raw("upgrade_websocket", "2.1 upgrade_configs", "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").status(403),
        raw("upgrade_h2c", "2.1 upgrade h2c", "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n").status(200),
        raw("upgrade_without_connection", "2.1 upgrade_configs", "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n"),
    ]
}

fn options() -> Vec<Case> {
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: v\r\n\r\n";
    vec![
        case("http10_close", "2.1 accept_http_10", "h10", "GET / HTTP/1.0\r\n\r\n").status(200),
        case("http10_host", "2.1 accept_http_10", "h10", "GET / HTTP/1.0\r\nhost: b\r\n\r\n").status(200),
        case("http10_keep_alive", "2.1 accept_http_10", "h10", "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            .status(200),
        case("http10_chunked_reply", "2.1 accept_http_10", "h10", "GET / HTTP/1.0\r\n\r\n")
            .reply("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            .status(200),
        case(
            "http10_chunked_request",
            "2.1 accept_http_10",
            "h10",
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        case("http11_on_h10", "2.1 accept_http_10", "h10", "GET / HTTP/1.1\r\n\r\n"),
        case(
            "allow_chunked_length",
            "2.1 allow_chunked_length",
            "both_lengths",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        case("trailers_kept", "2.1 enable_trailers", "trailers", chunked).status(200),
        case("response_trailers_kept", "2.1 enable_trailers", "trailers", request("GET", "/", &[]))
            .reply("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: v\r\n\r\n")
            .status(200),
        case(
            "forbidden_trailers",
            "2.1 enable_trailers",
            "trailers",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\ncontent-length: 5\r\nhost: b\r\n\r\n",
        ),
        case("keep_open_missing_host", "2.1 stream_error_on_invalid", "keep_open", "GET / HTTP/1.1\r\n\r\n")
            .status(400),
        case("keep_open_bad_method", "2.1 stream_error_on_invalid", "keep_open", "G(T / HTTP/1.1\r\nhost: a\r\n\r\n")
            .status(400),
        case(
            "small_fits",
            "2.1 max_request_headers_kb",
            "small",
            request("GET", "/", &[&format!("x-big: {}", "a".repeat(800))]),
        )
        .status(200),
        case(
            "small_exceeded",
            "2.1 max_request_headers_kb",
            "small",
            request("GET", "/", &[&format!("x-big: {}", "a".repeat(1100))]),
        )
        .status(431),
        case("few_fit", "2.1 max_headers_count", "few", request("GET", "/", &["x-a: 1", "x-b: 2", "x-c: 3", "x-d: 4"]))
            .status(200),
        case(
            "few_exceeded",
            "2.1 max_headers_count",
            "few",
            request("GET", "/", &["x-a: 1", "x-b: 2", "x-c: 3", "x-d: 4", "x-e: 5"]),
        )
        .status(431),
        case(
            "few_trailers",
            "2.1 max_headers_count",
            "few",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: 1\r\nb: 1\r\nc: 1\r\nd: 1\r\ne: 1\r\nf: 1\r\n\r\n",
        ),
        get("underscore_allowed", "2.1 headers_with_underscores_action", "usual", "/", &["x_a: b"]).status(200),
        get("underscore_rejected", "2.1 headers_with_underscores_action", "no_underscores", "/", &["x_a: b"])
            .status(400),
        get(
            "underscore_dropped",
            "2.1 headers_with_underscores_action",
            "drop_underscores",
            "/",
            &["x_a: b", "x-c: d"],
        )
        .status(200),
        case(
            "absolute_not_allowed",
            "2.1 allow_absolute_url",
            "relative",
            "GET http://other.test/x HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        get("case_kept", "2.1 header_key_format", "case_kept", "/", &["X-Aa: b", "x-BB: c"])
            .reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Reply-ID: 1\r\n\r\n")
            .status(200),
        get("proper_case", "2.1 header_key_format", "proper_case", "/", &["X-aa: b"])
            .reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Reply-ID: 1\r\n\r\n")
            .status(200),
        case("custom_method", "2.1 allow_custom_methods", "custom_methods", "FOO / HTTP/1.1\r\nhost: a\r\n\r\n")
            .status(200),
        case(
            "custom_method_bad_token",
            "2.1 allow_custom_methods",
            "custom_methods",
            "F(O / HTTP/1.1\r\nhost: a\r\n\r\n",
        )
        .status(400),
        case("preface_on_http1", "2.1 codec_type", "h1", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ]
}

//! Verdicts on sequences of frames, as the real Envoy gives them.

use std::sync::Arc;

use super::frame::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HAS_PRIORITY, HEADERS, PADDED, PING, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use super::*;
use crate::config::hcm::Underscores;

const SILENT: Option<(u32, Reason)> = None;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals that enter the table, so that the next block finds them there.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0x40], text(name), text(value)].concat()).collect()
}

fn with(more: &[(&str, &str)]) -> Vec<u8> {
    fields(&[&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")], more].concat())
}

fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &with(&[]))
}

fn start() -> Vec<u8> {
    [inbound::PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat()
}

fn inspector(change: impl FnOnce(&mut Http2Options, &mut crate::config::http2::Http2Options)) -> Inspector {
    let (mut options, mut protocol) = (Http2Options::default(), crate::config::http2::Http2Options::default());
    change(&mut options, &mut protocol);
    Inspector::new(Role::Server, &Http2Options { protocol: Arc::new(protocol), ..options })
}

/// What a server makes of these frames behind an orderly start; also, how many bytes of them its codec saw.
fn judged(frames: &[Vec<u8>]) -> (Option<Fault>, usize) {
    let mut inspector = inspector(|_, _| {});
    assert_eq!(inspector.received(&mut start()), start().len());
    let seen = inspector.received(&mut frames.concat());
    (inspector.fault().copied(), seen)
}

#[test]
fn breaches_end_the_connection_as_in_envoy() {
    let goaway = |last, reason| Some((last, reason));
    let settings = |id: u8, value: u32| frame(SETTINGS, 0, 0, &[&[0, id][..], &value.to_be_bytes()].concat());
    let window = |stream, more: u32| frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    for (why, frames, expected) in [
        ("even stream", vec![open(2)], SILENT),
        ("stream 0", vec![open(0)], SILENT),
        ("DATA on an idle stream", vec![frame(DATA, 0, 1, b"a")], goaway(0, Reason::PROTOCOL_ERROR)),
        ("CONTINUATION alone", vec![frame(CONTINUATION, 0, 1, b"")], goaway(0, Reason::PROTOCOL_ERROR)),
        (
            "a frame inside a block",
            vec![frame(HEADERS, 0, 1, &with(&[])), frame(PING, 0, 0, &[0; 8])],
            goaway(1, Reason::PROTOCOL_ERROR),
        ),
        ("PING of 7 bytes", vec![frame(PING, 0, 0, &[0; 7])], goaway(0, Reason::FRAME_SIZE_ERROR)),
        ("SETTINGS of 5 bytes", vec![frame(SETTINGS, 0, 0, &[0; 5])], goaway(0, Reason::FRAME_SIZE_ERROR)),
        ("another SETTINGS answer", vec![frame(SETTINGS, ACK, 0, &[])], SILENT),
        ("ENABLE_PUSH 2", vec![settings(2, 2)], SILENT),
        ("a window of 2^31", vec![settings(4, 1 << 31)], SILENT),
        ("MAX_FRAME_SIZE too small", vec![settings(5, 16_383)], SILENT),
        ("33 settings", vec![frame(SETTINGS, 0, 0, &[0; 6 * 33])], goaway(0, Reason::ENHANCE_YOUR_CALM)),
        ("a window update of 0", vec![window(0, 0)], SILENT),
        ("a window too large", vec![window(0, 0x7fff_ffff)], SILENT),
        ("a window update of an idle stream", vec![window(1, 1)], SILENT),
        ("no HPACK", vec![frame(HEADERS, END_HEADERS, 1, &[0xff; 6])], goaway(1, Reason::COMPRESSION_ERROR)),
        ("reset of an idle stream", vec![frame(RST_STREAM, 0, 1, &[0; 4])], SILENT),
        ("reset of 3 bytes", vec![frame(RST_STREAM, 0, 1, &[0; 3])], goaway(0, Reason::FRAME_SIZE_ERROR)),
        ("PRIORITY of 4 bytes", vec![frame(PRIORITY, 0, 1, &[0; 4])], goaway(0, Reason::FRAME_SIZE_ERROR)),
        ("GOAWAY of 7 bytes", vec![frame(GOAWAY, 0, 0, &[0; 7])], goaway(0, Reason::FRAME_SIZE_ERROR)),
        ("a frame too large", vec![open(1), frame(DATA, 0, 1, &vec![0; 16_385])], goaway(1, Reason::FRAME_SIZE_ERROR)),
        (
            "a head that depends on itself",
            vec![frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, &[&[0, 0, 0, 1, 0][..], &with(&[])].concat())],
            SILENT,
        ),
        (
            "more padding than payload",
            vec![open(1), frame(DATA, PADDED, 1, b"\x09ab")],
            goaway(1, Reason::PROTOCOL_ERROR),
        ),
        (
            "DATA behind the end",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &with(&[])), frame(DATA, 0, 1, b"a")],
            goaway(1, Reason::STREAM_CLOSED),
        ),
        (
            "too many CONTINUATIONs",
            [vec![frame(HEADERS, 0, 1, &with(&[]))], vec![frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y"); 9]].concat(),
            SILENT,
        ),
    ] {
        let before: usize = frames[..frames.len() - 1].iter().map(Vec::len).sum();
        let (fault, seen) = judged(&frames);
        let fault = fault.unwrap_or_else(|| panic!("{why}: nothing wrong"));
        assert_eq!((fault.goaway, fault.protocol_error), (expected, true), "{why}");
        assert_eq!(seen, before, "{why}: the codec sees what came before, and nothing of the breach");
    }
}

#[test]
fn what_envoy_lets_pass_passes() {
    for (why, frames) in [
        ("unknown frames", vec![frame(0x42, 0, 0, b"x"), open(1)]),
        ("an own dependency in PRIORITY", vec![frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]), open(1)]),
        ("padding", vec![open(1), frame(DATA, END_STREAM | PADDED, 1, b"\x02ab\0\0")]),
        ("DATA of a stream that is over", vec![open(1), frame(RST_STREAM, 0, 1, &[0; 4]), frame(DATA, 0, 1, b"a")]),
        ("trailers", vec![open(1), frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[("x-t", "1")]))]),
        (
            "a block in pieces",
            vec![frame(HEADERS, 0, 1, &with(&[])[..9]), frame(CONTINUATION, END_HEADERS, 1, &with(&[])[9..])],
        ),
    ] {
        let all = frames.concat();
        assert_eq!(judged(&frames), (None, all.len()), "{why}");
        // However the bytes are cut.
        let mut inspector = inspector(|_, _| {});
        for byte in start().iter().chain(&all) {
            assert_eq!(inspector.received(&mut [*byte]), 1, "{why}");
        }
        assert_eq!(inspector.fault(), None, "{why}");
    }
}

#[test]
fn a_client_that_speaks_something_else_is_not_answered() {
    let mut inspector = inspector(|_, _| {});
    assert_eq!(inspector.received(&mut b"GET / HTTP/1.1\r\n\r\n".to_vec()), 0);
    assert_eq!(inspector.fault().unwrap().goaway, SILENT);
    let mut inspector = Inspector::new(Role::Server, &Http2Options::default());
    let mut early = [inbound::PREFACE.to_vec(), open(1)].concat();
    assert_eq!(inspector.received(&mut early), inbound::PREFACE.len());
    assert_eq!(inspector.fault().unwrap().goaway, Some((0, Reason::PROTOCOL_ERROR)), "SETTINGS come first");
}

#[test]
fn an_invalid_message_ends_the_connection_or_its_stream() {
    let bad = |more: &[(&str, &str)]| frame(HEADERS, END_HEADERS | END_STREAM, 1, &with(more));
    for (more, details) in [
        (&[("X-A", "b")][..], "http2.invalid.header.field"),
        (&[("x-a", "b\0")], "http2.invalid.header.field"),
        (&[("connection", "close")], "http2.invalid.header.field"),
        (&[("content-length", "5")], "http2.violation.of.messaging.rule"),
    ] {
        let (fault, seen) = judged(&[bad(more)]);
        assert_eq!((fault.unwrap().offender, seen), (Some((1, details)), 0), "{more:?}");
        let mut inspector = inspector(|_, protocol| protocol.stream_error_on_invalid_http_message = true);
        let mut bytes = [start(), bad(more), open(3)].concat();
        assert_eq!(inspector.received(&mut bytes), bytes.len());
        assert!(!bytes.windows(4).any(|four| four == b"\x03X-A" || four == b"\x02b\0"), "the codec does not see it");
        let refusal = inspector.claim(1).unwrap().refusal.unwrap();
        assert_eq!((refusal.reason, refusal.details), (Reason::PROTOCOL_ERROR, details), "{more:?}");
        assert_eq!(inspector.claim(3), None, "the next one is fine");
        assert_eq!(inspector.take_counts().rx_messaging_error, 1);
    }
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[(":path", "/")]));
    assert_eq!(judged(&[open(1), trailers]).0.unwrap().offender, Some((1, "http2.invalid.header.field")));
    let endless = frame(HEADERS, END_HEADERS, 1, &fields(&[("x-t", "/")]));
    assert_eq!(judged(&[open(1), endless]).0.unwrap().offender, Some((1, "http2.violation.of.messaging.rule")));
}

#[test]
fn limits_of_heads_refuse_the_stream_even_out_of_tables() {
    let refused = |change: fn(&mut Http2Options), block: &[u8]| {
        let mut inspector = inspector(|options, _| change(options));
        let mut bytes = [start(), frame(HEADERS, END_HEADERS, 1, block)].concat();
        assert_eq!(inspector.received(&mut bytes), bytes.len());
        inspector.claim(1).and_then(|remarks| remarks.refusal).map(|refusal| (refusal.reason, refusal.details))
    };
    let underscores: fn(&mut Http2Options) = |options| options.underscores = Underscores::Reject;
    let expected = Some((Reason::INTERNAL_ERROR, "http2.unexpected_underscore"));
    assert_eq!(refused(underscores, &with(&[("x_a", "b")])), expected);
    assert_eq!(refused(underscores, &with(&[("x-a", "b_")])), None);
    let few: fn(&mut Http2Options) = |options| options.max_headers_count = 5;
    assert_eq!(refused(few, &with(&[("a", "b")])), None);
    // The second one is the table's.
    let block = [with(&[("a", "b")]), vec![0xbe]].concat();
    assert_eq!(refused(few, &block), Some((Reason::INTERNAL_ERROR, "http2.too_many_headers")));
    let small: fn(&mut Http2Options) = |options| options.max_headers_bytes = 60;
    assert_eq!(refused(small, &with(&[])), None);
    let block = [with(&[("aaaaaaaa", "bbbbbbbb")]), vec![0xbe]].concat();
    assert_eq!(refused(small, &block), Some((Reason::INTERNAL_ERROR, "http2.header_list_size_too_large")));
}

#[test]
fn a_fragment_is_told_with_its_path() {
    let head = fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/a#b")]);
    let mut inspector = inspector(|_, _| {});
    inspector.received(&mut [start(), frame(HEADERS, END_HEADERS, 1, &head)].concat());
    assert_eq!(inspector.claim(1).unwrap().path.as_deref(), Some(&b"/a#b"[..]));
}

#[test]
fn floods_are_noticed_at_the_configured_numbers() {
    let flood = |frames: Vec<Vec<u8>>| {
        let mut inspector = inspector(|_, protocol| {
            protocol.max_consecutive_inbound_frames_with_empty_payload = 2;
            protocol.max_inbound_priority_frames_per_stream = 3;
            protocol.max_outbound_control_frames = 4;
        });
        inspector.received(&mut start());
        inspector.drained();
        inspector.received(&mut frames.concat());
        let counts = Counts { rx_bytes: 0, ..inspector.take_counts() };
        (inspector.fault().map(|fault| (fault.goaway, fault.protocol_error)), counts)
    };
    let closed = Some((SILENT, false));
    let counts = Counts { events: true, ..Counts::default() };
    let empty = frame(DATA, 0, 1, b"");
    assert_eq!(flood(vec![open(1), empty.clone(), empty.clone()]).0, None);
    let expected = Counts { inbound_empty_frames_flood: 1, ..counts };
    assert_eq!(flood(vec![open(1), empty.clone(), empty.clone(), empty]), (closed, expected));
    let priority = frame(PRIORITY, 0, 1, &[0; 5]);
    assert_eq!(flood(vec![priority.clone(); 3]).0, None);
    let expected = Counts { inbound_priority_frames_flood: 1, ..counts };
    assert_eq!(flood(vec![priority; 4]), (closed, expected));
    let window = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    assert_eq!(flood(vec![window.clone(); 5]).0, None);
    let expected = Counts { inbound_window_update_frames_flood: 1, ..counts };
    assert_eq!(flood(vec![window; 6]), (closed, expected));
    let ping = frame(PING, 0, 0, &[0; 8]);
    assert_eq!(flood(vec![ping.clone(); 4]).0, None);
    let expected = Counts { outbound_control_flood: 1, ..counts };
    assert_eq!(flood(vec![ping; 5]), (closed, expected));
}

#[test]
fn resets_are_limited_by_burst() {
    let mut inspector = inspector(|_, protocol| (protocol.stream_reset_burst, protocol.stream_reset_rate) = (3, 0));
    inspector.received(&mut start());
    for stream in [1, 3, 5, 7] {
        assert_eq!(inspector.fault(), None);
        inspector.received(&mut [open(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat());
        let _ = inspector.claim(stream);
        inspector.release(stream);
    }
    assert_eq!(inspector.fault().unwrap().goaway, Some((7, Reason::INTERNAL_ERROR)));
    assert_eq!(inspector.begun().count(), 0);
    assert_eq!(inspector.take_counts().rx_reset, 4, "what came with the breach is served first");
}

#[test]
fn streams_are_forgotten_when_nobody_needs_them() {
    let mut inspector = inspector(|_, _| {});
    inspector.received(&mut [start(), open(1), open(3), open(5)].concat());
    assert_eq!(inspector.begun().collect::<Vec<_>>(), [1, 3, 5]);
    assert_eq!(inspector.claim(1), None);
    // The client resets 3 before anybody took it, and the codec passes it over.
    inspector.received(&mut frame(RST_STREAM, 0, 3, &[0; 4]));
    assert_eq!(inspector.claim(5), None);
    assert_eq!(inspector.take_unclaimed().len(), 1);
    inspector.sent(&frame(RST_STREAM, 0, 5, &[0, 0, 0, 2]));
    assert!(inspector.reset_by_us(5));
    inspector.release(5);
    inspector.received(&mut frame(DATA, END_STREAM, 1, b"x"));
    inspector.sent(&frame(DATA, END_STREAM, 1, b"y"));
    assert!(inspector.streams.get(1).is_some(), "its task may still ask");
    inspector.release(1);
    assert!([1, 3, 5].iter().all(|stream| inspector.streams.get(*stream).is_none()));
    assert_eq!(inspector.streams.open_count(), 0);
}

#[test]
fn what_is_sent_is_counted_however_it_is_cut() {
    let frames = [
        frame(SETTINGS, 0, 0, &[0; 6]),
        frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]),
        goaway(0x7fff_ffff, 0).to_vec(),
        goaway(1, 0).to_vec(),
        frame(DATA, 0, 1, &[0; 300]),
    ]
    .concat();
    let expected = Counts { tx_reset: 1, stream_refused_errors: 1, goaway_sent: 1, events: true, ..Counts::default() };
    for size in [1, 2, 7, 1000] {
        let mut inspector = inspector(|_, _| {});
        frames.chunks(size).for_each(|piece| inspector.sent(piece));
        assert_eq!(inspector.take_counts(), Counts { tx_bytes: frames.len() as u64, ..expected }, "by {size}");
        assert_eq!(inspector.tally.data_sent, 1);
    }
}

#[test]
fn the_answer_that_ends_draining_can_be_held_back() {
    let mut inspector = inspector(|_, _| {});
    inspector.received(&mut start());
    let mut seen = SHUTDOWN_ANSWER.to_vec();
    inspector.received(&mut seen);
    assert_eq!(seen, SHUTDOWN_ANSWER);
    inspector.hold_shutdown();
    inspector.received(&mut seen);
    assert_eq!(seen[3], frame::IGNORED);
}

#[test]
fn a_client_judges_responses() {
    let mut inspector = Inspector::new(Role::Client, &Http2Options::default());
    inspector.sent(inbound::PREFACE);
    inspector.sent(&[frame(SETTINGS, 0, 0, &[]), frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82")].concat());
    let hints = frame(HEADERS, END_HEADERS, 1, &fields(&[(":status", "103")]));
    let head = frame(HEADERS, END_HEADERS, 1, &fields(&[(":status", "200")]));
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[("grpc-status", "0")]));
    let mut bytes = [frame(SETTINGS, 0, 0, &[]), hints, head, frame(DATA, 0, 1, b"x"), trailers].concat();
    assert_eq!(inspector.received(&mut bytes), bytes.len());
    assert_eq!(inspector.streams.open_count(), 0);
    let mut unasked = frame(HEADERS, END_HEADERS, 3, &fields(&[(":status", "200")]));
    assert_eq!(inspector.received(&mut unasked), 0);
    assert_eq!(inspector.fault().unwrap().goaway, SILENT);
}

/// A client that asked on the streams 1 and 3; `change` is for its options.
fn asking(change: impl FnOnce(&mut crate::config::http2::Http2Options)) -> Inspector {
    let mut protocol = crate::config::http2::Http2Options::default();
    change(&mut protocol);
    let options = Http2Options { protocol: Arc::new(protocol), ..Http2Options::default() };
    let mut inspector = Inspector::new(Role::Client, &options);
    inspector.sent(inbound::PREFACE);
    let ask = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\x82");
    inspector.sent(&[frame(SETTINGS, 0, 0, &[]), ask(1), ask(3)].concat());
    inspector
}

#[test]
fn a_client_that_is_told_goodbye_gives_up_what_will_not_be_served() {
    let goaway = |last: u32| frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat());
    let mut inspector = asking(|_| {});
    let mut bytes = [frame(SETTINGS, 0, 0, &[]), goaway(1)].concat();
    assert_eq!(inspector.received(&mut bytes), bytes.len());
    assert_eq!(inspector.take_forged(), frame(RST_STREAM, 0, 3, &7u32.to_be_bytes()));
    assert!(inspector.saw_goaway() && !inspector.ended_while_reading());
    assert_eq!(bytes[12], frame::IGNORED, "the codec does not see it");
    let head = fields(&[(":status", "200")]);
    inspector.received(&mut frame(HEADERS, END_HEADERS | END_STREAM, 1, &head));
    assert!(inspector.ended_while_reading());
    assert_eq!(inspector.received(&mut goaway(3)), 0, "it may not promise more than before");
}

#[test]
fn a_client_does_not_believe_every_response() {
    let begin = |status: &str, more: &[(&str, &str)]| fields(&[&[(":status", status)], more].concat());
    let length = ("content-length", "9");
    for (why, blocks, verdict) in [
        ("no body where one was announced", vec![(HEADERS, begin("200", &[length]))], Some(true)),
        ("none to HEAD", vec![(HEADERS, begin("200", &[length]))], None),
        ("none with 304", vec![(HEADERS, begin("304", &[length]))], None),
        (
            "trailers before the body's end",
            vec![(HEADERS, begin("200", &[length])), (DATA, b"ab".to_vec()), (HEADERS, fields(&[("x", "y")]))],
            Some(true),
        ),
        ("a body of 204", vec![(HEADERS, begin("204", &[])), (DATA, b"ab".to_vec())], Some(false)),
        ("an invalid name", vec![(HEADERS, begin("200", &[("X-A", "b")]))], Some(false)),
    ] {
        let mut inspector = asking(|protocol| protocol.stream_error_on_invalid_http_message = why.contains("name"));
        if why.contains("HEAD") {
            inspector.expect_no_body(1);
        }
        let mut bytes = frame(SETTINGS, 0, 0, &[]);
        let last = blocks.len() - 1;
        let mut ends = 0;
        for (index, (kind, payload)) in blocks.iter().enumerate() {
            let headers = if *kind == HEADERS { END_HEADERS } else { 0 };
            ends = bytes.len() + 4;
            bytes.extend(frame(*kind, headers | if index == last { END_STREAM } else { 0 }, 1, payload));
        }
        inspector.received(&mut bytes);
        let closes = inspector.fault().is_some();
        let spoiled = inspector.spoiled(1, true).is_some();
        assert_eq!((closes || spoiled).then_some(closes), verdict, "{why}");
        assert_eq!(spoiled, bytes[ends] & END_STREAM == 0 && !closes, "{why}: the codec must be able to reset it");
        inspector.forget(1);
        assert_eq!(inspector.spoiled(1, true), None);
    }
}

#[test]
fn windows_of_single_streams_have_an_end() {
    let window = |stream, more: u32| frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    let begins = |size: u32| frame(SETTINGS, 0, 0, &[&[0, 4][..], &size.to_be_bytes()].concat());
    let most = 0x7fff_ffff;
    for (frames, closes) in [
        (vec![window(1, most - 65_535)], false),
        (vec![window(1, most - 65_534)], true),
        (vec![begins(0), window(1, most)], false),
        (vec![window(1, 1), begins(most)], true),
        (vec![window(9, 1)], true),
    ] {
        let mut inspector = asking(|_| {});
        inspector.received(&mut [frame(SETTINGS, 0, 0, &[]), frames.concat()].concat());
        assert_eq!(inspector.fault().is_some(), closes, "{frames:?}");
    }
    let mut inspector = asking(|_| {});
    inspector.sent(&frame(HEADERS, END_HEADERS, 5, b"\x83"));
    assert_eq!((inspector.body_sent(5), inspector.body_sent(7)), (0, 0));
    inspector.sent(&frame(DATA, 0, 5, b"abc"));
    assert_eq!(inspector.body_sent(5), 3);
}

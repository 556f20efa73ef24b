//! Requests of a hostile client: whatever the bytes and however they are cut, the verdict is the same, no limit is passed
//! and nothing panics.
#![no_main]

use std::rc::Rc;

use bytes::BytesMut;
use legate::http::codec::h1::{RequestDecoder, RequestEvent, ServerOptions, UnderscoreAction};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [switches, cut, bytes @ ..] = input else { return };
    let options = Rc::new(options(*switches));
    let whole = decode(&options, bytes, bytes.len().max(1));
    assert_eq!(whole, decode(&options, bytes, usize::from(*cut).max(1)));
});

fn options(switches: u8) -> ServerOptions {
    let on = |bit: u8| switches & (1 << bit) != 0;
    ServerOptions {
        max_headers_bytes: if on(0) { 256 } else { 60 * 1024 },
        max_headers_count: if on(1) { 3 } else { 100 },
        accept_http_10: on(2),
        allow_absolute_url: on(3),
        allow_chunked_length: on(4),
        enable_trailers: on(5),
        headers_with_underscores: if on(6) { UnderscoreAction::RejectRequest } else { UnderscoreAction::DropHeader },
        preserve_case: on(7),
        ..ServerOptions::default()
    }
}

/// What the bytes mean when they come in pieces of `size`; neighbouring data joined, for pieces may cut it anywhere.
fn decode(options: &Rc<ServerOptions>, bytes: &[u8], size: usize) -> Vec<String> {
    let mut decoder = RequestDecoder::new(Rc::clone(options));
    let (mut buffer, mut events, mut data) = (BytesMut::new(), Vec::new(), Vec::new());
    for piece in bytes.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            let event = decoder.decode(&mut buffer);
            if let Ok(Some(RequestEvent::Data(more))) = &event {
                assert!(!more.is_empty());
                data.extend_from_slice(more);
                continue;
            }
            if !matches!(event, Ok(None)) && !data.is_empty() {
                events.push(format!("{:?}", std::mem::take(&mut data)));
            }
            match event {
                Ok(Some(RequestEvent::Head(head))) => {
                    assert!(head.head.headers.iter().count() <= options.max_headers_count);
                    events.push(format!("{head:?}"));
                }
                Ok(Some(event)) => events.push(format!("{event:?}")),
                Ok(None) => break,
                Err(error) => {
                    events.push(format!("{error:?}"));
                    return events;
                }
            }
        }
    }
    events.push(format!("{data:?}"));
    events
}

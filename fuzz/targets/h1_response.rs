//! Responses of a hostile upstream: however they are cut, the verdict is the same.
#![no_main]

use std::rc::Rc;

use bytes::BytesMut;
use legate::http::codec::h1::{ClientOptions, Expected, ResponseDecoder, ResponseEvent};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [switches, cut, bytes @ ..] = input else { return };
    let options = Rc::new(ClientOptions { enable_trailers: switches & 4 != 0, ..ClientOptions::default() });
    let expected = match switches & 3 {
        0 => Expected::Body,
        1 => Expected::NoBody,
        2 => Expected::Connect,
        _ => Expected::Upgrade,
    };
    let whole = decode(&options, expected, bytes, bytes.len().max(1));
    assert_eq!(whole, decode(&options, expected, bytes, usize::from(*cut).max(1)));
});

fn decode(options: &Rc<ClientOptions>, expected: Expected, bytes: &[u8], size: usize) -> Vec<String> {
    let mut decoder = ResponseDecoder::new(Rc::clone(options));
    decoder.expect(expected);
    let (mut buffer, mut events, mut data) = (BytesMut::new(), Vec::new(), Vec::new());
    for piece in bytes.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            let event = decoder.decode(&mut buffer);
            if let Ok(Some(ResponseEvent::Data(more))) = &event {
                data.extend_from_slice(more);
                continue;
            }
            if !matches!(event, Ok(None)) && !data.is_empty() {
                events.push(format!("{:?}", std::mem::take(&mut data)));
            }
            match event {
                Ok(Some(event)) => events.push(format!("{event:?}")),
                Ok(None) => break,
                Err(error) => {
                    events.push(format!("{error:?}"));
                    return events;
                }
            }
        }
    }
    events.push(format!("{data:?} {:?}", decoder.eof(&buffer)));
    events
}

//! What an answer of `grpc.health.v1.Health/Check` says: judged as it comes, since a host need not end an answer that is
//! no good any more.

use std::future::poll_fn;

use bytes::{Buf as _, BytesMut};
use filters::http::{Frame, HeaderName, Headers, is_grpc_content_type};
use prost::Message as _;

use super::LONGEST_BODY;
use super::http2::final_head;
use super::request::{SERVING, Tell};
use crate::control::health::session::Report;
use crate::http::codec::h2::ClientExchange;

/// Refusals are believed at once.
const REFUSED: Report = Report::Refused { retriable: false, excluded: false };

/// Reads an answer as far as it takes to know what to make of it; `None` if there is none.
pub(super) async fn judge(exchange: &mut ClientExchange) -> Option<Report> {
    let head = final_head(exchange).await?;
    // A head alone has a status at best, but no message that could say SERVING.
    if head.status != 200 || exchange.response_complete() || !is_grpc_content_type(&head.headers) {
        return Some(REFUSED);
    }
    let mut messages = Messages::default();
    loop {
        match poll_fn(|cx| exchange.poll_frame(cx)).await.ok()? {
            // The call ends by trailers or not at all.
            Some(Frame::Data(_)) if exchange.response_complete() => return Some(REFUSED),
            Some(Frame::Data(data)) => {
                if messages.take(&data).is_err() {
                    return Some(REFUSED);
                }
            }
            Some(Frame::Trailers(trailers)) => {
                let well = ended_well(&trailers) && messages.status == Some(SERVING);
                return Some(if well { Report::Passed { degraded: false } } else { REFUSED });
            }
            None => return Some(REFUSED),
        }
    }
}

fn ended_well(trailers: &Headers) -> bool {
    let status = trailers.value(&HeaderName::from_lowercase(bytes::Bytes::from_static(b"grpc-status")));
    let number = status.and_then(|status| std::str::from_utf8(status).ok()?.trim().parse::<u64>().ok());
    number == Some(0)
}

/// The messages of a call, of which there may be one. Empty ones say nothing, not even `UNKNOWN`.
#[derive(Debug, Default)]
struct Messages {
    bytes: BytesMut,
    status: Option<i32>,
}

/// It is no single message, not compressed.
#[derive(Debug, PartialEq, Eq)]
struct Garbage;

impl Messages {
    fn take(&mut self, data: &[u8]) -> Result<(), Garbage> {
        self.bytes.extend_from_slice(data);
        while let Some(&[flags, a, b, c, d]) = self.bytes.first_chunk::<5>() {
            // What may be said of a message is that it is compressed (bit 0).
            if flags > 1 {
                return Err(Garbage);
            }
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if length > LONGEST_BODY {
                return Err(Garbage);
            }
            if self.bytes.len() < 5 + length {
                return Ok(());
            }
            self.bytes.advance(5);
            let message = self.bytes.split_to(length);
            if message.is_empty() {
                continue;
            }
            if flags != 0 || self.status.is_some() {
                return Err(Garbage);
            }
            self.status = Some(Tell::decode(message).map_err(|_| Garbage)?.status);
        }
        // The flags of a message whose length is still to come.
        if self.bytes.first().is_some_and(|flags| *flags > 1) { Err(Garbage) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_says_how_the_host_is() {
        for (bytes, expected) in [
            (&[][..], Ok(None)),
            (&[0, 0, 0, 0, 0], Ok(None)),
            (&[0, 0, 0, 0, 2, 8, 1], Ok(Some(1))),
            (&[0, 0, 0, 0, 2, 8, 2], Ok(Some(2))),
            // Empty messages around it.
            (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 0], Ok(Some(1))),
            // A field nobody knows is none of it.
            (&[0, 0, 0, 0, 4, 8, 1, 0x78, 1], Ok(Some(1))),
            (&[0, 0, 0, 0, 2, 0x78, 1], Ok(Some(0))),
            (&[0, 0, 0, 0, 2, 8], Ok(None)),
            (&[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 1], Err(Garbage)),
            (&[1, 0, 0, 0, 2, 8, 1], Err(Garbage)),
            (&[2], Err(Garbage)),
            (&[0, 0, 0, 0, 1, 8], Err(Garbage)),
            (&[0, 255, 255, 255, 255], Err(Garbage)),
        ] {
            let mut whole = Messages::default();
            assert_eq!(whole.take(bytes).map(|()| whole.status), expected, "{bytes:?}");
            let mut pieces = Messages::default();
            let taken = bytes.iter().try_for_each(|byte| pieces.take(&[*byte]));
            assert_eq!(taken.map(|()| pieces.status), expected, "{bytes:?} in pieces");
        }
    }
}

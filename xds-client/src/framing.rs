//! gRPC's framing over HTTP/2 bodies, for client and server alike: length-prefixed messages, and a status in the trailers.
//!
//! Buffers grow with the bytes that arrive, never with the length a peer claims, so a message may be of any size and a lie
//! about it costs nothing.

use std::fmt;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::body::Body;

/// Flag and length before every message.
const PREFIX: usize = 5;

/// A message behind its prefix.
pub(crate) fn frame(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(PREFIX + length);
    buffer.put_u8(0);
    // What exceeds the prefix's 32 bits would take 4 GiB of subscriptions.
    buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // A `BytesMut` has room for anything, so encoding cannot fail.
    let _ = message.encode(&mut buffer);
    buffer.freeze()
}

/// Reads messages from a body.
pub(crate) struct FrameReader<B> {
    body: B,
    buffer: BytesMut,
    limit: usize,
    trailers: Option<HeaderMap>,
}

/// Why no further message can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The transport broke: reset, lost connection.
    #[error("{0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The body ended within a message.
    #[error("the stream ended in the middle of a message")]
    Truncated,
    /// A flag other than "not compressed": we offer no compression.
    #[error("a message with flags {0:#04x}, expected an uncompressed one")]
    Flags(u8),
    /// More than configured.
    #[error("a message of {length} bytes, more than the limit of {limit}")]
    TooLarge { length: usize, limit: usize },
}

impl<B> FrameReader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(crate) fn new(body: B, limit: Option<usize>) -> Self {
        Self { body, buffer: BytesMut::new(), limit: limit.unwrap_or(usize::MAX), trailers: None }
    }

    /// The next message; `None` at the end of the body. May be cancelled and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(Some(message));
            }
            let frame = match self.body.frame().await {
                Some(frame) => frame.map_err(|error| FrameError::Body(error.into()))?,
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(FrameError::Truncated),
            };
            match frame.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    /// The trailers, once the end has been reached.
    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    fn take_message(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some((prefix, rest)) = self.buffer.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let [flags, length @ ..] = *prefix;
        if flags != 0 {
            return Err(FrameError::Flags(flags));
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(FrameError::TooLarge { length, limit: self.limit });
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// A gRPC status, as found in headers or trailers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: u32,
    pub(crate) message: String,
}

impl Status {
    /// The status in a header block, if there is one.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get("grpc-status")?;
        // UNKNOWN for what is not a number.
        let code = code.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(2);
        let message = headers.get("grpc-message").map_or("", |message| message.to_str().unwrap_or_default());
        Some(Self { code, message: percent_decode(message) })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gRPC status {}", self.code)?;
        if !self.message.is_empty() {
            write!(f, ", {}", self.message)?;
        }
        Ok(())
    }
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail.get(..2).filter(|_| first == b'%').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;
    use std::convert::Infallible;

    fn read(chunks: Vec<&'static [u8]>, limit: Option<usize>) -> (Vec<Bytes>, Result<(), String>) {
        let frames = chunks.into_iter().map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::from_static(chunk))));
        let mut reader = FrameReader::new(StreamBody::new(tokio_stream::iter(frames)), limit);
        let mut messages = Vec::new();
        loop {
            match reader.next().now_or_never().expect("the body never waits") {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return (messages, Ok(())),
                Err(error) => return (messages, Err(error.to_string())),
            }
        }
    }

    #[test]
    fn messages_are_cut_out_of_any_chunks() {
        let (messages, end) = read(vec![b"\0\0\0", b"\0\x02a", b"b\0\0\0\0\0\0\0\0\0\x01", b"c"], None);
        assert_eq!(messages, ["ab", "", "c"]);
        assert_eq!(end, Ok(()));
    }

    #[test]
    fn broken_streams_end_with_a_reason() {
        for (chunk, limit, want) in [
            (&b"\0\0\0\0\x05abc"[..], None, "in the middle"),
            (b"\0\0", None, "in the middle"),
            (b"\x01\0\0\0\x01a", None, "flags 0x01"),
            (b"\0\xff\xff\xff\xff", None, "in the middle"),
            (b"\0\0\0\0\x05abcde", Some(4), "limit of 4"),
        ] {
            let (messages, end) = read(vec![chunk], limit);
            assert!(messages.is_empty());
            let error = end.expect_err("broken");
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn frames_are_read_back() {
        let message = "hello".to_owned();
        let mut reader = FrameReader::new(Full::new(frame(&message)), None);
        let read = reader.next().now_or_never().expect("ready").expect("good").expect("one");
        assert_eq!(<String as prost::Message>::decode(read), Ok(message));
    }

    #[test]
    fn statuses_are_decoded() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value"))).collect()
        };
        let message = |text| Status::read(&headers(&[("grpc-status", "14"), ("grpc-message", text)]));
        assert_eq!(message("a%20b%e2%82%ac%zz%2").map(|status| status.message).as_deref(), Some("a b€%zz%2"));
        assert_eq!(Status::read(&headers(&[])), None);
        assert_eq!(Status::read(&headers(&[("grpc-status", "x")])).map(|status| status.code), Some(2));
    }
}

//! Unary gRPC calls: one message there, one back, and a status.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;

use super::{Answer, Question, Service, Unanswered};
use crate::http::{Headers, Known, Method, RequestHead, Scheme, Version};
use crate::mutation::HeaderMutations;
use crate::stream_info::StreamInfo;

/// Flag and length before every message.
const PREFIX: usize = 5;

/// What a call came to, where that is not a message: a code of gRPC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// `OK`
    pub const OK: Self = Self(0);
    /// `UNKNOWN`
    pub const UNKNOWN: Self = Self(2);
    /// `RESOURCE_EXHAUSTED`
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// `UNIMPLEMENTED`
    pub const UNIMPLEMENTED: Self = Self(12);
    /// `INTERNAL`
    pub const INTERNAL: Self = Self(13);
    /// `UNAVAILABLE`
    pub const UNAVAILABLE: Self = Self(14);

    /// What stands for an HTTP status, where there is none of gRPC.
    #[must_use]
    pub const fn from_http(status: u16) -> Self {
        match status {
            400 => Self::INTERNAL,
            401 => Self(16),
            403 => Self(7),
            404 => Self::UNIMPLEMENTED,
            429 | 502..=504 => Self::UNAVAILABLE,
            _ => Self::UNKNOWN,
        }
    }

    /// The status that headers or trailers tell; `None` if they tell none.
    fn told(headers: &Headers) -> Option<Self> {
        let value = headers.value(&Known::GrpcStatus)?;
        let code = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        Some(code.map_or(Self::UNKNOWN, Self))
    }
}

/// Whom to call.
#[derive(Debug)]
pub struct Target {
    /// The cluster, and how it is asked.
    pub service: Service,
    /// `:authority`
    pub authority: Box<str>,
    /// `initial_metadata`
    pub metadata: HeaderMutations,
    /// The longest message that is taken; `None`: any.
    pub max_message: Option<usize>,
}

impl Target {
    /// The question that calls `path` (`/package.Service/Method`), for a stream that this is known about.
    #[must_use]
    pub fn question(&self, path: &'static str, message: &impl Message, info: &StreamInfo) -> Question {
        let mut headers = Headers::with_capacity(6);
        headers.append(Known::Te, "trailers");
        if let Some(timeout) = self.service.timeout.filter(|timeout| !timeout.is_zero()) {
            headers.append(Known::GrpcTimeout, timeout_text(timeout));
        }
        headers.append(Known::ContentType, "application/grpc");
        self.metadata.apply_to_headers(&mut headers, info);
        let head = RequestHead {
            method: Method::Post,
            scheme: Scheme::Http,
            authority: Bytes::copy_from_slice(self.authority.as_bytes()),
            path: Bytes::from_static(path.as_bytes()),
            version: Version::Http2,
            headers,
            ..RequestHead::default()
        };
        Question { head, body: frame(message) }
    }

    /// The message that an answer carries.
    ///
    /// # Errors
    /// The status of a call that failed, or of an answer that is no such message.
    pub fn message<M: Message + Default>(&self, answer: Result<Answer, Unanswered>) -> Result<M, Status> {
        if let (Some(max), Ok(answer)) = (self.max_message, &answer)
            && answer.body.len().saturating_sub(PREFIX) > max
        {
            return Err(Status::RESOURCE_EXHAUSTED);
        }
        message(answer)
    }
}

fn message<M: Message + Default>(answer: Result<Answer, Unanswered>) -> Result<M, Status> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(Unanswered::NoCluster) => return Err(Status::UNAVAILABLE),
        Err(Unanswered::Broken) => return Err(Status::INTERNAL),
    };
    let Answer { head, body, trailers } = answer;
    let only_head = body.is_empty() && trailers.is_none();
    if head.status != 200 {
        let told = Status::told(&head.headers).filter(|_| only_head);
        return Err(told.unwrap_or_else(|| Status::from_http(head.status)));
    }
    let headers = trailers.as_deref().or_else(|| only_head.then_some(&head.headers));
    match headers.and_then(Status::told) {
        Some(Status::OK) => unframe(&body).and_then(|message| M::decode(message).ok()).ok_or(Status::INTERNAL),
        Some(status) => Err(status),
        None => Err(Status::UNKNOWN),
    }
}

fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(PREFIX + length);
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // There is room for it: that is all that can go wrong.
    let _ = message.encode(&mut buffer);
    buffer.freeze()
}

/// The only message of a body; compressed it is none, as nobody offered to understand that.
fn unframe(body: &[u8]) -> Option<&[u8]> {
    let ([0, length @ ..], rest) = body.split_first_chunk::<PREFIX>()? else { return None };
    (u32::from_be_bytes(*length) as usize == rest.len()).then_some(rest)
}

/// The value of `grpc-timeout` for a duration: in milliseconds, or in the finest unit in which it has eight digits at most.
#[must_use]
pub fn timeout_text(limit: Duration) -> Bytes {
    let mut value = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let mut unit = b'm';
    for (larger, factor) in [(b'S', 1000), (b'M', 60), (b'H', 60)] {
        if value <= 99_999_999 {
            break;
        }
        value /= factor;
        unit = larger;
    }
    let mut text = itoa::Buffer::new();
    [text.format(value.min(99_999_999)).as_bytes(), &[unit]].concat().into()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::{Instant, SystemTime};

    use super::*;
    use crate::http::ResponseHead;
    use crate::stream_info::{Address, ConnectionInfo};

    fn answer(status: u16, head: &[(Known, &'static str)], body: Bytes, trailers: Option<&'static str>) -> Answer {
        let mut headers = Headers::new();
        head.iter().for_each(|(name, value)| headers.append(*name, *value));
        let trailers = trailers.map(|status| {
            let mut trailers = Headers::new();
            trailers.append(Known::GrpcStatus, status);
            Box::new(trailers)
        });
        Answer { head: ResponseHead { status, headers, ..ResponseHead::default() }, body, trailers }
    }

    #[test]
    fn a_message_comes_whole_and_with_ok() {
        let said = "seven".to_owned();
        let whole = frame(&said);
        let cut = whole.slice(..whole.len() - 1);
        let compressed = Bytes::from([&[1], &whole[1..]].concat());
        for (answer, expected) in [
            (answer(200, &[], whole.clone(), Some("0")), Ok(said)),
            (answer(200, &[], frame(&String::new()), Some("0")), Ok(String::new())),
            (answer(200, &[], whole.clone(), Some("7")), Err(Status(7))),
            (answer(200, &[], whole.clone(), Some("x")), Err(Status::UNKNOWN)),
            (answer(200, &[], whole, None), Err(Status::UNKNOWN)),
            (answer(200, &[], cut, Some("0")), Err(Status::INTERNAL)),
            (answer(200, &[], compressed, Some("0")), Err(Status::INTERNAL)),
            (answer(200, &[], Bytes::new(), Some("0")), Err(Status::INTERNAL)),
            (answer(200, &[(Known::GrpcStatus, "14")], Bytes::new(), None), Err(Status::UNAVAILABLE)),
            (answer(503, &[(Known::GrpcStatus, "8")], Bytes::new(), None), Err(Status(8))),
            (answer(503, &[(Known::GrpcStatus, "8")], Bytes::from_static(b"x"), None), Err(Status::UNAVAILABLE)),
            (answer(404, &[], Bytes::new(), None), Err(Status::UNIMPLEMENTED)),
        ] {
            let shown = format!("{answer:?}");
            assert_eq!(message::<String>(Ok(answer)), expected, "{shown}");
        }
        assert_eq!(message::<String>(Err(Unanswered::Broken)), Err(Status::INTERNAL));
    }

    #[test]
    fn a_question_is_a_call() {
        let service =
            Service { cluster: "c".into(), timeout: Some(Duration::from_millis(250)), retry: None, signed: true };
        let target =
            Target { service, authority: "auth".into(), metadata: HeaderMutations::default(), max_message: Some(2) };
        let nobody = || Address::Internal("".into());
        let connection = Rc::new(ConnectionInfo::between(nobody(), nobody()));
        let info = StreamInfo::new(connection, Instant::now(), SystemTime::now(), 0);
        let asked = target.question("/a.B/C", &String::new(), &info);
        let shown: Vec<_> = asked.head.headers.iter().map(|h| format!("{}={:?}", h.name.as_str(), h.value)).collect();
        assert_eq!(shown, ["te=b\"trailers\"", "grpc-timeout=b\"250m\"", "content-type=b\"application/grpc\""]);
        assert_eq!(&asked.body[..], [0; 5]);
        assert_eq!(timeout_text(Duration::from_secs(100_000)), "100000S");
        let long = answer(200, &[], frame(&"x".to_owned()), Some("0"));
        assert_eq!(target.message::<String>(Ok(long)), Err(Status::RESOURCE_EXHAUSTED));
    }
}

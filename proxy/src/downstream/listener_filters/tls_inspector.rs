//! `envoy.filters.listener.tls_inspector`: server name and application protocols of a TLS client hello.
//!
//! The hello (RFC 8446 section 4.1.2) may be spread over several records (section 5.1) and each record over several
//! reads. What starts like no client hello is plain text, unless configuration says otherwise.

use super::{Answer, Detected, FilterCounter};
use crate::config::listener::listener_filter::TlsInspectorConfig;

/// What filter chains call a connection a client hello was seen on.
pub const TRANSPORT_PROTOCOL: &str = "tls";

const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Longest payload of a record before encryption.
const MAX_RECORD: usize = 16384;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// The inspector on one connection. It remembers where it is, so that a hello in tiny pieces is still read once.
#[derive(Debug, Default)]
pub(super) struct TlsInspector {
    /// Bytes of the connection taken into `hello`, up to the end of the last complete record.
    offset: usize,
    /// Handshake bytes of the complete records.
    hello: Vec<u8>,
    seen: usize,
}

/// What the bytes so far are.
enum Look {
    NeedMore(usize),
    Hello,
    Plain,
    TooLarge,
}

impl TlsInspector {
    pub(super) fn inspect(
        &mut self,
        config: TlsInspectorConfig,
        bytes: &[u8],
        detected: &mut Detected,
        count: &impl Fn(FilterCounter),
    ) -> Answer {
        self.seen = bytes.len().min(config.max_client_hello_size);
        let hello = match self.collect(bytes, config.max_client_hello_size) {
            Look::NeedMore(length) => return Answer::NeedMore(length),
            Look::TooLarge => {
                count(FilterCounter::ClientHelloTooLarge);
                return Answer::Reject;
            }
            Look::Hello => parse_client_hello(self.hello.get(HANDSHAKE_HEADER..).unwrap_or_default()),
            Look::Plain => None,
        };
        let Some(hello) = hello else {
            count(FilterCounter::TlsNotFound);
            return if config.close_on_parsing_errors { Answer::Reject } else { Answer::Continue { consumed: 0 } };
        };
        count(FilterCounter::TlsFound);
        count(if hello.server_name.is_some() { FilterCounter::SniFound } else { FilterCounter::SniNotFound });
        count(if hello.alpn.is_empty() { FilterCounter::AlpnNotFound } else { FilterCounter::AlpnFound });
        detected.transport_protocol = Some(TRANSPORT_PROTOCOL);
        detected.server_name = hello.server_name.unwrap_or_default();
        if !hello.alpn.is_empty() {
            detected.application_protocols = hello.alpn;
        }
        Answer::Continue { consumed: 0 }
    }

    /// Bytes looked at.
    pub(super) const fn processed(&self) -> usize {
        self.seen
    }

    /// Joins the payloads of records until the hello is complete.
    fn collect(&mut self, bytes: &[u8], limit: usize) -> Look {
        loop {
            if let Some(missing) = self.missing() {
                match missing {
                    Err(look) => return look,
                    Ok(0) => return Look::Hello,
                    // What is missing comes in at least one more record.
                    Ok(missing) if self.offset + RECORD_HEADER + missing > limit => return Look::TooLarge,
                    Ok(_) => {}
                }
            }
            let record = bytes.get(self.offset..).unwrap_or_default();
            let &[kind, major, minor, high, low, ref rest @ ..] = record else {
                // Plain text is told by its first bytes.
                let plausible = [HANDSHAKE_RECORD, 3].iter().zip(record).all(|(want, got)| want == got);
                return if plausible { self.need(RECORD_HEADER, limit) } else { Look::Plain };
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if kind != HANDSHAKE_RECORD || major != 3 || minor > 4 || length == 0 || length > MAX_RECORD {
                return Look::Plain;
            }
            if self.offset + RECORD_HEADER + length > limit {
                return Look::TooLarge;
            }
            let Some(payload) = rest.get(..length) else {
                // The first byte of the first record says whether it is a client hello at all.
                if self.hello.is_empty() && rest.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
                    return Look::Plain;
                }
                return self.need(RECORD_HEADER + length, limit);
            };
            self.hello.extend_from_slice(payload);
            self.offset += RECORD_HEADER + length;
        }
    }

    /// Bytes of the hello still missing; `None` while its length is unknown.
    fn missing(&self) -> Option<Result<usize, Look>> {
        match *self.hello.as_slice() {
            [kind, ..] if kind != CLIENT_HELLO => Some(Err(Look::Plain)),
            [_, a, b, c, ..] => {
                let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                Some(Ok((HANDSHAKE_HEADER + length).saturating_sub(self.hello.len())))
            }
            _ => None,
        }
    }

    /// `length` bytes from the current record's start on.
    const fn need(&self, length: usize, limit: usize) -> Look {
        let length = self.offset + length;
        if length > limit { Look::TooLarge } else { Look::NeedMore(length) }
    }
}

struct ClientHello {
    server_name: Option<String>,
    alpn: Vec<Box<[u8]>>,
}

/// `None` when the body does not have the shape of a client hello.
fn parse_client_hello(body: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(body);
    reader.take(2 + 32)?; // legacy_version, random
    let session = reader.prefixed_u8()?;
    let ciphers = reader.prefixed_u16()?;
    let compressions = reader.prefixed_u8()?;
    if session.len() > 32 || ciphers.is_empty() || !ciphers.len().is_multiple_of(2) || compressions.is_empty() {
        return None;
    }
    let mut hello = ClientHello { server_name: None, alpn: Vec::new() };
    if reader.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(reader.prefixed_u16()?);
    if !reader.0.is_empty() {
        return None;
    }
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.prefixed_u16()?;
        match kind {
            SERVER_NAME => hello.server_name = server_name(data),
            ALPN => hello.alpn = application_protocols(data).unwrap_or_default(),
            _ => {}
        }
    }
    Some(hello)
}

/// RFC 6066 section 3: a list of which only the host name is defined.
fn server_name(data: &[u8]) -> Option<String> {
    let mut list = Reader(Reader(data).prefixed_u16()?);
    let kind = list.take(1)?;
    let name = list.prefixed_u16()?;
    let plain = !name.is_empty() && name.len() <= 255 && !name.contains(&0);
    (kind == [0] && plain).then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

/// RFC 7301 section 3.1: a list of names, none empty.
fn application_protocols(data: &[u8]) -> Option<Vec<Box<[u8]>>> {
    let mut list = Reader(Reader(data).prefixed_u16()?);
    let mut names = Vec::new();
    while !list.0.is_empty() {
        names.push(list.prefixed_u8().filter(|name| !name.is_empty())?.into());
    }
    Some(names)
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*bytes))
    }

    fn prefixed_u8(&mut self) -> Option<&'a [u8]> {
        let length = *self.take(1)?.first()?;
        self.take(length.into())
    }

    fn prefixed_u16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

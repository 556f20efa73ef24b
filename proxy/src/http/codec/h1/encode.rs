//! Encoders: heads, bodies and trailers to bytes.

mod body;
mod lines;

use bytes::Bytes;
use filters::http::{Headers, Method, RequestHead, ResponseHead, Version};

use self::body::BodyEncoder;
use self::lines::{FramingLine, Lines, Skip, content_length, field_len};
use super::case::HeaderFormat;
use super::chars::is_token_text;
use super::reason_phrase;
use super::write::WriteBuf;

/// Why a message cannot be sent as HTTP/1. Nothing of the refused piece was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The method, target, a name or a value would not stay one (NUL, CR, LF, white space in a name or target).
    #[error("a head that cannot be written as HTTP/1")]
    InvalidHead,
    /// `content-length` is no length, stands twice with different values, or belies the end of the message.
    #[error("invalid content-length")]
    InvalidLength,
    /// More or less body than `content-length` says.
    #[error("the body is not as long as content-length says")]
    LengthMismatch,
}

/// How the body being sent is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    #[default]
    Empty,
    /// So many bytes are still to come.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// As it comes: a tunnel, or a response to an HTTP/1.0 client that ends with the connection.
    Raw,
}

/// How a request is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestOptions<'a> {
    /// Whether the head is the whole message.
    pub end_stream: bool,
    /// Whether it asks to switch protocols; `connection` and `upgrade` are then written and the body is a tunnel.
    pub upgrade: bool,
    /// `header_key_format`
    pub format: HeaderFormat<'a>,
    /// Whether the target is an absolute form: `send_fully_qualified_url`.
    pub absolute_form: bool,
}

/// Writes requests to one upstream connection.
#[derive(Debug, Default)]
pub struct RequestEncoder {
    body: BodyEncoder,
}

impl RequestEncoder {
    /// Writes a head: request line, `host`, the headers in order, then framing. A CONNECT's target is its authority.
    ///
    /// # Errors
    /// The head cannot be expressed; nothing was written.
    pub fn encode_head(
        &mut self,
        head: &RequestHead,
        options: &RequestOptions<'_>,
        out: &mut WriteBuf,
    ) -> Result<(), EncodeError> {
        let connect = head.method == Method::Connect;
        let tunnel = connect || options.upgrade;
        let length = content_length(&head.headers)?;
        let (framing, line) = match length {
            _ if tunnel => (Framing::Raw, FramingLine::Nothing),
            Some(n) if options.end_stream && n > 0 => return Err(EncodeError::InvalidLength),
            Some(0) => (if options.end_stream { Framing::Empty } else { Framing::Length(0) }, FramingLine::Nothing),
            Some(n) => (Framing::Length(n), FramingLine::Nothing),
            None if !options.end_stream => (Framing::Chunked, FramingLine::Chunked),
            // Methods that promise no body need not say so (RFC 9110 section 8.6).
            None => match head.method {
                Method::Get | Method::Head | Method::Delete | Method::Trace | Method::Connect => {
                    (Framing::Empty, FramingLine::Nothing)
                }
                _ => (Framing::Empty, FramingLine::LengthZero),
            },
        };

        let method = head.method.as_bytes();
        let absolute = options.absolute_form && !connect;
        let target = if connect { &head.authority } else { &head.path };
        let is_target = |text: &[u8]| !text.iter().any(|b| *b <= b' ' || *b == 0x7f);
        if target.is_empty() || !is_target(target) || !is_target(&head.authority) || !is_token_text(method) {
            return Err(EncodeError::InvalidHead);
        }
        let prefix = if absolute { [head.scheme.as_str().as_bytes(), b"://", &head.authority] } else { [&[][..]; 3] };
        let line_len =
            method.len() + prefix.iter().map(|p| p.len()).sum::<usize>() + target.len() + b"  HTTP/1.1\r\n".len();
        let skip = Skip { connection: !options.upgrade, length: connect };
        let size = line_len + field_len(4, head.authority.len()) + skip.size(&head.headers)? + line.text().len() + 2;

        let mut lines = Lines::new(out.grow(size), options.format);
        lines.put(method);
        lines.put(b" ");
        prefix.iter().for_each(|part| lines.put(part));
        lines.put(target);
        lines.put(b" HTTP/1.1\r\n");
        lines.field(b"host", &head.authority);
        skip.write(&head.headers, &mut lines);
        lines.framing(line);
        lines.put(b"\r\n");
        let count = lines.fields + 2;
        out.seal(size, count)?;
        self.body.framing = framing;
        Ok(())
    }

    /// How the body of the current request is delimited.
    #[must_use]
    pub const fn framing(&self) -> Framing {
        self.body.framing
    }

    /// Writes body bytes.
    ///
    /// # Errors
    /// More than `content-length` says; the connection cannot be used further.
    pub fn encode_data(&mut self, data: Bytes, out: &mut WriteBuf) -> Result<(), EncodeError> {
        self.body.data(data, out)
    }

    /// Ends the body, with trailers if there are any and the body is chunked.
    ///
    /// # Errors
    /// Less than `content-length` says, or trailers that cannot be expressed; the connection cannot be used further.
    pub fn finish(
        &mut self,
        trailers: Option<&Headers>,
        format: HeaderFormat<'_>,
        out: &mut WriteBuf,
    ) -> Result<(), EncodeError> {
        self.body.finish(trailers, format, out)
    }
}

/// How a response is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseOptions<'a> {
    /// Whether the head is the whole message.
    pub end_stream: bool,
    /// The client's version; HTTP/1.0 knows no chunks and closes unless told otherwise.
    pub version: Version,
    /// Whether the request was HEAD: no body, whatever the head says.
    pub head_request: bool,
    /// Whether the response starts a tunnel: 101, or 2xx to CONNECT. `connection` and `upgrade` are then written.
    pub tunnel: bool,
    /// Whether the connection may carry another request afterwards.
    pub keep_alive: bool,
    /// `header_key_format`
    pub format: HeaderFormat<'a>,
    /// Reason phrase other than the usual one: `forward_reason_phrase`.
    pub reason: Option<&'a [u8]>,
}

/// Writes responses to one downstream connection.
#[derive(Debug, Default)]
pub struct ResponseEncoder {
    body: BodyEncoder,
    close: bool,
}

impl ResponseEncoder {
    /// Writes an informational head (not 101). Clients of HTTP/1.0 get none but `100 Continue`.
    ///
    /// # Errors
    /// The head cannot be expressed; nothing was written.
    pub fn encode_informational(
        &mut self,
        head: &ResponseHead,
        version: Version,
        format: HeaderFormat<'_>,
        out: &mut WriteBuf,
    ) -> Result<(), EncodeError> {
        if version == Version::Http10 && head.status != 100 {
            return Ok(());
        }
        let options = ResponseOptions { version, format, ..ResponseOptions::default() };
        write_response(head, &options, &[], FramingLine::Nothing, true, out)
    }

    /// Writes the final head: status line, the headers in order, `connection`, then framing.
    ///
    /// # Errors
    /// The head cannot be expressed; nothing was written.
    pub fn encode_head(
        &mut self,
        head: &ResponseHead,
        options: &ResponseOptions<'_>,
        out: &mut WriteBuf,
    ) -> Result<(), EncodeError> {
        let length = content_length(&head.headers)?;
        let status_bodiless = head.status < 200 || matches!(head.status, 204 | 304);
        let bodiless = options.head_request || status_bodiless;
        let chunks = options.version != Version::Http10;
        let (framing, line) = if options.tunnel {
            (Framing::Raw, FramingLine::Nothing)
        } else if status_bodiless {
            (Framing::Empty, FramingLine::Nothing)
        } else {
            match length {
                Some(n) if options.end_stream && n > 0 && !bodiless => return Err(EncodeError::InvalidLength),
                Some(_) if bodiless || options.end_stream => (Framing::Empty, FramingLine::Nothing),
                Some(n) => (Framing::Length(n), FramingLine::Nothing),
                // What the same request with GET would be answered with.
                None if options.head_request && chunks => (Framing::Empty, FramingLine::Chunked),
                None if options.head_request => (Framing::Empty, FramingLine::Nothing),
                None if options.end_stream => (Framing::Empty, FramingLine::LengthZero),
                None if chunks => (Framing::Chunked, FramingLine::Chunked),
                None => (Framing::Raw, FramingLine::Nothing),
            }
        };
        let close = framing != Framing::Raw && !options.keep_alive || framing == Framing::Raw && !options.tunnel;
        let connection: &[u8] = match options.version {
            _ if options.tunnel => b"",
            _ if close => b"close",
            Version::Http10 => b"keep-alive",
            _ => b"",
        };
        let drop_length = head.status == 204 || options.tunnel;
        write_response(head, options, connection, line, drop_length, out)?;
        self.body.framing = framing;
        self.close = close || options.tunnel;
        Ok(())
    }

    /// How the body of the current response is delimited.
    #[must_use]
    pub const fn framing(&self) -> Framing {
        self.body.framing
    }

    /// Whether the connection must close once the current response is written.
    #[must_use]
    pub const fn must_close(&self) -> bool {
        self.close
    }

    /// Writes body bytes. Those of a response that has no body (to HEAD, 204, 304) vanish.
    ///
    /// # Errors
    /// More than `content-length` says; the connection cannot be used further.
    pub fn encode_data(&mut self, data: Bytes, out: &mut WriteBuf) -> Result<(), EncodeError> {
        if self.body.framing == Framing::Empty {
            return Ok(());
        }
        self.body.data(data, out)
    }

    /// Ends the body, with trailers if there are any and the body is chunked.
    ///
    /// # Errors
    /// Less than `content-length` says, or trailers that cannot be expressed; the connection cannot be used further.
    pub fn finish(
        &mut self,
        trailers: Option<&Headers>,
        format: HeaderFormat<'_>,
        out: &mut WriteBuf,
    ) -> Result<(), EncodeError> {
        self.body.finish(trailers, format, out)
    }
}

fn write_response(
    head: &ResponseHead,
    options: &ResponseOptions<'_>,
    connection: &[u8],
    line: FramingLine,
    drop_length: bool,
    out: &mut WriteBuf,
) -> Result<(), EncodeError> {
    if !(100..=999).contains(&head.status) {
        return Err(EncodeError::InvalidHead);
    }
    let version: &[u8] = if options.version == Version::Http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " };
    let reason = options.reason.unwrap_or_else(|| reason_phrase(head.status).as_bytes());
    let skip = Skip { connection: !options.tunnel, length: drop_length };
    let mut size = version.len() + 4 + reason.len() + 2 + skip.size(&head.headers)? + line.text().len() + 2;
    if !connection.is_empty() {
        size += field_len(10, connection.len());
    }

    let mut lines = Lines::new(out.grow(size), options.format);
    lines.put(version);
    let digit = |n: u16| b'0' + (n % 10) as u8;
    lines.put(&[digit(head.status / 100), digit(head.status / 10), digit(head.status), b' ']);
    lines.put(reason);
    lines.put(b"\r\n");
    skip.write(&head.headers, &mut lines);
    if !connection.is_empty() {
        lines.field(b"connection", connection);
    }
    lines.framing(line);
    lines.put(b"\r\n");
    let count = lines.fields + 2;
    out.seal(size, count)
}

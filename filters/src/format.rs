//! `%COMMAND(ARGUMENT):LENGTH%` strings, compiled once and appended to a buffer per stream.
//!
//! One language serves access logs, header values and local replies. A [`Format`] is a list of literals and operators;
//! printing it allocates nothing. A value that is missing prints as `-` ([`FormatOptions::omit_empty_values`]: as nothing).
//! [`JsonFormat`] keeps types: an operator alone keeps its number, string or structure, and prints `null` when missing.
//!
//! Values are bytes as they came. They cannot break a log line: header values hold no line ends (the codecs see to it),
//! and texts that might (metadata, details) have control characters escaped. JSON output is always valid UTF-8.

mod arguments;
mod command;
mod evaluate;
mod json;
mod parse;
mod time;
mod tls;
mod xfcc;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::http::{Headers, RequestHead, ResponseHead};
use crate::mutation::{ValueContext, ValueFormat};
use crate::stream_info::StreamInfo;
use command::Command;
pub use json::JsonFormat;
pub use time::TimeFormat;

/// Envoy's access-log format when a logger names none; it ends with a newline.
pub const DEFAULT_ACCESS_LOG: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% ",
    "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" ",
    "\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n",
);

/// How a format string is read, and the facts of the process it may print.
#[derive(Debug, Clone, Default)]
pub struct FormatOptions {
    /// Missing values print as nothing instead of `-`; JSON objects leave such members out. Header values always do.
    pub omit_empty_values: bool,
    /// `%HOSTNAME%`
    pub hostname: Arc<str>,
}

impl FormatOptions {
    /// The options of this process: its host's name, missing values as `-`.
    #[must_use]
    pub fn of_this_host() -> Self {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self { omit_empty_values: false, hostname: name.trim_end().into() }
    }

    /// The options for header values: a missing value prints as nothing.
    #[must_use]
    pub fn header_value(&self) -> Self {
        Self { omit_empty_values: true, hostname: self.hostname.clone() }
    }
}

/// Which moment of a stream a log line records (`%ACCESS_LOG_TYPE%`, `envoy.data.accesslog.v3.AccessLogType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum AccessLogType {
    /// Not a log line: a header value or a local reply.
    #[default]
    NotSet = 0,
    /// A TCP proxy's upstream connection stands.
    TcpUpstreamConnected = 1,
    /// A TCP proxy's periodic line.
    TcpPeriodic = 2,
    /// A TCP connection ended.
    TcpConnectionEnd = 3,
    /// A request's head arrived.
    DownstreamStart = 4,
    /// A stream's periodic line.
    DownstreamPeriodic = 5,
    /// A stream ended.
    DownstreamEnd = 6,
    /// The router's pool gave a connection.
    UpstreamPoolReady = 7,
    /// The router's periodic line.
    UpstreamPeriodic = 8,
    /// The router's request ended.
    UpstreamEnd = 9,
    /// A tunnel stands on the downstream side.
    DownstreamTunnelSuccessfullyEstablished = 10,
    /// A TCP connection was accepted.
    TcpConnectionStart = 14,
}

impl AccessLogType {
    /// Every type.
    pub const ALL: [Self; 12] = [
        Self::NotSet,
        Self::TcpUpstreamConnected,
        Self::TcpPeriodic,
        Self::TcpConnectionEnd,
        Self::DownstreamStart,
        Self::DownstreamPeriodic,
        Self::DownstreamEnd,
        Self::UpstreamPoolReady,
        Self::UpstreamPeriodic,
        Self::UpstreamEnd,
        Self::DownstreamTunnelSuccessfullyEstablished,
        Self::TcpConnectionStart,
    ];

    /// The name as printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSet => "NotSet",
            Self::TcpUpstreamConnected => "TcpUpstreamConnected",
            Self::TcpPeriodic => "TcpPeriodic",
            Self::TcpConnectionEnd => "TcpConnectionEnd",
            Self::DownstreamStart => "DownstreamStart",
            Self::DownstreamPeriodic => "DownstreamPeriodic",
            Self::DownstreamEnd => "DownstreamEnd",
            Self::UpstreamPoolReady => "UpstreamPoolReady",
            Self::UpstreamPeriodic => "UpstreamPeriodic",
            Self::UpstreamEnd => "UpstreamEnd",
            Self::DownstreamTunnelSuccessfullyEstablished => "DownstreamTunnelSuccessfullyEstablished",
            Self::TcpConnectionStart => "TcpConnectionStart",
        }
    }
}

/// What a format may print.
#[derive(Debug, Clone, Copy)]
pub struct FormatContext<'a> {
    /// The request's head as it stands now, after hygiene and filters.
    pub request: Option<&'a RequestHead>,
    /// The response's head as sent.
    pub response: Option<&'a ResponseHead>,
    /// The response's trailers.
    pub trailers: Option<&'a Headers>,
    /// All else that is known.
    pub info: &'a StreamInfo,
    /// Body of the local reply being formatted (`%LOCAL_REPLY_BODY%`); empty otherwise.
    pub local_reply_body: &'a [u8],
    /// The moment being logged.
    pub log_type: AccessLogType,
}

impl<'a> FormatContext<'a> {
    /// A context that knows only the stream.
    #[must_use]
    pub const fn new(info: &'a StreamInfo) -> Self {
        Self {
            request: None,
            response: None,
            trailers: None,
            info,
            local_reply_body: b"",
            log_type: AccessLogType::NotSet,
        }
    }
}

/// A compiled format string.
#[derive(Debug, Clone)]
pub struct Format {
    parts: Vec<Part>,
    missing: &'static [u8],
}

#[derive(Debug, Clone)]
enum Part {
    Literal(Box<[u8]>),
    Command(Command),
}

impl Format {
    /// Compiles a format string.
    ///
    /// # Errors
    /// In Envoy's words: an unknown operator, a bad argument, a lone `%`.
    pub fn parse(text: &str, options: &FormatOptions) -> Result<Self, String> {
        let missing: &[u8] = if options.omit_empty_values { b"" } else { b"-" };
        Ok(Self { parts: parse::parts(text, options)?, missing })
    }

    /// The text if no operator stands in it: most header values, whose bytes can be shared.
    #[must_use]
    pub fn literal(&self) -> Option<&[u8]> {
        match &self.parts[..] {
            [] => Some(b""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the text for one stream.
    pub fn append_to(&self, out: &mut Vec<u8>, context: &FormatContext<'_>) {
        self.append_with(out, context, self.missing);
    }

    fn append_with(&self, out: &mut Vec<u8>, context: &FormatContext<'_>, missing: &[u8]) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Command(command) => {
                    if !command.append(out, context) {
                        out.extend_from_slice(missing);
                    }
                }
            }
        }
    }

    /// The text for one stream.
    #[must_use]
    pub fn text(&self, context: &FormatContext<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        self.append_to(&mut out, context);
        out
    }
}

impl ValueFormat for Format {
    fn append_to(&self, out: &mut Vec<u8>, context: &ValueContext<'_>, empty_for_missing: bool) {
        let ValueContext { request, response, info } = *context;
        let context = FormatContext { request, response, ..FormatContext::new(info) };
        self.append_with(out, &context, if empty_for_missing { b"" } else { b"-" });
    }
}

/// Compiles a header value: the function header changes are parsed with ([`crate::mutation::ParseFormat`]).
///
/// # Errors
/// As [`Format::parse`].
pub fn parse_header_value(text: &str) -> Result<Box<dyn ValueFormat>, String> {
    Ok(Box::new(Format::parse(text, &FormatOptions::of_this_host().header_value())?))
}

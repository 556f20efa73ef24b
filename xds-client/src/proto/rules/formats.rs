//! The string formats that rules can name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A well-known format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Email,
    Hostname,
    Ip,
    Ipv4,
    Ipv6,
    Uri,
    UriRef,
    Address,
    Uuid,
    HeaderName,
    HeaderValue,
    /// A header's name or value by the lenient rule: no NUL, CR or LF.
    HeaderLenient,
}

impl Format {
    /// Whether a string has this format.
    pub(crate) fn matches(self, value: &str) -> bool {
        match self {
            Self::Email => value.split_once('@').is_some_and(|(local, host)| {
                !local.is_empty()
                    && local.len() <= 64
                    && value.len() <= 254
                    && !local.contains(' ')
                    && is_hostname(host)
            }),
            Self::Hostname => is_hostname(value),
            Self::Ip => value.parse::<IpAddr>().is_ok(),
            Self::Ipv4 => value.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => value.parse::<Ipv6Addr>().is_ok(),
            Self::Uri => has_scheme(value) && is_uri_text(value),
            Self::UriRef => is_uri_text(value),
            Self::Address => is_hostname(value) || value.parse::<IpAddr>().is_ok(),
            Self::Uuid => is_uuid(value),
            Self::HeaderName => {
                let name = value.strip_prefix(':').unwrap_or(value);
                !name.is_empty() && name.bytes().all(is_header_name_byte)
            }
            Self::HeaderValue => value.bytes().all(|byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f)),
            Self::HeaderLenient => !value.bytes().any(|byte| matches!(byte, 0 | b'\r' | b'\n')),
        }
    }

    /// Whether bytes are an address of this format, in network order.
    pub(crate) fn matches_bytes(self, value: &[u8]) -> bool {
        match self {
            Self::Ip => matches!(value.len(), 4 | 16),
            Self::Ipv4 => value.len() == 4,
            Self::Ipv6 => value.len() == 16,
            _ => std::str::from_utf8(value).is_ok_and(|value| self.matches(value)),
        }
    }

    /// What is said of a value that has not this format.
    pub(crate) fn fault(self) -> &'static str {
        match self {
            Self::Email => "value must be a valid email address",
            Self::Hostname => "value must be a valid hostname",
            Self::Ip => "value must be a valid IP address",
            Self::Ipv4 => "value must be a valid IPv4 address",
            Self::Ipv6 => "value must be a valid IPv6 address",
            Self::Uri => "value must be a valid URI",
            Self::UriRef => "value must be a valid URI reference",
            Self::Address => "value must be a valid hostname, or ip address",
            Self::Uuid => "value must be a valid UUID",
            // As Envoy prints the patterns.
            Self::HeaderName => "value does not match regex pattern \"^:?[!#-'*+\\--.0-9A-Z^-z|~]+$\"",
            Self::HeaderValue => "value does not match regex pattern \"^[^\\x00-\\b\\n-\\x1f\\x7f]*$\"",
            Self::HeaderLenient => "value does not match regex pattern \"^[^\\x00\\n\\r]*$\"",
        }
    }
}

/// The validation rules' own class: a range from `+` to `.` lets the comma in.
fn is_header_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'..=b'.' | b'^' | b'_' | b'|' | b'~' | b'`'
        )
}

fn is_hostname(value: &str) -> bool {
    let value = value.strip_suffix('.').unwrap_or(value);
    value.len() <= 253
        && value.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

fn has_scheme(value: &str) -> bool {
    value.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
    })
}

fn is_uri_text(value: &str) -> bool {
    !value.bytes().any(|byte| byte <= b' ' || byte == 0x7f || matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`'))
}

fn is_uuid(value: &str) -> bool {
    value.len() == 36
        && value.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

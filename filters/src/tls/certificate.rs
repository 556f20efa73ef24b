//! A certificate, and what is read out of it.

mod alternative;
mod name;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What is escaped in a PEM text within a header: all but unreserved characters (RFC 3986 section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A certificate of either end.
#[derive(Debug)]
pub struct Certificate {
    der: Vec<u8>,
    facts: OnceLock<CertificateFacts>,
}

impl Certificate {
    /// A certificate in DER.
    #[must_use]
    pub const fn new(der: Vec<u8>) -> Self {
        Self { der, facts: OnceLock::new() }
    }

    /// The certificate in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// What it says, read at the first call. What is not a certificate says nothing.
    pub fn facts(&self) -> &CertificateFacts {
        self.facts.get_or_init(|| CertificateFacts::read(&self.der).unwrap_or_default())
    }

    /// The certificate in PEM (RFC 7468), with its last newline.
    #[must_use]
    pub fn pem(&self) -> String {
        let base64 = STANDARD.encode(&self.der);
        let mut text = String::with_capacity(base64.len() + base64.len() / 64 + 60);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = &base64[..];
        while !rest.is_empty() {
            let (line, next) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = next;
        }
        text.push_str("-----END CERTIFICATE-----\n");
        text
    }

    /// [`Self::pem`] as headers carry it: percent-encoded.
    #[must_use]
    pub fn encoded_pem(&self) -> String {
        utf8_percent_encode(&self.pem(), ESCAPED).to_string()
    }
}

/// What a certificate says (RFC 5280), in the words Envoy has for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Subject, as RFC 2253 writes it: `CN=server,O=Org`.
    pub subject: String,
    /// Issuer, as RFC 2253 writes it.
    pub issuer: String,
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
    /// URI names of the subject alternative name.
    pub uri_sans: Vec<String>,
    /// DNS names.
    pub dns_sans: Vec<String>,
    /// Addresses.
    pub ip_sans: Vec<IpAddr>,
    /// Mail addresses.
    pub email_sans: Vec<String>,
    /// Other names, their values as text.
    pub other_sans: Vec<OtherName>,
    /// SHA-256 of the DER, lower-case hexadecimal.
    pub sha256: String,
    /// SHA-1 of the DER, lower-case hexadecimal.
    pub sha1: String,
    /// `notBefore`
    pub not_before: Option<SystemTime>,
    /// `notAfter`
    pub not_after: Option<SystemTime>,
    /// Identifiers of all extensions, in dotted form.
    pub extensions: Vec<String>,
}

/// A name of a type of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OtherName {
    /// The type, an identifier in dotted form.
    pub oid: String,
    /// The value as text.
    pub value: String,
}

impl CertificateFacts {
    /// Reads a certificate in DER; `None` if it is none.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut facts = Self {
            subject: name::rfc2253(certificate.subject()),
            issuer: name::rfc2253(certificate.issuer()),
            serial: serial(certificate.raw_serial()),
            sha256: hex(digest::digest(&digest::SHA256, der).as_ref()),
            sha1: hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der).as_ref()),
            not_before: moment(certificate.validity().not_before.timestamp()),
            not_after: moment(certificate.validity().not_after.timestamp()),
            extensions: certificate.extensions().iter().map(|extension| extension.oid.to_id_string()).collect(),
            ..Self::default()
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        for name in names.into_iter().flat_map(|it| &it.value.general_names) {
            match name {
                GeneralName::URI(text) => facts.uri_sans.push((*text).to_owned()),
                GeneralName::DNSName(text) => facts.dns_sans.push((*text).to_owned()),
                GeneralName::RFC822Name(text) => facts.email_sans.push((*text).to_owned()),
                GeneralName::IPAddress(bytes) => facts.ip_sans.extend(address(bytes)),
                GeneralName::OtherName(oid, value) => {
                    let value = alternative::other_name(value);
                    facts.other_sans.push(OtherName { oid: oid.to_id_string(), value });
                }
                _ => {}
            }
        }
        Some(facts)
    }
}

/// A serial number as OpenSSL prints big numbers: whole bytes without leading zeros, but zero is one digit.
fn serial(bytes: &[u8]) -> String {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut magnitude = bytes.to_vec();
    if negative {
        // Two's complement.
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(carry.into());
        }
    }
    let digits = &magnitude[magnitude.iter().take_while(|byte| **byte == 0).count()..];
    match digits {
        [] => "0".to_owned(),
        digits if negative => format!("-{}", hex(digits)),
        digits => hex(digits),
    }
}

fn moment(seconds: i64) -> Option<SystemTime> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

/// The address in a name of the kind `iPAddress` (RFC 5280 section 4.2.1.6); `None` if it is of no length addresses have.
#[must_use]
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Bytes in lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

//! `envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher`.

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use filters::config::{At, ConfigError};
use filters::matcher::{RegexLimits, StringMatcher};
use x509_parser::objects::oid_registry;

use crate::tls::secret::{SanKind, SanMatcher};

/// Understands a matcher of names of one kind.
///
/// # Errors
/// When it does not say which kind, or how to match, or names a type that is none.
pub(super) fn parse(
    at: &At<'_>,
    proto: proto::SubjectAltNameMatcher,
    limits: RegexLimits,
) -> Result<SanMatcher, ConfigError> {
    let proto::SubjectAltNameMatcher { san_type, matcher, oid } = proto;
    let kind = match SanType::try_from(san_type) {
        Ok(SanType::Dns) => SanKind::Dns,
        Ok(SanType::Uri) => SanKind::Uri,
        Ok(SanType::Email) => SanKind::Email,
        Ok(SanType::IpAddress) => SanKind::IpAddress,
        Ok(SanType::OtherName) => {
            let failed =
                || at.field("oid").error(format_args!("Failed to create SAN matcher for OTHER_NAME with OID: {oid}"));
            SanKind::OtherName(dotted(&oid).ok_or_else(failed)?)
        }
        Ok(SanType::Unspecified) => {
            return Err(at.field("san_type").error("value must not be in list [SAN_TYPE_UNSPECIFIED]"));
        }
        Err(_) => return Err(at.field("san_type").error("value must be one of the defined enum values")),
    };
    let matcher = StringMatcher::parse(at.required("matcher", matcher)?, at.field("matcher"), limits)?;
    Ok(SanMatcher { kind, matcher })
}

/// An object identifier in dotted decimals. It may be given by a name, as OpenSSL has them.
fn dotted(text: &str) -> Option<String> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let arcs: Vec<u64> = text
            .split('.')
            .map(|arc| arc.parse().ok().filter(|_| arc == "0" || !arc.starts_with(['0', '+'])))
            .collect::<Option<_>>()?;
        let [root, second, ..] = arcs[..] else { return None };
        return (root < 2 && second < 40 || root == 2).then(|| text.to_owned());
    }
    let mut known = oid_registry().iter();
    known.find(|(_, entry)| entry.sn() == text || entry.description() == text).map(|(oid, _)| oid.to_id_string())
}

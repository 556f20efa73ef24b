//! `envoy.rbac.principals.mtls_authenticated`: who presented a certificate that was checked.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::rbac::principals::mtls_authenticated::v3::Config;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use prost::Message;
use proto::subject_alt_name_matcher::SanType;

use crate::config::{At, ConfigError};
use crate::matcher::{RegexLimits, StringMatcher};
use crate::stream_info::ConnectionInfo;
use crate::tls::CertificateFacts;

const MTLS_AUTHENTICATED: &str = "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config";

/// Who presented a certificate that was checked, and whose names match, where it matters.
#[derive(Debug)]
pub(super) struct MtlsAuthenticated(Option<SanMatcher>);

/// `SubjectAltNameMatcher`
#[derive(Debug)]
struct SanMatcher {
    kind: SanKind,
    matcher: StringMatcher,
}

#[derive(Debug)]
enum SanKind {
    Dns,
    /// This very name, or a wildcard for it.
    DnsExactly(String),
    Uri,
    Email,
    IpAddress,
    /// Of a type, in dotted form.
    Other(String),
}

impl MtlsAuthenticated {
    /// Understands an extension.
    ///
    /// # Errors
    /// When it is another one, or asks for nothing.
    pub(super) fn parse(at: &At<'_>, proto: TypedExtensionConfig, limits: RegexLimits) -> Result<Self, ConfigError> {
        let TypedExtensionConfig { name, typed_config } = proto;
        let any = at.required("typed_config", typed_config)?;
        let kind = any.type_url.rsplit('/').next().unwrap_or_default();
        if kind != MTLS_AUTHENTICATED {
            return Err(at.unknown_extension(&name, kind));
        }
        let here = at.field("typed_config");
        let Config { san_matcher, any_validated_client_certificate } = Config::decode(&any.value[..])
            .map_err(|error| here.error(format_args!("Unable to unpack as {MTLS_AUTHENTICATED}: {error}")))?;
        if san_matcher.is_none() && !any_validated_client_certificate {
            return Err(here.error(
                "envoy.rbac.principals.mtls_authenticated did not have any configured validation. At least one \
                 configuration field must be set.",
            ));
        }
        let san = |proto| SanMatcher::parse(&here.field("san_matcher"), proto, limits);
        san_matcher.map(san).transpose().map(Self)
    }

    pub(super) fn matches(&self, connection: &ConnectionInfo) -> bool {
        let session = connection.tls.get().filter(|session| session.peer_validated);
        let facts = session.and_then(|session| session.peer_certificate());
        facts.is_some_and(|facts| self.0.as_ref().is_none_or(|matcher| matcher.matches(facts)))
    }
}

impl SanMatcher {
    fn parse(at: &At<'_>, proto: proto::SubjectAltNameMatcher, limits: RegexLimits) -> Result<Self, ConfigError> {
        let proto::SubjectAltNameMatcher { san_type, matcher, oid } = proto;
        let matcher = at.required("matcher", matcher)?;
        let kind = match SanType::try_from(san_type) {
            Ok(SanType::Dns) => match &matcher.match_pattern {
                Some(MatchPattern::Exact(name)) => SanKind::DnsExactly(name.to_ascii_lowercase()),
                _ => SanKind::Dns,
            },
            Ok(SanType::Uri) => SanKind::Uri,
            Ok(SanType::Email) => SanKind::Email,
            Ok(SanType::IpAddress) => SanKind::IpAddress,
            Ok(SanType::OtherName) if oid.split('.').count() > 1 && oid.split('.').all(is_number) => {
                SanKind::Other(oid)
            }
            Ok(SanType::OtherName) => {
                let message = format_args!("Failed to create SAN matcher for OTHER_NAME with OID: {oid}");
                return Err(at.field("oid").error(message));
            }
            Ok(SanType::Unspecified) => {
                return Err(at.field("san_type").error("value must not be in list [SAN_TYPE_UNSPECIFIED]"));
            }
            Err(_) => return Err(at.field("san_type").error("value must be one of the defined enum values")),
        };
        Ok(Self { kind, matcher: StringMatcher::parse(matcher, at.field("matcher"), limits)? })
    }

    fn matches(&self, facts: &CertificateFacts) -> bool {
        let any = |names: &[String]| names.iter().any(|name| self.matcher.matches(name.as_bytes()));
        match &self.kind {
            SanKind::Dns => any(&facts.dns_sans),
            SanKind::DnsExactly(expected) => facts.dns_sans.iter().any(|name| stands_for(name, expected)),
            SanKind::Uri => any(&facts.uri_sans),
            SanKind::Email => any(&facts.email_sans),
            SanKind::IpAddress => facts.ip_sans.iter().any(|ip| self.matcher.matches(ip.to_string().as_bytes())),
            SanKind::Other(oid) => {
                let mut names = facts.other_sans.iter().filter(|name| name.oid == *oid);
                names.any(|name| self.matcher.matches(name.value.as_bytes()))
            }
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a DNS name of a certificate is, or stands by one `*` in its first label for, an expected name in lower case.
fn stands_for(name: &str, expected: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if name == expected {
        return true;
    }
    let (Some((label, rest)), Some((expected_label, expected_rest))) = (name.split_once('.'), expected.split_once('.'))
    else {
        return false;
    };
    let Some((before, after)) = label.split_once('*') else { return false };
    rest == expected_rest
        && !rest.contains('*')
        && !after.contains('*')
        && !label.starts_with("xn--")
        && label.len() <= expected_label.len() + 1
        && expected_label.starts_with(before)
        && expected_label.ends_with(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_one_label() {
        for (name, expected, matches) in [
            ("a.b.c", "a.b.c", true),
            ("A.b.c", "a.b.c", true),
            ("*.b.c", "a.b.c", true),
            ("*.b.c", "a.a.b.c", false),
            ("*.b.c", "b.c", false),
            ("a*z.b", "abcz.b", true),
            ("a*z.b", "az.b", true),
            ("ab*bc.b", "abc.b", false),
            ("*", "a", false),
            ("a.*.c", "a.b.c", false),
            ("**.b", "a.b", false),
            ("xn--*.b", "xn--a.b", false),
        ] {
            assert_eq!(stands_for(name, expected), matches, "{name} {expected}");
        }
    }
}

//! What a certificate is known by: its names, its fingerprints, its trust domain.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use filters::tls::{Certificate, address};
use rustls::DistinguishedName;
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Judged, Reason, refused};
use crate::tls::secret::{Roots, SanKind, SanMatcher};

/// The subject alternative names of a certificate, in its order.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<(SanKind, String)>);

impl Names {
    pub(super) fn of(certificate: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Self::default() };
        let Ok(Some(names)) = certificate.subject_alternative_name() else { return Self::default() };
        let named = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(text) => Some((SanKind::Dns, (*text).to_owned())),
            GeneralName::URI(text) => Some((SanKind::Uri, (*text).to_owned())),
            GeneralName::RFC822Name(text) => Some((SanKind::Email, (*text).to_owned())),
            GeneralName::IPAddress(bytes) => Some((SanKind::IpAddress, address(bytes)?.to_string())),
            GeneralName::OtherName(oid, value) => {
                let (_, value) = x509_parser::der_parser::parse_der(value).ok()?;
                let value = value.as_sequence().ok().and_then(|items| items.first().cloned()).unwrap_or(value);
                let text = value.as_str().map_or_else(|_| value.as_slice().map(lossy), |text| Ok(text.to_owned()));
                Some((SanKind::OtherName(oid.to_id_string()), text.ok()?))
            }
            _ => None,
        });
        Self(named.collect())
    }

    /// Whether one of the names is as wanted.
    pub(super) fn meet(&self, wanted: &SanMatcher) -> bool {
        self.0.iter().any(|(kind, name)| {
            let of_kind = wanted.kind == SanKind::Any || wanted.kind == *kind;
            of_kind && (wanted.matcher.matches(name.as_bytes()) || (*kind == SanKind::Dns && covers(name, wanted)))
        })
    }

    /// The names as Envoy lists them.
    pub(super) fn list(&self) -> String {
        self.0.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether a wildcard of the certificate covers the exact name that is wanted.
fn covers(pattern: &str, wanted: &SanMatcher) -> bool {
    wanted.matcher.exact_text().and_then(|text| std::str::from_utf8(text).ok()).is_some_and(|text| dns(pattern, text))
}

/// Whether a DNS name of a certificate is for this host: `*` stands for a label, or for a part of the first one.
pub(super) fn dns(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some((label, rest)) = pattern.split_once('.') else { return false };
    let Some((first, others)) = host.split_once('.') else { return false };
    let Some((before, after)) = label.split_once('*') else { return false };
    if after.contains('*') || !rest.eq_ignore_ascii_case(others) || label.starts_with("xn--") {
        return false;
    }
    let (first, before, after) = (first.to_ascii_lowercase(), before.to_ascii_lowercase(), after.to_ascii_lowercase());
    first.len() > before.len() + after.len() - usize::from(label.len() > 1)
        && first.starts_with(&before)
        && first.ends_with(&after)
}

/// Holds if the certificate is for the server that was asked.
pub(super) fn server_is(certificate: &CertificateDer<'_>, server: &ServerName<'_>) -> Judged<()> {
    let names = Names::of(certificate);
    let named = match server {
        ServerName::DnsName(host) => {
            names.0.iter().any(|(kind, name)| *kind == SanKind::Dns && dns(name, host.as_ref()))
        }
        _ => true,
    };
    if named {
        return Ok(());
    }
    let text = format!("verify cert failed: SAN matcher, certificate SANs are [{}]", names.list());
    Err(refused(Reason::San, text))
}

/// Holds if the certificate has this name or address.
pub(super) fn expected(certificate: &CertificateDer<'_>, expected: &str) -> Judged<()> {
    let names = Names::of(certificate);
    let named = names.0.iter().any(|(kind, name)| match kind {
        SanKind::Dns => dns(name, expected),
        _ => name == expected,
    });
    if named {
        return Ok(());
    }
    let text = format!(
        "verify cert failed: verify SAN list, expected SANs: [{expected}], certificate SANs: [{}]",
        names.list()
    );
    Err(refused(Reason::San, text))
}

/// The trusted certificates of the certificate's trust domain (SPIFFE X.509-SVID section 2).
pub(super) fn trust_domain<'a>(domains: &'a [(String, Roots)], certificate: &CertificateDer<'_>) -> Judged<&'a Roots> {
    let names = Names::of(certificate);
    let uri = names.0.iter().find(|(kind, _)| *kind == SanKind::Uri).map(|(_, name)| name.as_str());
    let domain = uri.and_then(|uri| uri.strip_prefix("spiffe://")).map(|rest| rest.split('/').next().unwrap_or(rest));
    let Some(domain) = domain.filter(|domain| !domain.is_empty()) else {
        return Err(refused(Reason::Chain, "verify cert failed: SPIFFE cert: Invalid cert precheck".to_owned()));
    };
    let found = domains.iter().find(|(name, _)| name == domain).map(|(_, roots)| roots);
    found.ok_or_else(|| refused(Reason::Chain, "verify cert failed: no trust bundle store".to_owned()))
}

/// Fingerprints.
pub(super) struct Digests {
    pub(super) certificate: [u8; 32],
    /// Of the public key information.
    pub(super) key: Option<[u8; 32]>,
}

pub(super) fn digests(certificate: &CertificateDer<'_>) -> Digests {
    let sha256 = |bytes: &[u8]| <[u8; 32]>::try_from(digest(&SHA256, bytes).as_ref()).unwrap_or_default();
    let key = X509Certificate::from_der(certificate).ok().map(|(_, parsed)| sha256(parsed.public_key().raw));
    Digests { certificate: sha256(certificate), key }
}

/// The subjects of trusted certificates.
pub(super) fn subjects(roots: &Roots) -> Vec<DistinguishedName> {
    roots.anchors.iter().map(|anchor| DistinguishedName::in_sequence(anchor.subject.as_ref())).collect()
}

/// The trusted certificate that has the name of this one's issuer.
pub(super) fn issuer(roots: &Roots, certificate: &CertificateDer<'_>) -> Option<Arc<Certificate>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let issuer = parsed.issuer().as_raw();
    // An anchor has the name without the sequence around it.
    let index = roots.anchors.iter().position(|anchor| issuer.ends_with(anchor.subject.as_ref()))?;
    roots.facts.get(index).cloned()
}

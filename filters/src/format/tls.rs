//! Operators about TLS sessions: `%DOWNSTREAM_TLS_*%`, `%DOWNSTREAM_PEER_*%` and their like.

use std::io::Write;
use std::sync::Arc;
use std::time::SystemTime;

use super::evaluate::without_spaces;
use crate::stream_info::StreamInfo;
use crate::tls::{Certificate, CertificateFacts, TlsInfo};

/// What an operator without arguments prints of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsFact {
    Version,
    Cipher,
    Group,
    SessionId,
    /// Whom this proxy asked for.
    ServerName,
    Failure,
    Peer(CertificateFact),
    Local(CertificateFact),
    /// The peer's certificate itself.
    PeerPem,
    /// Of everything the peer presented.
    Chain(CertificateFact),
    /// Of who signed the peer's certificate.
    Issuer(CertificateFact),
}

/// What is printed of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CertificateFact {
    Subject,
    Issuer,
    IpSans,
    DnsSans,
    UriSans,
    EmailSans,
    OtherSans,
    Sha1,
    Sha256,
    Serial,
}

/// The fact an operator names, and whether it is the upstream connection's. Which there are follows no rule.
pub(super) fn fact_named(name: &str) -> Option<(bool, TlsFact)> {
    use CertificateFact as Of;
    let (upstream, name) = side(name)?;
    let fact = match name {
        "TLS_VERSION" => TlsFact::Version,
        "TLS_CIPHER" => TlsFact::Cipher,
        "TLS_GROUP" => TlsFact::Group,
        "TLS_SESSION_ID" => TlsFact::SessionId,
        "PEER_SUBJECT" => TlsFact::Peer(Of::Subject),
        "PEER_ISSUER" => TlsFact::Peer(Of::Issuer),
        "PEER_IP_SAN" => TlsFact::Peer(Of::IpSans),
        "PEER_DNS_SAN" => TlsFact::Peer(Of::DnsSans),
        "PEER_URI_SAN" => TlsFact::Peer(Of::UriSans),
        "PEER_CERT" => TlsFact::PeerPem,
        "LOCAL_IP_SAN" => TlsFact::Local(Of::IpSans),
        "LOCAL_DNS_SAN" => TlsFact::Local(Of::DnsSans),
        "LOCAL_URI_SAN" => TlsFact::Local(Of::UriSans),
        "SERVER_NAME" if upstream => TlsFact::ServerName,
        _ if upstream => return None,
        "TRANSPORT_FAILURE_REASON" => TlsFact::Failure,
        "PEER_EMAIL_SAN" => TlsFact::Peer(Of::EmailSans),
        "PEER_OTHERNAME_SAN" => TlsFact::Peer(Of::OtherSans),
        "PEER_FINGERPRINT_1" => TlsFact::Peer(Of::Sha1),
        "PEER_FINGERPRINT_256" => TlsFact::Peer(Of::Sha256),
        "PEER_SERIAL" => TlsFact::Peer(Of::Serial),
        "PEER_CHAIN_FINGERPRINTS_1" => TlsFact::Chain(Of::Sha1),
        "PEER_CHAIN_FINGERPRINTS_256" => TlsFact::Chain(Of::Sha256),
        "PEER_CHAIN_SERIALS" => TlsFact::Chain(Of::Serial),
        "PEER_ISSUER_SERIAL" => TlsFact::Issuer(Of::Serial),
        "PEER_ISSUER_FINGERPRINT_256" => TlsFact::Issuer(Of::Sha256),
        "LOCAL_SUBJECT" => TlsFact::Local(Of::Subject),
        "LOCAL_EMAIL_SAN" => TlsFact::Local(Of::EmailSans),
        "LOCAL_OTHERNAME_SAN" => TlsFact::Local(Of::OtherSans),
        _ => return None,
    };
    Some((upstream, fact))
}

/// Whether an operator names a moment of the peer's certificate: of the upstream's; its last.
pub(super) fn validity_named(name: &str) -> Option<(bool, bool)> {
    let (upstream, name) = side(name)?;
    match name {
        "PEER_CERT_V_START" => Some((upstream, false)),
        "PEER_CERT_V_END" => Some((upstream, true)),
        _ => None,
    }
}

fn side(name: &str) -> Option<(bool, &str)> {
    let downstream = name.strip_prefix("DOWNSTREAM_").map(|rest| (false, rest));
    downstream.or_else(|| name.strip_prefix("UPSTREAM_").map(|rest| (true, rest)))
}

/// The session of one side.
pub(super) fn session(upstream: bool, info: &StreamInfo) -> Option<&TlsInfo> {
    if upstream { info.upstream.as_ref()?.tls.as_deref() } else { info.connection.tls.get() }
}

/// The first or last moment of the peer's certificate.
pub(super) fn validity(upstream: bool, end: bool, info: &StreamInfo) -> Option<SystemTime> {
    let facts = session(upstream, info)?.peer_certificate()?;
    if end { facts.not_after } else { facts.not_before }
}

impl TlsFact {
    /// Appends the text; false, and nothing appended, when there is none.
    pub(super) fn append(self, out: &mut Vec<u8>, session: &TlsInfo) -> bool {
        let start = out.len();
        match self {
            Self::Version => out.extend_from_slice(session.version.as_bytes()),
            Self::Cipher => out.extend_from_slice(session.cipher.as_bytes()),
            Self::Group => out.extend_from_slice(session.group.as_bytes()),
            Self::SessionId => out.extend_from_slice(session.session_id.as_bytes()),
            Self::ServerName => out.extend_from_slice(session.server_name.as_bytes()),
            Self::Failure => {
                without_spaces(out, session.failure.as_deref().unwrap_or_default());
            }
            Self::Peer(fact) => fact.append(out, session.peer_certificate()),
            Self::Local(fact) => fact.append(out, session.local_certificate()),
            Self::Issuer(fact) => fact.append(out, session.issuer_certificate()),
            Self::PeerPem => out.extend(session.peer.first().map(|it| it.encoded_pem()).unwrap_or_default().bytes()),
            Self::Chain(fact) => separated(out, &session.peer, |out, certificate: &Arc<Certificate>| {
                fact.append(out, Some(certificate.facts()));
            }),
        }
        out.len() > start
    }
}

impl CertificateFact {
    fn append(self, out: &mut Vec<u8>, facts: Option<&CertificateFacts>) {
        let Some(facts) = facts else { return };
        let text = |out: &mut Vec<u8>, text: &String| out.extend_from_slice(text.as_bytes());
        match self {
            Self::Subject => text(out, &facts.subject),
            Self::Issuer => text(out, &facts.issuer),
            Self::Sha1 => text(out, &facts.sha1),
            Self::Sha256 => text(out, &facts.sha256),
            Self::Serial => text(out, &facts.serial),
            Self::DnsSans => separated(out, &facts.dns_sans, text),
            Self::UriSans => separated(out, &facts.uri_sans, text),
            Self::EmailSans => separated(out, &facts.email_sans, text),
            Self::OtherSans => separated(out, &facts.other_sans, |out, name| text(out, &name.value)),
            Self::IpSans => separated(out, &facts.ip_sans, |out, address| {
                let _ = write!(out, "{address}");
            }),
        }
    }
}

fn separated<T>(out: &mut Vec<u8>, items: &[T], append: impl Fn(&mut Vec<u8>, &T)) {
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        append(out, item);
    }
}

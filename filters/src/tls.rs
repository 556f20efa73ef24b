//! What is known about a TLS session and the certificates of its two ends.
//!
//! Handshakes are not made here: whoever makes one leaves a [`TlsInfo`], and what asks who is calling (access logs,
//! `x-forwarded-client-cert`, RBAC) reads it. Certificates are read when somebody asks, once: most sessions are never asked.

mod certificate;

use std::sync::Arc;

pub use self::certificate::{Certificate, CertificateFacts, OtherName, address, hex};

/// A TLS session, from the end of its handshake on.
#[derive(Debug, Clone, Default)]
pub struct TlsInfo {
    /// In OpenSSL's words: `TLSv1.2`, `TLSv1.3`.
    pub version: &'static str,
    /// In OpenSSL's words: `ECDHE-ECDSA-AES128-GCM-SHA256`, `TLS_AES_256_GCM_SHA384`; empty before one was agreed on.
    pub cipher: &'static str,
    /// The key exchange group in OpenSSL's words (`X25519`); empty before one was agreed on.
    pub group: &'static str,
    /// What the session can be found by again, hexadecimal; empty where it has no such name.
    pub session_id: String,
    /// Whom the client of the session asked for, as it wrote it; empty if nobody.
    pub server_name: String,
    /// What ALPN agreed on; empty if nothing.
    pub alpn: Vec<u8>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// What the peer presented, its own certificate first.
    pub peer: Vec<Arc<Certificate>>,
    /// Whether that was checked against something, and held.
    pub peer_validated: bool,
    /// Who signed the peer's own certificate, where that is known: the next one it presented, or one that it was checked
    /// against.
    pub peer_issuer: Option<Arc<Certificate>>,
    /// What was presented to the peer; `None` if nothing.
    pub local: Option<Arc<Certificate>>,
    /// Why the handshake failed, in Envoy's words (`%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`).
    pub failure: Option<String>,
}

impl TlsInfo {
    /// The peer's own certificate.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<&CertificateFacts> {
        self.peer.first().map(|certificate| certificate.facts())
    }

    /// The certificate the peer got.
    #[must_use]
    pub fn local_certificate(&self) -> Option<&CertificateFacts> {
        self.local.as_ref().map(|certificate| certificate.facts())
    }

    /// The certificate that signed the peer's own.
    #[must_use]
    pub fn issuer_certificate(&self) -> Option<&CertificateFacts> {
        self.peer_issuer.as_ref().map(|certificate| certificate.facts())
    }
}

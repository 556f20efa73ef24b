//! Whom a context trusts: what Envoy's default certificate validator does, on webpki's path building.
//!
//! A chain has to end in a trusted certificate, unless nothing is trusted by name or everything is (`ACCEPT_UNTRUSTED`); then
//! the peer's own certificate has to have one of the wanted names, and one of the wanted fingerprints. Unlike webpki's own
//! verifier this one takes a trusted certificate as the peer's own, reads names by Envoy's matchers, and says what is wrong in
//! OpenSSL's words.

mod diagnosis;
mod names;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use filters::tls::Certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerMisbehaved, SignatureScheme,
};
use webpki::{EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder};

use self::names::Names;
use super::secret::{Roots, ValidationContext};
use super::signing::Schemes;

/// Which end the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// We are the server.
    Client,
    /// We are the client.
    Server,
}

/// What a handshake's verification found, for whoever drives the handshake: rustls hands errors on by kind alone, and says
/// nothing of what went well.
#[derive(Debug, Default)]
pub struct Observed {
    /// What the peer presented.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whether it was checked against something, and held.
    pub validated: bool,
    /// The trusted certificate that signed the peer's own, if that came alone.
    pub issuer: Option<Arc<Certificate>>,
    /// Why it was refused; or, where everybody is accepted, would have been.
    pub failure: Option<Refusal>,
    /// What the peer signed with.
    pub scheme: Option<SignatureScheme>,
}

/// Why a certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which statistic counts it.
    pub reason: Reason,
    /// Envoy's words.
    pub text: String,
}

/// What is wrong with a certificate, as statistics tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `fail_verify_error`: its chain.
    Chain,
    /// `fail_verify_san`: its names.
    San,
    /// `fail_verify_cert_hash`: its fingerprints.
    Hash,
    /// Nothing is trusted that it could be checked against; not counted.
    Untrusted,
}

thread_local! {
    /// Verification runs within one turn of the handshake that wants it, on the worker's thread; the handshake takes what it
    /// left when the turn is over.
    static OBSERVED: RefCell<Option<Observed>> = const { RefCell::new(None) };
    /// Set for the length of such a turn.
    static EXPECTED: RefCell<Option<Rc<str>>> = const { RefCell::new(None) };
}

/// Runs a turn of a handshake in which the peer's certificate has to have this name or address beside all that the context
/// wants (`auto_san_validation`).
pub fn expecting<T>(name: Option<&Rc<str>>, turn: impl FnOnce() -> T) -> T {
    EXPECTED.set(name.cloned());
    let done = turn();
    EXPECTED.take();
    done
}

/// What verification left since this was last called.
pub fn take_observed() -> Option<Observed> {
    OBSERVED.with_borrow_mut(Option::take)
}

fn observe(note: impl FnOnce(&mut Observed)) {
    OBSERVED.with_borrow_mut(|observed| note(observed.get_or_insert_default()));
}

/// Verifies peers for one context.
#[derive(Debug)]
pub struct Verifier {
    /// `None` where nothing is to be checked at all.
    context: Option<Arc<ValidationContext>>,
    peer: Peer,
    algorithms: WebPkiSupportedAlgorithms,
    /// Without a certificate a client is turned away.
    required: bool,
    /// The names of trusted certificates, for clients to choose theirs by.
    hints: Vec<DistinguishedName>,
    /// The server's certificate has to be for the name it was asked by (`auto_sni_san_validation`).
    by_server_name: bool,
    /// What the peer may sign the handshake by, the best first; `None` for whatever there is.
    schemes: Option<Schemes>,
}

impl Verifier {
    /// A verifier of this kind of peer.
    #[must_use]
    pub fn new(context: Option<Arc<ValidationContext>>, peer: Peer, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { context, peer, algorithms, required: false, hints: Vec::new(), by_server_name: false, schemes: None }
    }

    /// Whether clients have to have a certificate, and whether they are told whose
    /// (`suppress_client_ca_list`).
    #[must_use]
    pub fn of_clients(mut self, required: bool, tell_hints: bool) -> Self {
        self.required = required;
        let roots = self.context.as_ref().and_then(|context| context.roots.as_ref()).filter(|_| tell_hints);
        self.hints = roots.map(names::subjects).unwrap_or_default();
        self
    }

    /// Servers have to have a certificate for the name they were asked by.
    #[must_use]
    pub const fn by_server_name(mut self, wanted: bool) -> Self {
        self.by_server_name = wanted;
        self
    }

    /// Handshakes have to be signed by one of these, where there are any (`signature_algorithms`).
    #[must_use]
    pub fn by_schemes(mut self, schemes: Option<&Schemes>) -> Self {
        self.schemes = schemes.cloned();
        self
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        let known = self.algorithms.supported_schemes();
        match &self.schemes {
            Some(wanted) => wanted.iter().copied().filter(|scheme| known.contains(scheme)).collect(),
            None => known,
        }
    }

    /// Whether the peer was told that it may sign so.
    fn offered(&self, scheme: SignatureScheme) -> Result<(), Error> {
        let fine = self.schemes.as_ref().is_none_or(|schemes| schemes.contains(&scheme));
        let unasked = PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme;
        if fine { Ok(()) } else { Err(Error::PeerMisbehaved(unasked)) }
    }

    /// Checks the chain of a session that is resumed: what was trusted when it was made may not be any more. Leaves what it
    /// found as a handshake does.
    ///
    /// # Errors
    /// As in a handshake.
    pub fn verify_again(&self, chain: &[CertificateDer<'_>], server: &ServerName<'_>) -> Result<(), Error> {
        let Some((leaf, intermediates)) = chain.split_first() else { return Ok(()) };
        self.verify(leaf, intermediates, UnixTime::now(), Some(server))
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        server_name: Option<&ServerName<'_>>,
    ) -> Result<(), Error> {
        let chain: Vec<_> = [leaf].into_iter().chain(intermediates).map(|it| it.clone().into_owned()).collect();
        let judged = match &self.context {
            Some(context) => judge(context, self.peer, &self.algorithms, &chain, now),
            // A name proves nothing where nobody is trusted.
            None if EXPECTED.with_borrow(Option::is_some) => {
                Err((Refusal { reason: Reason::Untrusted, text: String::new() }, CertificateError::UnknownIssuer))
            }
            None => Ok(false),
        };
        let judged = judged.and_then(|validated| match server_name.filter(|_| self.by_server_name) {
            Some(name) => names::server_is(&chain[0], name).map(|()| true),
            None => Ok(validated),
        });
        let tolerant = self.context.as_ref().is_some_and(|context| context.accept_untrusted);
        let (validated, outcome, failure) = match judged {
            Ok(validated) => (validated, Ok(()), None),
            Err((refusal, _)) if tolerant => (false, Ok(()), Some(refusal)),
            Err((refusal, error)) => (false, Err(Error::InvalidCertificate(error)), Some(refusal)),
        };
        let roots = self.context.as_ref().and_then(|context| context.roots.as_ref());
        let issuer = roots.filter(|_| chain.len() == 1).and_then(|roots| names::issuer(roots, &chain[0]));
        observe(|observed| {
            observed.issuer = issuer;
            observed.chain = chain;
            observed.validated = validated;
            observed.failure = failure;
        });
        outcome
    }
}

/// What is wrong, and the error that makes rustls send the alert BoringSSL sends.
type Judged<T> = Result<T, (Refusal, CertificateError)>;

/// Whether the chain was checked against anything.
fn judge(
    context: &ValidationContext,
    peer: Peer,
    algorithms: &WebPkiSupportedAlgorithms,
    chain: &[CertificateDer<'static>],
    now: UnixTime,
) -> Judged<bool> {
    let mut validated = false;
    let roots = match &context.trust_domains {
        Some(domains) => Some(names::trust_domain(domains, &chain[0])?),
        None => context.roots.as_ref(),
    };
    if let Some(roots) = roots {
        let most = context.max_verify_depth.unwrap_or(100) as usize;
        verify_chain(context, roots, peer, algorithms, chain, now, most)
            .map_err(|error| diagnosis::of_chain(&error, chain, roots, now, most))?;
        validated = true;
    }
    if let Some(expected) = EXPECTED.with_borrow(Option::clone) {
        names::expected(&chain[0], &expected)?;
        validated = true;
    }
    if !context.sans.is_empty() {
        let names = Names::of(&chain[0]);
        if !context.sans.iter().any(|matcher| names.meet(matcher)) {
            let text = match context.trust_domains {
                Some(_) => "verify cert failed: SAN match".to_owned(),
                None => format!("verify cert failed: SAN matcher, certificate SANs are [{}]", names.list()),
            };
            return Err(refused(Reason::San, text));
        }
        validated = true;
    }
    if !context.certificate_hashes.is_empty() || !context.spki_hashes.is_empty() {
        let digests = names::digests(&chain[0]);
        if !context.certificate_hashes.contains(&digests.certificate)
            && !digests.key.is_some_and(|key| context.spki_hashes.contains(&key))
        {
            return Err(refused(Reason::Hash, "verify cert failed: cert hash and spki".to_owned()));
        }
        validated = true;
    }
    Ok(validated)
}

/// A refusal of Envoy's own, which the peer learns of as "certificate unknown".
fn refused(reason: Reason, text: String) -> (Refusal, CertificateError) {
    let error = CertificateError::Other(OtherError(Arc::new(std::io::Error::other(text.clone()))));
    (Refusal { reason, text }, error)
}

fn verify_chain(
    context: &ValidationContext,
    roots: &Roots,
    peer: Peer,
    algorithms: &WebPkiSupportedAlgorithms,
    chain: &[CertificateDer<'static>],
    now: UnixTime,
    most: usize,
) -> Result<(), webpki::Error> {
    let leaf = EndEntityCert::try_from(&chain[0])?;
    let usage = || if peer == Peer::Client { KeyUsage::client_auth() } else { KeyUsage::server_auth() };
    let crls: Vec<&webpki::CertRevocationList<'_>> = context.crls.iter().collect();
    let depth =
        if context.only_verify_leaf_crl { RevocationCheckDepth::EndEntity } else { RevocationCheckDepth::Chain };
    let revocation = || {
        let options = RevocationOptionsBuilder::new(&crls).ok()?;
        Some(options.with_depth(depth).with_expiration_policy(ExpirationPolicy::Enforce).build())
    };
    // Whether a certificate is revoked is looked at when it is trusted otherwise.
    let without_lists = match context.check_crls && crls.is_empty() {
        true => Err(webpki::Error::UnknownRevocationStatus),
        false => Ok(()),
    };
    if roots.certificates.contains(&chain[0]) {
        // A certificate that is trusted itself needs no path.
        return diagnosis::is_usable(&chain[0], peer, now, context.allow_expired).and(without_lists);
    }
    let path_is_short = |path: &webpki::VerifiedPath<'_>| {
        if path.intermediate_certificates().count() > most {
            return Err(webpki::Error::MaximumPathDepthExceeded);
        }
        Ok(())
    };
    let at = |time| {
        let verified = leaf.verify_for_usage(
            algorithms.all,
            &roots.anchors,
            &chain[1..],
            time,
            usage(),
            revocation(),
            Some(&path_is_short),
        );
        verified.map(drop)
    };
    match at(now) {
        Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) if context.allow_expired => {
            // OpenSSL is told not to look at times; a moment at which all of the chain was valid is as good.
            at(diagnosis::moment_of(chain).unwrap_or(now))
        }
        verified => verified,
    }?;
    without_lists
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        // A context without any say about clients does not ask them.
        self.context.is_some() || self.required
    }

    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now, None).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        observe(|observed| observed.scheme = Some(dss.scheme));
        self.offered(dss.scheme)?;
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        observe(|observed| observed.scheme = Some(dss.scheme));
        self.offered(dss.scheme)?;
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now, Some(server_name)).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// Certificates as stream info keeps them.
#[must_use]
pub fn certificates(chain: &[CertificateDer<'_>]) -> Vec<Arc<Certificate>> {
    chain.iter().map(|certificate| Arc::new(Certificate::new(certificate.to_vec()))).collect()
}

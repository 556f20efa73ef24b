//! What is wrong with a chain, in OpenSSL's words: the error, and how far from the peer's own certificate it is.

use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Peer, Reason, Refusal};
use crate::tls::secret::Roots;

/// Envoy's refusal of a chain, and the error whose alert the peer gets.
pub(super) fn of_chain(
    error: &Error,
    chain: &[CertificateDer<'static>],
    roots: &Roots,
    now: UnixTime,
    most: usize,
) -> (Refusal, CertificateError) {
    let parsed = parse(chain);
    let at = |wanted: &dyn Fn(&X509Certificate<'_>) -> bool| parsed.iter().position(wanted).unwrap_or(0);
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let (depth, words, alert) = match error {
        Error::CertExpired { .. } => {
            let depth = at(&|it| it.validity().not_after.timestamp() < seconds);
            (depth, "certificate has expired", CertificateError::Expired)
        }
        Error::CertNotValidYet { .. } => {
            let depth = at(&|it| it.validity().not_before.timestamp() > seconds);
            (depth, "certificate is not yet valid", CertificateError::NotValidYet)
        }
        Error::UnknownIssuer | Error::CaUsedAsEndEntity => unknown_issuer(&parsed, roots),
        Error::CertRevoked => {
            let words = "certificate revocation check against provided CRLs failed: certificate revoked";
            (0, words, CertificateError::Revoked)
        }
        Error::UnknownRevocationStatus => {
            let words = "certificate revocation check against provided CRLs failed: unable to get certificate CRL";
            (0, words, CertificateError::UnknownRevocationStatus)
        }
        Error::CrlExpired { .. } => (0, "CRL has expired", CertificateError::ExpiredRevocationList),
        Error::EndEntityUsedAsCa => (1, "invalid CA certificate", CertificateError::UnknownIssuer),
        Error::PathLenConstraintViolated => (1, "path length constraint exceeded", CertificateError::UnknownIssuer),
        Error::MaximumPathDepthExceeded => {
            (most + 1, "unable to get local issuer certificate", CertificateError::UnknownIssuer)
        }
        Error::RequiredEkuNotFoundContext(_) => {
            (0, "unsupported certificate purpose", CertificateError::InvalidPurpose)
        }
        Error::NameConstraintViolation => (0, "permitted subtree violation", CertificateError::BadEncoding),
        Error::InvalidSignatureForPublicKey => (0, "certificate signature failure", CertificateError::BadSignature),
        _ => (0, "certificate rejected", CertificateError::BadEncoding),
    };
    let text =
        format!("verify cert failed: X509_verify_cert: certificate verification error at depth {depth}: {words}");
    (Refusal { reason: Reason::Chain, text }, alert)
}

fn parse<'a>(chain: &'a [CertificateDer<'static>]) -> Vec<X509Certificate<'a>> {
    chain.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect()
}

/// Where the chain stops: the last certificate whose issuer is at hand.
fn unknown_issuer(chain: &[X509Certificate<'_>], roots: &Roots) -> (usize, &'static str, CertificateError) {
    let issued_by_root = |it: &X509Certificate<'_>| {
        let raw = it.issuer().as_raw();
        roots
            .certificates
            .iter()
            .any(|root| X509Certificate::from_der(root).is_ok_and(|(_, root)| root.subject().as_raw() == raw))
    };
    let mut depth = 0;
    while let Some(current) = chain.get(depth) {
        let is_self_signed = current.subject().as_raw() == current.issuer().as_raw();
        if is_self_signed {
            let words =
                if depth == 0 { "self signed certificate" } else { "self signed certificate in certificate chain" };
            return (depth, words, CertificateError::UnknownIssuer);
        }
        if issued_by_root(current) {
            // The name is trusted, the key is not.
            return (depth, "certificate signature failure", CertificateError::BadSignature);
        }
        let issuer = chain.iter().skip(depth + 1).position(|it| it.subject().as_raw() == current.issuer().as_raw());
        match issuer {
            Some(next) => depth += 1 + next,
            None => break,
        }
    }
    (depth, "unable to get local issuer certificate", CertificateError::UnknownIssuer)
}

/// Holds if a certificate that is trusted itself may be used by such a peer now.
pub(super) fn is_usable(
    certificate: &CertificateDer<'_>,
    peer: Peer,
    now: UnixTime,
    at_any_time: bool,
) -> Result<(), Error> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| Error::BadDer)?;
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    let moment = |at: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at).unwrap_or_default()));
    if !at_any_time && validity.not_after.timestamp() < seconds {
        return Err(Error::CertExpired { time: now, not_after: moment(validity.not_after.timestamp()) });
    }
    if !at_any_time && validity.not_before.timestamp() > seconds {
        return Err(Error::CertNotValidYet { time: now, not_before: moment(validity.not_before.timestamp()) });
    }
    let usage = parsed.extended_key_usage().map_err(|_| Error::BadDer)?.map(|usage| usage.value);
    let fits =
        usage.is_none_or(|usage| usage.any || if peer == Peer::Client { usage.client_auth } else { usage.server_auth });
    if fits { Ok(()) } else { Err(Error::CaUsedAsEndEntity) }
}

/// A moment at which every certificate of the chain is valid, if there is one.
pub(super) fn moment_of(chain: &[CertificateDer<'static>]) -> Option<UnixTime> {
    let parsed = parse(chain);
    let from = parsed.iter().map(|it| it.validity().not_before.timestamp()).max()?;
    let until = parsed.iter().map(|it| it.validity().not_after.timestamp()).min()?;
    let within = u64::try_from(until).ok().filter(|_| from <= until)?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(within)))
}

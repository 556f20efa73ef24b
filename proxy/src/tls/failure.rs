//! Why there is no TLS session: what is counted, and what is written down in BoringSSL's words.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved};

use super::verify::{Observed, Reason};

/// A handshake that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What is counted.
    pub count: Count,
    /// The reason in Envoy's words, white space and all; empty where the peer left without giving one.
    pub text: String,
}

/// What a failed handshake is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// The peer left: nothing.
    Nothing,
    /// `ssl.connection_error`
    ConnectionError,
    /// `ssl.fail_verify_no_cert`
    NoCertificate,
    /// `ssl.fail_verify_error`, `ssl.fail_verify_san`, `ssl.fail_verify_cert_hash`
    Verify(Reason),
}

/// The number BoringSSL packs a reason of its TLS library into.
const fn packed(reason: u32) -> u32 {
    const LIBRARY_SSL: u32 = 16;
    (LIBRARY_SSL << 24) | reason
}

/// What BoringSSL has no better word for.
const ON_CLIENT_HELLO: (u32, &str) = (154, "HANDSHAKE_FAILURE_ON_CLIENT_HELLO");

fn error(reason: u32, words: &str) -> String {
    format!("TLS_error:|{}:SSL routines:OPENSSL_internal:{words}:TLS_error_end", packed(reason))
}

impl Failure {
    /// The peer ended the connection.
    #[must_use]
    pub const fn gone() -> Self {
        Self { count: Count::Nothing, text: String::new() }
    }

    /// The context has no secret yet, and so no connection can be made.
    #[must_use]
    pub fn secret_missing() -> Self {
        Self { count: Count::Nothing, text: "TLS error: Secret is not supplied by SDS".to_owned() }
    }

    /// The client's hello is not one to be answered.
    #[must_use]
    pub fn rejected() -> Self {
        Self { count: Count::ConnectionError, text: error(133, "CONNECTION_REJECTED") }
    }

    /// What rustls found; `first` are the first bytes of the peer.
    #[must_use]
    pub fn of(error_: &Error, observed: &Observed, first: &[u8]) -> Self {
        if let Error::NoCertificatesPresented = error_ {
            let words = "PEER_DID_NOT_RETURN_A_CERTIFICATE:peer did not provide required client certificate";
            return Self { count: Count::NoCertificate, text: error(192, words) };
        }
        if let (Error::InvalidCertificate(_), Some(refusal)) = (error_, &observed.failure) {
            let colon = if refusal.text.is_empty() { "" } else { ":" };
            let text = error(125, &format!("CERTIFICATE_VERIFY_FAILED{colon}{}", refusal.text));
            return Self { count: Count::Verify(refusal.reason), text };
        }
        let (reason, words) = reason(error_, first);
        Self { count: Count::ConnectionError, text: error(reason, words) }
    }

    /// What a server said that did not answer the client's hello with one of its own.
    #[must_use]
    pub fn of_hello(error_: &Error, observed: &Observed, first: &[u8]) -> Self {
        if let Error::AlertReceived(AlertDescription::HandshakeFailure) = error_ {
            let (reason, words) = alert_received(AlertDescription::HandshakeFailure);
            let (on_hello, what) = ON_CLIENT_HELLO;
            let words = format!("{words}|{}:SSL routines:OPENSSL_internal:{what}", packed(on_hello));
            return Self { count: Count::ConnectionError, text: error(reason, &words) };
        }
        Self::of(error_, observed, first)
    }
}

/// BoringSSL's reason for what rustls found: the number and the name it has there.
fn reason(error: &Error, first: &[u8]) -> (u32, &'static str) {
    match error {
        Error::AlertReceived(alert) => alert_received(*alert),
        Error::PeerIncompatible(why) => match why {
            PeerIncompatible::NoCipherSuitesInCommon => (184, "NO_SHARED_CIPHER"),
            PeerIncompatible::NoKxGroupsInCommon | PeerIncompatible::NamedGroupsExtensionRequired => {
                (266, "NO_SHARED_GROUP")
            }
            PeerIncompatible::NoSignatureSchemesInCommon
            | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => (253, "NO_COMMON_SIGNATURE_ALGORITHMS"),
            _ => (240, "UNSUPPORTED_PROTOCOL"),
        },
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion)
            if first.first() != Some(&0x16) =>
        {
            not_tls(first)
        }
        Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => (247, "WRONG_VERSION_NUMBER"),
        Error::PeerSentOversizedRecord | Error::InvalidMessage(InvalidMessage::MessageTooLarge) => {
            (146, "ENCRYPTED_LENGTH_TOO_LONG")
        }
        Error::DecryptError => (139, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
        Error::InvalidCertificate(CertificateError::BadEncoding) => (124, "CANNOT_PARSE_LEAF_CERT"),
        Error::InvalidMessage(_) => (137, "DECODE_ERROR"),
        Error::PeerMisbehaved(PeerMisbehaved::SelectedUnusableCipherSuiteForVersion) => (246, "WRONG_CIPHER_RETURNED"),
        Error::InappropriateMessage { .. } => (225, "UNEXPECTED_RECORD"),
        Error::InappropriateHandshakeMessage { .. } => (223, "UNEXPECTED_MESSAGE"),
        _ => ON_CLIENT_HELLO,
    }
}

/// What BoringSSL makes of first bytes that are no record.
fn not_tls(first: &[u8]) -> (u32, &'static str) {
    const METHODS: [&[u8]; 4] = [b"GET ", b"POST ", b"HEAD ", b"PUT "];
    if METHODS.iter().any(|method| first.starts_with(&method[..method.len().min(5)])) {
        return (156, "HTTP_REQUEST");
    }
    if first.starts_with(b"CONNE") {
        return (155, "HTTPS_PROXY_REQUEST");
    }
    (247, "WRONG_VERSION_NUMBER")
}

/// An alert of the peer: BoringSSL adds its number to a thousand.
fn alert_received(alert: AlertDescription) -> (u32, &'static str) {
    let words = match alert {
        AlertDescription::CloseNotify => "SSLV3_ALERT_CLOSE_NOTIFY",
        AlertDescription::UnexpectedMessage => "SSLV3_ALERT_UNEXPECTED_MESSAGE",
        AlertDescription::BadRecordMac => "SSLV3_ALERT_BAD_RECORD_MAC",
        AlertDescription::RecordOverflow => "TLSV1_ALERT_RECORD_OVERFLOW",
        AlertDescription::HandshakeFailure => "SSLV3_ALERT_HANDSHAKE_FAILURE",
        AlertDescription::BadCertificate => "SSLV3_ALERT_BAD_CERTIFICATE",
        AlertDescription::UnsupportedCertificate => "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        AlertDescription::CertificateRevoked => "SSLV3_ALERT_CERTIFICATE_REVOKED",
        AlertDescription::CertificateExpired => "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        AlertDescription::CertificateUnknown => "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        AlertDescription::IllegalParameter => "SSLV3_ALERT_ILLEGAL_PARAMETER",
        AlertDescription::UnknownCA => "TLSV1_ALERT_UNKNOWN_CA",
        AlertDescription::AccessDenied => "TLSV1_ALERT_ACCESS_DENIED",
        AlertDescription::DecodeError => "TLSV1_ALERT_DECODE_ERROR",
        AlertDescription::DecryptError => "TLSV1_ALERT_DECRYPT_ERROR",
        AlertDescription::ProtocolVersion => "TLSV1_ALERT_PROTOCOL_VERSION",
        AlertDescription::InsufficientSecurity => "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        AlertDescription::InternalError => "TLSV1_ALERT_INTERNAL_ERROR",
        AlertDescription::InappropriateFallback => "TLSV1_ALERT_INAPPROPRIATE_FALLBACK",
        AlertDescription::UserCanceled => "TLSV1_ALERT_USER_CANCELLED",
        AlertDescription::NoRenegotiation => "TLSV1_ALERT_NO_RENEGOTIATION",
        AlertDescription::UnsupportedExtension => "TLSV1_ALERT_UNSUPPORTED_EXTENSION",
        AlertDescription::UnrecognisedName => "TLSV1_ALERT_UNRECOGNIZED_NAME",
        AlertDescription::BadCertificateStatusResponse => "TLSV1_ALERT_BAD_CERTIFICATE_STATUS_RESPONSE",
        AlertDescription::UnknownPSKIdentity => "TLSV1_ALERT_UNKNOWN_PSK_IDENTITY",
        AlertDescription::CertificateRequired => "TLSV1_ALERT_CERTIFICATE_REQUIRED",
        AlertDescription::NoApplicationProtocol => "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        _ => "UNKNOWN_ALERT_TYPE",
    };
    (1000 + u32::from(u8::from(alert)), words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_boringssls() {
        let of = |error: Error, first: &[u8]| Failure::of(&error, &Observed::default(), first);
        for (error, first, expected) in [
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                &b""[..],
                "268435640:SSL routines:OPENSSL_internal:NO_SHARED_CIPHER",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled),
                b"",
                "268435696:SSL routines:OPENSSL_internal:UNSUPPORTED_PROTOCOL",
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                b"GET /",
                "268435612:SSL routines:OPENSSL_internal:HTTP_REQUEST",
            ),
            (
                Error::AlertReceived(AlertDescription::HandshakeFailure),
                b"",
                "268436496:SSL routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE",
            ),
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                b"",
                "268436504:SSL routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA",
            ),
            (
                Error::AlertReceived(AlertDescription::ProtocolVersion),
                b"",
                "268436526:SSL routines:OPENSSL_internal:TLSV1_ALERT_PROTOCOL_VERSION",
            ),
        ] {
            let failure = of(error, first);
            assert_eq!(failure.text, format!("TLS_error:|{expected}:TLS_error_end"));
            assert_eq!(failure.count, Count::ConnectionError);
        }
        assert_eq!(of(Error::NoCertificatesPresented, b"").count, Count::NoCertificate);
    }
}

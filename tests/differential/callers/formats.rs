//! All operators that print something about a session or a certificate, but for those whose values are chance.

const FACTS: &[&str] = &[
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_GROUP",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_PEER_EMAIL_SAN",
    "DOWNSTREAM_PEER_OTHERNAME_SAN",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_CERT_V_START(%Y-%m-%dT%H:%M)",
    "DOWNSTREAM_PEER_CERT_V_START(%s)",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_PEER_CERT_V_END(%s.%3f)",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    "DOWNSTREAM_PEER_CHAIN_SERIALS",
    "DOWNSTREAM_PEER_ISSUER_SERIAL",
    "DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_LOCAL_EMAIL_SAN",
    "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
    "REQUESTED_SERVER_NAME",
    "REQUESTED_SERVER_NAME(SNI_ONLY)",
    "REQUESTED_SERVER_NAME(SNI_FIRST)",
    "REQUESTED_SERVER_NAME(HOST_FIRST)",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_GROUP",
    "UPSTREAM_SERVER_NAME",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_IP_SAN",
    "UPSTREAM_PEER_DNS_SAN",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_PEER_CERT_V_START",
    "UPSTREAM_PEER_CERT_V_END(%Y)",
    "UPSTREAM_LOCAL_IP_SAN",
    "UPSTREAM_LOCAL_DNS_SAN",
    "UPSTREAM_LOCAL_URI_SAN",
    "XFCC_VALUE(by)",
    "XFCC_VALUE(hash)",
    "XFCC_VALUE(uri)",
    "XFCC_VALUE(dns)",
    "XFCC_VALUE(subject)",
    "XFCC_VALUE(chain)",
    "REQ(x-forwarded-client-cert)",
];

/// A fact's name, where operators may not be.
fn label(fact: &str) -> String {
    fact.replace('%', "")
}

/// All in one line.
pub fn text() -> String {
    FACTS.iter().map(|fact| format!("{}=%{fact}% ", label(fact))).collect::<String>()
}

/// All, as the fields of a JSON object.
pub fn json() -> String {
    FACTS.iter().map(|fact| format!(r#""{}": "%{fact}%""#, label(fact))).collect::<Vec<_>>().join(", ")
}

/// Header options that add each as a header of its own.
pub fn headers(prefix: &str) -> String {
    let option = |(number, fact): (usize, &&str)| {
        format!(
            r#"{{header: {{key: {prefix}-{number:02}, value: "%{fact}%"}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}"#
        )
    };
    FACTS.iter().enumerate().map(option).collect::<Vec<_>>().join(", ")
}

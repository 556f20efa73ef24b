//! What rustls calls one way and OpenSSL, and so Envoy, another.

use rustls::crypto::{SupportedKxGroup, aws_lc_rs as provider};
use rustls::{CipherSuite, NamedGroup, ProtocolVersion, SignatureScheme, SupportedCipherSuite};

/// Envoy's order of preference for TLS 1.2.
static SUITES: &[(&str, &SupportedCipherSuite)] = &[
    ("ECDHE-ECDSA-AES128-GCM-SHA256", &provider::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", &provider::cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", &provider::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", &provider::cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", &provider::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", &provider::cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
];

/// The suites of TLS 1.3, which configuration does not choose among.
static SUITES_13: &[&SupportedCipherSuite] = &[
    &provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
    &provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
    &provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// Whether this build may use what is approved by FIPS 140-3, or is not.
#[must_use]
pub const fn allowed(approved: bool) -> bool {
    approved || !cfg!(feature = "fips")
}

/// The suites of TLS 1.2, in Envoy's order.
#[must_use]
pub fn suites_12() -> Vec<SupportedCipherSuite> {
    SUITES.iter().map(|(_, suite)| **suite).filter(|suite| allowed(suite.fips())).collect()
}

/// The suites of TLS 1.3.
#[must_use]
pub fn suites_13() -> Vec<SupportedCipherSuite> {
    SUITES_13.iter().map(|suite| **suite).filter(|suite| allowed(suite.fips())).collect()
}

/// A suite of TLS 1.2 by OpenSSL's name.
#[must_use]
pub fn suite(name: &str) -> Option<SupportedCipherSuite> {
    // OpenSSL has a second name for these.
    let name = name
        .strip_suffix("CHACHA20-POLY1305-SHA256")
        .map_or_else(|| name.to_owned(), |family| format!("{family}CHACHA20-POLY1305"));
    SUITES.iter().find(|(known, _)| *known == name).map(|(_, suite)| **suite)
}

/// The names of all suites that can be configured.
pub fn suite_names() -> impl Iterator<Item = &'static str> {
    SUITES.iter().map(|(name, _)| *name)
}

/// A suite's name in OpenSSL.
#[must_use]
pub fn suite_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => SUITES.iter().find(|(_, known)| known.suite() == other).map_or("", |(name, _)| name),
    }
}

/// A key exchange group by OpenSSL's names.
#[must_use]
pub fn group(name: &str) -> Option<&'static dyn SupportedKxGroup> {
    Some(match name {
        "X25519" => provider::kx_group::X25519,
        "P-256" | "prime256v1" | "secp256r1" => provider::kx_group::SECP256R1,
        "P-384" | "secp384r1" => provider::kx_group::SECP384R1,
        "X25519MLKEM768" => provider::kx_group::X25519MLKEM768,
        _ => return None,
    })
}

/// The groups where nothing is said, as in Envoy.
#[must_use]
pub fn default_groups() -> Vec<&'static dyn SupportedKxGroup> {
    let mut groups: Vec<&'static dyn SupportedKxGroup> =
        vec![provider::kx_group::X25519MLKEM768, provider::kx_group::X25519, provider::kx_group::SECP256R1];
    groups.retain(|group| allowed(group.fips()));
    groups
}

/// The groups that can be configured.
pub const GROUPS: &str = "X25519, P-256, P-384, X25519MLKEM768";

/// A group's name in OpenSSL.
#[must_use]
pub const fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "P-256",
        NamedGroup::secp384r1 => "P-384",
        NamedGroup::secp521r1 => "P-521",
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        _ => "",
    }
}

/// A version's name in OpenSSL.
#[must_use]
pub const fn version(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "TLSv1.2",
    }
}

/// Signature algorithms by OpenSSL's names.
static SCHEMES: &[(&str, SignatureScheme)] = &[
    ("ecdsa_secp256r1_sha256", SignatureScheme::ECDSA_NISTP256_SHA256),
    ("ecdsa_secp384r1_sha384", SignatureScheme::ECDSA_NISTP384_SHA384),
    ("ecdsa_secp521r1_sha512", SignatureScheme::ECDSA_NISTP521_SHA512),
    ("ed25519", SignatureScheme::ED25519),
    ("rsa_pss_rsae_sha256", SignatureScheme::RSA_PSS_SHA256),
    ("rsa_pss_rsae_sha384", SignatureScheme::RSA_PSS_SHA384),
    ("rsa_pss_rsae_sha512", SignatureScheme::RSA_PSS_SHA512),
    ("rsa_pkcs1_sha256", SignatureScheme::RSA_PKCS1_SHA256),
    ("rsa_pkcs1_sha384", SignatureScheme::RSA_PKCS1_SHA384),
    ("rsa_pkcs1_sha512", SignatureScheme::RSA_PKCS1_SHA512),
];

/// What `FIPS_202205` lets servers and clients sign by.
pub const FIPS_202205_SCHEMES: [SignatureScheme; 8] = [
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// A signature algorithm by OpenSSL's name.
#[must_use]
pub fn scheme_by_name(name: &str) -> Option<SignatureScheme> {
    SCHEMES.iter().find(|(known, _)| *known == name).map(|(_, scheme)| *scheme)
}

/// The names of all signature algorithms that can be configured.
pub fn scheme_names() -> impl Iterator<Item = &'static str> {
    SCHEMES.iter().map(|(name, _)| *name)
}

/// A signature algorithm's name in OpenSSL.
#[must_use]
pub fn scheme(scheme: SignatureScheme) -> &'static str {
    match scheme {
        SignatureScheme::RSA_PKCS1_SHA1 => "rsa_pkcs1_sha1",
        other => SCHEMES.iter().find(|(_, known)| *known == other).map_or("", |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::CryptoProvider;

    use super::*;

    /// What is offered where configuration says nothing is approved as a whole, or this is no such build.
    #[test]
    fn what_is_offered_is_what_the_build_promises() {
        let cipher_suites = [suites_13(), suites_12()].concat();
        let offered = CryptoProvider { cipher_suites, kx_groups: default_groups(), ..provider::default_provider() };
        assert_eq!(offered.fips(), cfg!(feature = "fips"));
        assert!(!offered.kx_groups.is_empty());
        for (name, suite) in SUITES {
            assert_eq!((super::suite(name), suite_name(suite.suite())), (Some(**suite), *name));
        }
    }
}

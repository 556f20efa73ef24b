//! `TlsParameters`: versions, cipher suites, curves, signature algorithms, and policies over them.

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use filters::config::{At, ConfigError};
use proto::tls_parameters::{CompliancePolicy, TlsProtocol};
use rustls::crypto::SupportedKxGroup;
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use crate::tls::signing::Schemes;
use crate::tls::words;

/// Versions where nothing is said.
#[derive(Clone, Copy)]
pub(super) struct Versions {
    pub(super) least: TlsProtocol,
    pub(super) most: TlsProtocol,
}

/// What a session may be made of.
pub(super) struct Parameters {
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    pub(super) suites: Vec<SupportedCipherSuite>,
    pub(super) groups: Vec<&'static dyn SupportedKxGroup>,
    /// What is signed by, the best first; `None` for whatever there is.
    pub(super) schemes: Option<Schemes>,
}

/// What a build for FIPS says of the rest.
fn not_approved(name: &str) -> String {
    format!("{name:?} is not approved by FIPS 140-3, and this build uses nothing else")
}

/// Reads `TlsParameters`.
///
/// # Errors
/// When they ask for what is not there, or leave nothing.
pub(super) fn parse(at: &At<'_>, proto: proto::TlsParameters, defaults: Versions) -> Result<Parameters, ConfigError> {
    let proto::TlsParameters {
        tls_minimum_protocol_version,
        tls_maximum_protocol_version,
        cipher_suites,
        ecdh_curves,
        signature_algorithms,
        compliance_policies,
    } = proto;
    let version = |field: &str, value: i32, default: TlsProtocol| {
        let at = at.field(field);
        match TlsProtocol::try_from(value) {
            Ok(TlsProtocol::TlsAuto) => Ok(default),
            Ok(version @ (TlsProtocol::TlSv12 | TlsProtocol::TlSv13)) => Ok(version),
            Ok(old) => Err(at.error(format_args!(
                "{} is not spoken, for it is broken; allowed are TLSv1_2 and TLSv1_3",
                old.as_str_name()
            ))),
            Err(_) => Err(at.error("value must be one of the defined enum values")),
        }
    };
    let least = version("tls_minimum_protocol_version", tls_minimum_protocol_version, defaults.least)?;
    let most = version("tls_maximum_protocol_version", tls_maximum_protocol_version, defaults.most)?;
    let versions: Vec<_> = [(TlsProtocol::TlSv13, &TLS13), (TlsProtocol::TlSv12, &TLS12)]
        .into_iter()
        .filter(|(version, _)| (least as i32..=most as i32).contains(&(*version as i32)))
        .map(|(_, version)| version)
        .collect();
    if versions.is_empty() {
        let message = format_args!("{} is older than the minimum, {}", most.as_str_name(), least.as_str_name());
        return Err(at.field("tls_maximum_protocol_version").error(message));
    }
    let list = at.field("cipher_suites");
    let mut suites = if cipher_suites.is_empty() { words::suites_12() } else { Vec::new() };
    for (index, entry) in cipher_suites.iter().enumerate() {
        for name in entry.trim_start_matches('[').trim_end_matches(']').split(['|', ':']) {
            let Some(suite) = words::suite(name.trim()) else {
                let known = words::suite_names().collect::<Vec<_>>().join(", ");
                let message = format_args!("{name:?} is not a cipher suite of this proxy; allowed are {known}");
                return Err(list.index(index).error(message));
            };
            if !words::allowed(suite.fips()) {
                return Err(list.index(index).error(not_approved(name)));
            }
            suites.push(suite);
        }
    }
    suites.splice(0..0, words::suites_13());
    let list = at.field("ecdh_curves");
    let groups = ecdh_curves.iter().enumerate().map(|(index, name)| {
        let Some(group) = words::group(name) else {
            let message = format_args!("{name:?} is not a curve of this proxy; allowed are {}", words::GROUPS);
            return Err(list.index(index).error(message));
        };
        if !words::allowed(group.fips()) {
            return Err(list.index(index).error(not_approved(name)));
        }
        Ok(group)
    });
    let groups = if ecdh_curves.is_empty() { words::default_groups() } else { groups.collect::<Result<_, _>>()? };
    let schemes = schemes(&at.field("signature_algorithms"), &signature_algorithms)?;
    let parameters = Parameters { versions, suites, groups, schemes };
    compliant(&at.field("compliance_policies"), &compliance_policies, parameters)
}

fn schemes(at: &At<'_>, names: &[String]) -> Result<Option<Schemes>, ConfigError> {
    let mut schemes = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let at = at.index(index);
        let Some(scheme) = words::scheme_by_name(name) else {
            let known = words::scheme_names().collect::<Vec<_>>().join(", ");
            let message = format_args!("{name:?} is not a signature algorithm of this proxy; allowed are {known}");
            return Err(at.error(message));
        };
        if schemes.contains(&scheme) {
            return Err(at.error(format_args!("{name:?} is listed twice")));
        }
        schemes.push(scheme);
    }
    Ok((!schemes.is_empty()).then(|| schemes.into()))
}

/// What policies leave of the rest. They come last and have the last word, also where the rest had allowed less.
fn compliant(at: &At<'_>, policies: &[i32], mut parameters: Parameters) -> Result<Parameters, ConfigError> {
    if policies.len() > 1 {
        return Err(at.error(format_args!("value must contain no more than 1 item(s), there are {}", policies.len())));
    }
    for policy in policies {
        match CompliancePolicy::try_from(*policy) {
            Ok(CompliancePolicy::Fips202205) => {
                parameters.versions = vec![&TLS13, &TLS12];
                parameters.suites = [words::suites_13(), words::suites_12()].concat();
                parameters.suites.retain(|suite| words::suite_name(suite.suite()).contains("AES"));
                parameters.groups = ["P-256", "P-384"].into_iter().filter_map(words::group).collect();
                parameters.schemes = Some(words::FIPS_202205_SCHEMES.into());
            }
            Ok(other) => {
                let message = format_args!(
                    "{} is not here: its key exchange is not; allowed is FIPS_202205",
                    other.as_str_name()
                );
                return Err(at.index(0).error(message));
            }
            Err(_) => return Err(at.index(0).error("value must be one of the defined enum values")),
        }
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use filters::config::Session;

    use super::*;

    fn parsed(change: impl FnOnce(&mut proto::TlsParameters)) -> Result<Parameters, String> {
        let mut proto = proto::TlsParameters::default();
        change(&mut proto);
        let session = Session::default();
        let defaults = Versions { least: TlsProtocol::TlSv12, most: TlsProtocol::TlSv12 };
        parse(&session.root(), proto, defaults).map_err(|error| error.to_string())
    }

    #[test]
    fn signature_algorithms_by_name() {
        let named = |names: &[&str]| {
            parsed(|proto| proto.signature_algorithms = names.iter().map(|name| (*name).to_owned()).collect())
        };
        assert!(named(&[]).unwrap().schemes.is_none());
        let schemes = named(&["ed25519", "rsa_pkcs1_sha512"]).unwrap().schemes.unwrap();
        assert_eq!(schemes[..], [rustls::SignatureScheme::ED25519, rustls::SignatureScheme::RSA_PKCS1_SHA512]);
        let error = named(&["ed25519", "rsa_pkcs1_sha1"]).err().unwrap();
        assert!(error.starts_with("signature_algorithms[1]: \"rsa_pkcs1_sha1\" is not"), "{error}");
        assert!(error.contains("ecdsa_secp256r1_sha256, "), "{error}");
        assert!(named(&["ed25519", "ed25519"]).err().unwrap().ends_with("is listed twice"));
    }

    #[test]
    fn policies_have_the_last_word() {
        let policies = |policies: &[i32]| {
            parsed(|proto| {
                proto.compliance_policies = policies.to_vec();
                proto.cipher_suites = vec!["ECDHE-RSA-CHACHA20-POLY1305".to_owned()];
            })
        };
        if words::allowed(false) {
            let Parameters { versions, suites, groups, schemes } = policies(&[0]).unwrap();
            assert_eq!((versions.len(), suites.len(), groups.len()), (2, 6, 2));
            assert_eq!(schemes.map(|it| it.len()), Some(8));
        }
        let error = |list: &[i32]| parsed(|proto| proto.compliance_policies = list.to_vec()).err().unwrap();
        assert!(error(&[1]).contains("allowed is FIPS_202205"), "{}", error(&[1]));
        assert!(error(&[9]).contains("value must be one of the defined enum values"));
        assert!(error(&[0, 0]).contains("no more than 1"));
    }
}

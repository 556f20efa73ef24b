//! `envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig`: roots by trust domain.

use std::collections::BTreeMap;

use base64::Engine as _;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use filters::config::{At, ConfigError};
use filters::ledger;
use serde_json::Value;

use super::data_source::{self, Empty};
use super::validation;
use crate::config::any;
use crate::tls::secret::Roots;

ledger! {
    /// What is not implemented.
    pub mod domain_unsupported for "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig.TrustDomain" {
        workload_trust_domain => Refuse, "connections carry no filter state that selects a bundle, so this one would never count";
    }
}

/// The type of the configuration.
const TYPE: &str = "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// Reads the trust domains of the extension, the only validator there is.
///
/// # Errors
/// When it is another one, or a bundle cannot be read.
pub(super) fn parse(at: &At<'_>, extension: TypedExtensionConfig) -> Result<Vec<(String, Roots)>, ConfigError> {
    let TypedExtensionConfig { name, typed_config } = extension;
    let typed_at = at.field("typed_config");
    let typed = any::unwrap(&typed_at, typed_config.unwrap_or_default(), any::struct_to_bytes)?;
    if typed.type_name() != TYPE {
        return Err(at.error(format_args!("Failed to get certificate validator factory for {name}")));
    }
    let proto::SpiffeCertValidatorConfig { trust_domains, trust_bundles } = typed.decode(&typed_at)?;
    let bundles_at = typed_at.field("trust_bundles");
    if let Some(data) = data_source::read(&bundles_at, trust_bundles, Empty::Refused)? {
        return bundles(&data.bytes, &data.origin).map_err(|error| bundles_at.error(error));
    }
    let domains_at = typed_at.field("trust_domains");
    let mut domains: Vec<(String, Roots)> = Vec::with_capacity(trust_domains.len());
    for (n, domain) in trust_domains.into_iter().enumerate() {
        let at = domains_at.index(n);
        let proto::spiffe_cert_validator_config::TrustDomain { name, trust_bundle, workload_trust_domain } = domain;
        at.unsupported(&domain_unsupported::workload_trust_domain, &workload_trust_domain)?;
        if name.is_empty() {
            return Err(at.field("name").error("value length must be at least 1 characters"));
        }
        if domains.iter().any(|(known, _)| *known == name) {
            return Err(
                at.error(format_args!("Multiple trust bundles are given for one trust domain for {name}, workload: "))
            );
        }
        let at = at.field("trust_bundle");
        let failed = |why: &str| at.error(format_args!("Failed to load trusted CA certificate for {name}{why}"));
        let data = data_source::read(&at, trust_bundle, Empty::Allowed)?.ok_or_else(|| failed(""))?;
        // Revocation lists among them are of no effect with this validator, in Envoy either.
        let roots =
            validation::bundle(&at, data, &mut Vec::new()).map_err(|error| failed(&format!(": {}", error.message)))?;
        domains.push((name, roots));
    }
    Ok(domains)
}

/// A SPIFFE bundle map: trust domains by name, each with the keys of its authorities (a JSON Web Key set with `x5c`).
fn bundles(json: &[u8], origin: &str) -> Result<Vec<(String, Roots)>, String> {
    let json: Value = serde_json::from_slice(json).map_err(|_| "Invalid JSON found in SPIFFE bundle")?;
    let domains = json.get("trust_domains").and_then(Value::as_object).filter(|domains| !domains.is_empty());
    let domains = domains.ok_or("No trust domains found in SPIFFE bundle")?;
    let domains: BTreeMap<_, _> = domains.iter().collect();
    domains.into_iter().map(|(domain, bundle)| Ok((domain.clone(), authorities(domain, bundle, origin)?))).collect()
}

fn authorities(domain: &str, bundle: &Value, origin: &str) -> Result<Roots, String> {
    let keys = bundle.get("keys").and_then(Value::as_array).filter(|keys| !keys.is_empty());
    let keys = keys.ok_or_else(|| format!("No keys found in SPIFFE bundle for domain '{domain}'"))?;
    let mut certificates = Vec::new();
    for key in keys {
        if key.get("use").and_then(Value::as_str) != Some("x509-svid") {
            return Err(format!("missing or invalid 'use' field found in cert for domain '{domain}'"));
        }
        let chain = key.get("x5c").and_then(Value::as_array).filter(|chain| !chain.is_empty());
        for certificate in
            chain.ok_or_else(|| format!("missing or empty 'x5c' field found in keys for domain: '{domain}'"))?
        {
            let der = certificate
                .as_str()
                .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok())
                .ok_or_else(|| format!("Failed to create x509 object while loading certs in domain '{domain}'"))?;
            certificates.push(der);
        }
    }
    validation::roots(certificates, origin.to_owned())
        .map_err(|_| format!("Invalid x509 object in certs for domain '{domain}'"))
}

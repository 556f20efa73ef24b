//! TLS from protobuf: secrets, and the contexts made of them.
//!
//! What is read from a file or variable is read here, once, off the data path; who watches files reads them again and comes
//! back here. Errors name the field, where the data came from and what is wrong with it, in Envoy's words where it has some,
//! and never the data.

pub mod certificate;
pub mod context;
pub mod data_source;
mod key_log;
pub mod named;
mod ocsp;
mod parameters;
mod pem;
mod pkcs12;
mod private_key;
mod san;
pub mod secret;
mod spiffe;
pub mod ticket_keys;
pub mod validation;

/// The rows of the support ledger about secrets.
pub static LEDGER: &[&[&filters::config::Entry]] = &[
    certificate::unsupported::ALL,
    validation::unsupported::ALL,
    spiffe::domain_unsupported::ALL,
    context::common_unsupported::ALL,
    context::downstream_unsupported::ALL,
    context::upstream_unsupported::ALL,
    key_log::unsupported::ALL,
];

#[cfg(test)]
mod tests;

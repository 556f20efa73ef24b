//! The files that secrets name: what is in them, and where changes of them show.

use std::path::{Path, PathBuf};

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, WatchedDirectory};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;

/// A secret with what its files hold in their place.
pub(super) struct Resolved {
    pub(super) secret: proto::Secret,
    /// Fields that were read from a file, and the file.
    pub(super) origins: Vec<(&'static str, String)>,
}

/// Reads the files a secret names.
///
/// # Errors
/// Which of them cannot be read.
pub(super) fn resolve(mut secret: proto::Secret) -> Result<Resolved, String> {
    let mut origins = Vec::new();
    for (field, source) in sources(&mut secret) {
        let Some(Specifier::Filename(path)) = &source.specifier else { continue };
        let bytes = std::fs::read(path).map_err(|error| format!("{field}: Invalid path: {path}: {error}"))?;
        origins.push((field, path.clone()));
        source.specifier = Some(Specifier::InlineBytes(bytes));
    }
    Ok(Resolved { secret, origins })
}

/// The directories to watch, and whether writing in place counts there: `watched_directory`, else that of each file.
pub(super) fn directories(secret: &proto::Secret) -> Vec<(PathBuf, bool)> {
    let (watched, files) = match &secret.r#type {
        Some(Type::TlsCertificate(it)) => {
            (&it.watched_directory, vec![&it.certificate_chain, &it.private_key, &it.pkcs12])
        }
        Some(Type::ValidationContext(it)) => (&it.watched_directory, vec![&it.trusted_ca, &it.crl]),
        // Envoy reads these once.
        Some(Type::SessionTicketKeys(_) | Type::GenericSecret(_)) | None => return Vec::new(),
    };
    let paths = files.into_iter().flatten().filter_map(|source| match &source.specifier {
        Some(Specifier::Filename(path)) => Some(Path::new(path)),
        _ => None,
    });
    let mut directories = paths.map(|path| match path.parent() {
        Some(parent) if parent != Path::new("") => (parent.to_owned(), false),
        _ => (PathBuf::from("."), false),
    });
    match watched {
        Some(WatchedDirectory { path, watch_modify }) => {
            directories.next().map(|_| (PathBuf::from(path), *watch_modify)).into_iter().collect()
        }
        None => directories.collect(),
    }
}

/// Every data source of a secret, by its field.
fn sources(secret: &mut proto::Secret) -> Vec<(&'static str, &mut DataSource)> {
    let mut found: Vec<(&'static str, &mut DataSource)> = Vec::new();
    let mut add = |field, source| found.extend(Option::as_mut(source).map(|source| (field, source)));
    match &mut secret.r#type {
        Some(Type::TlsCertificate(it)) => {
            add("tls_certificate.certificate_chain", &mut it.certificate_chain);
            add("tls_certificate.private_key", &mut it.private_key);
            add("tls_certificate.password", &mut it.password);
            add("tls_certificate.ocsp_staple", &mut it.ocsp_staple);
            add("tls_certificate.pkcs12", &mut it.pkcs12);
        }
        Some(Type::ValidationContext(it)) => {
            add("validation_context.trusted_ca", &mut it.trusted_ca);
            add("validation_context.crl", &mut it.crl);
        }
        Some(Type::SessionTicketKeys(it)) => {
            found.extend(it.keys.iter_mut().map(|source| ("session_ticket_keys.keys", source)));
        }
        Some(Type::GenericSecret(it)) => {
            add("generic_secret.secret", &mut it.secret);
            found.extend(it.secrets.values_mut().map(|source| ("generic_secret.secrets", source)));
        }
        None => {}
    }
    found
}

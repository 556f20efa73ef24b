//! From files and flags to a checked bootstrap.

use std::path::Path;

use bytes::Bytes;
use envoy_types::pb::envoy::config::bootstrap::v3 as proto;
use filters::config::Session;
use xds_client::proto::{
    CheckError, CheckOptions, CheckReport, Diagnostics, Document, Format, LoadOptions, Location, UnknownFields, check,
    load as read,
};

use super::{Bootstrap, type_name};
use crate::cli::Options;

/// A bootstrap, and what there is to say about it.
#[derive(Debug)]
pub struct Loaded {
    /// As runtime types.
    pub bootstrap: Bootstrap,
    /// As it was read, for `/config_dump`.
    pub bytes: Bytes,
    /// Deprecated fields and work in progress it uses.
    pub report: CheckReport,
    /// Unknown fields that `--allow-unknown-static-fields` let pass, as text with positions.
    pub unknown_fields: Vec<String>,
}

/// Why there is no bootstrap. Its text is complete: file, line, field, reason.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Neither a file nor inline YAML.
    #[error("At least one of --config-path or --config-yaml or Options::configProto() should be non-empty")]
    Nothing,
    /// The file cannot be read.
    #[error("unable to read file: {path}: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// It is no document of this type.
    #[error("{0}")]
    Document(#[from] Diagnostics),
    /// It breaks the protos' rules.
    #[error("{}{error}", Place(.location))]
    Invalid {
        /// Where the first violation stands.
        location: Option<Location>,
        /// What is wrong.
        error: CheckError,
    },
    /// It asks for what is wrong or not supported.
    #[error("{}{error}", Place(.location))]
    Config {
        /// Where it stands.
        location: Option<Location>,
        /// What is wrong.
        error: filters::config::ConfigError,
    },
}

struct Place<'a>(&'a Option<Location>);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(Location { source, position }) => write!(f, "{source}:{position}: "),
            None => Ok(()),
        }
    }
}

/// Reads `--config-path`, lays `--config-yaml` over it, checks and parses. Warnings are left in `session`.
///
/// # Errors
/// What is wrong, and where.
pub fn load(options: &Options, session: &Session) -> Result<Loaded, LoadError> {
    let unknown_fields = if options.allow_unknown_static_fields { UnknownFields::Warn } else { UnknownFields::Reject };
    let mut document: Option<Document> = None;
    if !options.config_path.is_empty() {
        let path = Path::new(&options.config_path);
        let bytes =
            std::fs::read(path).map_err(|error| LoadError::Unreadable { path: options.config_path.clone(), error })?;
        let load_options = LoadOptions { source: &options.config_path, unknown_fields };
        document = Some(read(&bytes, Format::of_path(path), &type_name(), &load_options)?);
    }
    if !options.config_yaml.is_empty() {
        let load_options = LoadOptions { source: "--config-yaml", unknown_fields };
        let over = read(options.config_yaml.as_bytes(), Format::Yaml, &type_name(), &load_options)?;
        match &mut document {
            Some(document) => document.merge(over),
            None => document = Some(over),
        }
    }
    let document = document.ok_or(LoadError::Nothing)?;
    let report = check(&type_name(), document.bytes(), &CheckOptions { unknown_fields, validate: true })
        .map_err(|error| LoadError::Invalid { location: place_of(&document, &error), error })?;
    let proto: proto::Bootstrap = document.decode()?;
    let bootstrap = Bootstrap::parse(session.root(), proto, options)
        .map_err(|error| LoadError::Config { location: document.locate(&error.path), error })?;
    let mut unknown: Vec<String> = document.unknown_fields().iter().map(ToString::to_string).collect();
    if unknown.is_empty() {
        unknown = report
            .unknown_fields
            .iter()
            .map(|field| format!("{}: unknown field of {}", field.path, field.message))
            .collect();
    }
    Ok(Loaded { bytes: Bytes::copy_from_slice(document.bytes()), bootstrap, report, unknown_fields: unknown })
}

fn place_of(document: &Document, error: &CheckError) -> Option<Location> {
    match error {
        CheckError::Constraints(violations) => document.locate(&violations.first()?.path),
        CheckError::UnknownFields(fields) => document.locate(&fields.first()?.path),
        CheckError::Malformed { path, .. } => document.locate(path),
        CheckError::UnknownMessage(_) => None,
    }
}

//! What a check finds, how it is collected, and the sentences it is told in.

use std::fmt;

use super::super::descriptors::{self};
use super::super::diagnostic::{UnknownField, UnknownType};
use super::super::document::UnknownFields;
use super::super::path::Path;
use super::super::schema::{FieldSchema, MessageSchema};
use super::Checker;

/// Findings of each kind beyond this many are counted, not listed.
const MAX_LISTED: usize = 50;

/// What was found in a message that is acceptable.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Unknown fields, the first fifty.
    pub unknown_fields: Vec<UnknownField>,
    /// How many there are.
    pub unknown_field_count: u64,
    /// `Any`s of unknown types, by path. Not errors: whether the extension is optional is for its user to know.
    pub unknown_types: Vec<UnknownType>,
    /// Deprecated fields and enum values in use, by full name.
    pub deprecated: Vec<Deprecated>,
    /// Full names of messages and fields in use that are marked as work in progress.
    pub work_in_progress: Vec<String>,
}

/// A deprecated feature in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deprecated {
    /// Full name of the field, such as `envoy.config.cluster.v3.Cluster.dns_lookup_family`, or of the enum value.
    pub name: String,
    /// The proto file that defines it.
    pub file: &'static str,
    /// Where it was met first.
    pub path: String,
    /// Refused unless the runtime key `envoy.deprecated_features:NAME` is on.
    pub disallowed: bool,
}

/// A validation rule that is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field.
    pub path: String,
    /// What is wrong with its value.
    pub reason: String,
    /// The way to it as Envoy prints it: `ClusterValidationError.Name: value length must be at least 1 characters`.
    pub chain: String,
}

/// Why a message is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// There is no descriptor of the message's type.
    #[error("no descriptor of the message type {0}")]
    UnknownMessage(String),
    /// The bytes are not a message of the type.
    #[error("Unable to parse as a protobuf message (type {message}): {path}{}{reason}", separator(path))]
    Malformed {
        /// Full name of the type that was expected.
        message: &'static str,
        /// As far as the bytes made sense.
        path: String,
        /// What is wrong with them.
        reason: String,
    },
    /// Validation rules are broken; never empty.
    #[error("Proto constraint validation failed {}", violations(.0))]
    Constraints(Vec<Violation>),
    /// There are unknown fields and they are to be rejected; never empty.
    #[error("{}", unknown(.0))]
    UnknownFields(Vec<UnknownField>),
}

impl Checker<'_> {
    pub(super) fn annotations(&mut self, schema: &'static MessageSchema, field: &'static FieldSchema, path: &Path<'_>) {
        if field.deprecated {
            self.deprecated.entry((&schema.name, &field.name)).or_insert_with(|| Deprecated {
                name: format!("{}.{}", schema.name, field.name),
                file: descriptors::file_of(&schema.name).unwrap_or_default(),
                path: path.to_string(),
                disallowed: field.disallowed,
            });
        }
        if field.work_in_progress {
            self.work_in_progress(&schema.name, Some(&field.name));
        }
    }

    pub(super) fn enum_value(&mut self, field: &'static FieldSchema, number: i32, path: &Path<'_>) {
        let Some(enumeration) = field.enumeration() else {
            return;
        };
        if let Some(value) = enumeration.by_number(number).filter(|value| value.deprecated) {
            self.deprecated.entry((&enumeration.name, &value.name)).or_insert_with(|| Deprecated {
                name: format!("{}.{}", enumeration.name, value.name),
                file: descriptors::file_of(&enumeration.name).unwrap_or_default(),
                path: path.to_string(),
                disallowed: value.disallowed,
            });
        }
    }

    pub(super) fn work_in_progress(&mut self, message: &str, field: Option<&str>) {
        let name = field.map_or_else(|| message.to_owned(), |field| format!("{message}.{field}"));
        if !self.report.work_in_progress.contains(&name) {
            self.report.work_in_progress.push(name);
        }
    }

    pub(super) fn unknown_field(&mut self, schema: &'static MessageSchema, path: &Path<'_>) {
        if self.options.unknown_fields == UnknownFields::Ignore {
            return;
        }
        if self.report.unknown_fields.len() < MAX_LISTED {
            self.list_unknown(UnknownField { path: path.to_string(), message: schema.name.to_string() });
        } else {
            self.report.unknown_field_count += 1;
        }
    }

    pub(super) fn list_unknown(&mut self, field: UnknownField) {
        if self.options.unknown_fields == UnknownFields::Ignore {
            return;
        }
        self.report.unknown_field_count += 1;
        if self.report.unknown_fields.len() < MAX_LISTED {
            self.report.unknown_fields.push(field);
        }
    }

    pub(super) fn unknown_type(&mut self, path: &Path<'_>, type_url: &str) {
        self.report.unknown_types.push(UnknownType { path: path.to_string(), type_url: type_url.to_owned() });
    }

    pub(super) fn violation(&mut self, path: &Path<'_>, reason: String) {
        if self.violations.len() < MAX_LISTED {
            let chain = path.constraint_chain(&reason);
            self.violation_at(path.to_string(), reason, chain);
        }
    }

    pub(super) fn violation_at(&mut self, path: String, reason: String, chain: String) {
        if self.violations.len() < MAX_LISTED {
            self.violations.push(Violation { path, reason, chain });
        }
    }
}

fn separator(path: &str) -> &'static str {
    if path.is_empty() { "" } else { ": " }
}

/// Envoy's sentence for the first, with the path of each.
fn violations(violations: &[Violation]) -> String {
    let mut output = String::new();
    for (index, Violation { path, reason: _, chain }) in violations.iter().enumerate() {
        let separator = if index == 0 { "" } else { "; " };
        output.push_str(&format!("{separator}({chain})"));
        if !path.is_empty() {
            output.push_str(&format!(" at {path}"));
        }
    }
    output
}

fn unknown(fields: &[UnknownField]) -> String {
    let list: Vec<_> =
        fields.iter().map(|UnknownField { path, message }| Listed { path, message }.to_string()).collect();
    list.join("; ")
}

struct Listed<'a> {
    path: &'a str,
    message: &'a str,
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, message } = self;
        let field = path.rsplit('.').next().unwrap_or(path);
        write!(f, "Protobuf message (type {message} with unknown field set {{{field}}}) has unknown fields at {path}")
    }
}

//! One pass over the wire bytes of a message that finds everything Envoy looks for before it uses a configuration:
//! malformed bytes, unknown fields, broken validation rules, deprecated and unfinished features, unknown extensions;
//! through `Any` and `TypedStruct` to the bottom.
//!
//! Nothing is decoded: the bytes are compared with the schema, field by field. Every level of nesting is counted, so
//! hostile messages end in an error and not on the end of the stack.

mod values;

use std::collections::BTreeMap;
use std::fmt;

use smallvec::SmallVec;

pub(crate) use values::{key_text, span};

use super::any::{Depth, Packed, type_name};
use super::descriptors::{self, Lease};
use super::diagnostic::{UnknownField, UnknownType};
use super::document::UnknownFields;
use super::path::{Path, Segment};
use super::reader::{Malformed, Raw, Reader};
use super::schema::{FieldSchema, Kind, MessageSchema, Presence, Scalar, WellKnown};
use super::typed_struct;

/// Findings of each kind beyond this many are counted, not listed.
const MAX_LISTED: usize = 50;

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// Unknown fields: [`Reject`](UnknownFields::Reject) makes them an error, [`Warn`](UnknownFields::Warn) lists them,
    /// [`Ignore`](UnknownFields::Ignore) does not look.
    pub unknown_fields: UnknownFields,
    /// Apply the protos' validation rules.
    pub validate: bool,
}

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

/// Checks the message of the type `type_url` (or of a bare full name) in `bytes`.
pub fn check(type_url: &str, bytes: &[u8], options: &CheckOptions) -> Result<CheckReport, CheckError> {
    let _lease = Lease::new();
    let name = type_name(type_url);
    let schema = descriptors::message(name).ok_or_else(|| CheckError::UnknownMessage(name.to_owned()))?;
    let mut checker =
        Checker { options, report: CheckReport::default(), violations: Vec::new(), deprecated: BTreeMap::new() };
    let fail = |Stop { message, path, reason }| CheckError::Malformed { message, path, reason };
    match Depth::default().message() {
        Ok(depth) => checker.message(schema, bytes, &Path::ROOT, depth).map_err(fail)?,
        Err(reason) => return Err(fail(Stop::new(schema, &Path::ROOT, reason))),
    }
    let Checker { mut report, violations, deprecated, .. } = checker;
    if !violations.is_empty() {
        return Err(CheckError::Constraints(violations));
    }
    if options.unknown_fields == UnknownFields::Reject && !report.unknown_fields.is_empty() {
        return Err(CheckError::UnknownFields(report.unknown_fields));
    }
    report.deprecated = deprecated.into_values().collect();
    Ok(report)
}

impl Default for CheckOptions {
    /// Envoy's for resources of a control plane: unknown fields are tolerated and counted.
    fn default() -> Self {
        Self { unknown_fields: UnknownFields::Warn, validate: true }
    }
}

struct Checker<'o> {
    options: &'o CheckOptions,
    report: CheckReport,
    violations: Vec<Violation>,
    deprecated: BTreeMap<(&'static str, &'static str), Deprecated>,
}

/// The end of the pass: the bytes make no sense from here on.
struct Stop {
    message: &'static str,
    path: String,
    reason: String,
}

/// A field as it was met on the wire; `field` indexes the schema's fields.
#[derive(Clone, Copy)]
struct Occurrence<'a> {
    field: u16,
    raw: Raw<'a>,
}

type Occurrences<'a> = SmallVec<[Occurrence<'a>; 12]>;

impl Checker<'_> {
    fn message(
        &mut self,
        schema: &'static MessageSchema,
        bytes: &[u8],
        path: &Path<'_>,
        depth: Depth,
    ) -> Result<(), Stop> {
        if schema.work_in_progress {
            self.work_in_progress(&schema.name, None);
        }
        let occurrences = self.scan(schema, bytes, path)?;
        match schema.well_known {
            WellKnown::Any => return self.any(bytes, path, depth),
            WellKnown::Wrapper | WellKnown::Duration | WellKnown::Timestamp | WellKnown::FieldMask => return Ok(()),
            WellKnown::No | WellKnown::TypedStruct | WellKnown::Struct | WellKnown::Value | WellKnown::ListValue => {}
        }
        let mut rest: &[Occurrence<'_>] = &occurrences;
        if schema.has_rules && self.options.validate {
            // Absent fields have rules too.
            for (index, field) in schema.fields.iter().enumerate() {
                let (met, after) = rest.split_at(rest.iter().take_while(|met| usize::from(met.field) == index).count());
                rest = after;
                self.field(schema, field, met, path, depth)?;
            }
            self.oneofs(schema, &occurrences, path);
        } else {
            while let Some(first) = rest.first() {
                let (met, after) = rest.split_at(rest.iter().take_while(|met| met.field == first.field).count());
                rest = after;
                if let Some(field) = schema.fields.get(usize::from(first.field)) {
                    self.field(schema, field, met, path, depth)?;
                }
            }
        }
        if schema.well_known == WellKnown::TypedStruct {
            self.typed_struct(schema, bytes, path, depth)?;
        }
        Ok(())
    }

    /// Reads all fields, sorted in the order of the proto file; what was overridden within a oneof is gone.
    fn scan<'a>(
        &mut self,
        schema: &'static MessageSchema,
        bytes: &'a [u8],
        path: &Path<'_>,
    ) -> Result<Occurrences<'a>, Stop> {
        let mut occurrences = Occurrences::new();
        let mut reader = Reader::new(bytes);
        let mut sorted = true;
        // The member of each oneof that was set last.
        let mut members: SmallVec<[Option<u16>; 4]> = smallvec::smallvec![None; schema.oneofs.len()];
        let mut overridden = false;
        while let Some((number, raw)) = reader.field().map_err(|malformed| Stop::malformed(schema, path, malformed))? {
            let index = schema.index_of_number(number);
            let found = index.and_then(|index| Some((u16::try_from(index).ok()?, schema.fields.get(index)?)));
            let Some((index, field)) = found else {
                self.unknown_field(schema, &path.join(Segment::Number(number)));
                continue;
            };
            let packed =
                field.presence == Presence::Repeated && field.kind.wire_type() != 2 && matches!(raw, Raw::Bytes(_));
            if !field.kind.accepts(raw) && !packed {
                return Err(Stop::new(
                    schema,
                    &path.join(Segment::Field(schema, field)),
                    "the wire type is not the field's",
                ));
            }
            if let (Kind::String, Raw::Bytes(bytes)) = (field.kind, raw)
                && std::str::from_utf8(bytes).is_err()
            {
                return Err(Stop::new(schema, &path.join(Segment::Field(schema, field)), "the string is not UTF-8"));
            }
            if let Some(member) = field.oneof.and_then(|oneof| members.get_mut(usize::from(oneof))) {
                overridden |= member.is_some_and(|member| member != index);
                *member = Some(index);
            }
            sorted &= occurrences.last().is_none_or(|last| last.field <= index);
            occurrences.push(Occurrence { field: index, raw });
        }
        if overridden {
            occurrences.retain(|met| {
                let oneof = schema.fields.get(usize::from(met.field)).and_then(|field| field.oneof);
                let last = oneof.and_then(|oneof| members.get(usize::from(oneof)).copied().flatten());
                last.is_none_or(|last| last == met.field)
            });
        }
        if !sorted {
            occurrences.sort_by_key(|met| met.field);
        }
        Ok(occurrences)
    }

    /// Required oneofs that have no member.
    fn oneofs(&mut self, schema: &'static MessageSchema, occurrences: &[Occurrence<'_>], path: &Path<'_>) {
        for (index, oneof) in schema.oneofs.iter().enumerate().filter(|(_, oneof)| oneof.required) {
            let is_member = |met: &Occurrence<'_>| {
                let field = schema.fields.get(usize::from(met.field));
                field.and_then(|field| field.oneof).is_some_and(|oneof| usize::from(oneof) == index)
            };
            if !occurrences.iter().any(is_member) {
                let reason = format!("field: \"{}\", reason: is required", oneof.name);
                self.violation(path, reason);
            }
        }
    }

    /// A field and all its occurrences, of which there may be none.
    fn field(
        &mut self,
        schema: &'static MessageSchema,
        field: &'static FieldSchema,
        met: &[Occurrence<'_>],
        path: &Path<'_>,
        depth: Depth,
    ) -> Result<(), Stop> {
        let path = path.join(Segment::Field(schema, field));
        if !met.is_empty() {
            self.annotations(schema, field, &path);
        }
        match (field.map_entry(), field.presence) {
            (Some(entry), _) => self.map(schema, field, entry, met, &path, depth),
            (None, Presence::Repeated) => self.repeated(schema, field, met, &path, depth),
            (None, _) => {
                let merged;
                let raw = match met {
                    // Occurrences of one message add up; of anything else the last one counts.
                    [_, _, ..] if field.kind == Kind::Message => {
                        merged = met.iter().flat_map(|met| message_bytes(met.raw)).copied().collect::<Vec<u8>>();
                        Some(Raw::Bytes(&merged))
                    }
                    _ => met.last().map(|met| met.raw),
                };
                self.rules_of_single(field, raw, &path);
                match raw {
                    Some(raw) => self.value(
                        schema,
                        field,
                        raw,
                        field.rules.as_deref().is_some_and(|rules| rules.skip),
                        &path,
                        depth,
                    ),
                    None => Ok(()),
                }
            }
        }
    }

    /// What a value holds: a message is descended into, an enum's value may be deprecated.
    fn value(
        &mut self,
        schema: &'static MessageSchema,
        field: &'static FieldSchema,
        raw: Raw<'_>,
        skip: bool,
        path: &Path<'_>,
        depth: Depth,
    ) -> Result<(), Stop> {
        if let (Some(message), Raw::Bytes(bytes)) = (field.message(), raw) {
            let depth = depth.message().map_err(|reason| Stop::new(schema, path, reason))?;
            if skip {
                // Its rules are not to be applied; everything else is.
                let violations = std::mem::take(&mut self.violations);
                let result = self.message(message, bytes, path, depth);
                self.violations = violations;
                return result;
            }
            return self.message(message, bytes, path, depth);
        }
        if let Some(Scalar::Enum(number)) = field.kind.scalar(raw) {
            self.enum_value(field, number, path);
        }
        Ok(())
    }

    fn any(&mut self, bytes: &[u8], path: &Path<'_>, depth: Depth) -> Result<(), Stop> {
        let Ok(packed) = Packed::parse(bytes) else {
            return Ok(());
        };
        if packed.type_url.is_empty() {
            return Ok(());
        }
        let Some(schema) = packed.schema() else {
            self.unknown_type(path, packed.type_url);
            return Ok(());
        };
        let path = path.join(Segment::Packed);
        let depth = depth.any().map_err(|reason| Stop::new(schema, &path, reason))?;
        self.message(schema, packed.value, &path, depth)
    }

    /// A `TypedStruct` stands for the message its type URL names.
    fn typed_struct(
        &mut self,
        schema: &'static MessageSchema,
        bytes: &[u8],
        path: &Path<'_>,
        depth: Depth,
    ) -> Result<(), Stop> {
        let packed = Packed::parse(bytes).map_err(|malformed| Stop::malformed(schema, path, malformed))?;
        let Some(inner) = packed.schema() else {
            if !packed.type_url.is_empty() {
                self.unknown_type(path, packed.type_url);
            }
            return Ok(());
        };
        let path = path.join(Segment::Packed);
        let depth = depth.any().map_err(|reason| Stop::new(schema, &path, reason))?;
        match typed_struct::encode(inner, packed.value, &path, depth) {
            Ok((bytes, unknown)) => {
                for field in unknown {
                    self.list_unknown(field);
                }
                self.message(inner, &bytes, &path, depth)
            }
            Err(error) => {
                self.violation_at(error.path, error.message.clone(), error.message);
                Ok(())
            }
        }
    }

    fn annotations(&mut self, schema: &'static MessageSchema, field: &'static FieldSchema, path: &Path<'_>) {
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

    fn enum_value(&mut self, field: &'static FieldSchema, number: i32, path: &Path<'_>) {
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

    fn work_in_progress(&mut self, message: &str, field: Option<&str>) {
        let name = field.map_or_else(|| message.to_owned(), |field| format!("{message}.{field}"));
        if !self.report.work_in_progress.contains(&name) {
            self.report.work_in_progress.push(name);
        }
    }

    fn unknown_field(&mut self, schema: &'static MessageSchema, path: &Path<'_>) {
        if self.options.unknown_fields == UnknownFields::Ignore {
            return;
        }
        if self.report.unknown_fields.len() < MAX_LISTED {
            self.list_unknown(UnknownField { path: path.to_string(), message: schema.name.to_string() });
        } else {
            self.report.unknown_field_count += 1;
        }
    }

    fn list_unknown(&mut self, field: UnknownField) {
        if self.options.unknown_fields == UnknownFields::Ignore {
            return;
        }
        self.report.unknown_field_count += 1;
        if self.report.unknown_fields.len() < MAX_LISTED {
            self.report.unknown_fields.push(field);
        }
    }

    fn unknown_type(&mut self, path: &Path<'_>, type_url: &str) {
        self.report.unknown_types.push(UnknownType { path: path.to_string(), type_url: type_url.to_owned() });
    }

    fn violation(&mut self, path: &Path<'_>, reason: String) {
        if self.violations.len() < MAX_LISTED {
            let chain = path.constraint_chain(&reason);
            self.violation_at(path.to_string(), reason, chain);
        }
    }

    fn violation_at(&mut self, path: String, reason: String, chain: String) {
        if self.violations.len() < MAX_LISTED {
            self.violations.push(Violation { path, reason, chain });
        }
    }
}

impl Stop {
    fn new(schema: &'static MessageSchema, path: &Path<'_>, reason: &str) -> Self {
        Self { message: &schema.name, path: path.to_string(), reason: reason.to_owned() }
    }

    fn malformed(schema: &'static MessageSchema, path: &Path<'_>, malformed: Malformed) -> Self {
        Self { message: &schema.name, path: path.to_string(), reason: malformed.to_string() }
    }
}

fn message_bytes(raw: Raw<'_>) -> &[u8] {
    match raw {
        Raw::Bytes(bytes) => bytes,
        _ => &[],
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

#[cfg(test)]
mod tests;

//! One pass over the wire bytes of a message that finds everything Envoy looks for before it uses a configuration:
//! malformed bytes, unknown fields, broken validation rules, deprecated and unfinished features, unknown extensions;
//! through `Any` and `TypedStruct` to the bottom.
//!
//! Nothing is decoded: the bytes are compared with the schema, field by field. Every level of nesting is counted, so
//! hostile messages end in an error and not on the end of the stack.

mod report;
mod values;

use std::collections::BTreeMap;

use smallvec::SmallVec;

pub use report::{CheckError, CheckReport, Deprecated, Violation};
pub(crate) use values::{key_text, span};

use super::any::{Depth, Packed, type_name};
use super::descriptors::{self, Lease};
use super::document::UnknownFields;
use super::path::{Path, Segment};
use super::reader::{Malformed, Raw, Reader};
use super::schema::{FieldSchema, Kind, MessageSchema, Presence, Scalar, WellKnown};
use super::typed_struct;

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// Unknown fields: [`Reject`](UnknownFields::Reject) makes them an error, [`Warn`](UnknownFields::Warn) lists them,
    /// [`Ignore`](UnknownFields::Ignore) does not look.
    pub unknown_fields: UnknownFields,
    /// Apply the protos' validation rules.
    pub validate: bool,
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

#[cfg(test)]
mod tests;

//! Validation rules applied to values as they stand on the wire.

use std::collections::HashSet;

use super::{Checker, Occurrence, Stop};
use crate::proto::any::{Depth, Packed};
use crate::proto::path::{Path, Segment};
use crate::proto::reader::{Raw, Reader};
use crate::proto::rules::{Number, RuleKind, Rules, Span};
use crate::proto::scalar;
use crate::proto::schema::{FieldSchema, Kind, MessageSchema, Presence, Scalar, WellKnown, each};

impl Checker<'_> {
    /// A field that is not repeated; `raw` is `None` when it is absent.
    pub(super) fn rules_of_single(&mut self, field: &'static FieldSchema, raw: Option<Raw<'_>>, path: &Path<'_>) {
        let Some(rules) = field.rules.as_deref().filter(|_| self.options.validate) else {
            return;
        };
        match (raw, field.presence) {
            (Some(raw), _) => self.rules_of_value(field, rules, raw, path),
            (None, Presence::Implicit) => self.rules_of_value(field, rules, field.kind.default_raw(), path),
            // A member of a oneof may be absent: another one may be set.
            (None, _) if rules.required && field.oneof.is_none() => {
                self.violation(path, "value is required".to_owned());
            }
            (None, _) => {}
        }
    }

    pub(super) fn repeated(
        &mut self,
        schema: &'static MessageSchema,
        field: &'static FieldSchema,
        met: &[Occurrence<'_>],
        path: &Path<'_>,
        depth: Depth,
    ) -> Result<(), Stop> {
        let rules = field.rules.as_deref().filter(|_| self.options.validate);
        let rules = match rules.map(|rules| &rules.kind) {
            Some(RuleKind::Repeated(rules)) => Some(&**rules),
            _ => None,
        };
        let items = rules.and_then(|rules| rules.items.as_ref());
        let skip = items.is_some_and(|items| items.skip);
        let mut seen = HashSet::new();
        let mut repeats = false;
        let mut count = 0;
        for met in met {
            let mut take = |checker: &mut Self, raw: Raw<'_>| -> Result<(), Stop> {
                let path = path.join(Segment::Index(count));
                count += 1;
                if rules.is_some_and(|rules| rules.unique) {
                    repeats |= !seen.insert(identity(raw));
                }
                if let Some(items) = items {
                    checker.rules_of_value(field, items, raw, &path);
                }
                checker.value(schema, field, raw, skip, &path, depth)
            };
            match met.raw {
                Raw::Bytes(packed) if field.kind.wire_type() != 2 => {
                    let mut reader = Reader::new(packed);
                    while !reader.is_empty() {
                        let raw = field
                            .kind
                            .packed(&mut reader)
                            .map_err(|malformed| Stop::malformed(schema, path, malformed))?;
                        take(self, raw)?;
                    }
                }
                raw => take(self, raw)?,
            }
        }
        if let Some(rules) = rules.filter(|rules| count > 0 || !rules.ignore_empty) {
            if let Some(reason) = rules.check(count) {
                self.violation(path, reason);
            }
            if repeats {
                self.violation(path, "repeated value must contain unique items".to_owned());
            }
        }
        Ok(())
    }

    pub(super) fn map(
        &mut self,
        schema: &'static MessageSchema,
        field: &'static FieldSchema,
        entry: &'static MessageSchema,
        met: &[Occurrence<'_>],
        path: &Path<'_>,
        depth: Depth,
    ) -> Result<(), Stop> {
        let rules = field.rules.as_deref().filter(|_| self.options.validate);
        let rules = match rules.map(|rules| &rules.kind) {
            Some(RuleKind::Map(rules)) => Some(&**rules),
            _ => None,
        };
        if let Some(reason) =
            rules.filter(|rules| !met.is_empty() || !rules.ignore_empty).and_then(|rules| rules.check(met.len()))
        {
            self.violation(path, reason);
        }
        let (Some(key_field), Some(value_field)) = (entry.field_by_number(1), entry.field_by_number(2)) else {
            return Ok(());
        };
        let depth = depth.message().map_err(|reason| Stop::new(schema, path, reason))?;
        for met in met {
            let Raw::Bytes(bytes) = met.raw else { continue };
            let occurrences = self.scan(entry, bytes, path)?;
            let (mut key, mut value) = (key_field.kind.default_raw(), value_field.kind.default_raw());
            for occurrence in &occurrences {
                match entry.fields.get(usize::from(occurrence.field)).map(|field| field.number) {
                    Some(1) => key = occurrence.raw,
                    Some(2) => value = occurrence.raw,
                    _ => {}
                }
            }
            let name = key_text(key_field.kind, key);
            let path = path.join(Segment::Key(&name));
            if let Some(keys) = rules.and_then(|rules| rules.keys.as_ref()) {
                self.rules_of_value(key_field, keys, key, &path);
            }
            let values = rules.and_then(|rules| rules.values.as_ref());
            if let Some(values) = values {
                self.rules_of_value(value_field, values, value, &path);
            }
            self.value(entry, value_field, value, values.is_some_and(|values| values.skip), &path, depth)?;
        }
        Ok(())
    }

    /// A value that is there.
    fn rules_of_value(&mut self, field: &'static FieldSchema, rules: &Rules, raw: Raw<'_>, path: &Path<'_>) {
        let fault = match (field.message(), raw) {
            (Some(message), Raw::Bytes(bytes)) => message_fault(message, rules, bytes),
            _ => scalar_fault(field, rules, raw),
        };
        if let Some(reason) = fault {
            self.violation(path, reason);
        }
    }
}

fn scalar_fault(field: &'static FieldSchema, rules: &Rules, raw: Raw<'_>) -> Option<String> {
    match (&rules.kind, field.kind.scalar(raw), raw) {
        (RuleKind::Number(rules), Some(scalar), _) => rules.check(Number::of(scalar)?),
        (RuleKind::Bool(constant), Some(Scalar::Bool(value)), _) => {
            (*constant != value).then(|| format!("value must equal {constant}"))
        }
        (RuleKind::Enum(rules), Some(Scalar::Enum(number)), _) => {
            let defined = || field.enumeration().is_some_and(|enumeration| enumeration.by_number(number).is_some());
            rules.check(number, defined)
        }
        (RuleKind::String(rules), _, Raw::Bytes(bytes)) => rules.check(std::str::from_utf8(bytes).ok()?),
        (RuleKind::Bytes(rules), _, Raw::Bytes(bytes)) => rules.check(bytes),
        _ => None,
    }
}

/// Rules on well-known messages are rules on what they stand for.
fn message_fault(message: &'static MessageSchema, rules: &Rules, bytes: &[u8]) -> Option<String> {
    match (&rules.kind, message.well_known) {
        (RuleKind::Any(rules), WellKnown::Any) => rules.check(Packed::parse(bytes).ok()?.type_url),
        (RuleKind::Duration(rules), WellKnown::Duration) => {
            let span = span(bytes)?;
            if !scalar::is_duration(span) {
                return Some("value is not a valid duration".to_owned());
            }
            rules.check(span)
        }
        (RuleKind::Timestamp(rules), WellKnown::Timestamp) => rules.check(span(bytes)?),
        (_, WellKnown::Wrapper) => {
            let field = message.field_by_number(1)?;
            let mut raw = field.kind.default_raw();
            each(bytes, |number, value| {
                if number == 1 && field.kind.accepts(value) {
                    raw = value;
                }
                Ok(())
            })
            .ok()?;
            scalar_fault(field, rules, raw)
        }
        _ => None,
    }
}

/// The parts of a `Duration` or a `Timestamp`.
pub(crate) fn span(bytes: &[u8]) -> Option<Span> {
    let mut span = Span { seconds: 0, nanos: 0 };
    each(bytes, |number, raw| {
        match (number, raw) {
            (1, Raw::Varint(value)) => span.seconds = value as i64,
            (2, Raw::Varint(value)) => span.nanos = value as i32,
            _ => {}
        }
        Ok(())
    })
    .ok()?;
    Some(span)
}

/// What makes two items the same.
fn identity(raw: Raw<'_>) -> Vec<u8> {
    match raw {
        Raw::Bytes(bytes) => bytes.to_vec(),
        Raw::Varint(value) | Raw::Fixed64(value) => value.to_le_bytes().to_vec(),
        Raw::Fixed32(value) => value.to_le_bytes().to_vec(),
        Raw::Group => Vec::new(),
    }
}

/// A map's key as JSON spells it.
pub(crate) fn key_text(kind: Kind, raw: Raw<'_>) -> String {
    match (kind.scalar(raw), raw) {
        (Some(Scalar::Signed(value)), _) => value.to_string(),
        (Some(Scalar::Unsigned(value)), _) => value.to_string(),
        (Some(Scalar::Bool(value)), _) => value.to_string(),
        (Some(Scalar::Enum(value)), _) => value.to_string(),
        (_, Raw::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}

//! Where in a message something is: `static_resources.listeners[0].filter_chains[0].filters[0].typed_config`.
//!
//! A path is a chain of frames on the stack of whoever descends through a message; it becomes text only when there is
//! something to report.

use std::fmt;

use super::schema::{FieldSchema, MessageSchema};

/// One step down.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Segment<'p> {
    /// A field of a message.
    Field(&'static MessageSchema, &'static FieldSchema),
    /// A key that names no field.
    Unknown(&'p str),
    /// A field's number that is not in the schema.
    Number(u32),
    /// An element of a repeated field.
    Index(usize),
    /// An entry of a map, or a member of a `Struct`.
    Key(&'p str),
    /// From an `Any` into the message it holds: nothing in the path, but validation errors start afresh.
    Packed,
}

/// A path: the last step and the way to it; `None` is the root.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Path<'p> {
    last: Option<(&'p Self, Segment<'p>)>,
}

impl<'p> Path<'p> {
    pub(crate) const ROOT: Path<'static> = Path { last: None };

    pub(crate) fn join(&'p self, segment: Segment<'p>) -> Self {
        Self { last: Some((self, segment)) }
    }

    /// The path as validation errors of Envoy spell it: `ClusterValidationError.HealthChecks[0]: embedded message
    /// failed validation | caused by ...`, down to the message at fault, from the innermost packed message on.
    pub(crate) fn constraint_chain(&self, fault: &str) -> String {
        let mut output = String::new();
        let steps = self.steps();
        let begin = steps.iter().rposition(|step| matches!(step, Segment::Packed)).map_or(0, |at| at + 1);
        for step in steps.into_iter().skip(begin) {
            match step {
                Segment::Field(message, field) => {
                    if !output.is_empty() {
                        output.push_str(": embedded message failed validation | caused by ");
                    }
                    output.push_str(message.short_name());
                    output.push_str("ValidationError.");
                    output.push_str(&upper_camel(&field.name));
                }
                Segment::Index(index) => output.push_str(&format!("[{index}]")),
                Segment::Key(key) | Segment::Unknown(key) => output.push_str(&format!("[{key}]")),
                Segment::Number(_) | Segment::Packed => {}
            }
        }
        match (output.is_empty(), fault.starts_with("field: ")) {
            (true, _) => fault.to_owned(),
            // A oneof without a member is reported of the message, not of a field.
            (false, true) => {
                format!("{output}: embedded message failed validation | caused by {fault}")
            }
            (false, false) => format!("{output}: {fault}"),
        }
    }

    fn steps(&self) -> Vec<Segment<'p>> {
        let mut steps = Vec::new();
        let mut at = self.last;
        while let Some((parent, segment)) = at {
            steps.push(segment);
            at = parent.last;
        }
        steps.reverse();
        steps
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for step in self.steps() {
            let dot = if first { "" } else { "." };
            match step {
                Segment::Field(_, field) => write!(f, "{dot}{}", field.name)?,
                Segment::Unknown(name) => write!(f, "{dot}{}", name.escape_debug())?,
                Segment::Number(number) => write!(f, "{dot}{number}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => write!(f, "[\"{}\"]", key.escape_debug())?,
                Segment::Packed => continue,
            }
            first = false;
        }
        Ok(())
    }
}

fn upper_camel(name: &str) -> String {
    let mut output = String::with_capacity(name.len());
    for part in name.split('_') {
        let mut chars = part.chars();
        output.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        output.push_str(chars.as_str());
    }
    output
}

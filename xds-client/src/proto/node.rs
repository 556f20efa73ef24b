//! A document as a tree, whatever it was written in: YAML, JSON or a `google.protobuf.Struct`.

use std::sync::Arc;

use super::diagnostic::Position;

/// Deepest nesting of mappings and sequences a document may have: protobuf's own limit for JSON.
pub(crate) const MAX_DEPTH: usize = 100;

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) value: Value,
    /// How many nodes this is when every alias below is written out.
    pub(crate) weight: u64,
    /// How many levels of mappings and sequences this is.
    pub(crate) height: usize,
}

/// What a node is. Aliases share their node, so an expanded document costs no more memory than a written one.
#[derive(Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// A number as written (JSON) or in decimal (YAML).
    Number(Box<str>),
    String(Box<str>),
    Sequence(Vec<Arc<Node>>),
    Mapping(Vec<(Key, Arc<Node>)>),
}

/// A mapping's key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) position: Position,
    pub(crate) name: Box<str>,
}

/// Something wrong with a document's syntax.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) position: Option<Position>,
    pub(crate) message: String,
}

impl Node {
    pub(crate) fn new(position: Position, value: Value) -> Self {
        let (weight, height) = match &value {
            Value::Sequence(items) => measure(items.iter()),
            Value::Mapping(pairs) => measure(pairs.iter().map(|(_, node)| node)),
            _ => (1, 0),
        };
        Self { position, value, weight, height }
    }

    /// How an error calls this kind of value.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "an object",
        }
    }
}

fn measure<'n>(children: impl Iterator<Item = &'n Arc<Node>>) -> (u64, usize) {
    children.fold((1, 1), |(weight, height), node| {
        (weight.saturating_add(node.weight), height.max(node.height.saturating_add(1)))
    })
}

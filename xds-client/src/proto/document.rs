//! Documents: a bootstrap, or a resource in a file or a REST answer, from text to wire bytes.

use std::sync::Arc;

use prost::Message;

use super::any::Depth;
use super::descriptors::{self, Lease};
use super::diagnostic::{Diagnostic, Diagnostics, Position, UnknownField, UnknownType};
use super::json_in::Encoder;
use super::node::{Node, SyntaxError, Value};
use super::path::Path;
use super::{json, yaml};

/// What a document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML, read as Envoy reads it.
    Yaml,
    /// JSON.
    Json,
    /// Protobuf's wire format.
    Binary,
    /// Protobuf's text format: refused with a clear error.
    Text,
}

/// What to do about fields, and names of enum values, that the descriptors do not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// An error.
    #[default]
    Reject,
    /// Listed in [`Document::unknown_fields`].
    Warn,
    /// Not even listed.
    Ignore,
}

/// How to read a document.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions<'a> {
    /// What errors call the document, such as its file name.
    pub source: &'a str,
    /// About unknown fields; for binary documents this is the business of [`check`](super::check()).
    pub unknown_fields: UnknownFields,
}

/// A document that could be read: the bytes of its message, and where its fields stand.
#[derive(Clone, Debug)]
pub struct Document {
    bytes: Vec<u8>,
    sources: Vec<Source>,
    unknown_fields: Vec<Diagnostic>,
    unknown_types: Vec<UnknownType>,
}

/// A text that went into a document.
#[derive(Clone, Debug)]
struct Source {
    name: Arc<str>,
    root: Option<Arc<Node>>,
}

/// A field's place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The document's name.
    pub source: Arc<str>,
    /// Line and column.
    pub position: Position,
}

/// Reads a document of the message type `type_name` (a full name such as `envoy.config.bootstrap.v3.Bootstrap`, or a
/// type URL).
///
/// Checks syntax, types and names. The protos' validation rules are applied by [`check`](super::check()), on the bytes,
/// which works for documents and for resources from a control plane alike.
pub fn load(bytes: &[u8], format: Format, type_name: &str, options: &LoadOptions<'_>) -> Result<Document, Diagnostics> {
    let _lease = Lease::new();
    let syntax = |error: SyntaxError| single(options.source, error.position, error.message);
    let root = match format {
        Format::Yaml => yaml::parse(utf8(bytes, options)?).map_err(syntax)?,
        Format::Json => json::parse(utf8(bytes, options)?).map_err(syntax)?,
        Format::Binary => {
            let sources = vec![Source { name: options.source.into(), root: None }];
            return Ok(Document {
                bytes: bytes.to_vec(),
                sources,
                unknown_fields: Vec::new(),
                unknown_types: Vec::new(),
            });
        }
        Format::Text => {
            return Err(single(
                options.source,
                None,
                "protobuf text format is not supported: use YAML, JSON or binary".into(),
            ));
        }
    };
    let name = super::any::type_name(type_name);
    let schema = descriptors::message(name)
        .ok_or_else(|| single(options.source, None, format!("no descriptor of the message type {name}")))?;
    let mut encoder = Encoder::new(options.source, options.unknown_fields);
    let mut encoded = Vec::new();
    encoder.root(schema, &root, &Path::ROOT, Depth::default(), &mut encoded);
    let Encoder { errors, unknown, unknown_types, .. } = encoder;
    if !errors.is_empty() {
        return Err(Diagnostics(errors));
    }
    let warning = |(UnknownField { path, message }, position)| Diagnostic {
        source: options.source.to_owned(),
        position: Some(position),
        path,
        message: format!("unknown field of {message}, ignored"),
    };
    Ok(Document {
        bytes: encoded,
        sources: vec![Source { name: options.source.into(), root: Some(root) }],
        unknown_fields: unknown.into_iter().map(warning).collect(),
        unknown_types,
    })
}

impl Format {
    /// By a file's name, as Envoy does: `.pb`, `.pb_text`, `.yaml` and `.yml`; JSON otherwise.
    pub fn of_path(path: &std::path::Path) -> Self {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "yaml" | "yml" => Self::Yaml,
            "pb" => Self::Binary,
            "pb_text" => Self::Text,
            _ => Self::Json,
        }
    }
}

impl Document {
    /// The message's wire bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Decodes the message; the error of a binary document that is no such message has its source's name.
    pub fn decode<M: Message + Default>(&self) -> Result<M, Diagnostics> {
        M::decode(self.bytes.as_slice()).map_err(|error| {
            let source = self.sources.first().map_or("", |source| &source.name);
            single(source, None, format!("Unable to parse as a protobuf message: {error}"))
        })
    }

    /// Fields that were not known and are tolerated by [`UnknownFields::Warn`].
    pub fn unknown_fields(&self) -> &[Diagnostic] {
        &self.unknown_fields
    }

    /// `Any`s whose type is not known. Their content is lost if it was given as JSON: there is no telling its encoding.
    pub fn unknown_types(&self) -> &[UnknownType] {
        &self.unknown_types
    }

    /// Lays another document of the same type over this one, as `--config-yaml` does over the file: scalars override,
    /// messages merge, lists append.
    pub fn merge(&mut self, over: Self) {
        // What protobuf defines concatenated messages to mean.
        self.bytes.extend_from_slice(&over.bytes);
        self.sources.extend(over.sources);
        self.unknown_fields.extend(over.unknown_fields);
        self.unknown_types.extend(over.unknown_types);
    }

    /// Where the field at `path` stands, or the nearest message around it. For errors found later, in the decoded
    /// message.
    pub fn locate(&self, path: &str) -> Option<Location> {
        let mut nodes: Vec<(&Source, &Node)> =
            self.sources.iter().filter_map(|source| source.root.as_deref().map(|root| (source, root))).collect();
        let mut found = nodes.last().map(|(source, node)| location(source, node));
        for step in steps(path) {
            nodes = descend(&nodes, &step);
            match nodes.last() {
                Some((source, node)) => found = Some(location(source, node)),
                None => break,
            }
        }
        found
    }
}

fn location(source: &Source, node: &Node) -> Location {
    Location { source: Arc::clone(&source.name), position: node.position }
}

/// Takes one step of a path in every source at once; lists of several sources are one list.
fn descend<'d>(nodes: &[(&'d Source, &'d Node)], step: &Step) -> Vec<(&'d Source, &'d Node)> {
    let mut below = Vec::new();
    let mut passed = 0;
    for (source, node) in nodes {
        match (step, &node.value) {
            (Step::Name(name), Value::Mapping(pairs)) => {
                let found =
                    pairs.iter().find(|(key, _)| *key.name == *name || super::scalar::snake_case(&key.name) == *name);
                below.extend(found.map(|(_, node)| (*source, &**node)));
            }
            (Step::Index(index), Value::Sequence(items)) => {
                below.extend(index.checked_sub(passed).and_then(|at| items.get(at)).map(|node| (*source, &**node)));
                passed += items.len();
            }
            // A list of one, written without brackets.
            (Step::Index(index), _) => {
                below.extend((*index == passed).then_some((*source, *node)));
                passed += 1;
            }
            (Step::Name(_), _) => {}
        }
    }
    below
}

enum Step {
    Name(String),
    Index(usize),
}

/// Takes a path apart: `a.b[0]["key"]`.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some((key, after)) = rest.strip_prefix("[\"").and_then(|rest| rest.split_once("\"]")) {
            steps.push(Step::Name(key.to_owned()));
            rest = after;
        } else if let Some((index, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let Ok(index) = index.parse() else { break };
            steps.push(Step::Index(index));
            rest = after;
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            let (name, after) = name.split_at(end);
            if name.is_empty() {
                break;
            }
            steps.push(Step::Name(name.to_owned()));
            rest = after;
        }
    }
    steps
}

fn utf8<'b>(bytes: &'b [u8], options: &LoadOptions<'_>) -> Result<&'b str, Diagnostics> {
    std::str::from_utf8(bytes).map_err(|error| {
        let message = format!("the document is not UTF-8 at byte {}", error.valid_up_to());
        single(options.source, None, message)
    })
}

fn single(source: &str, position: Option<Position>, message: String) -> Diagnostics {
    Diagnostics(vec![Diagnostic { source: source.to_owned(), position, path: String::new(), message }])
}

#[cfg(test)]
mod tests;

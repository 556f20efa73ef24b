//! YAML into a [`Node`], with Envoy's reading of it and bounds that YAML itself does not have.
//!
//! Envoy's rules, measured: a quoted scalar is a string; a plain one is null (`~`, `null`, empty), a boolean (YAML 1.1:
//! also `yes`, `on`, `y`), an integer (decimal, `0x`, leading-zero octal), and otherwise a string, fractions included;
//! integers beyond 32 bits become decimal strings; merge keys (`<<`) mean nothing; a key tagged `!ignore` is skipped
//! (a place to keep anchors).
//!
//! Stricter than Envoy on purpose: duplicate keys, other tags and further documents are refused, since Envoy lets
//! them silently change or drop what was written.

mod relax;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use super::diagnostic::Position;
use super::node::{Key, MAX_DEPTH, Node, SyntaxError, Value};
use relax::{Relaxed, relax};

/// How many nodes aliases may stand for, all together. Honest documents stay far below; an alias bomb is cut off before
/// anything is expanded.
const MAX_ALIASED_NODES: u64 = 1_000_000;

/// Parses the only document in `text`.
pub(crate) fn parse(text: &str) -> Result<Arc<Node>, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match build(text, &[]) {
        Err(Refused::Indentation(_)) => {
            let Relaxed { text, moved } = relax(text);
            build(&text, &moved).map_err(Refused::into_error)
        }
        result => result.map_err(Refused::into_error),
    }
}

/// Why there is no tree.
enum Refused {
    /// The text may be acceptable once it is [relaxed](relax).
    Indentation(SyntaxError),
    Other(SyntaxError),
}

impl Refused {
    fn into_error(self) -> SyntaxError {
        match self {
            Self::Indentation(error) | Self::Other(error) => error,
        }
    }
}

/// `moved` says by how many columns each line was moved to the right.
fn build(text: &str, moved: &[u32]) -> Result<Arc<Node>, Refused> {
    let mut builder = Builder { moved, ..Builder::default() };
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| scan_error(&error, moved))?;
        builder.event(event, span).map_err(Refused::Other)?;
    }
    let error = match builder.root {
        Some(root) if matches!(root.value, Value::Mapping(_) | Value::Sequence(_)) => {
            return Ok(root);
        }
        Some(root) => SyntaxError {
            position: Some(root.position),
            message: format!("Unable to convert YAML as JSON: the document is {}, not an object", root.kind()),
        },
        None => SyntaxError { position: None, message: "Unable to convert YAML as JSON: the document is empty".into() },
    };
    Err(Refused::Other(error))
}

#[derive(Default)]
struct Builder<'m> {
    moved: &'m [u32],
    open: Vec<Open>,
    anchors: HashMap<usize, Arc<Node>>,
    aliased: u64,
    documents: usize,
    root: Option<Arc<Node>>,
}

/// A collection being read.
struct Open {
    position: Position,
    anchor: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<Arc<Node>>),
    Mapping { pairs: Vec<(Key, Arc<Node>)>, names: HashSet<Box<str>>, key: Option<PendingKey> },
}

struct PendingKey {
    key: Key,
    ignored: bool,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        let position = position(&span.start, self.moved);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return fail(position, "the file has more than one YAML document");
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => self.scalar(text, style, anchor, tag, position),
            Event::Alias(anchor) => self.alias(anchor, position),
            Event::SequenceStart(anchor, tag) => self.open(position, anchor, tag, Content::Sequence(Vec::new())),
            Event::MappingStart(anchor, tag) => {
                let content = Content::Mapping { pairs: Vec::new(), names: HashSet::new(), key: None };
                self.open(position, anchor, tag, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
        position: Position,
    ) -> Result<(), SyntaxError> {
        if let Some(Open { content: Content::Mapping { names, key: key @ None, .. }, .. }) = self.open.last_mut() {
            let ignored = tag.as_ref().is_some_and(|tag| is_ignore(tag));
            if !ignored {
                refuse(tag, position)?;
                if !names.insert(text.as_ref().into()) {
                    return fail(position, format!("duplicate key '{}'", text.escape_debug()));
                }
            }
            *key = Some(PendingKey { key: Key { position, name: text.into() }, ignored });
            return Ok(());
        }
        // The tag `!` alone means: a string, as if quoted.
        let quoted = style != ScalarStyle::Plain || tag.as_ref().is_some_and(|tag| is_non_specific(tag));
        refuse(tag, position)?;
        let value = if quoted { Value::String(text.into()) } else { plain(&text) };
        self.add(anchor, Arc::new(Node::new(position, value)))
    }

    fn alias(&mut self, anchor: usize, position: Position) -> Result<(), SyntaxError> {
        let Some(node) = self.anchors.get(&anchor).map(Arc::clone) else {
            return fail(position, "an alias refers to a node it is part of");
        };
        self.aliased = self.aliased.saturating_add(node.weight);
        if self.aliased > MAX_ALIASED_NODES {
            return fail(position, format!("aliases stand for more than {MAX_ALIASED_NODES} nodes"));
        }
        if self.open.len() + node.height > MAX_DEPTH {
            return too_deep(position);
        }
        if let Some(Open { content: Content::Mapping { names, key: key @ None, .. }, .. }) = self.open.last_mut() {
            let name: Box<str> = match &node.value {
                Value::String(text) | Value::Number(text) => text.clone(),
                _ => return fail(position, "a mapping's key must be a scalar"),
            };
            if !names.insert(name.clone()) {
                return fail(position, format!("duplicate key '{}'", name.escape_debug()));
            }
            *key = Some(PendingKey { key: Key { position, name }, ignored: false });
            return Ok(());
        }
        self.add(0, node)
    }

    fn open(
        &mut self,
        position: Position,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
        content: Content,
    ) -> Result<(), SyntaxError> {
        refuse(tag, position)?;
        if let Some(Open { content: Content::Mapping { key: None, .. }, .. }) = self.open.last() {
            return fail(position, "a mapping's key must be a scalar");
        }
        if self.open.len() >= MAX_DEPTH {
            return too_deep(position);
        }
        self.open.push(Open { position, anchor, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), SyntaxError> {
        let Some(Open { position, anchor, content }) = self.open.pop() else {
            return Ok(());
        };
        let value = match content {
            Content::Sequence(items) => Value::Sequence(items),
            Content::Mapping { pairs, .. } => Value::Mapping(pairs),
        };
        self.add(anchor, Arc::new(Node::new(position, value)))
    }

    fn add(&mut self, anchor: usize, node: Arc<Node>) -> Result<(), SyntaxError> {
        if anchor > 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::Sequence(items)) => items.push(node),
            Some(Content::Mapping { pairs, key, .. }) => {
                if let Some(PendingKey { key, ignored: false }) = key.take() {
                    pairs.push((key, node));
                }
            }
        }
        Ok(())
    }
}

/// What a plain scalar is.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        _ => {}
    }
    if let Some(value) = boolean(text) {
        return Value::Bool(value);
    }
    match integer(text) {
        Some(value) if i32::try_from(value).is_ok() => Value::Number(value.to_string().into()),
        Some(value) => Value::String(value.to_string().into()),
        None => Value::String(text.into()),
    }
}

/// YAML 1.1's booleans, in lower case, upper case or with an initial capital.
fn boolean(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let value = match lower.as_str() {
        "y" | "yes" | "true" | "on" => true,
        "n" | "no" | "false" | "off" => false,
        _ => return None,
    };
    let rest = text.get(1..)?;
    let uniform =
        rest.bytes().all(|byte| byte.is_ascii_lowercase()) || text.bytes().all(|byte| byte.is_ascii_uppercase());
    uniform.then_some(value)
}

/// An integer as C reads it with its base left open.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..)?),
        [b'0', _, ..] => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, radix).ok()?);
    i64::try_from(if negative { -value } else { value }).ok()
}

fn is_ignore(tag: &Tag) -> bool {
    tag.handle == "!" && tag.suffix == "ignore"
}

fn is_non_specific(tag: &Tag) -> bool {
    (tag.handle.is_empty() && tag.suffix == "!") || (tag.handle == "!" && tag.suffix.is_empty())
}

fn refuse(tag: Option<Cow<'_, Tag>>, position: Position) -> Result<(), SyntaxError> {
    match tag {
        Some(tag) if !is_non_specific(&tag) => {
            let tag = tag.to_string();
            fail(
                position,
                format!("the tag '{}' is not supported (quote a scalar to make it a string)", tag.escape_debug()),
            )
        }
        _ => Ok(()),
    }
}

fn too_deep(position: Position) -> Result<(), SyntaxError> {
    fail(position, format!("nested deeper than {MAX_DEPTH} levels"))
}

fn fail(position: Position, message: impl Into<String>) -> Result<(), SyntaxError> {
    Err(SyntaxError { position: Some(position), message: message.into() })
}

/// Where a marker is in the document as written.
fn position(marker: &Marker, moved: &[u32]) -> Position {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let moved = moved.get(marker.line().saturating_sub(1)).copied().unwrap_or(0);
    Position { line: number(marker.line()), column: number(marker.col()).saturating_sub(moved).saturating_add(1) }
}

fn scan_error(error: &ScanError, moved: &[u32]) -> Refused {
    let position = Some(position(error.marker(), moved));
    let refused = SyntaxError { position, message: format!("not YAML: {}", error.info()) };
    // The parser has no kinds of errors, only words.
    if error.info().starts_with("invalid indentation") {
        Refused::Indentation(refused)
    } else {
        Refused::Other(refused)
    }
}

#[cfg(test)]
mod tests;

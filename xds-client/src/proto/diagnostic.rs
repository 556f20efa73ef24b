//! What there is to say about a document: errors and warnings that know their field and their line.

use std::fmt;

/// A place in a text, counted from one; the column is in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What the document is called: usually its file.
    pub source: String,
    /// Where it stands; `None` in binary documents.
    pub position: Option<Position>,
    /// The field, such as `static_resources.listeners[0].name`; empty at the root.
    pub path: String,
    /// What is wrong, in Envoy's words where Envoy has some.
    pub message: String,
}

/// Everything found wrong with a document, in its order; never empty when it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

/// A field nobody knows, in a place where unknown fields are tolerated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField {
    /// Where, including the unknown name or number as the last step.
    pub path: String,
    /// Full name of the message that has no such field.
    pub message: String,
}

/// An `Any` of a type the descriptors do not have. Whoever needs the extension refuses it by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownType {
    /// Where the `Any` is.
    pub path: String,
    /// Its type URL as written.
    pub type_url: String,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl fmt::Display for Diagnostic {
    /// `bootstrap.yaml:3:7: admin.address: ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.source.is_empty() {
            write!(f, "{}:", self.source)?;
        }
        if let Some(position) = self.position {
            write!(f, "{position}:")?;
        }
        if !self.source.is_empty() || self.position.is_some() {
            f.write_str(" ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

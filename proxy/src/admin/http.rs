//! A page's answer.

use hyper::StatusCode;
use serde::Serialize as _;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::backend::BackendError;

pub(super) const TEXT: &str = "text/plain; charset=UTF-8";
pub(super) const HTML: &str = "text/html; charset=UTF-8";
pub(super) const JSON: &str = "application/json";

/// Status, type and content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Page {
    pub(super) fn text(body: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, content_type: TEXT, body: body.into() }
    }

    pub(super) fn ok() -> Self {
        Self::text("OK\n")
    }

    pub(super) fn error(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, ..Self::text(body) }
    }

    /// JSON as Envoy prints it: one space per level, a line break at the end.
    pub(super) fn json(value: &Value) -> Self {
        Self { content_type: JSON, ..Self::text(pretty(value)) }
    }
}

impl From<BackendError> for Page {
    fn from(error: BackendError) -> Self {
        Self::error(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
    }
}

/// Pretty JSON, indented by one space.
pub(super) fn pretty(value: &Value) -> String {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b" "));
    // A `Value` always serialises, and JSON is UTF-8.
    let _written = value.serialize(&mut serializer);
    text.push(b'\n');
    String::from_utf8(text).unwrap_or_default()
}

//! Protobuf messages in and out: text to wire bytes, checks on wire bytes, wire bytes to JSON.
//!
//! ```text
//! YAML, JSON ──load──▶ Document ──┐
//!                                 ├─▶ wire bytes ──check──▶ CheckReport, then prost's decode into envoy_types
//! control plane ──────────────────┘        └──to_json──▶ admin pages, REST requests
//! ```
//!
//! Everything works on wire bytes and the descriptors the crate carries, so it holds for every message type of Envoy's
//! API, including those Legate does not implement: their errors can name fields, and their bytes can be shown. No
//! dynamic messages are built.
//!
//! All input is hostile: nesting is bounded at each step (text, aliases, messages, `Any` in `Any`), and nothing here
//! panics or recurses deeper than those bounds.

mod any;
mod check;
mod descriptors;
mod diagnostic;
mod document;
mod json;
mod json_in;
mod json_out;
mod node;
mod path;
mod reader;
mod rules;
mod scalar;
mod schema;
mod typed_struct;
mod yaml;

pub use any::{type_name, type_url};
pub use check::{CheckError, CheckOptions, CheckReport, Deprecated, Violation, check};
pub use diagnostic::{Diagnostic, Diagnostics, Position, UnknownField, UnknownType};
pub use document::{Document, Format, LoadOptions, Location, UnknownFields, load};
pub use json_out::{JsonError, JsonOptions, to_json};
pub use typed_struct::unwrap_typed_struct;

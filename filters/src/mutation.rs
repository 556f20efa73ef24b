//! Header changes (`request_headers_to_add`, `response_headers_to_remove` and their like), compiled once.
//!
//! One [`HeaderMutations`] is what one level of a configuration asks for. Within it, removals come first; then every value
//! is worked out against the headers as they are after that; then overwriting values are set, and at last the appended
//! ones added.

use std::fmt;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use smallvec::SmallVec;

use crate::config::{At, ConfigError};
use crate::http::{HeaderKey, HeaderName, Headers, RequestHead, ResponseHead};
use crate::stream_info::StreamInfo;

/// What a header value may be made of.
#[derive(Clone, Copy, Debug)]
pub struct ValueContext<'a> {
    /// The request's head.
    pub request: Option<&'a RequestHead>,
    /// The response's head, when there is one.
    pub response: Option<&'a ResponseHead>,
    /// What is known about the stream.
    pub info: &'a StreamInfo,
}

/// A compiled text with `%COMMAND%`s. A command without a value adds nothing.
pub trait ValueFormat: Send + Sync + fmt::Debug {
    /// Appends the text for this stream.
    fn append_to(&self, out: &mut Vec<u8>, context: &ValueContext<'_>);
}

/// Compiles a text with `%COMMAND%`s; the error is Envoy's text.
pub type ParseFormat = fn(&str) -> Result<Box<dyn ValueFormat>, String>;

/// A text that is fixed or made for every stream.
#[derive(Debug)]
pub enum Template {
    /// Fixed.
    Literal(Bytes),
    /// With `%COMMAND%`s.
    Format(Box<dyn ValueFormat>),
}

impl Template {
    /// Compiles a text; one without `%` stays literal.
    ///
    /// # Errors
    /// Envoy's text when a command is unknown or malformed.
    pub fn parse(text: &str, parse: ParseFormat) -> Result<Self, String> {
        if text.contains('%') { parse(text).map(Self::Format) } else { Ok(Self::Literal(text.to_owned().into())) }
    }

    /// The text for this stream.
    #[must_use]
    pub fn render(&self, context: &ValueContext<'_>) -> Bytes {
        match self {
            Self::Literal(text) => text.clone(),
            Self::Format(format) => {
                let mut out = Vec::new();
                format.append_to(&mut out, context);
                out.into()
            }
        }
    }
}

/// The header changes of one level of a configuration.
#[derive(Debug, Default)]
pub struct HeaderMutations {
    remove: Box<[HeaderName]>,
    add: Box<[Addition]>,
}

#[derive(Debug)]
struct Addition {
    name: HeaderName,
    value: Template,
    action: HeaderAppendAction,
    keep_empty: bool,
}

/// The names of the two fields a level's changes stand in, for error paths.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// `request_headers_to_add` or its like.
    pub add: &'static str,
    /// `request_headers_to_remove` or its like.
    pub remove: &'static str,
}

impl Fields {
    /// The changes to a request.
    pub const REQUEST: Self = Self { add: "request_headers_to_add", remove: "request_headers_to_remove" };
    /// The changes to a response.
    pub const RESPONSE: Self = Self { add: "response_headers_to_add", remove: "response_headers_to_remove" };
}

impl HeaderMutations {
    /// Compiles one level; `at` is the message that holds both fields.
    ///
    /// # Errors
    /// When a name is no header name or one that may not be changed (`:`-prefixed, `host`), a value cannot be compiled,
    /// `append` and `append_action` are both set, or a list is longer than 1000.
    pub fn parse(
        add: Vec<HeaderValueOption>,
        remove: Vec<String>,
        at: At<'_>,
        fields: Fields,
        parse: ParseFormat,
    ) -> Result<Self, ConfigError> {
        let here = at.field(fields.add);
        if add.len() > 1000 {
            return Err(here.error("value must contain no more than 1000 item(s)"));
        }
        let add = add
            .into_iter()
            .enumerate()
            .map(|(n, option)| Addition::parse(option, here.index(n), parse))
            .collect::<Result<_, _>>()?;
        let here = at.field(fields.remove);
        let remove = remove
            .iter()
            .enumerate()
            .map(|(n, name)| mutable_name(name, here.index(n), "removed"))
            .collect::<Result<_, _>>()?;
        Ok(Self { remove, add })
    }

    /// Whether nothing is changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Changes a request's headers.
    pub fn apply_to_request(&self, head: &mut RequestHead, info: &StreamInfo) {
        self.remove_from(&mut head.headers);
        let values = self.values(&head.headers, &ValueContext { request: Some(head), response: None, info });
        set(&mut head.headers, values);
    }

    /// Changes a response's headers. `request` is the request as it went upstream.
    pub fn apply_to_response(&self, head: &mut ResponseHead, request: Option<&RequestHead>, info: &StreamInfo) {
        self.remove_from(&mut head.headers);
        let values = self.values(&head.headers, &ValueContext { request, response: Some(head), info });
        set(&mut head.headers, values);
    }

    fn remove_from(&self, headers: &mut Headers) {
        if !self.remove.is_empty() {
            headers.retain(|header| !self.remove.contains(&header.name));
        }
    }

    /// Every value that will be written, worked out before the first of them is.
    fn values(&self, headers: &Headers, context: &ValueContext<'_>) -> SmallVec<[Write; 4]> {
        let mut writes = SmallVec::new();
        for addition in &self.add {
            let value = addition.value.render(context);
            if value.is_empty() && !addition.keep_empty {
                continue;
            }
            let overwrite = match addition.action {
                HeaderAppendAction::AppendIfExistsOrAdd => false,
                HeaderAppendAction::AddIfAbsent if headers.contains(&addition.name) => continue,
                HeaderAppendAction::AddIfAbsent => false,
                HeaderAppendAction::OverwriteIfExists if !headers.contains(&addition.name) => continue,
                HeaderAppendAction::OverwriteIfExists | HeaderAppendAction::OverwriteIfExistsOrAdd => true,
            };
            writes.push(Write { overwrite, name: addition.name.clone(), value });
        }
        writes
    }
}

/// One header about to be written.
struct Write {
    overwrite: bool,
    name: HeaderName,
    value: Bytes,
}

fn set(headers: &mut Headers, writes: SmallVec<[Write; 4]>) {
    for write in writes.iter().filter(|write| write.overwrite) {
        headers.set(write.name.clone(), write.value.clone());
    }
    for write in writes {
        if !write.overwrite {
            headers.append(write.name, write.value);
        }
    }
}

impl Addition {
    fn parse(option: HeaderValueOption, at: At<'_>, parse: ParseFormat) -> Result<Self, ConfigError> {
        let HeaderValueOption { header, append, append_action, keep_empty_value } = option;
        let HeaderValue { key, value, raw_value } = at.required("header", header)?;
        let at_header = at.field("header");
        let name = mutable_name(&key, at_header.field("key"), "modified")?;
        let action = HeaderAppendAction::try_from(append_action)
            .map_err(|_| at.field("append_action").error("value must be one of the defined enum values"))?;
        let action = match append {
            Some(_) if action != HeaderAppendAction::AppendIfExistsOrAdd => {
                return Err(at.error("Both append and append_action are set and it's not allowed"));
            }
            Some(append) if !append.value => HeaderAppendAction::OverwriteIfExistsOrAdd,
            _ => action,
        };
        let value = if value.is_empty() && !raw_value.is_empty() {
            String::from_utf8(raw_value)
                .map_err(|_| at_header.field("raw_value").error("only UTF-8 values are supported"))?
        } else {
            value
        };
        let value = Template::parse(&value, parse).map_err(|error| at_header.field("value").error(error))?;
        Ok(Self { name, value, action, keep_empty: keep_empty_value })
    }
}

/// A name that configuration may change.
fn mutable_name(name: &str, at: At<'_>, verb: &str) -> Result<HeaderName, ConfigError> {
    match HeaderKey::parse(name) {
        Some(HeaderKey::Name(name)) => Ok(name),
        None if !name.starts_with(':') => Err(at.error(format_args!("'{name}' is not a header name"))),
        _ => Err(at.error(format_args!(":-prefixed or host headers may not be {verb}"))),
    }
}

//! Replies the proxy makes itself: a status and a text become a head and a body, in the form the client can read.
//!
//! A gRPC request gets a trailers-only response whose `grpc-status` follows from the HTTP status and whose `grpc-message`
//! is the text; a HEAD request gets the headers of the body it does not get. `local_reply_config` may change status,
//! headers and body first ([`LocalReplyConfig`]).

mod grpc;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use filters::format::{Format, FormatContext, JsonFormat};
use filters::http::{HeaderName, Headers, Known, Method, RequestHead, ResponseHead};
use filters::http_filter::HeaderChange;
use filters::matcher::Runtime;
use filters::stream_info::StreamInfo;

use crate::observe::access_log::LogFilter;
pub use grpc::{GrpcStatus, encode_message, status_from_http};

/// What the proxy wants to answer.
#[derive(Debug, Clone, Default)]
pub struct LocalReply {
    /// HTTP status.
    pub status: u16,
    /// Body text; empty for none.
    pub body: Bytes,
    /// Content type of the body; `text/plain` when empty.
    pub content_type: Bytes,
    /// More headers, before the standard ones (`x-envoy-overloaded`, `location`, …).
    pub headers: Headers,
    /// What is to be done about these and what the route adds to them.
    pub changes: Vec<HeaderChange>,
    /// `grpc-status` for a gRPC client, where the one that follows from the status will not do.
    pub grpc_status: Option<GrpcStatus>,
}

impl LocalReply {
    /// A reply of a status and a text.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<HeaderName>, value: impl Into<Bytes>) -> Self {
        self.headers.append(name, value);
        self
    }
}

/// A local reply as it goes to the client.
#[derive(Debug, Clone)]
pub struct Built {
    /// The head, without `date` and `server`.
    pub head: ResponseHead,
    /// The body; empty for none, for HEAD and for gRPC. The stream ends behind it.
    pub body: Bytes,
}

/// `local_reply_config`
#[derive(Debug, Default)]
pub struct LocalReplyConfig {
    /// `mappers`: the first whose filter matches applies.
    pub mappers: Vec<ReplyMapper>,
    /// `body_format`, where the mapper has none of its own.
    pub body_format: Option<BodyFormat>,
}

/// One of `local_reply_config.mappers`.
#[derive(Debug)]
pub struct ReplyMapper {
    /// `filter`
    pub filter: LogFilter,
    /// `status_code`
    pub status: Option<u16>,
    /// `body`
    pub body: Option<Bytes>,
    /// `body_format_override`
    pub body_format: Option<BodyFormat>,
    /// `headers_to_add`
    pub headers: Vec<HeaderToAdd>,
}

/// One of `headers_to_add`.
#[derive(Debug)]
pub struct HeaderToAdd {
    /// Name.
    pub name: HeaderName,
    /// Value.
    pub value: Format,
    /// What to do when the header exists.
    pub action: AppendAction,
    /// Add it even when its value is empty.
    pub keep_empty: bool,
}

/// `HeaderValueOption.append_action`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAction {
    /// `APPEND_IF_EXISTS_OR_ADD`
    Append,
    /// `ADD_IF_ABSENT`
    AddIfAbsent,
    /// `OVERWRITE_IF_EXISTS_OR_ADD`
    OverwriteOrAdd,
    /// `OVERWRITE_IF_EXISTS`
    Overwrite,
}

/// `SubstitutionFormatString` for a body.
#[derive(Debug)]
pub struct BodyFormat {
    /// Text or JSON.
    pub body: BodyText,
    /// `content_type`, or what the format implies.
    pub content_type: Bytes,
}

/// How a body is written.
#[derive(Debug)]
pub enum BodyText {
    /// `text_format_source`
    Text(Format),
    /// `json_format`
    Json(JsonFormat),
}

impl BodyFormat {
    /// The body that it makes of this.
    #[must_use]
    pub fn write(&self, context: &FormatContext<'_>) -> Bytes {
        let mut text = Vec::new();
        match &self.body {
            BodyText::Text(format) => format.append_to(&mut text, context),
            BodyText::Json(format) => format.append_to(&mut text, context),
        }
        text.into()
    }
}

/// Builds the reply to `request`, which is `None` when no head was understood. Sets `info.response_code`.
#[must_use]
pub fn build(
    reply: LocalReply,
    request: Option<&RequestHead>,
    info: &mut StreamInfo,
    config: Option<&LocalReplyConfig>,
    runtime: &dyn Runtime,
) -> Built {
    let LocalReply { status, mut body, mut content_type, headers, changes: _, grpc_status } = reply;
    info.response_code = status;
    let mut head = ResponseHead { status, headers, ..ResponseHead::default() };
    let mut applied = Applied::default();
    if let Some(config) = config {
        applied = config.apply(&mut head, &mut body, &mut content_type, request, info, runtime);
        info.response_code = head.status;
    }
    let is_head = request.is_some_and(|request| request.method == Method::Head);
    if request.is_some_and(RequestHead::is_grpc) {
        // The line end behind JSON is none of what it says.
        let text = if applied.json { body.strip_suffix(b"\n").unwrap_or(&body) } else { &body };
        let message = if is_head { &b""[..] } else { text };
        grpc::trailers_only(&mut head, message, grpc_status);
        info.response_code = head.status;
        return Built { head, body: Bytes::new() };
    }
    if body.is_empty() {
        head.headers.remove(&Known::ContentLength);
        head.headers.remove(&Known::ContentType);
        return Built { head, body };
    }
    let length = Bytes::copy_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
    head.headers.set(Known::ContentLength, length);
    if !content_type.is_empty() && !applied.own_type {
        head.headers.set(Known::ContentType, content_type);
    } else if !head.headers.contains(&Known::ContentType) {
        head.headers.append(Known::ContentType, &b"text/plain"[..]);
    }
    Built { head, body: if is_head { Bytes::new() } else { body } }
}

/// What `local_reply_config` did to a reply.
#[derive(Default)]
struct Applied {
    /// A mapper chose the content type.
    own_type: bool,
    /// The body is a line of JSON.
    json: bool,
}

impl LocalReplyConfig {
    /// Lets the first mapper that matches and the format have their way.
    fn apply(
        &self,
        head: &mut ResponseHead,
        body: &mut Bytes,
        content_type: &mut Bytes,
        request: Option<&RequestHead>,
        info: &mut StreamInfo,
        runtime: &dyn Runtime,
    ) -> Applied {
        let context = FormatContext { request, response: Some(head), ..FormatContext::new(info) };
        let mapper = self.mappers.iter().find(|mapper| mapper.filter.matches(&context, runtime));
        let mut format = self.body_format.as_ref();
        let mut applied = Applied::default();
        if let Some(mapper) = mapper {
            if let Some(new) = &mapper.body {
                *body = new.clone();
            }
            let values = mapper.headers.iter().map(|header| (header, header.value.text(&context))).collect::<Vec<_>>();
            for (header, value) in values {
                applied.own_type |= header.name == Known::ContentType;
                header.apply(&mut head.headers, value);
            }
            if let Some(status) = mapper.status {
                head.status = status;
                info.response_code = status;
            }
            format = mapper.body_format.as_ref().or(format);
        }
        if let Some(format) = format {
            let context =
                FormatContext { request, response: Some(head), local_reply_body: body, ..FormatContext::new(info) };
            applied.json = matches!(format.body, BodyText::Json(_));
            *body = format.write(&context);
            *content_type = format.content_type.clone();
        }
        applied
    }
}

impl HeaderToAdd {
    fn apply(&self, headers: &mut Headers, value: Vec<u8>) {
        if value.is_empty() && !self.keep_empty {
            return;
        }
        let exists = headers.contains(&self.name);
        match self.action {
            AppendAction::Append => headers.append(self.name.clone(), value),
            AppendAction::AddIfAbsent if !exists => headers.append(self.name.clone(), value),
            AppendAction::OverwriteOrAdd => headers.set(self.name.clone(), value),
            AppendAction::Overwrite if exists => headers.set(self.name.clone(), value),
            AppendAction::AddIfAbsent | AppendAction::Overwrite => {}
        }
    }
}

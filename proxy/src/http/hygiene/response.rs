//! What every response gets on its way to the client.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use filters::format::TimeFormat;
use filters::http::{Headers, Known, Repeats, RequestHead, ResponseHead, SINGLE_IN_RESPONSES};

use super::{ProxyStatus, append_via, is_upgrade};

/// `server_header_transformation`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerHeader {
    /// `OVERWRITE`
    #[default]
    Overwrite,
    /// `APPEND_IF_ABSENT`
    AppendIfAbsent,
    /// `PASS_THROUGH`
    PassThrough,
}

/// The connection manager's settings about responses.
#[derive(Debug, Clone, Default)]
pub struct ResponseHygiene {
    /// `server_header_transformation`
    pub server: ServerHeader,
    /// `server_name`
    pub server_name: Bytes,
    /// `always_set_request_id_in_response`
    pub always_set_request_id: bool,
    /// `via`; empty for none.
    pub via: Bytes,
    /// `proxy_status_config`
    pub proxy_status: Option<ProxyStatus>,
}

/// Completes a final response head before it is encoded: hop-by-hop headers go, `date`, `server`, the request id and
/// `via` come. `request` is `None` when no request head was understood.
pub fn mutate_response(
    options: &ResponseHygiene,
    head: &mut ResponseHead,
    request: Option<&RequestHead>,
    date: &DateCache,
    now: SystemTime,
) {
    let headers = &mut head.headers;
    if !headers.contains(&Known::Date) {
        headers.append(Known::Date, date.value(now));
    }
    match options.server {
        ServerHeader::Overwrite => headers.set(Known::Server, options.server_name.clone()),
        ServerHeader::AppendIfAbsent if !headers.contains(&Known::Server) => {
            headers.append(Known::Server, options.server_name.clone());
        }
        ServerHeader::AppendIfAbsent | ServerHeader::PassThrough => {}
    }
    strip(headers, head.status, request);
    if let Some(request) = request
        && (options.always_set_request_id || request.headers.contains(&Known::XEnvoyForceTrace))
        && let Some(id) = request.headers.value(&Known::XRequestId)
    {
        headers.set(Known::XRequestId, id.clone());
    }
    if !options.via.is_empty() {
        append_via(headers, &options.via);
    }
}

/// Removes what concerns the upstream hop only; an upgrade that was granted keeps `connection` and `upgrade`.
fn strip(headers: &mut Headers, status: u16, request: Option<&RequestHead>) {
    let upgrade = is_upgrade(headers) && request.is_some_and(|request| is_upgrade(&request.headers));
    let mut has_body_length = false;
    let mut repeats = Repeats::of(SINGLE_IN_RESPONSES);
    headers.retain(|header| {
        repeats.note(&header.name);
        match header.name.known() {
            Some(Known::Connection | Known::Upgrade) => upgrade,
            Some(Known::KeepAlive | Known::ProxyConnection) => false,
            Some(Known::TransferEncoding) => {
                has_body_length = true;
                false
            }
            Some(Known::ContentLength) => {
                has_body_length = true;
                true
            }
            _ => true,
        }
    });
    repeats.join(headers);
    if upgrade && !has_body_length && !(100..200).contains(&status) {
        headers.set(Known::ContentLength, &b"0"[..]);
    }
}

/// The `date` value of the current second, made once a second per worker.
#[derive(Debug)]
pub struct DateCache {
    current: RefCell<(u64, Bytes)>,
    format: TimeFormat,
}

impl DateCache {
    /// The value for `now` (RFC 9110 section 5.6.7).
    #[must_use]
    pub fn value(&self, now: SystemTime) -> Bytes {
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut current = self.current.borrow_mut();
        if current.0 != second || current.1.is_empty() {
            let mut text = Vec::with_capacity("Mon, 23 Nov 2026 00:24:31 GMT".len());
            self.format.append_to(&mut text, now);
            *current = (second, text.into());
        }
        current.1.clone()
    }
}

impl Default for DateCache {
    fn default() -> Self {
        Self { current: RefCell::default(), format: TimeFormat::http_date() }
    }
}

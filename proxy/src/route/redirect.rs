//! `RedirectAction`: the status and the `location` of a redirect.

use bytes::Bytes;
use filters::http::{RequestHead, Scheme};
use filters::mutation::{Template, ValueContext};
use filters::stream_info::StreamInfo;

use super::action::DirectResponse;
use super::hosts::port_start;
use super::matching::PathMatch;
use super::rewrite::PathRewrite;

/// Answers with the request's own URL, changed.
#[derive(Debug)]
pub struct RedirectAction {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    pub(crate) scheme: Option<Box<str>>,
    pub(crate) host: Option<Bytes>,
    pub(crate) port: Option<u32>,
    pub(crate) path: Option<RedirectPath>,
    pub(crate) strip_query: bool,
}

/// How the path of a redirect is made.
#[derive(Debug)]
pub(crate) enum RedirectPath {
    /// This one; its own query wins over the request's (`path_redirect`).
    Fixed(Bytes),
    /// The request's, rewritten in place.
    Rewrite(PathRewrite),
    /// This one with the request's query, unless it comes out empty; the request keeps its own (`path_rewrite`).
    Template(Template),
}

impl RedirectAction {
    /// Rewrites the request's own path, as its log line and `location` show it; `keep_original` tells the old one in
    /// `x-envoy-original-path`.
    pub fn rewrite_path(&self, head: &mut RequestHead, matched: &PathMatch, info: &StreamInfo, keep_original: bool) {
        if let Some(RedirectPath::Rewrite(rewrite)) = &self.path {
            rewrite.apply(head, matched, info, keep_original);
        }
    }

    /// The value of `location` for a request whose path is rewritten.
    #[must_use]
    pub fn location(&self, head: &RequestHead, info: &StreamInfo) -> Bytes {
        let scheme = self.scheme.as_deref().unwrap_or(head.scheme.as_str());
        let host = match &self.host {
            Some(host) => &host[..],
            None => self.own_host(head, scheme),
        };
        let mut out = Vec::with_capacity(scheme.len() + 3 + host.len() + 6 + head.path.len());
        out.extend_from_slice(scheme.as_bytes());
        out.extend_from_slice(b"://");
        out.extend_from_slice(host);
        if let Some(port) = self.port {
            out.push(b':');
            out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
        self.append_path(&mut out, head, info);
        out.into()
    }

    /// The request's host; its port goes when another one is configured, or when it was the default one of a scheme that
    /// is changed.
    fn own_host<'h>(&self, head: &'h RequestHead, scheme: &str) -> &'h [u8] {
        let host = &head.authority[..];
        let Some(colon) = port_start(host) else { return host };
        let (name, port) = host.split_at(colon);
        let default = match head.scheme {
            Scheme::Http | Scheme::Unknown => b":80".as_slice(),
            Scheme::Https => b":443",
        };
        let default_left_behind = port == default && scheme != head.scheme.as_str();
        if self.port.is_some() || default_left_behind { name } else { host }
    }

    fn append_path(&self, out: &mut Vec<u8>, head: &RequestHead, info: &StreamInfo) {
        let query = memchr::memchr(b'?', &head.path);
        let bare = query.and_then(|at| head.path.get(..at)).unwrap_or(&head.path);
        let query = query.and_then(|at| head.path.get(at..)).filter(|_| !self.strip_query).unwrap_or_default();
        let new = match &self.path {
            Some(RedirectPath::Fixed(path)) => {
                out.extend_from_slice(path);
                if !path.contains(&b'?') {
                    out.extend_from_slice(query);
                }
                return;
            }
            Some(RedirectPath::Template(template)) => {
                template.render(&ValueContext { request: Some(head), response: None, info })
            }
            Some(RedirectPath::Rewrite(_)) | None => Bytes::new(),
        };
        out.extend_from_slice(if new.is_empty() { bare } else { &new });
        out.extend_from_slice(query);
    }
}

impl DirectResponse {
    /// The value of `location` a direct response of 201 or 3xx carries, as in Envoy: the request's own URL.
    #[must_use]
    pub fn location(&self, head: &RequestHead) -> Option<Bytes> {
        let wanted = self.status == 201 || (300..400).contains(&self.status);
        (wanted && !head.path.is_empty())
            .then(|| [head.scheme.as_str().as_bytes(), b"://", &head.authority, &head.path].concat().into())
    }
}

/// The `location` of the 301 a virtual host's `require_tls` answers with: the same URL with `https`.
#[must_use]
pub fn tls_redirect(head: &RequestHead) -> Bytes {
    [b"https://", &head.authority[..], &head.path[..]].concat().into()
}

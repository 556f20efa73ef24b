//! Path and host rewrites of forwarded requests.

use bytes::Bytes;
use filters::http::{HeaderKey, Known, RequestHead};
use filters::matcher::{PathTemplateRewrite, Substitution};
use filters::mutation::{Template, ValueContext};
use filters::stream_info::StreamInfo;

use super::action::{ClusterChoice, ForwardAction};
use super::matching::{PathMatch, subject};

/// How a path changes; its query and fragment stay.
#[derive(Debug)]
pub(crate) enum PathRewrite {
    /// What the route matched is replaced (`prefix_rewrite`).
    Prefix(Bytes),
    /// Every match of an expression is (`regex_rewrite`).
    Regex(Substitution),
    /// All of it is, unless the text comes out empty (`path_rewrite`).
    Whole(Template),
    /// All of it is, by the variables of the template it matched (`path_rewrite_policy`).
    Variables(PathTemplateRewrite),
}

/// How the host changes.
#[derive(Debug)]
pub(crate) enum HostRewrite {
    /// `host_rewrite_literal`
    Literal(Bytes),
    /// The chosen upstream host's name (`auto_host_rewrite`); known only once there is one.
    Auto,
    /// The value of a request header, unless empty (`host_rewrite_header`).
    Header(HeaderKey),
    /// The path after a substitution (`host_rewrite_path_regex`).
    PathRegex(Substitution),
    /// `host_rewrite`, unless it comes out empty.
    Template(Template),
}

impl PathRewrite {
    /// The new path with the old query; `None` when the path stays as it is.
    fn rewrite(&self, head: &RequestHead, matched: &PathMatch, info: &StreamInfo) -> Option<Bytes> {
        let path = &head.path[..];
        if path.is_empty() {
            return None;
        }
        let bare = subject(path);
        let (new, kept) = match self {
            Self::Prefix(prefix) => (prefix.clone(), matched.matched_length(path)?),
            Self::Regex(substitution) => (substitution.replace_all(bare).into(), bare.len()),
            Self::Variables(rewrite) => (rewrite.apply(bare)?.into(), bare.len()),
            Self::Whole(template) => {
                (template.render(&ValueContext { request: Some(head), response: None, info }), bare.len())
            }
        };
        if new.is_empty() {
            return None;
        }
        let rest = path.get(kept..).unwrap_or_default();
        if rest.is_empty() {
            return Some(new);
        }
        let mut joined = Vec::with_capacity(new.len() + rest.len());
        joined.extend_from_slice(&new);
        joined.extend_from_slice(rest);
        Some(joined.into())
    }

    /// Rewrites a request's path; `keep_original` tells the old one in `x-envoy-original-path`.
    pub(crate) fn apply(&self, head: &mut RequestHead, matched: &PathMatch, info: &StreamInfo, keep_original: bool) {
        let Some(new) = self.rewrite(head, matched, info) else { return };
        let old = std::mem::replace(&mut head.path, new);
        if keep_original {
            head.headers.set(Known::XEnvoyOriginalPath, old);
        }
    }
}

impl ForwardAction {
    /// Whether the host becomes the chosen upstream host's name: see [`Self::rewrite_host_to`].
    #[must_use]
    pub const fn auto_host_rewrite(&self) -> bool {
        matches!(self.host_rewrite, Some(HostRewrite::Auto))
    }

    /// Makes `host` the request's host, by the route's rules about keeping the original.
    pub fn rewrite_host_to(&self, head: &mut RequestHead, host: impl Into<Bytes>, keep_original: bool) {
        let old = std::mem::replace(&mut head.authority, host.into());
        if old.is_empty() {
            return;
        }
        if keep_original {
            head.headers.set(Known::XEnvoyOriginalHost, old.clone());
        }
        if self.append_x_forwarded_host {
            append_forwarded_host(head, &old);
        }
    }

    pub(crate) fn rewrite_host(
        &self,
        head: &mut RequestHead,
        choice: Option<&ClusterChoice<'_>>,
        info: &StreamInfo,
        keep_original: bool,
    ) {
        // A weighted cluster's host is what the route's own rewrite then starts from; it leaves no trace of its own.
        if let Some(host) = choice.and_then(|choice| choice.entry).and_then(|entry| entry.host_rewrite.clone()) {
            head.authority = host;
        }
        let Some(rewrite) = &self.host_rewrite else { return };
        let host = match rewrite {
            HostRewrite::Literal(host) => host.clone(),
            HostRewrite::Auto => return,
            HostRewrite::Header(key) => head.value(key).map(Bytes::copy_from_slice).unwrap_or_default(),
            HostRewrite::PathRegex(substitution) => substitution.replace_all(subject(&head.path)).into(),
            HostRewrite::Template(template) => {
                // Here alone a missing value is `-`, in Envoy 1.40.
                template.render_with(&ValueContext { request: Some(head), response: None, info }, false)
            }
        };
        if !host.is_empty() {
            self.rewrite_host_to(head, host, keep_original);
        }
    }

    pub(crate) fn rewrite_path(
        &self,
        head: &mut RequestHead,
        matched: &PathMatch,
        info: &StreamInfo,
        keep_original: bool,
    ) {
        if let Some(rewrite) = &self.path_rewrite {
            rewrite.apply(head, matched, info, keep_original);
        }
    }
}

/// Appends the original host to `x-forwarded-host`, unless it is the last one there already.
fn append_forwarded_host(head: &mut RequestHead, host: &Bytes) {
    let Some(list) = head.headers.value(&Known::XForwardedHost).filter(|list| !list.is_empty()) else {
        head.headers.set(Known::XForwardedHost, host.clone());
        return;
    };
    let last = list.rsplit(|&byte| byte == b',').find(|item| !item.is_empty());
    if last == Some(&host[..]) {
        return;
    }
    let joined = [&list[..], b",", host].concat();
    head.headers.set(Known::XForwardedHost, joined);
}

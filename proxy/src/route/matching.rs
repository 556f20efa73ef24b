//! Which requests a route is for (`envoy.config.route.v3.RouteMatch`).

use std::borrow::Cow;
use std::sync::Arc;

use filters::http::RequestHead;
use filters::matcher::{
    CookieMatcher, HeaderMatcher, MetadataMatcher, PathTemplate, QueryParameterMatcher, Regex, Runtime, RuntimeFraction,
};
use filters::stream_info::{ConnectionInfo, Metadata};

/// What routing knows about a request besides its head.
#[derive(Debug, Clone, Copy)]
pub struct MatchInput<'a> {
    /// A random value that stays the same for all decisions about one stream.
    pub random: u64,
    /// The runtime layers.
    pub runtime: &'a dyn Runtime,
    /// Facts of the client's TLS session; `None` on a plaintext connection.
    pub tls: Option<TlsFacts>,
    /// The stream's dynamic metadata: what filters have left, when a route is looked for again.
    pub metadata: Option<&'a Metadata>,
}

/// What `tls_context` looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TlsFacts {
    /// The client presented a certificate.
    pub presented: bool,
    /// And it was valid.
    pub validated: bool,
}

impl TlsFacts {
    /// Those of a client's connection; `None` if it is plaintext.
    #[must_use]
    pub fn of(connection: &ConnectionInfo) -> Option<Self> {
        let tls = connection.tls.get()?;
        Some(Self { presented: !tls.peer.is_empty(), validated: tls.peer_validated })
    }
}

/// The condition of one route: all of its parts have to hold.
#[derive(Debug)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    pub(crate) headers: Box<[HeaderMatcher]>,
    pub(crate) query_parameters: Box<[QueryParameterMatcher]>,
    pub(crate) cookies: Box<[CookieMatcher]>,
    pub(crate) grpc: bool,
    pub(crate) tls: Option<TlsMatch>,
    pub(crate) metadata: Box<[MetadataMatcher]>,
    pub(crate) fraction: Option<RuntimeFraction>,
    /// Parts that had to be left out on the operator's word never hold.
    pub(crate) never: bool,
}

/// The part of a condition that is about the path, without query and fragment.
#[derive(Debug)]
pub enum PathMatch {
    /// Begins with.
    Prefix {
        /// The text; lower case when case is ignored.
        text: Box<[u8]>,
        /// Whether case is ignored.
        ignore_case: bool,
    },
    /// Is.
    Exact {
        /// The text; lower case when case is ignored.
        text: Box<[u8]>,
        /// Whether case is ignored.
        ignore_case: bool,
    },
    /// Is, or begins with and goes on with `/`.
    SeparatedPrefix {
        /// The text; lower case when case is ignored.
        text: Box<[u8]>,
        /// Whether case is ignored.
        ignore_case: bool,
    },
    /// Is matched in full by.
    Regex(Regex),
    /// Is of a template (`path_match_policy`).
    Template(Arc<PathTemplate>),
    /// No path: the request is a CONNECT.
    Connect,
}

/// `RouteMatch.tls_context`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TlsMatch {
    pub(crate) presented: Option<bool>,
    pub(crate) validated: Option<bool>,
}

impl RouteMatch {
    /// Whether a request whose path has this [`subject`] matches.
    pub(crate) fn matches(&self, head: &RequestHead, subject: &[u8], input: &MatchInput<'_>) -> bool {
        self.path.matches(head, subject)
            && !self.never
            && self.headers.iter().all(|matcher| matcher.matches(head))
            && self.query_parameters.iter().all(|matcher| matcher.matches(&head.path))
            && self.cookies.iter().all(|matcher| matcher.matches(&head.headers))
            && (!self.grpc || head.is_grpc())
            && self.tls.is_none_or(|tls| tls.matches(input.tls))
            && self.metadata.iter().all(|matcher| matcher.matches(input.metadata))
            && self.fraction.as_ref().is_none_or(|fraction| fraction.contains(input.random, input.runtime))
    }
}

impl PathMatch {
    fn matches(&self, head: &RequestHead, subject: &[u8]) -> bool {
        // A request without a path, a plain CONNECT, is for the connect matcher alone.
        if let Self::Connect = self {
            return is_connect(head);
        }
        if head.path.is_empty() {
            return false;
        }
        let begins = |text: &[u8], ignore_case: bool| {
            subject
                .get(..text.len())
                .is_some_and(|start| if ignore_case { start.eq_ignore_ascii_case(text) } else { start == text })
        };
        match self {
            Self::Prefix { text, ignore_case } => begins(text, *ignore_case),
            Self::Exact { text, ignore_case } => subject.len() == text.len() && begins(text, *ignore_case),
            Self::SeparatedPrefix { text, ignore_case } => {
                begins(text, *ignore_case) && subject.get(text.len()).is_none_or(|&next| next == b'/')
            }
            Self::Regex(regex) => regex.is_match(subject),
            Self::Template(template) => template.is_match(subject),
            Self::Connect => false,
        }
    }

    /// How many bytes at the start of `path` a prefix rewrite replaces: what was matched. `None` where the path only
    /// matched without its parameters, which leaves nothing to replace.
    pub(crate) fn matched_length(&self, path: &[u8]) -> Option<usize> {
        match self {
            Self::Prefix { text, ignore_case }
            | Self::Exact { text, ignore_case }
            | Self::SeparatedPrefix { text, ignore_case } => {
                let start = path.get(..text.len())?;
                let same = if *ignore_case { start.eq_ignore_ascii_case(text) } else { start == &text[..] };
                same.then_some(text.len())
            }
            Self::Regex(_) | Self::Template(_) | Self::Connect => Some(subject(path).len()),
        }
    }
}

impl TlsMatch {
    fn matches(self, facts: Option<TlsFacts>) -> bool {
        // On a plaintext connection nobody presented anything.
        let facts = facts.unwrap_or_default();
        self.presented.is_none_or(|wanted| wanted == facts.presented)
            && self.validated.is_none_or(|wanted| wanted == facts.validated)
    }
}

/// A path without query and fragment.
pub(crate) fn subject(path: &[u8]) -> &[u8] {
    memchr::memchr2(b'?', b'#', path).and_then(|end| path.get(..end)).unwrap_or(path)
}

/// A path without query, fragment and the `;parameters` of its segments (`ignore_path_parameters_in_path_matching`).
pub(crate) fn without_parameters(path: &[u8]) -> Cow<'_, [u8]> {
    let path = subject(path);
    let Some(first) = memchr::memchr(b';', path) else { return Cow::Borrowed(path) };
    let (before, after) = path.split_at(first);
    let mut kept = before.to_vec();
    let mut in_parameter = false;
    for &byte in after {
        in_parameter = byte == b';' || in_parameter && byte != b'/';
        if !in_parameter {
            kept.push(byte);
        }
    }
    Cow::Owned(kept)
}

/// Whether a request asks for a tunnel: CONNECT, or CONNECT-UDP by extended CONNECT or upgrade.
pub(crate) fn is_connect(head: &RequestHead) -> bool {
    head.is_plain_connect() || head.protocol.as_ref().is_some_and(|p| p.eq_ignore_ascii_case(b"connect-udp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_left_out_of_every_segment() {
        for (path, expected) in [
            ("/a", "/a"),
            ("/a?x=;y", "/a"),
            ("/pre;v=1/x", "/pre/x"),
            ("/a;b;c/d;e/f;", "/a/d/f"),
            ("/;/;", "//"),
            (";a", ""),
        ] {
            assert_eq!(without_parameters(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }

    #[test]
    fn a_prefix_is_rewritten_only_where_the_path_has_it() {
        let prefix = |ignore_case| PathMatch::Prefix { text: (*b"/pre/x").into(), ignore_case };
        assert_eq!(prefix(false).matched_length(b"/pre/x;v"), Some(6));
        assert_eq!(prefix(false).matched_length(b"/pre;v/x"), None);
        assert_eq!(prefix(true).matched_length(b"/PRE/x/y"), Some(6));
        assert_eq!(prefix(false).matched_length(b"/PRE/x/y"), None);
    }
}

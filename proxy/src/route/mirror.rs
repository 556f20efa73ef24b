//! `RequestMirrorPolicy`: which requests are sent a second time, to another cluster, and how they differ there.

use std::sync::Arc;

use bytes::Bytes;
use filters::http::{HeaderKey, RequestHead};
use filters::matcher::{Runtime, RuntimeFraction, StringMatcher};
use filters::mutation::HeaderMutations;
use filters::stream_info::StreamInfo;

/// One of `request_mirror_policies`.
#[derive(Debug)]
pub struct MirrorPolicy {
    pub(crate) cluster: MirrorCluster,
    /// Which share of requests; `None` is all of them.
    pub(crate) fraction: Option<RuntimeFraction>,
    pub(crate) changes: Box<[HeaderChange]>,
    pub(crate) host: MirrorHost,
}

/// Where copies go.
#[derive(Debug)]
pub(crate) enum MirrorCluster {
    Name(Arc<str>),
    /// The one this request header names.
    Header(HeaderKey),
}

/// One of `request_headers_mutations`.
#[derive(Debug)]
pub(crate) enum HeaderChange {
    /// Adds, overwrites or removes by name.
    ByName(HeaderMutations),
    /// Removes every header whose name matches.
    Remove(StringMatcher),
}

/// What becomes of the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MirrorHost {
    /// `-shadow` is appended to its host.
    Suffixed,
    /// Nothing.
    Kept,
    /// Another takes its place.
    Literal(Bytes),
}

impl MirrorPolicy {
    /// The cluster that a copy of this request goes to; `None` when there is to be none. The same random value always gives
    /// the same answer.
    #[must_use]
    pub fn cluster(&self, head: &RequestHead, random: u64, runtime: &dyn Runtime) -> Option<String> {
        if !self.fraction.as_ref().is_none_or(|fraction| fraction.contains(random, runtime)) {
            return None;
        }
        match &self.cluster {
            MirrorCluster::Name(name) => Some(name.to_string()),
            MirrorCluster::Header(key) => {
                let name = std::str::from_utf8(head.value(key)?).ok()?;
                (!name.is_empty()).then(|| name.to_owned())
            }
        }
    }

    /// The head of a copy of this request, which is as it goes upstream.
    #[must_use]
    pub fn head(&self, request: &RequestHead, info: &StreamInfo) -> RequestHead {
        let mut head = request.clone();
        for change in &self.changes {
            match change {
                HeaderChange::ByName(mutations) => mutations.apply_to_request(&mut head, info),
                HeaderChange::Remove(matcher) => head.headers.retain(|header| !matcher.matches(header.name.as_bytes())),
            }
        }
        match &self.host {
            MirrorHost::Suffixed => head.authority = suffixed(&head.authority),
            MirrorHost::Kept => {}
            MirrorHost::Literal(host) => head.authority = host.clone(),
        }
        head
    }
}

/// The authority with `-shadow` behind its host, before its port.
fn suffixed(authority: &[u8]) -> Bytes {
    let colon = authority.iter().position(|byte| *byte == b':');
    let at = colon.filter(|at| authority.get(at + 1..).is_some_and(|port| !port.contains(&b':')));
    let (host, port) = authority.split_at(at.unwrap_or(authority.len()));
    [host, b"-shadow", port].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_stands_before_the_port() {
        for (authority, expected) in [
            ("a.b", "a.b-shadow"),
            ("a.b:81", "a.b-shadow:81"),
            ("10.0.0.1:1", "10.0.0.1-shadow:1"),
            ("[::1]", "[::1]-shadow"),
            ("", "-shadow"),
        ] {
            assert_eq!(suffixed(authority.as_bytes()), expected, "{authority}");
        }
    }
}

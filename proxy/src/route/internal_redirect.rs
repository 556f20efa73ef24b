//! `InternalRedirectPolicy`: which redirects of an upstream are followed here instead of shown to the client.

use bytes::Bytes;
use filters::http::{HeaderName, Known, Method, RequestHead, ResponseHead, Scheme};

/// Which redirects are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalRedirect {
    /// How many at most for one request, counting those of other routes.
    pub max: u32,
    /// The statuses that are redirects.
    pub codes: Box<[u16]>,
    /// Whether it may lead from `http` to `https` or back.
    pub cross_scheme: bool,
    /// Headers of the redirect that the next request takes over; those it lacks are removed.
    pub copied: Box<[HeaderName]>,
    /// What else has to agree; one that does not is enough to refuse.
    pub predicates: Box<[RedirectPredicate]>,
}

/// One of `predicates`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPredicate {
    /// From this route no other is gone to twice.
    PreviousRoutes,
    /// Only to these routes.
    Listed(Box<[Box<str>]>),
    /// Not from `http` to `https`.
    SafeCrossScheme,
}

/// Where a redirect leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Unknown if it is neither `http` nor `https`.
    pub scheme: Scheme,
    /// With its port, if it has one.
    pub authority: Bytes,
    /// With its query, without a fragment; `/` if it has none.
    pub path: Bytes,
}

impl Target {
    /// The target a `location` names; `None` unless it is an absolute URL.
    #[must_use]
    pub fn parse(location: &Bytes) -> Option<Self> {
        let colon = location.windows(3).position(|bytes| bytes == b"://").filter(|at| *at > 0)?;
        let name = location.get(..colon)?.to_ascii_lowercase();
        let scheme = match &name[..] {
            b"http" => Scheme::Http,
            b"https" => Scheme::Https,
            name if name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)) => Scheme::Unknown,
            _ => return None,
        };
        let rest = location.slice(colon + 3..);
        let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
        let authority = rest.slice(..end);
        if authority.is_empty() {
            return None;
        }
        let path = rest.slice(end..);
        let path = path.slice(..path.iter().position(|byte| *byte == b'#').unwrap_or(path.len()));
        let path = if path.first() == Some(&b'/') { path } else { [b"/", &path[..]].concat().into() };
        Some(Self { scheme, authority, path })
    }
}

impl InternalRedirect {
    /// The request that follows a redirect to `target`.
    #[must_use]
    pub fn next_request(
        &self,
        request: &RequestHead,
        response: &ResponseHead,
        target: &Target,
        secure: bool,
    ) -> RequestHead {
        let mut next = request.clone();
        for name in &self.copied {
            next.headers.remove(name);
            for value in response.headers.values(name) {
                next.headers.append(name.clone(), value.clone());
            }
        }
        let from = if secure { "https" } else { "http" };
        let original = [from.as_bytes(), b"://", &request.authority, &request.path].concat();
        next.scheme = target.scheme;
        next.authority = target.authority.clone();
        next.authority_missing = false;
        next.path = target.path.clone();
        next.headers.set(Known::XEnvoyOriginalUrl, original);
        if drops_body(response.status, &request.method) {
            next.method = Method::Get;
            next.headers.remove(&Known::ContentLength);
        }
        next
    }
}

/// Whether what follows is a GET, whatever this was (RFC 9110 section 15.4.4).
#[must_use]
pub fn drops_body(status: u16, method: &Method) -> bool {
    status == 303 && !matches!(method, Method::Get | Method::Head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_absolute_urls() {
        for (location, expected) in [
            ("http://a", Some((Scheme::Http, "a", "/"))),
            ("HTTP://a.B:81/x?y#z", Some((Scheme::Http, "a.B:81", "/x?y"))),
            ("https://a?y", Some((Scheme::Https, "a", "/?y"))),
            ("https://a#z", Some((Scheme::Https, "a", "/"))),
            ("/x", None),
            ("//a/x", None),
            ("ftp://a/", Some((Scheme::Unknown, "a", "/"))),
            ("/x?http://a/", None),
            ("http:///x", None),
            ("", None),
        ] {
            let target = Target::parse(&Bytes::from_static(location.as_bytes()));
            let expected = expected.map(|(scheme, authority, path)| Target {
                scheme,
                authority: Bytes::from_static(authority.as_bytes()),
                path: Bytes::from_static(path.as_bytes()),
            });
            assert_eq!(target, expected, "{location}");
        }
    }

    #[test]
    fn see_other_is_a_get() {
        assert!(drops_body(303, &Method::Post));
        assert!(!drops_body(303, &Method::Head));
        assert!(!drops_body(307, &Method::Post));
    }
}

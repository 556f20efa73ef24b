//! A request of the admin server, made sense of as Envoy's connection manager does: which versions are spoken, that a host
//! has to be named, and that a path has one form.

use bytes::Bytes;
use filters::flags::details;
use filters::http::{HeaderName, Method, RequestHead, Version};
use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::{StatusCode, Version as HttpVersion};

use crate::http::path::{PathOptions, PathVerdict};

/// Why there is no page to be asked for.
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) body: &'static str,
    /// What follows the request is not to be trusted.
    pub(super) closes: bool,
    /// `%RESPONSE_CODE_DETAILS%`
    pub(super) details: &'static str,
}

/// The request's head, with its path in canonical form; and why it is refused, if it is.
pub(super) fn head(parts: &Parts) -> (RequestHead, Option<Refused>) {
    let target = match parts.uri.authority() {
        Some(_) => parts.uri.to_string(),
        None => parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
    };
    let mut head = RequestHead {
        method: Method::from_bytes(Bytes::copy_from_slice(parts.method.as_str().as_bytes())),
        path: target.into(),
        version: if parts.version == HttpVersion::HTTP_11 { Version::Http11 } else { Version::Http10 },
        authority_missing: !parts.headers.contains_key(HOST),
        ..RequestHead::default()
    };
    for (name, value) in &parts.headers {
        let value = Bytes::copy_from_slice(value.as_bytes());
        if name == HOST {
            head.authority = value;
        } else if let Some(name) = HeaderName::parse(name.as_str().as_bytes()) {
            head.headers.append(name, value);
        }
    }
    let refused = refusal(parts, &mut head);
    (head, refused)
}

fn refusal(parts: &Parts, head: &mut RequestHead) -> Option<Refused> {
    if parts.version != HttpVersion::HTTP_11 {
        let (status, body) = (StatusCode::UPGRADE_REQUIRED, "Upgrade Required");
        return Some(Refused { status, body, closes: true, details: details::LOW_VERSION });
    }
    let bad = |details| Some(Refused { status: StatusCode::BAD_REQUEST, body: "", closes: true, details });
    if head.authority_missing {
        return bad(details::MISSING_HOST);
    }
    if parts.uri.authority().is_some() {
        let details = details::ABSOLUTE_PATH_REJECTED;
        return Some(Refused { status: StatusCode::NOT_FOUND, body: "", closes: false, details });
    }
    let options = PathOptions { normalize: true, merge_slashes: true, ..PathOptions::default() };
    match options.normalize(head) {
        PathVerdict::Continue => None,
        PathVerdict::Reject | PathVerdict::Redirect => bad(details::PATH_NORMALIZATION_FAILED),
    }
}

/// The path and the query of a head.
pub(super) fn target(head: &RequestHead) -> (String, String) {
    let target = String::from_utf8_lossy(&head.path);
    match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), query.to_owned()),
        None => (target.into_owned(), String::new()),
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn judged(version: HttpVersion, uri: &str, host: Option<&str>) -> Result<String, (u16, &'static str)> {
        let mut request = Request::builder().version(version).uri(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let (head, refused) = head(&parts);
        match refused {
            Some(refused) => Err((refused.status.as_u16(), refused.details)),
            None => Ok(String::from_utf8_lossy(&head.path).into_owned()),
        }
    }

    #[test]
    fn paths_have_one_form() {
        for (path, canonical) in [
            ("/ready", "/ready"),
            ("//ready", "/ready"),
            ("/a/../ready?x=/../y", "/ready?x=/../y"),
            ("/%72eady", "/ready"),
            ("/./stats//prometheus", "/stats/prometheus"),
            ("/ready/", "/ready/"),
        ] {
            assert_eq!(judged(HttpVersion::HTTP_11, path, Some("a")), Ok(canonical.to_owned()), "{path}");
        }
    }

    #[test]
    fn old_clients_and_those_without_host_are_refused() {
        assert_eq!(judged(HttpVersion::HTTP_10, "/ready", Some("a")), Err((426, "low_version")));
        assert_eq!(judged(HttpVersion::HTTP_11, "/ready", None), Err((400, "missing_host_header")));
        assert_eq!(judged(HttpVersion::HTTP_11, "http://h/ready", Some("h")), Err((404, "absolute_path_rejected")));
        assert_eq!(judged(HttpVersion::HTTP_11, "/ready", Some("")), Ok("/ready".to_owned()));
    }
}

//! Paths and hosts by table; verdicts measured on Envoy 1.40.

use filters::http::Method;
use proptest::prelude::*;

use super::*;

fn run(options: PathOptions, path: &str) -> (PathVerdict, String) {
    let mut head = RequestHead { path: path.to_owned().into(), ..RequestHead::default() };
    let verdict = options.normalize(&mut head);
    (verdict, String::from_utf8(head.path.to_vec()).unwrap())
}

#[test]
fn normalization() {
    let rows = [
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/../a", "/a"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/.", "/"),
        ("/..", "/"),
        ("/a/b/../../../c", "/c"),
        ("/a/%2e/b", "/a/b"),
        ("/a/%2E%2e/b", "/b"),
        ("/a//b", "/a//b"),
        ("/a//../b", "/a/b"),
        ("/a\\b", "/a/b"),
        ("/a\\..\\b", "/b"),
        ("/a/...", "/a/..."),
        ("/a/..b", "/a/..b"),
        ("/%zz", "/%zz"),
        ("/%", "/%"),
        ("/%2", "/%2"),
        ("/a%c3%a9", "/a%c3%a9"),
        ("/%7euser", "/~user"),
        ("/a?b/../c", "/a?b/../c"),
        ("/a?%zz\\", "/a?%zz\\"),
        ("/a/..?q", "/?q"),
        ("/a/.;/b", "/a/b"),
        ("/a/..;x/b", "/b"),
        ("/a/..;x", "/"),
        ("/a/.;", "/a/"),
        ("/a/..%3bx/b", "/a/..%3bx/b"),
        ("/a/...;x/b", "/a/...;x/b"),
        ("/a/b;x/../c", "/a/c"),
        ("/a/b/;../c", "/a/b/;../c"),
        ("/%2f", "/%2f"),
        ("/a/%2f../b", "/a/%2f../b"),
        ("//a/b", "//a/b"),
        ("/%25%32%65", "/%252e"),
        ("/a|b^c\"<>`{}", "/a%7Cb%5Ec%22%3C%3E%60%7B%7D"),
        ("/a/././", "/a/"),
        // Envoy leaves this one as `/a/..;x/b`; the dot segment is resolved here however it was spelled.
        ("/a/%2e%2e;x/b", "/b"),
    ];
    let options = PathOptions { normalize: true, ..PathOptions::default() };
    for (path, expected) in rows {
        assert_eq!(run(options, path), (PathVerdict::Continue, expected.to_owned()), "{path}");
        assert_eq!(run(PathOptions::default(), path).1, path, "untouched without the option");
    }
    for bad in ["/a%00b", "/a#b", "/a?x#y"] {
        assert_eq!(run(options, bad).0, PathVerdict::Reject, "{bad}");
    }
    let options = PathOptions { strip_fragment: true, ..options };
    assert_eq!(run(options, "/a?x#y"), (PathVerdict::Continue, "/a?x".to_owned()));
}

#[test]
fn escaped_and_repeated_slashes() {
    use EscapedSlashes as E;
    use PathVerdict as V;
    let rows = [
        (E::Reject, false, "/a%2fb", V::Reject, "/a/b"),
        (E::Reject, true, "/a\\b", V::Continue, "/a/b"),
        (E::Reject, false, "/a%252fb", V::Continue, "/a%252fb"),
        (E::Redirect, false, "/a%2Fb%5cc?q=%2f", V::Redirect, "/a/b\\c?q=%2f"),
        (E::Redirect, true, "/a%2Fb%5cc?q=%2f", V::Redirect, "/a/b/c?q=%2f"),
        (E::Redirect, true, "/a%2f..%2fc", V::Redirect, "/c"),
        (E::Redirect, false, "/a//b///c?x//y", V::Continue, "/a/b/c?x//y"),
        (E::Forward, false, "/a%2f%2fb", V::Continue, "/a/b"),
        (E::Forward, false, "/%2f%2fa", V::Continue, "/a"),
        (E::Forward, true, "/a%5Cb", V::Continue, "/a/b"),
        (E::Keep, false, "/a%2f//", V::Continue, "/a%2f/"),
        (E::Keep, false, "///", V::Continue, "//"),
        (E::Keep, false, "//?//", V::Continue, "//?//"),
    ];
    for (escaped_slashes, normalize, path, verdict, expected) in rows {
        let options = PathOptions { normalize, merge_slashes: true, escaped_slashes, ..PathOptions::default() };
        assert_eq!(run(options, path), (verdict, expected.to_owned()), "{escaped_slashes:?} {normalize} {path}");
    }
}

#[test]
fn hosts() {
    use StripPort as P;
    let rows = [
        (P::Matching, false, "h.com:80", "h.com", Some(80)),
        (P::Matching, false, "h.com:81", "h.com:81", None),
        (P::Matching, false, "h.com.:80", "h.com.", Some(80)),
        (P::Matching, false, "::1", "::1", None),
        (P::Any, false, "h.com:81", "h.com", Some(81)),
        (P::Any, false, "h.com:99999", "h.com", Some(99999)),
        (P::Any, false, "h.com:", "h.com:", None),
        (P::Any, false, "h.com:x", "h.com:x", None),
        (P::Any, false, "[::1]:80", "[::1]", Some(80)),
        (P::Any, false, "[::1]", "[::1]", None),
        (P::Any, false, "::1", ":", Some(1)),
        (P::Never, true, "h.com.", "h.com", None),
        (P::Never, true, "h.com.:81", "h.com:81", None),
        (P::Never, true, "h.com..", "h.com.", None),
        (P::Never, true, ".", "", None),
        (P::Any, true, "h.com.:81", "h.com", Some(81)),
    ];
    for (strip_port, strip_trailing_dot, host, expected, port) in rows {
        let mut head = RequestHead { method: Method::Connect, authority: host.into(), ..RequestHead::default() };
        let options = PathOptions { strip_port, strip_trailing_dot, ..PathOptions::default() };
        assert_eq!(options.normalize_host(&mut head, Some(80)), port, "{host}");
        assert_eq!(head.authority, expected, "{host}");
    }
}

proptest! {
    /// No dot segment survives, however it was spelled, so a prefix that a policy checked cannot be left again.
    #[test]
    fn no_dot_segment_survives(path in "/([a-c./\\\\;%?]|%2[ef]|%5c|%25){0,16}") {
        let options = PathOptions { normalize: true, ..PathOptions::default() };
        let (verdict, canonical) = run(options, &path);
        prop_assert_eq!(verdict, PathVerdict::Continue);
        prop_assert!(canonical.starts_with('/'));
        let before_query = canonical.split('?').next().unwrap_or_default();
        for segment in before_query.split('/').filter_map(|segment| segment.split(';').next()) {
            prop_assert!(segment != "." && segment != "..", "{} of {}", canonical, path);
        }
    }

    #[test]
    fn no_path_panics(path in "[\\x20-\\x7e]{1,24}") {
        for escaped_slashes in [EscapedSlashes::Keep, EscapedSlashes::Redirect] {
            let options = PathOptions { normalize: true, merge_slashes: true, escaped_slashes, ..PathOptions::default() };
            let _ = run(options, &path);
        }
    }
}

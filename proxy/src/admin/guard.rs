//! Who may ask for what: methods, and browsers acting for other sites.

use hyper::header::{HOST, ORIGIN};
use hyper::{HeaderMap, Method, StatusCode};

use super::http::Page;

/// Refuses what a browser sends on behalf of another site: its pages must neither change anything here nor read us by
/// tricks. Opening a page by a link is allowed, if the page changes nothing.
pub(super) fn cross_site(method: &Method, headers: &HeaderMap) -> Result<(), Page> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let navigation = *method == Method::GET && text("sec-fetch-mode") == Some("navigate");
    let foreign_fetch = text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let foreign_origin = headers.get(ORIGIN).is_some_and(|origin| {
        let host = headers.get(HOST).map_or(&b""[..], |host| host.as_bytes());
        let origin = origin.as_bytes();
        let of_origin = [&b"http://"[..], b"https://"].iter().find_map(|scheme| origin.strip_prefix(*scheme));
        of_origin.is_none_or(|authority| !authority.eq_ignore_ascii_case(host) || host.is_empty())
    });
    if foreign_origin || (foreign_fetch && !navigation) {
        return Err(Page::error(StatusCode::FORBIDDEN, "cross-site request refused\n"));
    }
    Ok(())
}

/// Refuses any method but `POST` where something changes, in Envoy's words.
pub(super) fn post(method: &Method) -> Result<(), Page> {
    if *method == Method::POST {
        return Ok(());
    }
    let message = format!("Method {method} not allowed, POST required.");
    Err(Page::error(StatusCode::METHOD_NOT_ALLOWED, message))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn other_sites_are_refused() {
        let host = ("host", "localhost:9901");
        for (method, pairs, allowed) in [
            (Method::POST, vec![host], true),
            (Method::POST, vec![host, ("origin", "http://localhost:9901")], true),
            (Method::POST, vec![host, ("origin", "http://evil.example")], false),
            (Method::POST, vec![host, ("origin", "null")], false),
            (Method::POST, vec![host, ("origin", "http://localhost:9902")], false),
            (Method::POST, vec![host, ("sec-fetch-site", "cross-site")], false),
            (Method::POST, vec![host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], false),
            (Method::GET, vec![host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], true),
            (Method::GET, vec![host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], false),
            (Method::GET, vec![host, ("sec-fetch-site", "none")], true),
            (Method::POST, vec![("origin", "http://")], false),
        ] {
            assert_eq!(cross_site(&method, &headers(&pairs)).is_ok(), allowed, "{method} {pairs:?}");
        }
    }
}

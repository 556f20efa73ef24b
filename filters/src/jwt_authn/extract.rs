//! Where in a request tokens are, and how they are taken out of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use percent_encoding::{percent_decode, percent_encode_byte};

use super::provider::Provider;
use crate::http::{HeaderKey, HeaderName, RequestHead};
use crate::matcher::cookie;

/// The places where the tokens of some providers may be, in the order in which they are looked at.
#[derive(Debug, Default)]
pub struct Extractor {
    places: Vec<(Place, Issuers)>,
    parameters: bool,
    /// Headers that only these tokens may set.
    own_headers: Vec<HeaderName>,
}

/// A place in a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// A header: its name, and what stands before the token.
    Header(Box<str>, Box<str>),
    Parameter(Box<str>),
    Cookie(Box<str>),
}

/// Whose tokens may be in a place.
#[derive(Debug, Default)]
struct Issuers {
    any: bool,
    named: BTreeSet<Box<str>>,
    /// The place, if it is a header.
    key: Option<HeaderKey>,
}

/// The places where one provider has its tokens; none for the usual ones.
#[derive(Debug, Default)]
pub struct Places {
    /// Headers, and what stands before the token in their values.
    pub headers: Vec<(HeaderKey, Box<str>)>,
    /// Query parameters.
    pub parameters: Vec<Box<str>>,
    /// Cookies.
    pub cookies: Vec<Box<str>>,
}

/// A token that was found.
#[derive(Debug)]
pub struct Found {
    /// What stood there.
    pub text: Bytes,
    /// Its place among those of the extractor.
    place: usize,
}

impl Extractor {
    /// Looks for the tokens of these providers in their places.
    pub fn new<'p>(providers: impl IntoIterator<Item = &'p Provider>) -> Self {
        let mut own_headers = Vec::new();
        let extractor = Self::of(providers.into_iter().map(|provider| {
            own_headers.extend(provider.forwarding.headers().cloned());
            (&*provider.issuer, &provider.places)
        }));
        Self { own_headers, ..extractor }
    }

    /// Looks for the tokens of these issuers (empty: of anybody) in their places.
    fn of<'p>(providers: impl IntoIterator<Item = (&'p str, &'p Places)>) -> Self {
        let mut places: BTreeMap<Place, Issuers> = BTreeMap::new();
        for (issuer, Places { headers, parameters, cookies }) in providers {
            for (key, prefix) in headers {
                let issuers = places.entry(Place::Header(key_text(key), prefix.clone())).or_default();
                issuers.add(issuer);
                issuers.key = Some(key.clone());
            }
            for name in parameters {
                places.entry(Place::Parameter(name.clone())).or_default().add(issuer);
            }
            for name in cookies {
                places.entry(Place::Cookie(name.clone())).or_default().add(issuer);
            }
        }
        let parameters = places.keys().any(|place| matches!(place, Place::Parameter(_)));
        Self { places: places.into_iter().collect(), parameters, own_headers: Vec::new() }
    }

    /// Removes what a request says in the name of its tokens.
    pub fn sanitize(&self, head: &mut RequestHead) {
        sanitize(head, &self.own_headers);
    }

    /// All tokens of a request: those in headers first, then in its query, then in cookies.
    #[must_use]
    pub fn extract(&self, head: &RequestHead) -> Vec<Found> {
        let query = (self.parameters && !head.path.is_empty()).then(|| Query::parse(&head.path));
        let mut found = Vec::new();
        for (place, (what, issuers)) in self.places.iter().enumerate() {
            let mut add = |text: Option<Bytes>| found.extend(text.map(|text| Found { text, place }));
            match (what, &issuers.key) {
                (Place::Header(_, prefix), Some(HeaderKey::Name(name))) => {
                    head.headers.values(name).for_each(|value| add(after(value, prefix)));
                }
                (Place::Header(_, prefix), Some(pseudo)) => {
                    let value = head.value(pseudo).map(Bytes::copy_from_slice);
                    add(value.and_then(|value| after(&value, prefix)));
                }
                (Place::Header(..), None) => {}
                (Place::Parameter(name), _) => {
                    add(query.as_ref().and_then(|query| Some(query.0.get(name.as_bytes())?.first()?.clone().into())));
                }
                (Place::Cookie(name), _) => {
                    add(cookie(&head.headers, name.as_bytes()).map(Bytes::copy_from_slice));
                }
            }
        }
        found
    }

    /// Whether this issuer's tokens may be where one was found.
    #[must_use]
    pub fn may_be_of(&self, found: &Found, issuer: &str) -> bool {
        self.places.get(found.place).is_some_and(|(_, issuers)| issuers.any || issuers.named.contains(issuer))
    }

    /// Takes a token, and all else in its place, out of the request. Cookies stay.
    pub fn remove(&self, found: &Found, head: &mut RequestHead) {
        match self.places.get(found.place) {
            Some((Place::Header(..), Issuers { key: Some(HeaderKey::Name(name)), .. })) => {
                head.headers.remove(name);
            }
            Some((Place::Parameter(name), _)) => {
                let mut query = Query::parse(&head.path);
                query.0.remove(name.as_bytes());
                head.path = query.replace(&head.path);
            }
            Some((Place::Header(..) | Place::Cookie(_), _)) | None => {}
        }
    }
}

impl Issuers {
    fn add(&mut self, issuer: &str) {
        if issuer.is_empty() {
            self.any = true;
        } else {
            self.named.insert(issuer.into());
        }
    }
}

impl Places {
    /// These, or the usual ones if there are none.
    #[must_use]
    pub fn or_usual(self) -> Self {
        let Self { headers, parameters, cookies } = &self;
        if !(headers.is_empty() && parameters.is_empty() && cookies.is_empty()) {
            return self;
        }
        Self {
            headers: vec![(HeaderKey::Name(crate::http::Known::Authorization.into()), "Bearer ".into())],
            parameters: vec!["access_token".into()],
            cookies: Vec::new(),
        }
    }
}

/// The name of a key, by which places are ordered.
fn key_text(key: &HeaderKey) -> Box<str> {
    match key {
        HeaderKey::Method => ":method",
        HeaderKey::Path => ":path",
        HeaderKey::Authority => ":authority",
        HeaderKey::Scheme => ":scheme",
        HeaderKey::Protocol => ":protocol",
        HeaderKey::Status => ":status",
        HeaderKey::Name(name) => name.as_str(),
    }
    .into()
}

/// What stands behind `prefix`, wherever in `value` that is, from the first symbol on that a token may have; the whole value
/// when there is none. `None` without the prefix.
fn after(value: &Bytes, prefix: &str) -> Option<Bytes> {
    if prefix.is_empty() {
        return Some(value.clone());
    }
    let behind = memchr::memmem::find(value, prefix.as_bytes())? + prefix.len();
    let symbol = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let start = value.get(behind..)?.iter().position(symbol).map_or(0, |at| behind + at);
    Some(value.slice(start..))
}

/// The parameters of a path by name, decoded, in Envoy's order: by name, those of a name as they came.
struct Query(BTreeMap<Vec<u8>, Vec<Vec<u8>>>);

impl Query {
    fn parse(path: &[u8]) -> Self {
        let mut all: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        let query = memchr::memchr(b'?', path).and_then(|at| path.get(at + 1..)).unwrap_or_default();
        let query = memchr::memchr(b'#', query).and_then(|end| query.get(..end)).unwrap_or(query);
        let query = query.strip_suffix(b"&").unwrap_or(query);
        let decoded = |text: &[u8]| Cow::from(percent_decode(text)).into_owned();
        let pairs = query.split(|byte| *byte == b'&');
        for pair in pairs.filter(|_| !query.is_empty()) {
            let (name, value) = match memchr::memchr(b'=', pair) {
                Some(at) => pair.split_at(at),
                None => (pair, &[][..]),
            };
            let value = value.strip_prefix(b"=").unwrap_or(value);
            all.entry(decoded(name)).or_default().push(decoded(value));
        }
        Self(all)
    }

    /// `path` with these parameters instead of its own. Like Envoy, this leaves decoded what was decoded; but not what would
    /// make other parameters of these, or no request at all.
    fn replace(&self, path: &[u8]) -> Bytes {
        let mut out = path.split(|byte| *byte == b'?').next().unwrap_or_default().to_vec();
        let mut mark = b'?';
        for (name, values) in &self.0 {
            for value in values {
                out.push(std::mem::replace(&mut mark, b'&'));
                append(&mut out, name, b'=');
                out.push(b'=');
                append(&mut out, value, b'&');
            }
        }
        out.into()
    }
}

/// Appends a name or a value, encoding `end` and all else that would end it.
fn append(out: &mut Vec<u8>, text: &[u8], end: u8) {
    for byte in text {
        match byte {
            0..=b' ' | 0x7f | b'#' | b'&' => out.extend_from_slice(percent_encode_byte(*byte).as_bytes()),
            byte if *byte == end => out.extend_from_slice(percent_encode_byte(*byte).as_bytes()),
            byte => out.push(*byte),
        }
    }
}

/// Removes headers of these names, which only the filter may set.
pub(super) fn sanitize(head: &mut RequestHead, names: &[HeaderName]) {
    for name in names {
        head.headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Known;

    fn header(name: &'static str, prefix: &str) -> (HeaderKey, Box<str>) {
        (HeaderKey::parse(name).unwrap(), prefix.into())
    }

    fn extractor(places: Places) -> Extractor {
        Extractor::of([("i", &places.or_usual())])
    }

    fn texts(extractor: &Extractor, head: &RequestHead) -> Vec<String> {
        let text = |found: &Found| String::from_utf8(found.text.to_vec()).unwrap();
        extractor.extract(head).iter().map(text).collect()
    }

    /// Measured on Envoy 1.40.
    #[test]
    fn prefixes_are_looked_for_anywhere() {
        for (value, prefix, token) in [
            ("Bearer a.b.c", "Bearer ", Some("a.b.c")),
            ("x Bearer \"a.b.c\"", "Bearer ", Some("a.b.c\"")),
            ("Bearer   a.b.c d", "Bearer ", Some("a.b.c d")),
            ("Bearer \"", "Bearer ", Some("Bearer \"")),
            ("bearer a.b.c", "Bearer ", None),
            ("Bearer", "Bearer ", None),
            ("a.b.c", "", Some("a.b.c")),
        ] {
            assert_eq!(after(&Bytes::from(value), prefix).as_deref(), token.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn usual_places() {
        let mut head = RequestHead { path: "/a?access_token=q&b=c".into(), ..RequestHead::default() };
        head.headers.append(Known::Authorization, "Bearer h");
        assert_eq!(texts(&extractor(Places::default()), &head), ["h", "q"]);
    }

    #[test]
    fn all_places_in_their_order() {
        let mut head = RequestHead { path: "/?t=1&t=2&s=%33".into(), ..RequestHead::default() };
        head.headers.append(Known::Cookie, "a=4; b=5");
        for value in ["p-6", "p-7", "8"] {
            head.headers.append(HeaderName::parse(b"x-t").unwrap(), value);
        }
        let places = Places {
            headers: vec![header("x-t", "p-"), header("x-a", "")],
            parameters: vec!["t".into(), "s".into(), "none".into()],
            cookies: vec!["b".into(), "a".into()],
        };
        assert_eq!(texts(&extractor(places), &head), ["6", "7", "3", "1", "4", "5"]);
    }

    #[test]
    fn a_place_may_belong_to_several_issuers() {
        let places = |name: &'static str| Places { headers: vec![header(name, "")], ..Places::default() };
        let extractor = Extractor::of([("i", &places("x-t")), ("j", &places("X-T")), ("", &places("x-any"))]);
        let mut head = RequestHead::default();
        head.headers.append(HeaderName::parse(b"x-t").unwrap(), "1");
        head.headers.append(HeaderName::parse(b"x-any").unwrap(), "2");
        let found = extractor.extract(&head);
        let whose = |n: usize| ["i", "j", "k", ""].map(|issuer| extractor.may_be_of(&found[n], issuer));
        assert_eq!(found.len(), 2);
        assert_eq!(whose(0), [true; 4], "x-any");
        assert_eq!(whose(1), [true, true, false, false], "x-t");
    }

    /// Measured on Envoy 1.40, other than what stays encoded: what is left of the query is in another order, and decoded.
    #[test]
    fn removal_rewrites_the_query() {
        for (path, left) in [
            ("/?t=x", "/"),
            ("/p?b=1&t=x&a=%20x&c=+y&a=2&e&f=", "/p?a=%20x&a=2&b=1&c=+y&e=&f="),
            ("/p?a=%41%26b%3D&t=x&%62%3D=1", "/p?a=A%26b=&b%3D=1"),
            ("/p?&&t=x&&a=b&", "/p?=&=&=&a=b"),
            ("/?%74=x&t=y", "/"),
        ] {
            let mut head = RequestHead { path: path.into(), ..RequestHead::default() };
            let extractor = extractor(Places { parameters: vec!["t".into()], ..Places::default() });
            for found in extractor.extract(&head.clone()) {
                extractor.remove(&found, &mut head);
            }
            assert_eq!(head.path, left.as_bytes());
        }
    }
}

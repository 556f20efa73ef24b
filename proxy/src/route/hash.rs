//! Hash policies: what a request is hashed by, so that equal requests go to the same host.
//!
//! The policies of a list are asked in order. Each that finds something adds its hash to what there is, rotated by one bit
//! so that the same value twice does not cancel itself out; a terminal one ends the list once there is a hash.

use bytes::Bytes;
use filters::filter_state::Object;
use filters::http::{HeaderKey, RequestHead};
use filters::matcher::{Substitution, cookie, query_parameter};
use filters::stream_info::{Address, ConnectionInfo, StreamInfo};
use xxhash_rust::xxh64::{Xxh64, xxh64};

/// `RouteAction.hash_policy`, and the lists of the same kind in clusters and load-balancing policies.
#[derive(Debug)]
pub struct HashPolicy {
    pub(crate) methods: Box<[HashMethod]>,
}

/// One entry of the list.
#[derive(Debug)]
pub(crate) struct HashMethod {
    pub(crate) source: HashSource,
    /// The list ends here once there is a hash.
    pub(crate) terminal: bool,
}

/// What is hashed.
#[derive(Debug)]
pub(crate) enum HashSource {
    /// All values of a header, each rewritten first if it is to be, in the order of their bytes.
    Header { key: HeaderKey, rewrite: Option<Substitution> },
    /// A cookie; one that is missing is made up if it has a template.
    Cookie { name: Box<str>, generate: Option<CookieTemplate> },
    /// The client's address, without its port.
    SourceIp,
    /// The first value of a query parameter.
    Query(Box<[u8]>),
    /// An object of the connection's filter state, if it may be hashed.
    FilterState(Box<str>),
    /// Nothing that any request has.
    Nothing,
}

/// How a cookie that is made up is given to the client.
#[derive(Debug)]
pub(crate) struct CookieTemplate {
    /// What follows the value in `set-cookie`: `; Max-Age=60; Path=/; HttpOnly`.
    pub(crate) attributes: Box<str>,
}

impl HashPolicy {
    /// The hash of a request; `None` when nothing is found to hash. Cookies that are made up are added to `cookies` as
    /// values of `set-cookie`; without that list none is made up.
    #[must_use]
    pub fn hash(&self, head: &RequestHead, info: &StreamInfo, mut cookies: Option<&mut Vec<Bytes>>) -> Option<u64> {
        let mut hash: Option<u64> = None;
        for method in &self.methods {
            if let Some(found) = method.source.hash(head, info, cookies.as_deref_mut()) {
                hash = Some(hash.map_or(found, |before| before.rotate_left(1) ^ found));
            }
            if method.terminal && hash.is_some() {
                break;
            }
        }
        hash
    }
}

/// Two policies are the same only if they are one: a regular expression cannot be compared.
impl PartialEq for HashPolicy {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl HashSource {
    fn hash(&self, head: &RequestHead, info: &StreamInfo, cookies: Option<&mut Vec<Bytes>>) -> Option<u64> {
        match self {
            Self::Header { key: HeaderKey::Name(name), rewrite } => {
                let mut values = head.headers.values(name);
                let first = values.next()?;
                match (values.next(), rewrite) {
                    (None, None) => Some(xxh64(first, 0)),
                    (None, Some(rewrite)) => Some(xxh64(&rewrite.replace_all(first), 0)),
                    (Some(_), rewrite) => {
                        let values = head.headers.values(name);
                        Some(hash_of_all(values.map(|value| rewritten(rewrite.as_ref(), value)).collect()))
                    }
                }
            }
            Self::Header { key, rewrite } => {
                let value = head.value(key)?;
                Some(hash_of_all(vec![rewritten(rewrite.as_ref(), value)]))
            }
            Self::Cookie { name, generate } => match cookie(&head.headers, name.as_bytes()) {
                Some(value) if !value.is_empty() => Some(xxh64(value, 0)),
                _ => {
                    let (template, cookies) = (generate.as_ref()?, cookies?);
                    let value = format!("{:016x}", connection_hash(info));
                    cookies.push(format!("{name}=\"{value}\"{}", template.attributes).into());
                    Some(xxh64(value.as_bytes(), 0))
                }
            },
            Self::SourceIp => address_hash(&info.remote),
            Self::Query(name) => query_parameter(&head.path, name).map(|value| xxh64(value, 0)),
            Self::FilterState(key) => state_hash(&info.connection, key),
            Self::Nothing => None,
        }
    }
}

/// The hash of a client's address without its port; `None` when it has no IP address.
#[must_use]
pub fn address_hash(address: &Address) -> Option<u64> {
    Some(xxh64(address.ip()?.ip().to_string().as_bytes(), 0))
}

/// The hash of an object of a connection's filter state; `None` where there is none, or none that is hashed.
#[must_use]
pub fn state_hash(connection: &ConnectionInfo, key: &str) -> Option<u64> {
    connection.filter_state.borrow().find(key).and_then(Object::hashed).map(|text| xxh64(text, 0))
}

/// Both ends of the connection, so that every stream of it is given the same cookie.
fn connection_hash(info: &StreamInfo) -> u64 {
    xxh64(format!("{}{}", info.remote, info.connection.local).as_bytes(), 0)
}

fn rewritten(rewrite: Option<&Substitution>, value: &[u8]) -> Vec<u8> {
    rewrite.map_or_else(|| value.to_vec(), |rewrite| rewrite.replace_all(value))
}

/// The hash of several values, whatever order they came in.
fn hash_of_all(mut values: Vec<Vec<u8>>) -> u64 {
    values.sort_unstable();
    let mut hash = Xxh64::new(0);
    for value in &values {
        hash.update(value);
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::{Instant, SystemTime};

    use super::*;
    use filters::http::{HeaderName, Known};

    fn request(headers: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead { path: Bytes::from_static(b"/p?a=1&b&a=2"), ..RequestHead::default() };
        for (name, value) in headers {
            head.headers.append(HeaderName::parse(name.as_bytes()).unwrap(), Bytes::copy_from_slice(value.as_bytes()));
        }
        head
    }

    fn info() -> StreamInfo {
        let address = |text: &str| Address::Ip(text.parse().unwrap());
        let connection = ConnectionInfo::between(address("192.0.2.1:1234"), address("192.0.2.2:80"));
        StreamInfo::new(Rc::new(connection), Instant::now(), SystemTime::UNIX_EPOCH, 0)
    }

    fn header(name: &str) -> HashSource {
        HashSource::Header { key: HeaderKey::parse(name).unwrap(), rewrite: None }
    }

    fn policy(methods: Vec<(HashSource, bool)>) -> HashPolicy {
        HashPolicy { methods: methods.into_iter().map(|(source, terminal)| HashMethod { source, terminal }).collect() }
    }

    fn hash(methods: Vec<(HashSource, bool)>, head: &RequestHead) -> Option<u64> {
        policy(methods).hash(head, &info(), None)
    }

    #[test]
    fn every_source_hashes_its_text() {
        let head = request(&[("x-k", "v"), ("cookie", "c=\"w\"")]);
        let cookie = || HashSource::Cookie { name: "c".into(), generate: None };
        for (source, text) in [
            (header("x-k"), Some("v")),
            (header("x-none"), None),
            (header(":path"), Some("/p?a=1&b&a=2")),
            (cookie(), Some("w")),
            (HashSource::SourceIp, Some("192.0.2.1")),
            (HashSource::Query(b"a"[..].into()), Some("1")),
            (HashSource::Query(b"b"[..].into()), Some("")),
            (HashSource::Query(b"c"[..].into()), None),
            (HashSource::Nothing, None),
        ] {
            let what = format!("{source:?}");
            assert_eq!(hash(vec![(source, false)], &head), text.map(|text| xxh64(text.as_bytes(), 0)), "{what}");
        }
    }

    #[test]
    fn only_what_may_be_hashed_of_a_connections_state_is() {
        let connection = info().connection;
        connection.filter_state.borrow_mut().set("a", Object::Text("x".into()));
        connection.filter_state.borrow_mut().set("b", Object::Hashable("x".into()));
        let hashes = ["a", "b", "c"].map(|key| state_hash(&connection, key));
        assert_eq!(hashes, [None, Some(xxh64(b"x", 0)), None]);
    }

    #[test]
    fn repeated_headers_hash_the_same_in_any_order() {
        let one = request(&[("x-k", "foo"), ("x-k", "bar")]);
        let other = request(&[("x-k", "bar"), ("x-k", "foo")]);
        let of = |head| hash(vec![(header("x-k"), false)], head);
        assert_eq!(of(&one), Some(xxh64(b"barfoo", 0)));
        assert_eq!(of(&one), of(&other));
    }

    #[test]
    fn hashes_are_rotated_together_until_a_terminal_one_found_something() {
        let head = request(&[("x-a", "1"), ("x-b", "2")]);
        let (a, b) = (xxh64(b"1", 0), xxh64(b"2", 0));
        let both = |terminal| vec![(header("x-a"), terminal), (header("x-b"), false)];
        assert_eq!(hash(both(false), &head), Some(a.rotate_left(1) ^ b));
        assert_eq!(hash(both(true), &head), Some(a));
        let missing_first = vec![(header("x-none"), true), (header("x-b"), false)];
        assert_eq!(hash(missing_first, &head), Some(b));
        let terminal_after = vec![(header("x-a"), false), (header("x-none"), true), (header("x-b"), false)];
        assert_eq!(
            hash(terminal_after, &head),
            Some(a),
            "a terminal policy ends the list even if the hash is not its own"
        );
    }

    #[test]
    fn a_missing_cookie_is_made_of_both_ends_of_the_connection() {
        let source = || HashSource::Cookie {
            name: "ck".into(),
            generate: Some(CookieTemplate { attributes: "; Max-Age=3; HttpOnly".into() }),
        };
        let mut cookies = Vec::new();
        let made = policy(vec![(source(), false)]).hash(&request(&[]), &info(), Some(&mut cookies));
        let value = format!("{:016x}", xxh64(b"192.0.2.1:1234192.0.2.2:80", 0));
        assert_eq!(made, Some(xxh64(value.as_bytes(), 0)));
        assert_eq!(cookies, [format!("ck=\"{value}\"; Max-Age=3; HttpOnly")]);
        assert_eq!(hash(vec![(source(), false)], &request(&[])), None, "nobody to give it to");

        let mut head = request(&[]);
        head.headers.append(Known::Cookie, format!("ck={value}"));
        assert_eq!(hash(vec![(source(), false)], &head), made, "the client brings it back");
    }
}

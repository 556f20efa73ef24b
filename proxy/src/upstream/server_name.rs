//! What a request says about the server's name: whom to ask for, and whom the certificate has to be for
//! (`upstream_http_protocol_options`).

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::rc::Rc;

use filters::http::{HeaderKey, RequestHead};

use super::cluster::Cluster;
use crate::config::cluster::AutoNames;

/// The names a request is for. Pools are told apart by them, however they are spelled: a connection was made for one server.
#[derive(Debug, Clone)]
pub struct ServerNames {
    /// Whom to ask for (`auto_sni`); `None` leaves that to the TLS context.
    pub asked: Option<Rc<str>>,
    /// A name or address that the certificate has to have (`auto_san_validation`).
    pub expected: Option<Rc<str>>,
}

impl ServerNames {
    /// The header that names the server instead of the authority, as the client sent it (`override_auto_sni_header`).
    #[must_use]
    pub fn header<'a>(options: &AutoNames, head: &'a RequestHead) -> Option<&'a [u8]> {
        let key: &HeaderKey = options.header.as_ref()?;
        head.value(key).filter(|value| !value.is_empty())
    }

    /// The names of a request that goes to the cluster as it is.
    #[must_use]
    pub fn of_request(cluster: &Cluster, head: &RequestHead) -> Option<Rc<Self>> {
        let options = cluster.config().http.auto_names.as_ref()?;
        Self::of(options, Self::header(options, head).unwrap_or(&head.authority))
    }

    /// The names of a request to this host, port and all.
    #[must_use]
    pub fn of(options: &AutoNames, host: &[u8]) -> Option<Rc<Self>> {
        let (name, is_address) = without_port(std::str::from_utf8(host).ok()?);
        let asked = (options.sni && !is_address).then(|| Rc::from(name));
        let expected = options.san.then(|| asked.clone().unwrap_or_else(|| Rc::from(name)));
        (asked.is_some() || expected.is_some()).then(|| Rc::new(Self { asked, expected }))
    }
}

impl PartialEq for ServerNames {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &Option<Rc<str>>, b: &Option<Rc<str>>| match (a, b) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            (None, None) => true,
            _ => false,
        };
        same(&self.asked, &other.asked) && same(&self.expected, &other.expected)
    }
}

impl Eq for ServerNames {}

impl Hash for ServerNames {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for name in [&self.asked, &self.expected] {
            name.is_some().hash(state);
            for byte in name.as_deref().unwrap_or_default().bytes() {
                state.write_u8(byte.to_ascii_lowercase());
            }
        }
    }
}

/// A host without its port, and without the brackets of an address; whether it is an address.
fn without_port(host: &str) -> (&str, bool) {
    let host = match host.rsplit_once(':') {
        Some((before, port)) if !host.ends_with(']') && port.parse::<u16>().is_ok() => before,
        _ => host,
    };
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() { (bare, true) } else { (host, false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sni: bool, san: bool, host: &str) -> (Option<String>, Option<String>) {
        let names = ServerNames::of(&AutoNames { sni, san, header: None }, host.as_bytes());
        names.map_or((None, None), |it| {
            (it.asked.as_deref().map(str::to_owned), it.expected.as_deref().map(str::to_owned))
        })
    }

    #[test]
    fn addresses_are_never_asked_for_and_ports_are_no_part_of_names() {
        for (host, asked, expected) in [
            ("a.test", Some("a.test"), "a.test"),
            ("A.test:8080", Some("A.test"), "A.test"),
            ("a.test:99999", Some("a.test:99999"), "a.test:99999"),
            ("a.test:x", Some("a.test:x"), "a.test:x"),
            ("127.0.0.1:99", None, "127.0.0.1"),
            ("[::1]:5", None, "::1"),
            ("[::1]", None, "::1"),
            ("[x]", Some("[x]"), "[x]"),
        ] {
            assert_eq!(names(true, true, host), (asked.map(str::to_owned), Some(expected.to_owned())), "{host}");
            assert_eq!(names(true, false, host), (asked.map(str::to_owned), None), "{host}");
            assert_eq!(names(false, true, host), (None, Some(expected.to_owned())), "{host}");
            assert_eq!(names(false, false, host), (None, None), "{host}");
        }
    }

    #[test]
    fn spelling_tells_no_servers_apart() {
        let both = AutoNames { sni: true, san: true, header: None };
        let hash = |names: &ServerNames| {
            let mut hasher = std::hash::DefaultHasher::new();
            names.hash(&mut hasher);
            hasher.finish()
        };
        let (one, other) = (ServerNames::of(&both, b"A.test").unwrap(), ServerNames::of(&both, b"a.TEST:1").unwrap());
        assert!(one == other && hash(&one) == hash(&other));
        let (sni, san) = (AutoNames { san: false, ..both.clone() }, AutoNames { sni: false, ..both });
        let (sni, san) = (ServerNames::of(&sni, b"a.test").unwrap(), ServerNames::of(&san, b"a.test").unwrap());
        assert!(sni != san && sni != one && san != one);
    }
}

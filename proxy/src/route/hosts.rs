//! Which virtual host a host name belongs to: exact, then the longest `*suffix`, then the longest `prefix*`, then `*`.

use std::collections::HashMap;

use smallvec::SmallVec;

/// Domains by hash; one probe for exact names and one for each distinct wildcard length.
#[derive(Debug, Default)]
pub(crate) struct HostIndex {
    exact: HashMap<Box<[u8]>, u32>,
    suffixes: Wildcards,
    prefixes: Wildcards,
    default: Option<u32>,
    ignore_port: bool,
}

/// Fixed parts of wildcard domains by their length, the longest first.
type Wildcards = Vec<(usize, HashMap<Box<[u8]>, u32>)>;

/// A domain that stands in the table already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// This one, lower case.
    Domain(String),
    /// `*`.
    Default,
}

impl HostIndex {
    /// An index without domains.
    pub(crate) fn new(ignore_port: bool) -> Self {
        Self { ignore_port, ..Self::default() }
    }

    /// Gives `domain` to a virtual host.
    pub(crate) fn insert(&mut self, domain: &str, vhost: u32) -> Result<(), Taken> {
        let domain = domain.to_ascii_lowercase();
        if domain == "*" {
            return match self.default.replace(vhost) {
                None => Ok(()),
                Some(_) => Err(Taken::Default),
            };
        }
        let (map, key) = if let Some(suffix) = domain.strip_prefix('*') {
            (of_length(&mut self.suffixes, suffix.len()), suffix)
        } else if let Some(prefix) = domain.strip_suffix('*') {
            (of_length(&mut self.prefixes, prefix.len()), prefix)
        } else {
            (&mut self.exact, &domain[..])
        };
        match map.insert(key.as_bytes().into(), vhost) {
            None => Ok(()),
            Some(_) => Err(Taken::Domain(domain)),
        }
    }

    /// The virtual host of `host`, as the client wrote it.
    pub(crate) fn find(&self, host: &[u8]) -> Option<u32> {
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            return self.default;
        }
        let host = if self.ignore_port { without_port(host) } else { host };
        let lower: SmallVec<[u8; 128]>;
        let host = if host.iter().any(u8::is_ascii_uppercase) {
            lower = host.iter().map(u8::to_ascii_lowercase).collect();
            &lower[..]
        } else {
            host
        };
        let suffix = |(length, map): &(usize, HashMap<Box<[u8]>, u32>)| {
            // A wildcard stands for at least one byte.
            let start = host.len().checked_sub(*length).filter(|&start| start > 0)?;
            map.get(host.get(start..)?).copied()
        };
        let prefix = |(length, map): &(usize, HashMap<Box<[u8]>, u32>)| {
            if *length >= host.len() { None } else { map.get(host.get(..*length)?).copied() }
        };
        (self.exact.get(host).copied())
            .or_else(|| self.suffixes.iter().find_map(suffix))
            .or_else(|| self.prefixes.iter().find_map(prefix))
            .or(self.default)
    }
}

/// The map of wildcards whose fixed part has this length, keeping the longest first.
fn of_length(wildcards: &mut Wildcards, length: usize) -> &mut HashMap<Box<[u8]>, u32> {
    let at = wildcards.partition_point(|(other, _)| *other > length);
    if wildcards.get(at).is_none_or(|(other, _)| *other != length) {
        wildcards.insert(at, (length, HashMap::new()));
    }
    &mut wildcards[at].1
}

/// `host` without its port; an IPv6 literal keeps its brackets.
pub(crate) fn without_port(host: &[u8]) -> &[u8] {
    port_start(host).and_then(|at| host.get(..at)).unwrap_or(host)
}

/// Where the colon before the port stands.
pub(crate) fn port_start(host: &[u8]) -> Option<usize> {
    let colon = memchr::memrchr(b':', host)?;
    match memchr::memrchr(b']', host) {
        Some(bracket) if bracket > colon => None,
        _ => Some(colon),
    }
}

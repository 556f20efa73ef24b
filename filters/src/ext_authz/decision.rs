//! What the service decided, whichever way it was asked, and what follows from that for the request.

use bytes::Bytes;
use percent_encoding::percent_decode_str;

use super::config::ExtAuthzConfig;
use super::rules::{Change, Permission};
use crate::http::{HeaderName, Method, RequestHead, Scheme, is_token_byte};
use crate::http_filter::HeaderChange;
use crate::mutation;
use crate::stream_info::Metadata;

/// What the service decided.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) verdict: Decided,
    /// It asked for a change in a way that nobody knows.
    pub(super) unknown_action: bool,
    /// What filters behind this one, routes and logs are told.
    pub(super) metadata: Metadata,
}

/// The decision itself.
#[derive(Debug)]
pub(super) enum Decided {
    /// The request may pass, changed in this way.
    Passes(Box<Changes>),
    /// It may not.
    Refused(Refusal),
    /// There is none; the reply may be the service's.
    Failed(Option<Refusal>),
}

impl Default for Decided {
    fn default() -> Self {
        Self::Failed(None)
    }
}

/// A name and a value, not looked at yet.
pub(super) type Pair = (String, Bytes);

/// The changes to a request that passes, and to its response.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) set: Vec<Pair>,
    pub(super) add: Vec<Pair>,
    /// Only where there is such a header already.
    pub(super) append: Vec<Pair>,
    /// Only where there is none.
    pub(super) add_if_absent: Vec<Pair>,
    /// Only where there is one.
    pub(super) overwrite: Vec<Pair>,
    pub(super) remove: Vec<String>,
    pub(super) query_set: Vec<(String, String)>,
    pub(super) query_remove: Vec<String>,
    /// To the response.
    pub(super) response: ResponseChanges,
}

/// The changes to a response.
#[derive(Debug, Default)]
pub(super) struct ResponseChanges {
    pub(super) add: Vec<Pair>,
    pub(super) set: Vec<Pair>,
    pub(super) add_if_absent: Vec<Pair>,
    pub(super) overwrite: Vec<Pair>,
}

/// What a client is told instead.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    /// `None`: the filter's own (`status_on_error`).
    pub(super) status: Option<u16>,
    pub(super) headers: Vec<Pair>,
    pub(super) body: Bytes,
}

/// The service asked for what it may not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid;

impl Changes {
    /// Whether the route may be another afterwards.
    pub(super) fn may_reroute(&self) -> bool {
        !(self.set.is_empty()
            && self.append.is_empty()
            && self.remove.is_empty()
            && self.query_set.is_empty()
            && self.query_remove.is_empty())
    }

    /// Changes the request.
    pub(super) fn apply(&self, head: &mut RequestHead, config: &ExtAuthzConfig) -> Result<(), Invalid> {
        for (name, value) in &self.set {
            if config.allows(name, Change::Set(value))? {
                set(head, name, value);
            }
        }
        for (name, value) in &self.add {
            if config.allows(name, Change::Set(value))? {
                add(head, name, value);
            }
        }
        for (name, value) in &self.append {
            if config.allows(name, Change::Append(value))? {
                append(head, name, value);
            }
        }
        for (name, value) in &self.add_if_absent {
            if config.allows(name, Change::Set(value))? && !exists(head, name) {
                add(head, name, value);
            }
        }
        for (name, value) in &self.overwrite {
            if config.allows(name, Change::Set(value))? && exists(head, name) {
                set(head, name, value);
            }
        }
        for name in &self.remove {
            let name = name.to_ascii_lowercase();
            if config.validate_mutations && !is_name(&name) {
                continue;
            }
            let permission = match &config.rules {
                Some(rules) => rules.permit(Change::Remove, &name),
                None if name.starts_with(':') || name == "host" => Permission::Ignored,
                None => Permission::Allowed,
            };
            match permission {
                Permission::Allowed => {
                    if let Some(name) = HeaderName::parse(name.as_bytes()) {
                        head.headers.remove(&name);
                    }
                }
                Permission::Ignored => {}
                Permission::Failed => return Err(Invalid),
            }
        }
        Ok(())
    }

    /// Why the request cannot be sent as changed, in Envoy's words: nobody has looked at the names and values that it got.
    pub(super) fn unsayable(&self, config: &ExtAuthzConfig) -> Option<String> {
        if config.validate_mutations {
            return None;
        }
        let all = [&self.set, &self.add, &self.append, &self.add_if_absent, &self.overwrite];
        let mut made =
            all.into_iter().flatten().filter(|(name, value)| config.allows(name, Change::Set(value)) == Ok(true));
        let (name, _) = made.find(|(name, value)| !(is_name(name) && is_value(value)))?;
        let what = if is_name(name) { "invalid header value for" } else { "invalid header name" };
        Some(format!("{what}: {name}"))
    }

    /// Changes the query of the request.
    pub(super) fn apply_to_query(&self, head: &mut RequestHead, config: &ExtAuthzConfig) -> Result<(), Invalid> {
        if self.query_set.is_empty() && self.query_remove.is_empty() {
            return Ok(());
        }
        let mut query = Query::read(&head.path);
        for (name, value) in &self.query_set {
            if config.validate_mutations && !(is_encoded(name) && is_encoded(value)) {
                return Err(Invalid);
            }
            query.set(name, value);
        }
        for name in &self.query_remove {
            query.0.retain(|(key, _)| key != name);
        }
        head.path = query.write(&head.path);
        Ok(())
    }
}

impl ExtAuthzConfig {
    /// Whether a change to a request's header is made.
    fn allows(&self, name: &str, change: Change<'_>) -> Result<bool, Invalid> {
        if self.validate_mutations
            && let Change::Set(value) | Change::Append(value) = change
            && !(is_name(name) && is_value(value))
        {
            return Err(Invalid);
        }
        let Some(rules) = &self.rules else { return Ok(true) };
        match rules.permit(change, &name.to_ascii_lowercase()) {
            Permission::Allowed => Ok(true),
            Permission::Ignored => Ok(false),
            Permission::Failed => Err(Invalid),
        }
    }

    /// Whether these headers may be sent.
    pub(super) fn check_headers(&self, headers: &[Pair]) -> Result<(), Invalid> {
        let valid = |(name, value): &Pair| is_name(name) && is_value(value);
        if !self.validate_mutations || headers.iter().all(valid) { Ok(()) } else { Err(Invalid) }
    }
}

impl ResponseChanges {
    /// The changes as they are made.
    pub(super) fn changes(self, config: &ExtAuthzConfig) -> Result<Vec<HeaderChange>, Invalid> {
        let Self { add, set, add_if_absent, overwrite } = self;
        let mut changes = Vec::with_capacity(add.len() + set.len() + add_if_absent.len() + overwrite.len());
        let mut take = |pairs: Vec<Pair>, change: fn(HeaderName, Bytes) -> HeaderChange| {
            config.check_headers(&pairs)?;
            changes.extend(named(pairs).map(|(name, value)| change(name, value)));
            Ok(())
        };
        take(add, HeaderChange::Append)?;
        take(set, HeaderChange::Set)?;
        take(add_if_absent, HeaderChange::AddIfAbsent)?;
        take(overwrite, HeaderChange::Overwrite)?;
        Ok(changes)
    }
}

impl Refusal {
    /// What is done about a reply's headers: those named here replace what else would be there, and may repeat.
    pub(super) fn changes(headers: Vec<Pair>) -> Vec<HeaderChange> {
        let headers: Vec<_> = named(headers).collect();
        let removals = headers.iter().map(|(name, _)| HeaderChange::Remove(name.clone()));
        let additions = headers.iter().map(|(name, value)| HeaderChange::Append(name.clone(), value.clone()));
        removals.chain(additions).collect()
    }
}

/// Those whose names can be said; a value that cannot loses what nobody may send.
fn named(pairs: Vec<Pair>) -> impl Iterator<Item = (HeaderName, Bytes)> {
    pairs.into_iter().filter_map(|(name, value)| Some((HeaderName::parse(name.as_bytes())?, sendable(&value))))
}

/// Without what would end the line.
fn sendable(value: &Bytes) -> Bytes {
    if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return value.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n' | 0)).collect();
    }
    value.clone()
}

/// Whether it can be a header's name.
fn is_name(name: &str) -> bool {
    let name = name.strip_prefix(':').unwrap_or(name);
    !name.is_empty() && name.bytes().all(is_token_byte)
}

/// Whether it can be a header's value.
pub(super) fn is_value(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
}

fn exists(head: &RequestHead, name: &str) -> bool {
    match name.to_ascii_lowercase().as_str() {
        ":method" | ":path" | ":authority" | "host" | ":scheme" => true,
        name => HeaderName::parse(name.as_bytes()).is_some_and(|name| head.headers.contains(&name)),
    }
}

fn set(head: &mut RequestHead, name: &str, value: &Bytes) {
    let value = sendable(value);
    match name.to_ascii_lowercase().as_str() {
        ":method" => head.method = Method::from_bytes(value),
        ":path" => head.path = value,
        ":authority" | "host" => (head.authority, head.authority_missing) = (value, false),
        ":scheme" => match &value[..] {
            b"http" => head.scheme = Scheme::Http,
            b"https" => head.scheme = Scheme::Https,
            _ => {}
        },
        name => {
            if let Some(name) = HeaderName::parse(name.as_bytes()) {
                head.headers.remove(&name);
                head.headers.append(name, value);
            }
        }
    }
}

fn add(head: &mut RequestHead, name: &str, value: &Bytes) {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return append(head, name, value);
    }
    if let Some(name) = HeaderName::parse(name.as_bytes()) {
        mutation::add(&mut head.headers, name, sendable(value), mutation::joined_in_requests);
    }
}

fn append(head: &mut RequestHead, name: &str, value: &Bytes) {
    let joined = |old: &Bytes| Bytes::from([&old[..], b",", &sendable(value)].concat());
    match name.to_ascii_lowercase().as_str() {
        ":path" => head.path = joined(&head.path),
        ":authority" | "host" => head.authority = joined(&head.authority),
        name => {
            let header = head.headers.iter_mut().find(|header| header.name.as_str() == name);
            if let Some(header) = header {
                header.value = joined(&header.value);
            }
        }
    }
}

/// The parameters of a path, as they are written, by their names; those of one name stand together.
struct Query(Vec<(String, Vec<String>)>);

impl Query {
    fn read(path: &[u8]) -> Self {
        let mut query = Self(Vec::new());
        let Some(at) = memchr::memchr(b'?', path) else { return query };
        let text = String::from_utf8_lossy(&path[at + 1..]);
        let text = text.split('#').next().unwrap_or_default();
        for part in text.split('&') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            query.entry(name).push(value.to_owned());
        }
        query
    }

    fn entry(&mut self, name: &str) -> &mut Vec<String> {
        let at = match self.0.iter().position(|(key, _)| key == name) {
            Some(at) => at,
            None => {
                self.0.push((name.to_owned(), Vec::new()));
                self.0.len() - 1
            }
        };
        &mut self.0[at].1
    }

    fn set(&mut self, name: &str, value: &str) {
        *self.entry(name) = vec![value.to_owned()];
    }

    /// The path with these parameters. As in Envoy they are in the order of their names.
    fn write(mut self, path: &[u8]) -> Bytes {
        let end = memchr::memchr(b'?', path).unwrap_or(path.len());
        self.0.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut out = path[..end].to_vec();
        let mut sign = b'?';
        for (name, values) in self.0 {
            for value in values {
                out.push(sign);
                out.extend_from_slice(name.as_bytes());
                out.push(b'=');
                out.extend_from_slice(value.as_bytes());
                sign = b'&';
            }
        }
        out.into()
    }
}

/// Whether a text is encoded as a part of a query must be.
fn is_encoded(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%');
    text.bytes().all(plain) && percent_decode_str(text).count() <= text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_replaced_and_removed_by_their_names() {
        let path = |path: &str, change: &dyn Fn(&mut Query)| {
            let mut query = Query::read(path.as_bytes());
            change(&mut query);
            String::from_utf8_lossy(&query.write(path.as_bytes())).into_owned()
        };
        assert_eq!(path("/a", &|query| query.set("b", "1")), "/a?b=1");
        assert_eq!(path("/a?b=0&c=2&b=3", &|query| query.set("b", "1")), "/a?b=1&c=2");
        assert_eq!(path("/a?b=0&c=2&b=3", &|query| query.0.retain(|(name, _)| name != "b")), "/a?c=2");
    }

    #[test]
    fn what_would_split_a_message_is_not_sent() {
        assert_eq!(sendable(&Bytes::from_static(b"a\r\nb: c")), "ab: c");
        assert!(is_name("x-a") && is_name(":path") && !is_name("a b") && !is_name(""));
        assert!(is_value(b"a\tb") && !is_value(b"a\nb"));
        assert!(is_encoded("a%20b") && !is_encoded("a b"));
    }
}

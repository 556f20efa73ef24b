//! What a permission or a principal asks of a caller.

use super::Caller;
use super::principal::MtlsAuthenticated;
use crate::matcher::{CidrRange, HeaderMatcher, MetadataMatcher, PathTemplate, StringMatcher};
use crate::stream_info::Address;
use crate::tls::TlsInfo;

#[derive(Debug)]
pub(super) enum Rule {
    /// Always so, or never.
    Constant(bool),
    All(Box<[Self]>),
    Any(Box<[Self]>),
    Not(Box<Self>),
    Header(HeaderMatcher),
    /// The path, without query and fragment.
    Path(StringMatcher),
    PathTemplate(PathTemplate),
    Destination(CidrRange),
    /// `[start, end)`
    DestinationPort(i64, i64),
    ServerName(StringMatcher),
    DynamicMetadata(MetadataMatcher),
    RouteMetadata(MetadataMatcher),
    /// An object of the connection's filter state, as text.
    FilterState(Box<str>, StringMatcher),
    /// The connection's peer.
    Source(CidrRange),
    /// The trusted client.
    Remote(CidrRange),
    DirectRemote(CidrRange),
    /// By TLS; under one of these names, where it matters.
    Authenticated(Option<StringMatcher>),
    MtlsAuthenticated(MtlsAuthenticated),
}

impl Rule {
    pub(super) fn matches(&self, caller: &Caller<'_>) -> bool {
        let connection = caller.connection;
        let head = caller.request.map(|(head, _)| head);
        let within = |range: &CidrRange, address: &Address| address.ip().is_some_and(|ip| range.contains(ip.ip()));
        match self {
            Self::Constant(value) => *value,
            Self::All(rules) => rules.iter().all(|rule| rule.matches(caller)),
            Self::Any(rules) => rules.iter().any(|rule| rule.matches(caller)),
            Self::Not(rule) => !rule.matches(caller),
            Self::Header(matcher) => head.is_some_and(|head| matcher.matches(head)),
            Self::Path(matcher) => head.filter(|head| !head.path.is_empty()).is_some_and(|head| {
                let end = memchr::memchr2(b'?', b'#', &head.path).unwrap_or(head.path.len());
                matcher.matches(&head.path[..end])
            }),
            Self::PathTemplate(template) => head.is_some_and(|head| template.is_match(&head.path)),
            Self::Destination(range) => within(range, &connection.local),
            Self::DestinationPort(start, end) => {
                connection.local.ip().is_some_and(|ip| (*start..*end).contains(&i64::from(ip.port())))
            }
            Self::ServerName(matcher) => matcher.matches(connection.requested_server_name.as_bytes()),
            Self::DynamicMetadata(matcher) => matcher.matches(caller.dynamic_metadata()),
            Self::RouteMetadata(matcher) => matcher.matches(caller.route_metadata()),
            Self::FilterState(key, matcher) => {
                let state = connection.filter_state.borrow();
                state.find(key).and_then(|object| object.text()).is_some_and(|text| matcher.matches(text))
            }
            Self::Source(range) => within(range, &connection.remote),
            Self::Remote(range) => within(range, caller.remote()),
            Self::DirectRemote(range) => within(range, &connection.direct_remote),
            Self::Authenticated(name) => connection
                .tls
                .get()
                .is_some_and(|session| name.as_ref().is_none_or(|matcher| goes_by(session, matcher))),
            Self::MtlsAuthenticated(principal) => principal.matches(connection),
        }
    }
}

/// Whether the peer of a session has such a name: a URI, a DNS name or its subject, which is empty without a certificate.
fn goes_by(session: &TlsInfo, matcher: &StringMatcher) -> bool {
    let Some(facts) = session.peer_certificate() else { return matcher.matches(b"") };
    let names = facts.uri_sans.iter().chain(&facts.dns_sans).chain([&facts.subject]);
    names.into_iter().any(|name| matcher.matches(name.as_bytes()))
}

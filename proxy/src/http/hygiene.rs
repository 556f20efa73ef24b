//! What the connection manager does to every head that passes, before routing and after it: client address and trust,
//! headers only a trusted peer may send, hop-by-hop headers, request ids, `via`, `server` and `date`.
//!
//! Everything here is a pure function over a head, called once per message. What depends on the connection only is
//! worked out when it is accepted ([`Peer::new`]), so a request that needs no change pays for one pass over its headers,
//! two shared values and one request id.

mod client;
mod client_cert;
mod proxy_status;
mod request_id;
mod response;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use bytes::Bytes;
use filters::http::{HeaderName, Headers, Known, Repeats, RequestHead, SINGLE_IN_REQUESTS, Scheme};
use filters::stream_info::{Address, ConnectionInfo};

use client_cert::Elements;

pub use client::{Detection, OriginalIp, Rejection};
pub use client_cert::{ClientCertDetails, ClientCertMode, ForwardClientCert};
use filters::matcher::CidrSet;
pub use proxy_status::ProxyStatus;
pub use request_id::{TraceReason, set_trace_reason};
pub use response::{DateCache, ResponseHygiene, ServerHeader, mutate_response};

/// The connection manager's settings about requests, named after the fields of `HttpConnectionManager`.
#[derive(Debug, Clone, Default)]
pub struct RequestHygiene {
    /// `use_remote_address`: the socket's peer is the client (this is an edge).
    pub use_remote_address: bool,
    /// `xff_num_trusted_hops`
    pub xff_num_trusted_hops: u32,
    /// `skip_xff_append`
    pub skip_xff_append: bool,
    /// `append_x_forwarded_port`
    pub append_x_forwarded_port: bool,
    /// `original_ip_detection_extensions`; without any, and without `use_remote_address`, plain `x-forwarded-for`.
    pub detection: Vec<Detection>,
    /// `internal_address_config`; `None`: nothing is internal.
    pub internal: Option<InternalAddresses>,
    /// `generate_request_id`
    pub generate_request_id: bool,
    /// `preserve_external_request_id`
    pub preserve_external_request_id: bool,
    /// `request_id_extension`, `pack_trace_reason`
    pub pack_trace_reason: bool,
    /// `scheme_header_transformation.scheme_to_overwrite`
    pub scheme_to_overwrite: Option<Scheme>,
    /// `add_user_agent`: this node's cluster and id.
    pub user_agent: Option<UserAgent>,
    /// `via`; empty for none.
    pub via: Bytes,
    /// What becomes of `x-forwarded-client-cert`.
    pub client_cert: ForwardClientCert,
    /// `forward_proto_config`: scheme by the port connected to.
    pub forward_proto: ForwardProto,
    /// This node's own address, appended to `x-forwarded-for` in place of a loopback peer.
    pub local_address: Option<IpAddr>,
}

/// `internal_address_config`: whose requests are internal.
#[derive(Debug, Clone, Default)]
pub struct InternalAddresses {
    /// `cidr_ranges`; a present but empty message means RFC 1918 and RFC 4193.
    pub ranges: CidrSet,
    /// `unix_sockets`
    pub unix_sockets: bool,
}

/// What `add_user_agent` writes.
#[derive(Debug, Clone)]
pub struct UserAgent {
    /// This node's cluster: `user-agent` if absent, and `x-envoy-downstream-service-cluster`.
    pub cluster: Bytes,
    /// This node's id: `x-envoy-downstream-service-node`; empty for none.
    pub node: Bytes,
}

/// `forward_proto_config`: destination ports that say what a terminated connection was.
#[derive(Debug, Clone, Default)]
pub struct ForwardProto {
    /// `https_destination_ports`
    pub https_ports: Vec<u16>,
    /// `http_destination_ports`
    pub http_ports: Vec<u16>,
}

/// What a connection contributes to each of its requests, worked out once.
#[derive(Debug, Clone)]
pub struct Peer {
    forwarded_for: Option<Bytes>,
    external_address: Option<Bytes>,
    scheme: Scheme,
    local_port: Option<Bytes>,
    internal: bool,
    client_cert: Elements,
}

impl Peer {
    /// The facts of `connection` under these settings.
    #[must_use]
    pub fn new(options: &RequestHygiene, connection: &ConnectionInfo) -> Self {
        let remote = connection.remote.ip().map(|address| address.ip());
        let forwarded_for = match remote {
            Some(ip) if ip.is_loopback() => options.local_address,
            other => other,
        };
        let local = connection.local.ip().map(|address| address.port());
        let scheme = match local {
            Some(port) if options.forward_proto.https_ports.contains(&port) => Scheme::Https,
            Some(port) if options.forward_proto.http_ports.contains(&port) => Scheme::Http,
            _ if connection.is_tls() => Scheme::Https,
            _ => Scheme::Http,
        };
        Self {
            forwarded_for: forwarded_for.map(client::text),
            external_address: remote.map(client::text),
            scheme,
            local_port: local.map(|port| port.to_string().into()),
            internal: options.is_internal(&connection.remote),
            client_cert: Elements::default(),
        }
    }
}

/// What hygiene found out about a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestFacts {
    /// The trusted client address when it is not the connection's peer: becomes `StreamInfo::remote`.
    pub client: Option<Address>,
    /// Came from inside: its `x-envoy-*` headers are honoured.
    pub internal: bool,
    /// Came from outside to an edge (`use_remote_address`).
    pub edge: bool,
}

impl RequestHygiene {
    /// Rewrites a request head as it enters: trust, forwarding headers, request id, hop-by-hop headers.
    ///
    /// `internal_only` are the route table's `internal_only_headers`; `rng` makes the request id.
    ///
    /// # Errors
    /// When a detection extension rejects the request.
    pub fn mutate(
        &self,
        head: &mut RequestHead,
        peer: &Peer,
        connection: &ConnectionInfo,
        internal_only: &[HeaderName],
        rng: &mut fastrand::Rng,
    ) -> Result<RequestFacts, Rejection> {
        sanitize_hop_by_hop(head);
        let OriginalIp { address, trusted } = self.client_address(head, peer, connection)?;
        self.forwarded(head, peer);

        let internal = trusted
            && match &address {
                Some(address) => self.is_internal(address),
                None => self.use_remote_address && peer.internal,
            };
        let edge = self.use_remote_address && !internal;
        let keeps_client_cert = self.client_cert.passes(connection);
        self.strip(&mut head.headers, internal, edge, keeps_client_cert, internal_only);

        if internal {
            head.headers.append(Known::XEnvoyInternal, &b"true"[..]);
        }
        if let Some(agent) = &self.user_agent {
            agent.apply(&mut head.headers);
        }
        if !self.via.is_empty() {
            append_via(&mut head.headers, &self.via);
        }
        if edge {
            let external = match &address {
                Some(address) => address.ip().map(|address| client::text(address.ip())),
                None => peer.external_address.clone(),
            };
            if let Some(external) = external {
                head.headers.set(Known::XEnvoyExternalAddress, external);
            }
        }
        if self.generate_request_id {
            self.request_id(&mut head.headers, edge, rng);
        }
        self.client_cert.add(&mut head.headers, connection, &peer.client_cert);
        Ok(RequestFacts { client: address, internal, edge })
    }

    /// Whether `internal_address_config` holds this address.
    fn is_internal(&self, address: &Address) -> bool {
        self.internal.as_ref().is_some_and(|internal| match address {
            Address::Ip(address) => internal.ranges.contains(address.ip()),
            Address::Pipe(_) => internal.unix_sockets,
            Address::Internal(_) => false,
        })
    }

    /// `x-forwarded-proto`, `x-forwarded-port` and the scheme that follows from them.
    fn forwarded(&self, head: &mut RequestHead, peer: &Peer) {
        let headers = &mut head.headers;
        let overwrite = self.use_remote_address && self.xff_num_trusted_hops == 0;
        if overwrite || !headers.contains(&Known::XForwardedProto) {
            headers.set(Known::XForwardedProto, peer.scheme.as_str().as_bytes());
        }
        if self.append_x_forwarded_port
            && let Some(port) = &peer.local_port
            && (overwrite || !headers.contains(&Known::XForwardedPort))
        {
            headers.set(Known::XForwardedPort, port.clone());
        }
        if let Some(scheme) = self.scheme_to_overwrite {
            head.scheme = scheme;
            headers.set(Known::XForwardedProto, scheme.as_str().as_bytes());
        } else if head.scheme == Scheme::Unknown {
            // HTTP/1 has a scheme only in an absolute form: else it is what the last trusted hop says, or what this
            // connection is.
            head.scheme = match headers.value(&Known::XForwardedProto) {
                Some(proto) if proto.eq_ignore_ascii_case(b"https") => Scheme::Https,
                Some(proto) if proto.eq_ignore_ascii_case(b"http") => Scheme::Http,
                _ => peer.scheme,
            };
        }
    }

    /// Removes, in one pass, the headers a peer of this standing may not send.
    fn strip(
        &self,
        headers: &mut Headers,
        internal: bool,
        edge: bool,
        client_cert: bool,
        internal_only: &[HeaderName],
    ) {
        if internal && client_cert {
            return;
        }
        headers.retain(|header| match header.name.known() {
            Some(known) => match standing(known) {
                Standing::Anyone => internal || !internal_only.contains(&header.name),
                Standing::Inside => internal,
                Standing::NotAtTheEdge => !edge,
                Standing::Certificate => client_cert,
            },
            None => internal || !internal_only.contains(&header.name),
        });
    }
}

impl UserAgent {
    fn apply(&self, headers: &mut Headers) {
        headers.set(Known::XEnvoyDownstreamServiceCluster, self.cluster.clone());
        if headers.value(&Known::UserAgent).is_none_or(Bytes::is_empty) {
            headers.set(Known::UserAgent, self.cluster.clone());
        }
        if !self.node.is_empty() {
            headers.set(Known::XEnvoyDownstreamServiceNode, self.node.clone());
        }
    }
}

/// Who may send a header.
enum Standing {
    Anyone,
    Inside,
    NotAtTheEdge,
    Certificate,
}

const fn standing(known: Known) -> Standing {
    match known {
        Known::XEnvoyExpectedRqTimeoutMs
        | Known::XEnvoyForceTrace
        | Known::XEnvoyHedgeOnPerTryTimeout
        | Known::XEnvoyIpTags
        | Known::XEnvoyMaxRetries
        | Known::XEnvoyOriginalUrl
        | Known::XEnvoyRetriableHeaderNames
        | Known::XEnvoyRetriableStatusCodes
        | Known::XEnvoyRetryGrpcOn
        | Known::XEnvoyRetryOn
        | Known::XEnvoyUpstreamAltStatName
        | Known::XEnvoyUpstreamRqPerTryTimeoutMs
        | Known::XEnvoyUpstreamRqTimeoutAltResponse
        | Known::XEnvoyUpstreamRqTimeoutMs
        | Known::XEnvoyUpstreamStreamDurationMs => Standing::Inside,
        // `x-envoy-external-address` is set anew at the edge, in place.
        Known::XEnvoyDecoratorOperation
        | Known::XEnvoyDownstreamServiceCluster
        | Known::XEnvoyDownstreamServiceNode
        | Known::XEnvoyOriginalHost
        | Known::XEnvoyOriginalPath => Standing::NotAtTheEdge,
        Known::XForwardedClientCert => Standing::Certificate,
        _ => Standing::Anyone,
    }
}

/// Removes what concerns this hop only (RFC 9110 section 7.6.1). An upgrade keeps `connection` and `upgrade`.
fn sanitize_hop_by_hop(head: &mut RequestHead) {
    let upgrade = is_upgrade(&head.headers);
    let mut repeats = Repeats::of(SINGLE_IN_REQUESTS);
    let mut has_referer = false;
    head.headers.retain(|header| {
        repeats.note(&header.name);
        match header.name.known() {
            Some(Known::Connection | Known::Upgrade) => upgrade,
            Some(Known::XEnvoyInternal | Known::KeepAlive | Known::ProxyConnection | Known::TransferEncoding) => false,
            Some(Known::Te) => upgrade || names_token(&header.value, b"trailers"),
            Some(Known::Referer) => {
                has_referer = true;
                true
            }
            _ => true,
        }
    });
    repeats.join(&mut head.headers);
    if has_referer && head.headers.value(&Known::Referer).is_some_and(|referer| !is_referer(referer)) {
        head.headers.remove(&Known::Referer);
    }
    if !upgrade
        && let Some(te) = head.headers.value(&Known::Te)
        && te != "trailers"
    {
        head.headers.set(Known::Te, &b"trailers"[..]);
    }
}

/// Removes the headers `connection` names (RFC 9110 section 7.6.1), which the HTTP/1 side does before anything else.
/// Returns false when it names one that must not be removed: the request is then answered with 400
/// (`http1.connection_header_rejected`).
#[must_use]
pub fn remove_nominated(headers: &mut Headers) -> bool {
    let Some(connection) = headers.value(&Known::Connection).cloned() else { return true };
    for token in connection.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        let lower = token.to_ascii_lowercase();
        match &lower[..] {
            b"" | b"close" | b"keep-alive" | b"upgrade" | b"http2-settings" => {}
            b"te" => {
                if headers.value(&Known::Te).is_some_and(|te| !names_token(te, b"trailers")) {
                    headers.remove(&Known::Te);
                }
            }
            b"host" | b"x-forwarded-for" | b"x-forwarded-host" | b"x-forwarded-proto" => return false,
            [b':', ..] => return false,
            _ => {
                if let Some(name) = HeaderName::parse(&lower) {
                    headers.remove(&name);
                }
            }
        }
    }
    true
}

/// Whether headers ask for, or grant, an upgrade: `connection` names it and `upgrade` says to what.
#[must_use]
pub fn is_upgrade(headers: &Headers) -> bool {
    headers.value(&Known::Connection).is_some_and(|value| names_token(value, b"upgrade"))
        && headers.value(&Known::Upgrade).is_some_and(|value| !value.is_empty())
}

/// Whether a comma-separated list names a token, in any case.
#[must_use]
pub fn names_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// Adds this hop to `via`, behind those already there.
fn append_via(headers: &mut Headers, via: &Bytes) {
    match headers.value(&Known::Via) {
        Some(seen) if !seen.is_empty() => {
            let joined = [seen, &b", "[..], via].concat();
            headers.set(Known::Via, joined);
        }
        _ => headers.set(Known::Via, via.clone()),
    }
}

/// Whether Envoy lets a `referer` pass: an absolute URL with neither fragment nor user information, or a relative
/// reference without fragment (RFC 9110 section 10.1.3).
fn is_referer(value: &[u8]) -> bool {
    if let Some(colon) = value.windows(3).position(|part| part == b"://")
        && colon > 0
        && value[..colon].iter().all(u8::is_ascii_alphabetic)
    {
        let rest = &value[colon + 3..];
        let authority = &rest[..rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len())];
        let visible = rest.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#');
        return visible && is_host_and_port(authority);
    }
    let mut slash = false;
    value.iter().all(|byte| match byte {
        b'/' => {
            slash = true;
            true
        }
        // The first segment of a relative reference holds no colon: it would be a scheme.
        b':' => slash,
        b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        | b'@' | b'%' | b'?' => true,
        _ => byte.is_ascii_alphanumeric(),
    })
}

/// Whether this is a host, perhaps with a port, and nothing else.
fn is_host_and_port(authority: &[u8]) -> bool {
    let host_end = match authority.strip_prefix(b"[") {
        Some(_) => memchr::memchr(b']', authority).map_or(0, |end| end + 1),
        None => memchr::memchr(b':', authority).unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_end);
    let host_is_fine = match host.strip_prefix(b"[") {
        Some(literal) => {
            literal.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b']' | b'%'))
        }
        None => host.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')),
    };
    let port_is_fine = match port {
        [] => true,
        [b':', digits @ ..] => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !host.is_empty() && host_is_fine && port_is_fine
}

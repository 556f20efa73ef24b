//! The PROXY header that connections of a pool begin with: who they are opened for.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use filters::stream_info::{Address, ConnectionInfo, Proxied, StreamInfo, Tlv};

use super::host::Host;
use crate::config::cluster::{TransportSocket, UpstreamProxyProtocol};
use crate::transport::proxy_protocol;

/// The header of a pool's connections.
#[derive(Debug)]
pub struct Header {
    config: Arc<UpstreamProxyProtocol>,
    client: Option<Rc<Client>>,
}

/// A client as upstreams are told of it. Pools are told apart by it, since a connection tells of one client only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Client {
    source: Address,
    destination: Address,
    tlvs: Vec<Tlv>,
}

impl Header {
    /// The header of connections over `socket`, opened for `client`; `None` where there is none.
    #[must_use]
    pub fn new(socket: &TransportSocket, client: Option<&ConnectionInfo>) -> Option<Self> {
        let TransportSocket::ProxyProtocol(config) = socket else { return None };
        Some(Self { config: Arc::clone(config), client: client.and_then(Client::of).map(Rc::new) })
    }

    /// What tells the pool apart.
    #[must_use]
    pub const fn client(&self) -> &Option<Rc<Client>> {
        &self.client
    }

    /// The header of a connection to `host` that comes from `local`, and whether all that it should say fits.
    #[must_use]
    pub fn bytes(&self, host: &Host, local: Option<SocketAddr>) -> (Bytes, bool) {
        let version = self.config.version;
        let Some(client) = &self.client else {
            return (proxy_protocol::own(version, local, host.address()), true);
        };
        let tlvs = match version {
            proxy_protocol::ProxyProtocolVersion::V1 => Vec::new(),
            proxy_protocol::ProxyProtocolVersion::V2 => self.tlvs(client, host, local),
        };
        proxy_protocol::header_with(version, &client.source, &client.destination, &tlvs)
    }

    /// What the host's configuration adds comes first, then what the cluster's adds of other types, then what the client's
    /// header said of yet other types.
    fn tlvs(&self, client: &Client, host: &Host, local: Option<SocketAddr>) -> Vec<Tlv> {
        let mut tlvs: Vec<Tlv> = host.attributes().tlvs.iter().flat_map(|tlvs| tlvs.iter()).cloned().collect();
        others(&mut tlvs, self.config.added.fixed().iter());
        if self.config.added.has_formats() {
            tlvs.extend(self.config.added.formatted(&upstream_info(host, local)));
        }
        others(&mut tlvs, client.tlvs.iter().filter(|tlv| self.config.pass.passes(tlv)));
        tlvs
    }
}

/// Adds those whose types are not there yet. Several of one type stay together.
fn others<'a>(tlvs: &mut Vec<Tlv>, more: impl Iterator<Item = &'a Tlv>) {
    let before = tlvs.len();
    for tlv in more {
        if !tlvs[..before].iter().any(|there| there.kind == tlv.kind) {
            tlvs.push(tlv.clone());
        }
    }
}

impl Client {
    fn of(connection: &ConnectionInfo) -> Option<Self> {
        let Proxied::Told(tlvs) = &*connection.proxied.borrow() else { return None };
        let (source, destination) = (connection.remote.clone(), connection.local.clone());
        Some(Self { source, destination, tlvs: tlvs.clone() })
    }
}

/// What formats may tell of an upstream connection: its ends and its host.
fn upstream_info(host: &Host, local: Option<SocketAddr>) -> StreamInfo {
    let local = local.map_or_else(|| Address::Pipe("".into()), Address::Ip);
    let connection = ConnectionInfo::between((**host.address()).clone(), local);
    let mut info = StreamInfo::new(Rc::new(connection), Instant::now(), SystemTime::now(), 0);
    let upstream = info.upstream_mut();
    upstream.host = Some(Arc::clone(host.address()));
    upstream.host_name = Some(Arc::clone(host.hostname()));
    upstream.host_metadata.clone_from(&host.attributes().metadata);
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_type_that_is_there_nothing_is_added() {
        let tlv = |kind, value: &'static str| Tlv { kind, value: value.into() };
        let mut tlvs = vec![tlv(1, "a"), tlv(1, "b")];
        others(&mut tlvs, [tlv(1, "c"), tlv(2, "d"), tlv(2, "e")].iter());
        assert_eq!(tlvs, [tlv(1, "a"), tlv(1, "b"), tlv(2, "d"), tlv(2, "e")]);
    }

    #[test]
    fn a_client_is_told_of_only_where_it_may_be() {
        let address = |text: &str| Address::Ip(text.parse().unwrap());
        let connection = ConnectionInfo::between(address("10.0.0.1:1"), address("10.0.0.2:2"));
        assert_eq!(Client::of(&connection), None);
        connection.tell_upstreams();
        let client = Client::of(&connection).unwrap();
        assert_eq!((client.source, client.tlvs), (address("10.0.0.1:1"), Vec::new()));
    }
}

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::config::filter_chain::{NetworkFilter, Transport};

fn chain(index: usize) -> Arc<FilterChain> {
    Arc::new(FilterChain {
        name: index.to_string().into(),
        transport: Transport::RawBuffer,
        read_filters: Vec::new(),
        network: NetworkFilter::Empty,
        network_path: String::new(),
        transport_socket_connect_timeout: None,
        metadata: None,
        identity: 0,
        drain: crate::downstream::drain::Drain::default(),
        service: std::sync::OnceLock::new(),
    })
}

fn index(criteria: &[ChainMatch]) -> Result<ChainIndex, Overlap> {
    ChainIndex::build(criteria.iter().cloned().enumerate().map(|(i, m)| (m, chain(i))).collect(), None)
}

/// A connection by its facts.
#[derive(Clone, Debug)]
struct Connection {
    local: Address,
    remote: Address,
    direct: Address,
    server_name: &'static str,
    transport: &'static str,
    alpn: Vec<Box<[u8]>>,
}

impl Connection {
    fn facts(&self) -> ConnectionFacts<'_> {
        ConnectionFacts {
            local: &self.local,
            remote: &self.remote,
            direct_remote: &self.direct,
            server_name: self.server_name,
            transport_protocol: self.transport,
            application_protocols: &self.alpn,
        }
    }
}

fn ip(text: &str) -> Address {
    Address::Ip(text.parse().expect("address"))
}

fn plain() -> Connection {
    Connection {
        local: ip("10.0.0.1:80"),
        remote: ip("10.0.0.2:1000"),
        direct: ip("10.0.0.2:1000"),
        server_name: "",
        transport: RAW_BUFFER,
        alpn: Vec::new(),
    }
}

fn found<'a>(index: &'a ChainIndex, connection: &Connection) -> Option<&'a str> {
    index.find(&connection.facts()).map(|chain| &*chain.name)
}

#[test]
fn a_later_mismatch_has_no_way_back() {
    // Measured on Envoy: the server name decides, then the protocol fails, and a chain that would do is not considered.
    let by_name = ChainMatch {
        server_names: vec!["srv.test".into()],
        application_protocols: vec!["h2".into()],
        ..ChainMatch::default()
    };
    let tls = ChainMatch { transport_protocol: "tls".into(), ..ChainMatch::default() };
    let chains = vec![(by_name, chain(0)), (tls, chain(1))];
    let index = ChainIndex::build(chains, Some(chain(9))).expect("distinct");
    let connection = Connection { server_name: "srv.test", transport: "tls", ..plain() };
    assert_eq!(found(&index, &Connection { alpn: vec![(*b"http/1.1").into()], ..connection.clone() }), Some("9"));
    assert_eq!(found(&index, &Connection { alpn: vec![(*b"h2").into()], ..connection.clone() }), Some("0"));
    assert_eq!(found(&index, &Connection { server_name: "other.test", ..connection }), Some("1"));
}

#[test]
fn the_longest_suffix_of_a_server_name_wins() {
    let names = |name: &str| ChainMatch { server_names: vec![name.into()], ..ChainMatch::default() };
    let index = index(&[names(".com"), names(".a.com"), names("x.a.com")]).expect("distinct");
    for (name, expected) in [
        ("x.a.com", Some("2")),
        ("y.a.com", Some("1")),
        ("z.y.a.com", Some("1")),
        ("a.com", Some("0")),
        ("com", None),
        ("", None),
        ("a.org", None),
        (".", None),
    ] {
        assert_eq!(found(&index, &Connection { server_name: name, ..plain() }), expected, "{name}");
    }
}

#[test]
fn a_unix_socket_matches_only_what_asks_for_no_address_and_counts_as_local() {
    let ranged = ChainMatch { prefix_ranges: vec![Cidr::new([10, 0, 0, 0].into(), 8)], ..ChainMatch::default() };
    let local = ChainMatch { source_type: SourceType::SameIpOrLoopback, ..ChainMatch::default() };
    let index = index(&[ranged, local]).expect("distinct");
    let unix = Address::Pipe("/x".into());
    let connection = Connection { local: unix.clone(), remote: unix.clone(), direct: unix, ..plain() };
    assert_eq!(found(&index, &connection), Some("1"));
}

#[test]
fn replacing_chains_keeps_the_match() {
    let port = |port| ChainMatch { destination_port: Some(port), ..ChainMatch::default() };
    let index = index(&[port(80), port(81)])
        .expect("distinct")
        .map(|old| chain(old.name.parse::<usize>().expect("number") + 10));
    assert_eq!(found(&index, &plain()), Some("10"));
}

// The naive evaluator: at each step keep the chains with the most specific value that fits.

fn keep<R: Ord>(
    chains: Vec<(usize, &ChainMatch)>,
    rank: impl Fn(&ChainMatch) -> Option<R>,
) -> Vec<(usize, &ChainMatch)> {
    let best = chains.iter().filter_map(|(_, criteria)| rank(criteria)).max();
    chains.into_iter().filter(|(_, criteria)| best.is_some() && rank(criteria) == best).collect()
}

fn range_rank(ranges: &[Cidr], address: &Address) -> Option<i32> {
    if ranges.is_empty() {
        return Some(-1);
    }
    let address = super::address(address);
    ranges.iter().filter(|range| range.contains(address)).map(|range| range.length().into()).max()
}

fn naive(chains: &[ChainMatch], c: &Connection) -> Option<usize> {
    let port = |address: &Address| address.ip().map(|ip| ip.port());
    let left: Vec<_> = chains.iter().enumerate().collect();
    let left = keep(left, |m| match m.destination_port {
        None => Some(0),
        some => (some == port(&c.local)).then_some(1),
    });
    let left = keep(left, |m| range_rank(&m.prefix_ranges, &c.local));
    let left = keep(left, |m| {
        let fits = |name: &&String| {
            name.as_str() == c.server_name || (name.starts_with('.') && c.server_name.ends_with(name.as_str()))
        };
        if m.server_names.is_empty() {
            return Some(0);
        }
        m.server_names.iter().filter(fits).map(String::len).max()
    });
    let left = keep(left, |m| match m.transport_protocol.as_str() {
        "" => Some(0),
        some => (some == c.transport).then_some(1),
    });
    let left = keep(left, |m| {
        if m.application_protocols.is_empty() {
            return Some(usize::MIN);
        }
        let offered = |name: &[u8]| m.application_protocols.iter().any(|p| p.as_bytes() == name);
        c.alpn.iter().position(|name| offered(name)).map(|position| usize::MAX - position)
    });
    let left = keep(left, |m| range_rank(&m.direct_source_prefix_ranges, &c.direct));
    let local = match (&c.remote, &c.local) {
        (Address::Ip(remote), Address::Ip(local)) => remote.ip().is_loopback() || remote.ip() == local.ip(),
        (Address::Ip(remote), _) => remote.ip().is_loopback(),
        _ => true,
    };
    let left = keep(left, |m| match m.source_type {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => local.then_some(1),
        SourceType::External => (!local).then_some(1),
    });
    let left = keep(left, |m| range_rank(&m.source_prefix_ranges, &c.remote));
    let left = keep(left, |m| {
        if m.source_ports.is_empty() {
            return Some(0);
        }
        port(&c.remote).filter(|port| m.source_ports.contains(port)).map(|_| 1)
    });
    assert!(left.len() <= 1, "no overlaps were let in");
    left.first().map(|(index, _)| *index)
}

const IPS: [&str; 4] = ["10.0.0.1", "10.0.1.1", "127.0.0.1", "11.0.0.1"];

fn some_ranges() -> impl Strategy<Value = Vec<Cidr>> {
    let all: Vec<_> = [("10.0.0.1", 32), ("10.0.0.0", 24), ("10.0.0.0", 8), ("127.0.0.0", 8)]
        .map(|(address, length)| Cidr::new(address.parse().expect("address"), length))
        .to_vec();
    subsequence(all, 0..=2)
}

fn some_strings(all: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    subsequence(all, 0..=2).prop_map(|names| names.into_iter().map(str::to_owned).collect())
}

prop_compose! {
    fn some_match()(
        destination_port in select(vec![None, Some(80), Some(443)]),
        prefix_ranges in some_ranges(),
        server_names in some_strings(&["a.com", ".com", ".b.com", "x.b.com"]),
        transport_protocol in select(vec!["", "tls", RAW_BUFFER]),
        application_protocols in some_strings(&["h2", "http/1.1"]),
        direct_source_prefix_ranges in some_ranges(),
        source_type in select(vec![SourceType::Any, SourceType::SameIpOrLoopback, SourceType::External]),
        source_prefix_ranges in some_ranges(),
        source_ports in subsequence(vec![1000_u16, 2000], 0..=2),
        // Most chains ask little, or nothing would ever match.
        mask in any::<u16>(),
        mask2 in any::<u16>(),
    ) -> ChainMatch {
        let asked = |bit: u32| mask & mask2 & (1 << bit) != 0;
        let full = ChainMatch {
            destination_port, prefix_ranges, server_names, transport_protocol: transport_protocol.to_owned(),
            application_protocols, direct_source_prefix_ranges, source_type, source_prefix_ranges, source_ports,
        };
        ChainMatch {
            destination_port: full.destination_port.filter(|_| asked(0)),
            prefix_ranges: if asked(1) { full.prefix_ranges } else { Vec::new() },
            server_names: if asked(2) { full.server_names } else { Vec::new() },
            transport_protocol: if asked(3) { full.transport_protocol } else { String::new() },
            application_protocols: if asked(4) { full.application_protocols } else { Vec::new() },
            direct_source_prefix_ranges: if asked(5) { full.direct_source_prefix_ranges } else { Vec::new() },
            source_type: if asked(6) { full.source_type } else { SourceType::Any },
            source_prefix_ranges: if asked(7) { full.source_prefix_ranges } else { Vec::new() },
            source_ports: if asked(8) { full.source_ports } else { Vec::new() },
        }
    }
}

prop_compose! {
    fn some_connection()(
        local in select(IPS.to_vec()), remote in select(IPS.to_vec()), direct in select(IPS.to_vec()),
        port in select(vec![80_u16, 443, 81]), source in select(vec![1000_u16, 2000, 3000]),
        server_name in select(vec!["", "a.com", "q.b.com", "x.b.com", "com", "org"]),
        transport in select(vec!["tls", RAW_BUFFER]),
        alpn in subsequence(vec!["h2", "http/1.1", "foo"], 0..=3).prop_shuffle(),
    ) -> Connection {
        Connection {
            local: ip(&format!("{local}:{port}")),
            remote: ip(&format!("{remote}:{source}")),
            direct: ip(&format!("{direct}:{source}")),
            server_name,
            transport,
            alpn: alpn.into_iter().map(|name| name.as_bytes().into()).collect(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_index_agrees_with_the_naive_evaluator(
        chains in proptest::collection::vec(some_match(), 1..6),
        connections in proptest::collection::vec(some_connection(), 1..12),
    ) {
        if let Ok(index) = index(&chains) {
            for connection in connections {
                let expected = naive(&chains, &connection).map(|index| index.to_string());
                prop_assert_eq!(found(&index, &connection), expected.as_deref(), "{:?}", connection);
            }
        }
    }
}

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use envoy_types::pb::google::protobuf::{Any, BoolValue, UInt32Value};
use filters::config::Session;

use super::*;

/// A serialised message as configuration carries it.
pub(crate) fn any<M: Message>(name: &str, message: &M) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

pub(crate) fn tcp_proxy(cluster: &str) -> proto::Filter {
    let config = TcpProxy {
        stat_prefix: "t".into(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.into())),
        ..TcpProxy::default()
    };
    let config = any("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", &config);
    proto::Filter { name: "tcp".into(), config_type: Some(proto::filter::ConfigType::TypedConfig(config)) }
}

pub(crate) fn chain(name: &str) -> proto::FilterChain {
    proto::FilterChain { name: name.into(), filters: vec![tcp_proxy("c")], ..proto::FilterChain::default() }
}

pub(crate) fn socket_address(address: &str, port: u32) -> core::Address {
    let socket = core::SocketAddress {
        address: address.into(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
        ..core::SocketAddress::default()
    };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

pub(crate) fn pipe(path: &str, mode: u32) -> core::Address {
    core::Address { address: Some(core::address::Address::Pipe(core::Pipe { path: path.into(), mode })) }
}

pub(crate) fn listener(name: &str, port: u32) -> proto::Listener {
    proto::Listener {
        name: name.into(),
        address: Some(socket_address("127.0.0.1", port)),
        filter_chains: vec![chain("a")],
        ..proto::Listener::default()
    }
}

pub(crate) fn parse(listener: &proto::Listener) -> Result<ListenerConfig, String> {
    let raw = Bytes::from(listener.encode_to_vec());
    ListenerConfig::parse(&Session::default().root(), &raw).map_err(|error| error.to_string())
}

#[test]
fn defaults_are_envoys() {
    let config = parse(&listener("l", 80)).expect("valid");
    assert_eq!(&*config.stat_prefix, "127.0.0.1_80");
    assert_eq!(config.listener_filters_timeout, Some(Duration::from_secs(15)));
    assert_eq!(config.per_connection_buffer_limit, 1024 * 1024);
    assert!(config.reuse_port && config.bind_to_port && !config.use_original_dst);
    assert_eq!(&*config.connection_limit_key, "envoy.resource_limits.listener.l.connection_limit");
    assert_eq!(config.chains.iter().count(), 1);
}

#[test]
fn a_unix_listener_shares_one_socket() {
    let config = parse(&proto::Listener { address: Some(pipe("/tmp/x", 0o600)), ..listener("l", 0) }).expect("valid");
    assert!(!config.reuse_port);
    assert_eq!(config.addresses[0].pipe_mode, 0o600);
}

#[test]
#[expect(deprecated, reason = "deprecated fields have a meaning too")]
fn bind_to_port_has_two_spellings() {
    let unset = Some(BoolValue { value: false });
    let new = proto::Listener { bind_to_port: unset, ..listener("l", 80) };
    let deprecated_v1 = Some(proto::listener::DeprecatedV1 { bind_to_port: unset });
    let old = proto::Listener { deprecated_v1, ..listener("l", 80) };
    assert!(!parse(&new).expect("valid").bind_to_port);
    assert!(!parse(&old).expect("valid").bind_to_port);
}

/// Each text was read off the real Envoy 1.40.
#[test]
fn errors_are_in_envoys_words() {
    let criteria = |names: &[&str]| proto::FilterChainMatch {
        server_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..proto::FilterChainMatch::default()
    };
    let matching = |name: &str, criteria| proto::FilterChain { filter_chain_match: Some(criteria), ..chain(name) };
    let chains = |filter_chains| proto::Listener { filter_chains, ..listener("l1", 29131) };
    let at = |address| proto::Listener { address: Some(address), ..listener("l1", 29131) };
    let range = |address: &str, length| core::CidrRange {
        address_prefix: address.into(),
        prefix_len: Some(UInt32Value { value: length }),
    };
    let twice = proto::FilterChainMatch {
        prefix_ranges: vec![range("1.2.3.4", 8)],
        destination_port: Some(UInt32Value { value: 1 }),
        source_type: 2,
        ..criteria(&["a.com"])
    };
    let ranged = |address| proto::FilterChainMatch {
        prefix_ranges: vec![range(address, 8)],
        ..proto::FilterChainMatch::default()
    };
    let mut terminal_first = chain("a");
    terminal_first.filters.push(tcp_proxy("c"));
    let unknown = Any { type_url: "type.googleapis.com/envoy.config.core.v3.Address".into(), value: Vec::new() };
    let unknown = proto::FilterChain {
        filters: vec![proto::Filter {
            name: "zzz".into(),
            config_type: Some(proto::filter::ConfigType::TypedConfig(unknown)),
        }],
        ..proto::FilterChain::default()
    };
    let overlap = "error adding listener '127.0.0.1:29131': multiple filter chains with overlapping matching rules are \
                   defined";
    let cases: Vec<(proto::Listener, &str)> = vec![
        (
            proto::Listener { address: None, ..listener("l1", 0) },
            "error adding listener named 'l1': address is necessary",
        ),
        (chains(vec![]), "error adding listener '127.0.0.1:29131': no filter chains specified"),
        (
            chains(vec![chain("a"), chain("b")]),
            "error adding listener '127.0.0.1:29131': filter chain 'b' has the same matching rules defined as 'a'. \
             duplicate matcher is: {}",
        ),
        (
            chains(vec![matching("a", twice.clone()), matching("b", twice)]),
            "filter chain 'b' has the same matching rules defined as 'a'. duplicate matcher is: \
             {\"prefix_ranges\":[{\"address_prefix\":\"1.2.3.4\",\"prefix_len\":8}],\"destination_port\":1,\
             \"server_names\":[\"a.com\"],\"source_type\":\"EXTERNAL\"}",
        ),
        (chains(vec![matching("a", criteria(&["a.com", "b.com"])), matching("b", criteria(&["b.com"]))]), overlap),
        (chains(vec![matching("a", criteria(&["*.com"])), matching("b", criteria(&["*.COM"]))]), overlap),
        (chains(vec![matching("a", criteria(&[""])), chain("b")]), overlap),
        (chains(vec![matching("a", ranged("1.2.3.4")), matching("b", ranged("1.9.3.4"))]), overlap),
        (
            chains(vec![matching("a", criteria(&["a*.com"]))]),
            "error adding listener '127.0.0.1:29131': partial wildcards are not supported in \"server_names\"",
        ),
        (
            chains(vec![matching(
                "a",
                proto::FilterChainMatch { address_suffix: "1".into(), ..proto::FilterChainMatch::default() },
            )]),
            "error adding listener '127.0.0.1:29131': filter chain 'a' contains unimplemented fields",
        ),
        (chains(vec![matching("a", ranged("foo"))]), "malformed IP address: foo"),
        (
            chains(vec![terminal_first]),
            "Error: terminal filter named tcp of type envoy.filters.network.tcp_proxy must be the last filter in a \
             network filter chain.",
        ),
        (
            chains(vec![unknown]),
            "Didn't find a registered implementation for 'zzz' with type URL: 'envoy.config.core.v3.Address'",
        ),
        (at(socket_address("localhost", 1)), "malformed IP address: localhost"),
        (at(pipe("@abc", 0o600)), "Cannot set mode for Abstract AF_UNIX sockets"),
        (at(pipe(&"x".repeat(150), 0)), "exceeds maximum UNIX domain socket path size of 108."),
    ];
    for (config, expected) in cases {
        let error = parse(&config).expect_err(expected);
        assert!(error.ends_with(expected), "got  {error}\nwant {expected}");
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name_and_place() {
    let tls = core::TransportSocket {
        name: "tls".into(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(Any {
            type_url: "type.googleapis.com/envoy.extensions.transport_sockets.tap.v3.Tap".into(),
            value: Vec::new(),
        })),
    };
    let mut config = listener("l", 80);
    config.filter_chains[0].transport_socket = Some(tls);
    let error = parse(&config).expect_err("no tap");
    assert!(
        error.starts_with(
            "filter_chains[0].transport_socket: envoy.extensions.transport_sockets.tap.v3.Tap is not supported by Legate"
        ),
        "{error}"
    );
    let api = proto::Listener { api_listener: Some(proto::ApiListener::default()), ..listener("l", 80) };
    assert!(parse(&api).expect_err("refused").starts_with("api_listener: envoy.config.listener.v3.Listener.api_lis"));
}

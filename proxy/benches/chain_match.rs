//! Choosing a filter chain: once per connection, so it must cost little however many chains there are.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up should say so and stop")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address as ProtoAddress, SocketAddress, address};
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use filters::config::Session;
use filters::stream_info::Address;
use legate::config::listener::ListenerConfig;
use legate::downstream::chain_match::{ConnectionFacts, RAW_BUFFER};
use prost::Message;

fn listener(chains: Vec<FilterChain>) -> ListenerConfig {
    let socket = SocketAddress {
        address: "127.0.0.1".into(),
        port_specifier: Some(PortSpecifier::PortValue(80)),
        ..SocketAddress::default()
    };
    let listener = Listener {
        name: "l".into(),
        address: Some(ProtoAddress { address: Some(address::Address::SocketAddress(socket)) }),
        filter_chains: chains,
        ..Listener::default()
    };
    let raw = Bytes::from(listener.encode_to_vec());
    ListenerConfig::parse(&Session::default().root(), &raw).expect("a valid listener")
}

fn by_name(count: usize) -> Vec<FilterChain> {
    let chain = |index| FilterChain {
        filter_chain_match: Some(FilterChainMatch {
            server_names: vec![format!("host{index}.example.com")],
            transport_protocol: "tls".into(),
            ..FilterChainMatch::default()
        }),
        ..FilterChain::default()
    };
    (0..count).map(chain).collect()
}

fn chain_match(criterion: &mut Criterion) {
    let local = Address::Ip(([127, 0, 0, 1], 80).into());
    let remote = Address::Ip(([10, 0, 0, 1], 1000).into());
    let facts = |server_name, transport_protocol| ConnectionFacts {
        local: &local,
        remote: &remote,
        direct_remote: &remote,
        server_name,
        transport_protocol,
        application_protocols: &[],
    };
    let single = listener(vec![FilterChain::default()]);
    criterion.bench_function("chain_match/one_chain", |bencher| {
        bencher.iter(|| single.chains.find(black_box(&facts("", RAW_BUFFER))).is_some());
    });
    for count in [10, 1000] {
        let many = listener(by_name(count));
        criterion.bench_function(&format!("chain_match/server_name_of_{count}"), |bencher| {
            bencher.iter(|| many.chains.find(black_box(&facts("host7.example.com", "tls"))).is_some());
        });
    }
}

criterion_group!(benches, chain_match);
criterion_main!(benches);

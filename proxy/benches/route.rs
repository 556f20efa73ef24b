//! How long it takes to find a route among 10 and among 5,000.
//!
//! * `mixed`: half prefixes, a quarter exact paths, a quarter regular expressions, over 100 hosts (over 1 for ten routes).
//! * `headers`: all routes on one prefix, each needing another value of one header.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, NonForwardingAction, Route, RouteConfiguration, RouteMatch, VirtualHost,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use filters::config::Session;
use filters::http::{HeaderName, RequestHead};
use filters::matcher::{NoRuntime, RegexLimits};
use legate::config::route::RouteEnv;
use legate::route::{MatchInput, RouteTable, Selection};

fn route(specifier: PathSpecifier, headers: Vec<HeaderMatcher>) -> Route {
    Route {
        r#match: Some(RouteMatch { path_specifier: Some(specifier), headers, ..RouteMatch::default() }),
        action: Some(Action::NonForwardingAction(NonForwardingAction {})),
        ..Route::default()
    }
}

fn mixed_route(n: usize) -> Route {
    let specifier = match n % 4 {
        0 => PathSpecifier::Path(format!("/exact/service-{n}/items")),
        1 => PathSpecifier::SafeRegex(RegexMatcher {
            regex: format!("/regex/service-{n}/[0-9]+/detail"),
            engine_type: None,
        }),
        _ => PathSpecifier::Prefix(format!("/api/service-{n}/")),
    };
    route(specifier, Vec::new())
}

fn mixed_path(n: usize) -> String {
    match n % 4 {
        0 => format!("/exact/service-{n}/items?page=1"),
        1 => format!("/regex/service-{n}/4711/detail"),
        _ => format!("/api/service-{n}/items/4711?page=1"),
    }
}

fn host_of(n: usize, hosts: usize) -> String {
    format!("tenant-{}.example.com", n % hosts)
}

fn mixed(routes: usize, hosts: usize) -> (RouteTable, Vec<RequestHead>) {
    let vhost = |host: usize| VirtualHost {
        name: format!("v{host}"),
        domains: vec![host_of(host, hosts)],
        routes: (0..routes).filter(|n| n % hosts == host).map(mixed_route).collect(),
        ..VirtualHost::default()
    };
    let requests = (0..routes).map(|n| head(&host_of(n, hosts), &mixed_path(n))).collect();
    (table((0..hosts).map(vhost).collect()), requests)
}

fn by_header(routes: usize) -> (RouteTable, Vec<RequestHead>) {
    let matcher = |n: usize| HeaderMatcher {
        name: "x-tenant".into(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
            ignore_case: false,
            match_pattern: Some(MatchPattern::Exact(format!("tenant-{n}"))),
        })),
        ..HeaderMatcher::default()
    };
    let vhost = VirtualHost {
        name: "v".into(),
        domains: vec!["*".into()],
        routes: (0..routes).map(|n| route(PathSpecifier::Prefix("/api/".into()), vec![matcher(n)])).collect(),
        ..VirtualHost::default()
    };
    let request = |n: usize| {
        let mut head = head("example.com", "/api/items/4711");
        if let Some(name) = HeaderName::parse(b"x-tenant") {
            head.headers.append(name, format!("tenant-{n}"));
        }
        head
    };
    (table(vec![vhost]), (0..routes).map(request).collect())
}

fn head(authority: &str, path: &str) -> RequestHead {
    RequestHead {
        authority: Bytes::copy_from_slice(authority.as_bytes()),
        path: Bytes::copy_from_slice(path.as_bytes()),
        ..RequestHead::default()
    }
}

fn table(virtual_hosts: Vec<VirtualHost>) -> RouteTable {
    let session = Session::default();
    let env = RouteEnv {
        cluster_exists: &|_| true,
        validate_clusters: false,
        regex: RegexLimits::default(),
        parse_format: |_| Err("no formats here".into()),
    };
    let proto = RouteConfiguration { virtual_hosts, ..RouteConfiguration::default() };
    match RouteTable::parse(proto, session.root(), &env) {
        Ok(table) => table,
        Err(error) => panic!("the benchmark's own table: {error}"),
    }
}

fn select(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    let tables = [
        ("mixed", 10, mixed(10, 1)),
        ("mixed", 5000, mixed(5000, 100)),
        ("headers", 10, by_header(10)),
        ("headers", 5000, by_header(5000)),
    ];
    let input = MatchInput { random: 0, runtime: &NoRuntime, tls: None, metadata: None };
    for (shape, routes, (table, requests)) in &tables {
        let found = |head: &RequestHead| matches!(table.select(head, &input), Selection::Matched { .. });
        assert!(requests.iter().all(found), "every request has its route");
        // Requests in a stride that visits them all, so that caches hold no favourite.
        let mut next = 0;
        group.bench_function(BenchmarkId::new(*shape, routes), |b| {
            b.iter(|| {
                next = (next + 1237) % requests.len();
                found(black_box(&requests[next]))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, select);
criterion_main!(benches);

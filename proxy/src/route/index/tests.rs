//! The index must answer what the walk answers, on any table and request.

use bytes::Bytes;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_match::{ConnectMatcher, PathSpecifier};
use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, NonForwardingAction, Route, RouteConfiguration, RouteMatch, VirtualHost,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use envoy_types::pb::google::protobuf::BoolValue;
use filters::config::Session;
use filters::http::{HeaderName, Method, RequestHead};
use filters::matcher::{NoRuntime, RegexLimits};
use proptest::prelude::*;

use crate::config::route::RouteEnv;
use crate::route::{MatchInput, RouteTable, Selection};

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["/", "a", "b", "A", "ab", "/a", "/ab"]), 0..5)
        .prop_map(|parts| format!("/{}", parts.concat()))
}

fn specifier() -> impl Strategy<Value = PathSpecifier> {
    prop_oneof![
        4 => path().prop_map(PathSpecifier::Prefix),
        4 => path().prop_map(PathSpecifier::Path),
        2 => path().prop_map(|path| PathSpecifier::PathSeparatedPrefix(format!("{}/c", path.trim_end_matches('/')))),
        2 => path().prop_map(|path| PathSpecifier::PathSeparatedPrefix(format!("{}/a", path.trim_end_matches('/')))),
        3 => (path(), prop::sample::select(vec!["", ".*", "*", "?b", "+", "|/b", "(a|b)", "[ab]*"]))
            .prop_map(|(path, tail)| PathSpecifier::SafeRegex(RegexMatcher { regex: path + tail, engine_type: None })),
        1 => Just(PathSpecifier::ConnectMatcher(ConnectMatcher {})),
    ]
}

fn header() -> impl Strategy<Value = HeaderMatcher> {
    let name = prop::sample::select(vec!["x-a", "x-b", ":method", "host"]);
    let value = prop::sample::select(vec!["", "1", "2", "3", "GET"]);
    (name, value, prop::bool::weighted(0.1), prop::bool::weighted(0.1), prop::bool::weighted(0.8)).prop_map(
        |(name, value, invert_match, treat_missing_header_as_empty, exact)| {
            let text = value.to_owned();
            let match_pattern =
                Some(if exact || value.is_empty() { MatchPattern::Exact(text) } else { MatchPattern::Prefix(text) });
            HeaderMatcher {
                name: name.to_owned(),
                invert_match,
                treat_missing_header_as_empty,
                header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
                    ignore_case: false,
                    match_pattern,
                })),
            }
        },
    )
}

fn route() -> impl Strategy<Value = Route> {
    (specifier(), prop::collection::vec(header(), 0..3), prop::bool::weighted(0.15)).prop_map(
        |(specifier, headers, ignore_case)| Route {
            r#match: Some(RouteMatch {
                path_specifier: Some(specifier),
                headers,
                case_sensitive: ignore_case.then_some(BoolValue { value: false }),
                ..RouteMatch::default()
            }),
            action: Some(Action::NonForwardingAction(NonForwardingAction {})),
            ..Route::default()
        },
    )
}

fn request() -> impl Strategy<Value = RequestHead> {
    let header = (prop::sample::select(vec!["x-a", "x-b"]), prop::sample::select(vec!["", "1", "2", "3"]));
    let tail = prop::sample::select(vec!["", "", "?q=/a", "#f", ";p", "c", "c/"]);
    (path(), tail, prop::collection::vec(header, 0..4), 0..10_u8).prop_map(|(path, tail, headers, method)| {
        let mut head = RequestHead {
            path: (path + tail).into(),
            authority: Bytes::from_static(b"1"),
            method: if method == 0 { Method::Connect } else { Method::Get },
            ..RequestHead::default()
        };
        if method == 0 {
            head.path = Bytes::new();
        }
        for (name, value) in headers {
            head.headers.append(HeaderName::parse(name.as_bytes()).expect("a name"), value);
        }
        head
    })
}

fn table(routes: Vec<Route>, ignore_path_parameters_in_path_matching: bool) -> RouteTable {
    let vhost = VirtualHost { name: "v".into(), domains: vec!["*".into()], routes, ..VirtualHost::default() };
    let proto = RouteConfiguration {
        virtual_hosts: vec![vhost],
        ignore_path_parameters_in_path_matching,
        ..RouteConfiguration::default()
    };
    let session = Session::default();
    let env = RouteEnv {
        cluster_exists: &|_| true,
        validate_clusters: false,
        regex: RegexLimits::default(),
        parse_format: |_| Err("no formats here".into()),
    };
    RouteTable::parse(proto, session.root(), &env).expect("valid")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_agrees_with_the_walk(
        routes in prop::collection::vec(route(), 0..60),
        requests in prop::collection::vec(request(), 1..40),
        ignore_parameters in any::<bool>(),
    ) {
        let table = table(routes, ignore_parameters);
        let input = MatchInput { random: 0, runtime: &NoRuntime, tls: None, metadata: None };
        let number = |selection: Selection<'_>| match selection {
            Selection::Matched { id, route, .. } => {
                let (_, again) = table.resolve(id).expect("its own id");
                assert!(std::sync::Arc::ptr_eq(again, route), "an id finds its route again");
                Some(id)
            }
            _ => None,
        };
        for head in &requests {
            prop_assert_eq!(
                number(table.select(head, &input)),
                number(table.select_by_scan(head, &input)),
                "{:?}", head
            );
        }
    }
}

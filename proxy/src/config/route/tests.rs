//! Verdicts as measured on Envoy 1.40, on the same configurations and requests.

mod refusals;

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{DataSource, HeaderValue};
use envoy_types::pb::envoy::config::route::v3::redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier};
use envoy_types::pb::envoy::config::route::v3::retry_policy::RetryBackOff;
use envoy_types::pb::envoy::config::route::v3::route_action::upgrade_config::ConnectConfig;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration, RequestMirrorPolicy, UpgradeConfig,
};
use envoy_types::pb::envoy::config::route::v3::route_match::{GrpcRouteMatchOptions, PathSpecifier};
use envoy_types::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier as WeightHost;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::{ClusterWeight, RandomValueSpecifier};
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, NonForwardingAction, RedirectAction, RetryPolicy as RetryProto, RouteAction, RouteMatch,
    WeightedCluster,
};
use envoy_types::pb::envoy::config::route::v3::{FilterConfig, VirtualHost as VirtualHostProto};
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};
use envoy_types::pb::google::protobuf::UInt32Value;
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration as DurationProto};
use filters::config::Session;
use filters::http::{Known, RequestHead, Scheme};
use filters::http_filter::FilterSettings;
use filters::matcher::NoRuntime;
use filters::mutation::{ValueContext, ValueFormat};
use filters::stream_info::{Address, ConnectionInfo, StreamInfo};
use prost::Message;

use super::*;
use crate::route::action::ClusterName;
use crate::route::policy::{GrpcTimeout, GrpcTimeoutTarget};
use crate::route::{MatchInput, RouteAction as Runtime, Selection};

/// Texts whose commands are `%REQ(name)%`.
#[derive(Debug)]
struct Formats(Vec<(String, Option<HeaderKey>)>);

impl ValueFormat for Formats {
    fn append_to(&self, out: &mut Vec<u8>, context: &ValueContext<'_>, empty_for_missing: bool) {
        for (text, key) in &self.0 {
            out.extend_from_slice(text.as_bytes());
            let Some(key) = key else { continue };
            match context.request.and_then(|head| head.value(key)) {
                Some(value) => out.extend_from_slice(value),
                None if empty_for_missing => {}
                None => out.push(b'-'),
            }
        }
    }
}

fn parse_format(text: &str) -> Result<Box<dyn ValueFormat>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("%REQ(") {
        let (name, after) = after.split_once(")%").ok_or("unfinished")?;
        parts.push((before.to_owned(), HeaderKey::parse(name)));
        rest = after;
    }
    if rest.contains('%') {
        return Err("Not supported field in StreamInfo: NOPE".into());
    }
    parts.push((rest.to_owned(), None));
    Ok(Box::new(Formats(parts)))
}

fn info() -> StreamInfo {
    let unnamed = Address::Pipe("".into());
    let connection = ConnectionInfo::between(unnamed.clone(), unnamed);
    StreamInfo::new(Rc::new(connection), Instant::now(), SystemTime::now(), 1)
}

fn parse(proto: RouteConfiguration) -> Result<RouteTable, ConfigError> {
    let session = Session::default();
    let env = RouteEnv {
        cluster_exists: &|name| name == "c" || name == "d",
        validate_clusters: true,
        regex: RegexLimits::default(),
        parse_format,
    };
    RouteTable::parse(proto, session.root(), &env)
}

fn prefix(text: &str) -> RouteMatch {
    matching(PathSpecifier::Prefix(text.into()))
}

fn matching(specifier: PathSpecifier) -> RouteMatch {
    RouteMatch { path_specifier: Some(specifier), ..RouteMatch::default() }
}

fn route(r#match: RouteMatch, action: Action) -> RouteProto {
    RouteProto { r#match: Some(r#match), action: Some(action), ..RouteProto::default() }
}

fn named(name: &str, r#match: RouteMatch) -> RouteProto {
    RouteProto { name: name.into(), ..route(r#match, Action::NonForwardingAction(NonForwardingAction {})) }
}

fn forward(action: RouteAction) -> RouteProto {
    let specifier = action.cluster_specifier.clone().or_else(|| Some(ClusterSpecifier::Cluster("c".into())));
    route(prefix("/"), Action::Route(RouteAction { cluster_specifier: specifier, ..action }))
}

fn host(name: &str, domains: &[&str], routes: Vec<RouteProto>) -> VirtualHostProto {
    let domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
    VirtualHostProto { name: name.into(), domains, routes, ..VirtualHostProto::default() }
}

fn of_hosts(virtual_hosts: Vec<VirtualHostProto>) -> RouteConfiguration {
    RouteConfiguration { name: "rc".into(), virtual_hosts, ..RouteConfiguration::default() }
}

fn of_route(route: RouteProto) -> RouteConfiguration {
    of_hosts(vec![host("v", &["*"], vec![route])])
}

fn head(authority: &str, path: &str) -> RequestHead {
    RequestHead {
        authority: Bytes::copy_from_slice(authority.as_bytes()),
        path: Bytes::copy_from_slice(path.as_bytes()),
        ..RequestHead::default()
    }
}

fn with(mut head: RequestHead, headers: &[(&str, &str)]) -> RequestHead {
    for (name, value) in headers {
        head.headers.append(HeaderName::parse(name.as_bytes()).expect("a name"), (*value).to_owned());
    }
    head
}

const INPUT: MatchInput<'static> = MatchInput { random: 0, runtime: &NoRuntime, tls: None, metadata: None };

fn selected(table: &RouteTable, head: &RequestHead) -> Option<Arc<Route>> {
    match table.select(head, &INPUT) {
        Selection::Matched { route, .. } => Some(Arc::clone(route)),
        _ => None,
    }
}

fn add(key: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    let header = HeaderValue { key: key.into(), value: value.into(), ..HeaderValue::default() };
    HeaderValueOption { header: Some(header), append_action: action.into(), ..HeaderValueOption::default() }
}

fn substitute(pattern: &str, text: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute {
        pattern: Some(RegexMatcher { regex: pattern.into(), engine_type: None }),
        substitution: text.into(),
    }
}

fn weight(name: &str, weight: Option<u32>) -> ClusterWeight {
    ClusterWeight { name: name.into(), weight: weight.map(|value| UInt32Value { value }), ..ClusterWeight::default() }
}

fn weighted(clusters: Vec<ClusterWeight>) -> RouteAction {
    let weighted = WeightedCluster { clusters, ..WeightedCluster::default() };
    RouteAction { cluster_specifier: Some(ClusterSpecifier::WeightedClusters(weighted)), ..RouteAction::default() }
}

fn seconds(seconds: i64) -> Option<DurationProto> {
    Some(DurationProto { seconds, nanos: 0 })
}

#[test]
fn virtual_hosts_by_precedence() {
    let one = |name: &str, domains: &[&str]| host(name, domains, vec![named(name, prefix("/"))]);
    let hosts = || {
        vec![
            one("default", &["*"]),
            one("exact", &["foo.com", "bar.com:81", "[::1]:80", "[::2]"]),
            one("*.com", &["*.com"]),
            one("*-x.com", &["*-x.com"]),
            one("foo.*", &["foo.*"]),
            one("foo.b*", &["foo.b*"]),
            one("a*b", &["a*b"]),
            one("*z*", &["*z*"]),
        ]
    };
    let plain = parse(of_hosts(hosts())).expect("valid");
    let ignoring = RouteConfiguration { ignore_port_in_host_matching: true, ..of_hosts(hosts()) };
    let ignoring = parse(ignoring).expect("valid");
    for (authority, expected, without_port) in [
        ("foo.com", "exact", "exact"),
        ("FOO.com", "exact", "exact"),
        ("foo.com:80", "foo.*", "exact"),
        ("bar.com:81", "exact", "*.com"),
        ("bar.com", "*.com", "*.com"),
        (".com", "default", "default"),
        ("x.com", "*.com", "*.com"),
        ("a-x.com", "*-x.com", "*-x.com"),
        ("-x.com", "*.com", "*.com"),
        ("foo.", "default", "default"),
        ("foo.a", "foo.*", "foo.*"),
        ("foo.b", "foo.*", "foo.*"),
        ("foo.bc", "foo.b*", "foo.b*"),
        ("foo.com.com", "*.com", "*.com"),
        ("a*b", "a*b", "a*b"),
        ("axb", "default", "default"),
        ("", "default", "default"),
        ("[::1]:80", "exact", "default"),
        ("[::1]", "default", "default"),
        ("[::2]", "exact", "exact"),
        ("[::2]:80", "default", "exact"),
        ("aqz*", "*z*", "*z*"),
    ] {
        let name = |table: &RouteTable| selected(table, &head(authority, "/")).map(|route| route.name.to_string());
        assert_eq!(name(&plain).as_deref(), Some(expected), "{authority}");
        assert_eq!(name(&ignoring).as_deref(), Some(without_port), "{authority}, port ignored");
    }
    let by_header = RouteConfiguration { vhost_header: "x-vh".into(), ..of_hosts(hosts()) };
    let by_header = parse(by_header).expect("valid");
    assert!(matches!(by_header.select(&head("foo.com", "/"), &INPUT), Selection::NoVirtualHost));
    let named_host = with(head("h", "/"), &[("x-vh", "FOO.com")]);
    assert_eq!(selected(&by_header, &named_host).map(|route| route.name.to_string()).as_deref(), Some("exact"));
}

#[test]
fn paths_by_kind() {
    use PathSpecifier as S;
    let regex = |text: &str| S::SafeRegex(RegexMatcher { regex: text.into(), engine_type: None });
    let any_case = |specifier| RouteMatch { case_sensitive: Some(BoolValue { value: false }), ..matching(specifier) };
    let paths = ["/a", "/a/", "/ab", "/a?x", "/a#f", "/a/b", "/A", "/aB", "/a;p", "/", "/b", "/a%2f", "/a?"];
    for (condition, verdicts, without_parameters) in [
        (prefix("/a"), "yyyyyy.yy..yy", "yyyyyy.yy..yy"),
        (matching(S::Path("/a".into())), "y..yy.......y", "y..yy...y...y"),
        (matching(regex("/a")), "y..yy.......y", "y..yy...y...y"),
        (matching(S::PathSeparatedPrefix("/a".into())), "yy.yyy......y", "yy.yyy..y...y"),
        (any_case(S::Prefix("/A".into())), "yyyyyyyyy..yy", "yyyyyyyyy..yy"),
        (any_case(S::Path("/A".into())), "y..yy.y.....y", "y..yy.y.y...y"),
        (any_case(regex("/A")), "......y......", "......y......"),
        (any_case(S::PathSeparatedPrefix("/A".into())), "yy.yyyy.....y", "yy.yyyy.y...y"),
        (prefix("/a?x"), ".............", "............."),
        (prefix(""), "yyyyyyyyyyyyy", "yyyyyyyyyyyyy"),
    ] {
        for (ignore, expected) in [(false, verdicts), (true, without_parameters)] {
            let mut proto = of_route(named("", condition.clone()));
            proto.ignore_path_parameters_in_path_matching = ignore;
            let table = parse(proto).expect("valid");
            let got: String =
                paths.iter().map(|path| if selected(&table, &head("h", path)).is_some() { 'y' } else { '.' }).collect();
            assert_eq!(got, expected, "{condition:?} {ignore}");
        }
    }
}

#[test]
fn grpc_is_a_content_type() {
    let condition = RouteMatch { grpc: Some(GrpcRouteMatchOptions {}), ..prefix("/") };
    let table = parse(of_route(named("", condition))).expect("valid");
    for (value, expected) in [
        ("application/grpc", true),
        ("application/grpc+x", true),
        ("application/grpc-web", false),
        ("application/grpcx", false),
        ("APPLICATION/GRPC", false),
    ] {
        let head = with(head("h", "/"), &[("content-type", value)]);
        assert_eq!(selected(&table, &head).is_some(), expected, "{value}");
    }
}

#[test]
fn redirects_say_where() {
    use PathRewriteSpecifier as P;
    let base = RedirectAction::default;
    let scheme = |specifier| RedirectAction { scheme_rewrite_specifier: Some(specifier), ..base() };
    let https = || scheme(SchemeRewriteSpecifier::HttpsRedirect(true));
    let path = |specifier| RedirectAction { path_rewrite_specifier: Some(specifier), ..base() };
    let strip = |action| RedirectAction { strip_query: true, ..action };
    let new = || P::PrefixRewrite("/new".into());
    let regex = RegexMatcher { regex: "/a.*".into(), engine_type: None };
    let kinds = [
        ("plain", prefix("/a"), base()),
        ("https", prefix("/a"), https()),
        ("scheme", prefix("/a"), scheme(SchemeRewriteSpecifier::SchemeRedirect("FTP".into()))),
        ("host", prefix("/a"), RedirectAction { host_redirect: "new.com".into(), ..base() }),
        ("port", prefix("/a"), RedirectAction { port_redirect: 8080, ..base() }),
        ("https-port", prefix("/a"), RedirectAction { port_redirect: 443, ..https() }),
        ("path", prefix("/a"), path(P::PathRedirect("/n".into()))),
        ("pathq", prefix("/a"), path(P::PathRedirect("/n?z=1".into()))),
        ("path-strip", prefix("/a"), strip(path(P::PathRedirect("/n".into())))),
        ("prefix", prefix("/a"), path(new())),
        ("prefix-strip", prefix("/a"), strip(path(new()))),
        ("strip", prefix("/a"), strip(base())),
        ("regex", prefix("/a"), path(P::RegexRewrite(substitute("a(.)", "x\\1x")))),
        ("exact-prefix", matching(PathSpecifier::Path("/a".into())), path(new())),
        ("regexm-prefix", matching(PathSpecifier::SafeRegex(regex)), path(new())),
        ("psp-prefix", matching(PathSpecifier::PathSeparatedPrefix("/a".into())), path(new())),
        ("ci-prefix", RouteMatch { case_sensitive: Some(BoolValue { value: false }), ..prefix("/A") }, path(new())),
        ("pathfmt", prefix("/a"), path(P::PathRewrite("/p%REQ(x-v)%".into()))),
        ("pathfmt-empty", prefix("/a"), path(P::PathRewrite("%REQ(nope)%".into()))),
        ("path-hash", prefix("/a"), path(P::PathRedirect("/n#f".into()))),
        ("code", prefix("/a"), RedirectAction { response_code: 4, ..base() }),
    ];
    let hosts = kinds.into_iter().map(|(name, condition, action)| {
        let domains = [name.to_owned(), format!("{name}:*")];
        host(name, &[&domains[0], &domains[1]], vec![route(condition, Action::Redirect(action))])
    });
    let table = parse(of_hosts(hosts.collect())).expect("valid");
    for (kind, authority, path, status, location) in [
        ("plain", "plain", "/a?q=1", 301, "http://plain/a?q=1"),
        ("plain", "plain:80", "/ab/c?q=1", 301, "http://plain:80/ab/c?q=1"),
        ("plain", "plain:443", "/a", 301, "http://plain:443/a"),
        ("plain", "plain:81", "/a", 301, "http://plain:81/a"),
        ("https", "https", "/a?q=1", 301, "https://https/a?q=1"),
        ("https", "https:80", "/ab/c?q=1", 301, "https://https/ab/c?q=1"),
        ("https", "https:443", "/a", 301, "https://https:443/a"),
        ("https", "https:81", "/a", 301, "https://https:81/a"),
        ("scheme", "scheme", "/a?q=1", 301, "FTP://scheme/a?q=1"),
        ("scheme", "scheme:80", "/ab/c?q=1", 301, "FTP://scheme/ab/c?q=1"),
        ("scheme", "scheme:443", "/a", 301, "FTP://scheme:443/a"),
        ("scheme", "scheme:81", "/a", 301, "FTP://scheme:81/a"),
        ("host", "host", "/a?q=1", 301, "http://new.com/a?q=1"),
        ("host", "host:80", "/ab/c?q=1", 301, "http://new.com/ab/c?q=1"),
        ("host", "host:443", "/a", 301, "http://new.com/a"),
        ("host", "host:81", "/a", 301, "http://new.com/a"),
        ("port", "port", "/a?q=1", 301, "http://port:8080/a?q=1"),
        ("port", "port:80", "/ab/c?q=1", 301, "http://port:8080/ab/c?q=1"),
        ("port", "port:443", "/a", 301, "http://port:8080/a"),
        ("port", "port:81", "/a", 301, "http://port:8080/a"),
        ("https-port", "https-port", "/a?q=1", 301, "https://https-port:443/a?q=1"),
        ("https-port", "https-port:80", "/ab/c?q=1", 301, "https://https-port:443/ab/c?q=1"),
        ("https-port", "https-port:443", "/a", 301, "https://https-port:443/a"),
        ("https-port", "https-port:81", "/a", 301, "https://https-port:443/a"),
        ("path", "path", "/a?q=1", 301, "http://path/n?q=1"),
        ("path", "path:80", "/ab/c?q=1", 301, "http://path:80/n?q=1"),
        ("path", "path:443", "/a", 301, "http://path:443/n"),
        ("path", "path:81", "/a", 301, "http://path:81/n"),
        ("pathq", "pathq", "/a?q=1", 301, "http://pathq/n?z=1"),
        ("pathq", "pathq:80", "/ab/c?q=1", 301, "http://pathq:80/n?z=1"),
        ("pathq", "pathq:443", "/a", 301, "http://pathq:443/n?z=1"),
        ("pathq", "pathq:81", "/a", 301, "http://pathq:81/n?z=1"),
        ("path-strip", "path-strip", "/a?q=1", 301, "http://path-strip/n"),
        ("path-strip", "path-strip:80", "/ab/c?q=1", 301, "http://path-strip:80/n"),
        ("path-strip", "path-strip:443", "/a", 301, "http://path-strip:443/n"),
        ("path-strip", "path-strip:81", "/a", 301, "http://path-strip:81/n"),
        ("prefix", "prefix", "/a?q=1", 301, "http://prefix/new?q=1"),
        ("prefix", "prefix:80", "/ab/c?q=1", 301, "http://prefix:80/newb/c?q=1"),
        ("prefix", "prefix:443", "/a", 301, "http://prefix:443/new"),
        ("prefix", "prefix:81", "/a", 301, "http://prefix:81/new"),
        ("prefix-strip", "prefix-strip", "/a?q=1", 301, "http://prefix-strip/new"),
        ("prefix-strip", "prefix-strip:80", "/ab/c?q=1", 301, "http://prefix-strip:80/newb/c"),
        ("prefix-strip", "prefix-strip:443", "/a", 301, "http://prefix-strip:443/new"),
        ("prefix-strip", "prefix-strip:81", "/a", 301, "http://prefix-strip:81/new"),
        ("strip", "strip", "/a?q=1", 301, "http://strip/a"),
        ("strip", "strip:80", "/ab/c?q=1", 301, "http://strip:80/ab/c"),
        ("strip", "strip:443", "/a", 301, "http://strip:443/a"),
        ("strip", "strip:81", "/a", 301, "http://strip:81/a"),
        ("regex", "regex", "/a?q=1", 301, "http://regex/a?q=1"),
        ("regex", "regex:80", "/ab/c?q=1", 301, "http://regex:80/xbx/c?q=1"),
        ("regex", "regex:443", "/a", 301, "http://regex:443/a"),
        ("regex", "regex:81", "/a", 301, "http://regex:81/a"),
        ("exact-prefix", "exact-prefix", "/a?q=1", 301, "http://exact-prefix/new?q=1"),
        ("exact-prefix", "exact-prefix:443", "/a", 301, "http://exact-prefix:443/new"),
        ("exact-prefix", "exact-prefix:81", "/a", 301, "http://exact-prefix:81/new"),
        ("regexm-prefix", "regexm-prefix", "/a?q=1", 301, "http://regexm-prefix/new?q=1"),
        ("regexm-prefix", "regexm-prefix:80", "/ab/c?q=1", 301, "http://regexm-prefix:80/new?q=1"),
        ("regexm-prefix", "regexm-prefix:443", "/a", 301, "http://regexm-prefix:443/new"),
        ("regexm-prefix", "regexm-prefix:81", "/a", 301, "http://regexm-prefix:81/new"),
        ("psp-prefix", "psp-prefix", "/a?q=1", 301, "http://psp-prefix/new?q=1"),
        ("psp-prefix", "psp-prefix:443", "/a", 301, "http://psp-prefix:443/new"),
        ("psp-prefix", "psp-prefix:81", "/a", 301, "http://psp-prefix:81/new"),
        ("ci-prefix", "ci-prefix", "/a?q=1", 301, "http://ci-prefix/new?q=1"),
        ("ci-prefix", "ci-prefix:80", "/ab/c?q=1", 301, "http://ci-prefix:80/newb/c?q=1"),
        ("ci-prefix", "ci-prefix:443", "/a", 301, "http://ci-prefix:443/new"),
        ("ci-prefix", "ci-prefix:81", "/a", 301, "http://ci-prefix:81/new"),
        ("pathfmt", "pathfmt", "/a?q=1", 301, "http://pathfmt/pval?q=1"),
        ("pathfmt", "pathfmt:80", "/ab/c?q=1", 301, "http://pathfmt:80/pval?q=1"),
        ("pathfmt", "pathfmt:443", "/a", 301, "http://pathfmt:443/pval"),
        ("pathfmt", "pathfmt:81", "/a", 301, "http://pathfmt:81/pval"),
        ("pathfmt-empty", "pathfmt-empty", "/a?q=1", 301, "http://pathfmt-empty/a?q=1"),
        ("pathfmt-empty", "pathfmt-empty:80", "/ab/c?q=1", 301, "http://pathfmt-empty:80/ab/c?q=1"),
        ("pathfmt-empty", "pathfmt-empty:443", "/a", 301, "http://pathfmt-empty:443/a"),
        ("pathfmt-empty", "pathfmt-empty:81", "/a", 301, "http://pathfmt-empty:81/a"),
        ("path-hash", "path-hash", "/a?q=1", 301, "http://path-hash/n#f?q=1"),
        ("path-hash", "path-hash:80", "/ab/c?q=1", 301, "http://path-hash:80/n#f?q=1"),
        ("path-hash", "path-hash:443", "/a", 301, "http://path-hash:443/n#f"),
        ("path-hash", "path-hash:81", "/a", 301, "http://path-hash:81/n#f"),
        ("code", "code", "/a?q=1", 308, "http://code/a?q=1"),
        ("code", "code:80", "/ab/c?q=1", 308, "http://code:80/ab/c?q=1"),
        ("code", "code:443", "/a", 308, "http://code:443/a"),
        ("code", "code:81", "/a", 308, "http://code:81/a"),
    ] {
        let mut head = with(head(authority, path), &[("x-v", "val")]);
        let route = selected(&table, &head).expect(kind);
        let Runtime::Redirect(redirect) = &route.action else { panic!("{kind} redirects") };
        redirect.rewrite_path(&mut head, &route.matcher.path, &info(), true);
        let got = redirect.location(&head, &info());
        assert_eq!((redirect.status, &got[..]), (status, location.as_bytes()), "{kind} {authority}{path}");
    }
    let table = parse(of_route(route(
        prefix("/"),
        Action::Redirect(scheme(SchemeRewriteSpecifier::SchemeRedirect("http".into()))),
    )));
    let table = table.expect("valid");
    for (authority, location) in [("h:443", "http://h/"), ("h:80", "http://h:80/")] {
        let head = RequestHead { scheme: Scheme::Https, ..head(authority, "/") };
        let route = selected(&table, &head).expect("matches");
        let Runtime::Redirect(redirect) = &route.action else { panic!("redirects") };
        assert_eq!(redirect.location(&head, &info()), location, "{authority}");
    }
}

#[test]
fn levels_change_headers_in_order() {
    use HeaderAppendAction::{AddIfAbsent, AppendIfExistsOrAdd, OverwriteIfExistsOrAdd};
    let adds = |level: &str| {
        vec![
            add("x-l", level, AppendIfExistsOrAdd),
            add("x-o", level, OverwriteIfExistsOrAdd),
            add("x-abs", level, AddIfAbsent),
            add("x-see", &format!("%REQ(x-l)%-{level}"), AppendIfExistsOrAdd),
        ]
    };
    let proto = |most_specific_header_mutations_wins| {
        let entry = ClusterWeight { request_headers_to_add: adds("w"), ..weight("c", Some(1)) };
        let route = RouteProto {
            request_headers_to_add: adds("r"),
            request_headers_to_remove: vec!["x-rm-r".into()],
            ..forward(weighted(vec![entry]))
        };
        let vhost = VirtualHostProto { request_headers_to_add: adds("v"), ..host("v", &["*"], vec![route]) };
        RouteConfiguration {
            request_headers_to_add: adds("t"),
            most_specific_header_mutations_wins,
            ..of_hosts(vec![vhost])
        }
    };
    for (wins, expected) in [
        (
            false,
            "x-l: orig|x-l: w|x-abs: w|x-see: orig-w|x-l: r|x-see: orig-r|x-l: v|x-see: orig-v|x-o: t|x-l: t|x-see: orig-t",
        ),
        (
            true,
            "x-l: orig|x-l: w|x-abs: w|x-see: orig-w|x-l: t|x-see: orig-t|x-l: v|x-see: orig-v|x-o: r|x-l: r|x-see: orig-r",
        ),
    ] {
        let table = parse(proto(wins)).expect("valid");
        let mut head = with(head("h", "/"), &[("x-l", "orig"), ("x-o", "orig"), ("x-rm-r", "1")]);
        let route = selected(&table, &head).expect("matches");
        let choice = route.choose_cluster(&head, 0, &NoRuntime).expect("forwards");
        route.finalize_request(&mut head, Some(&choice), &info(), true);
        assert_eq!(written(&head), expected, "{wins}");
    }
}

fn written(head: &RequestHead) -> String {
    let line = |header: &filters::http::Header| format!("{}: {}", header.name, String::from_utf8_lossy(&header.value));
    head.headers.iter().map(line).collect::<Vec<_>>().join("|")
}

#[test]
fn rewrites_by_table() {
    use HostRewriteSpecifier as H;
    let base = RouteAction::default;
    let on_host = |specifier| RouteAction { host_rewrite_specifier: Some(specifier), ..base() };
    let regex = |pattern: &str, text: &str| RouteAction { regex_rewrite: Some(substitute(pattern, text)), ..base() };
    let path = |text: &str| RouteAction { path_rewrite: text.into(), ..base() };
    let old_path = "x-envoy-original-path: /a/b?a=1";
    let entry = ClusterWeight {
        host_rewrite_specifier: Some(WeightHost::HostRewriteLiteral("whost".into())),
        ..weight("c", Some(1))
    };
    let literal = || H::HostRewriteLiteral("hh".into());
    for (what, action, forwarded, expected) in [
        ("prefix", RouteAction { prefix_rewrite: "/new".into(), ..base() }, "", ("/newa/b?a=1", "old", old_path)),
        (
            "prefix and host",
            RouteAction { prefix_rewrite: "/new".into(), ..on_host(literal()) },
            "",
            ("/newa/b?a=1", "hh", "x-envoy-original-host: old|x-envoy-original-path: /a/b?a=1"),
        ),
        ("regex", regex("a", "b"), "", ("/b/b?a=1", "old", old_path)),
        ("regex, no such group", regex("a", "b\\1"), "", ("/a/b?a=1", "old", old_path)),
        ("regex, stray backslash", regex("a", "b\\"), "", ("/b/b?a=1", "old", old_path)),
        ("regex to nothing", regex(".*", ""), "", ("/a/b?a=1", "old", "")),
        ("path", path("/z%REQ(x-v)%"), "", ("/zval?a=1", "old", old_path)),
        ("path to nothing", path("%REQ(nope)%"), "", ("/a/b?a=1", "old", "")),
        (
            "host by header",
            on_host(H::HostRewriteHeader("x-v".into())),
            "",
            ("/a/b?a=1", "val", "x-envoy-original-host: old"),
        ),
        ("host by no header", on_host(H::HostRewriteHeader("x-none".into())), "", ("/a/b?a=1", "old", "")),
        (
            "host by path",
            on_host(H::HostRewritePathRegex(substitute("^/(.+)/.+$", "\\1"))),
            "",
            ("/a/b?a=1", "a", "x-envoy-original-host: old"),
        ),
        (
            "host by format",
            on_host(H::HostRewrite("p-%REQ(x-v)%".into())),
            "",
            ("/a/b?a=1", "p-val", "x-envoy-original-host: old"),
        ),
        (
            "host by a format without value",
            on_host(H::HostRewrite("%REQ(nope)%".into())),
            "",
            ("/a/b?a=1", "-", "x-envoy-original-host: old"),
        ),
        (
            "host of the entry, then of the route",
            RouteAction { host_rewrite_specifier: Some(literal()), ..weighted(vec![entry.clone()]) },
            "",
            ("/a/b?a=1", "hh", "x-envoy-original-host: whost"),
        ),
        ("host of the entry", weighted(vec![entry]), "", ("/a/b?a=1", "whost", "")),
        (
            "host kept in a list",
            RouteAction { append_x_forwarded_host: true, ..on_host(literal()) },
            "zz, old",
            ("/a/b?a=1", "hh", "x-forwarded-host: zz, old,old|x-envoy-original-host: old"),
        ),
        (
            "host in the list already",
            RouteAction { append_x_forwarded_host: true, ..on_host(literal()) },
            "zz,old",
            ("/a/b?a=1", "hh", "x-forwarded-host: zz,old|x-envoy-original-host: old"),
        ),
        (
            "no list yet",
            RouteAction { append_x_forwarded_host: true, ..on_host(literal()) },
            "",
            ("/a/b?a=1", "hh", "x-envoy-original-host: old|x-forwarded-host: old"),
        ),
    ] {
        let table = parse(of_route(forward(action))).expect(what);
        let mut head = with(head("old", "/a/b?a=1"), &[("x-v", "val")]);
        if !forwarded.is_empty() {
            head.headers.append(Known::XForwardedHost, forwarded);
        }
        let route = selected(&table, &head).expect(what);
        let choice = route.choose_cluster(&head, 0, &NoRuntime).expect(what);
        route.finalize_request(&mut head, Some(&choice), &info(), true);
        head.headers.remove(&HeaderName::parse(b"x-v").expect("a name"));
        let got = (String::from_utf8_lossy(&head.path), String::from_utf8_lossy(&head.authority), written(&head));
        assert_eq!((&*got.0, &*got.1, &*got.2), expected, "{what}");
    }
}

#[test]
fn weights_choose_by_the_random_value() {
    let clusters = vec![weight("c", Some(3)), weight("d", Some(7))];
    let random_value_specifier = Some(RandomValueSpecifier::HeaderName("x-r".into()));
    let proto = WeightedCluster { clusters, random_value_specifier, ..WeightedCluster::default() };
    let action =
        RouteAction { cluster_specifier: Some(ClusterSpecifier::WeightedClusters(proto)), ..RouteAction::default() };
    let table = parse(of_route(forward(action))).expect("valid");
    for (header, random, expected) in [
        (Some("0"), 5, "c"),
        (Some("2"), 5, "c"),
        (Some("3"), 0, "d"),
        (Some("9"), 0, "d"),
        (Some("10"), 5, "c"),
        (Some("13"), 0, "d"),
        (Some("x"), 5, "d"),
        (Some(""), 1, "c"),
        (Some("-1"), 1, "c"),
        (None, 12, "c"),
        (None, 13, "d"),
    ] {
        let mut head = head("h", "/");
        if let Some(value) = header {
            head = with(head, &[("x-r", value)]);
        }
        let route = selected(&table, &head).expect("matches");
        let choice = route.choose_cluster(&head, random, &NoRuntime).expect("forwards");
        assert_eq!(choice.name.as_str(), Some(expected), "{header:?} {random}");
        let Runtime::Forward(forward) = &route.action else { panic!("forwards") };
        assert_eq!(forward.choice_again(choice.ordinal, &head).name, choice.name, "found again");
    }
}

#[test]
fn a_cluster_may_be_named_by_a_header() {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::ClusterHeader("x-c".into())),
        cluster_not_found_response_code: 1,
        ..RouteAction::default()
    };
    let table = parse(of_route(forward(action))).expect("valid");
    for (headers, expected) in [
        (&[("x-c", "d")][..], ClusterName::FromHeader(Bytes::from_static(b"d"))),
        (&[("x-c", "")], ClusterName::None),
        (&[], ClusterName::None),
    ] {
        let head = with(head("h", "/"), headers);
        let route = selected(&table, &head).expect("matches");
        assert_eq!(route.choose_cluster(&head, 0, &NoRuntime).expect("forwards").name, expected);
        let Runtime::Forward(forward) = &route.action else { panic!("forwards") };
        assert_eq!(forward.cluster_not_found, 404);
    }
}

#[test]
fn tls_may_be_required() {
    let table = |require_tls: TlsRequirementType| {
        let vhost = host("v", &["*"], vec![named("r", prefix("/"))]);
        parse(of_hosts(vec![VirtualHostProto { require_tls: require_tls.into(), ..vhost }])).expect("valid")
    };
    use TlsRequirementType as T;
    for (requirement, headers, required) in [
        (T::None, &[][..], false),
        (T::All, &[("x-forwarded-proto", "http")], true),
        (T::All, &[("x-forwarded-proto", "https")], false),
        (T::All, &[("x-forwarded-proto", "http"), ("x-envoy-internal", "true")], true),
        (T::ExternalOnly, &[("x-forwarded-proto", "http")], true),
        (T::ExternalOnly, &[("x-forwarded-proto", "http"), ("x-envoy-internal", "true")], false),
    ] {
        let head = with(head("tls:81", "/p?q"), headers);
        let got = matches!(table(requirement).select(&head, &INPUT), Selection::RequireTls(_));
        assert_eq!(got, required, "{requirement:?} {headers:?}");
        assert_eq!(crate::route::redirect::tls_redirect(&head), "https://tls:81/p?q");
    }
}

#[test]
fn time_limits_have_their_defaults() {
    let limits = |action: RouteAction| {
        let table = parse(of_route(forward(action))).expect("valid");
        let route = selected(&table, &head("h", "/")).expect("matches");
        let Runtime::Forward(forward) = &route.action else { panic!("forwards") };
        forward.timeouts.clone()
    };
    let unset = limits(RouteAction::default());
    assert_eq!((unset.response, unset.idle, unset.grpc), (Some(Duration::from_secs(15)), None, None));
    let off = limits(RouteAction { timeout: seconds(0), idle_timeout: seconds(0), ..RouteAction::default() });
    assert_eq!((off.response, off.idle), (None, Some(Duration::ZERO)), "zero turns off");
    let grpc = limits(RouteAction {
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: seconds(9),
            grpc_timeout_header_max: seconds(5),
            grpc_timeout_header_offset: seconds(1),
        }),
        ..RouteAction::default()
    });
    assert_eq!(grpc.max_stream_duration, Some(Duration::from_secs(9)));
    let rule = grpc.grpc.expect("the header is looked at");
    assert_eq!(rule.target, GrpcTimeoutTarget::StreamDuration);
    assert_eq!(grpc.response, None, "the stream's duration takes its place");
    let free = GrpcTimeout { max: None, ..rule };
    for (rule, wanted, limit) in [(rule, 3, 2), (rule, 8, 4), (rule, 1, 0), (rule, 0, 0), (free, 8, 7)] {
        let got = rule.stream_duration(Duration::from_secs(wanted));
        assert_eq!(got, Duration::from_secs(limit), "{rule:?} {wanted:?}");
    }
    #[expect(deprecated, reason = "Envoy still accepts the fields")]
    let old = RouteAction { max_grpc_timeout: seconds(5), grpc_timeout_offset: seconds(1), ..RouteAction::default() };
    let rule = limits(old).grpc.expect("the header is looked at");
    assert_eq!(rule.target, GrpcTimeoutTarget::Response);
    let free = GrpcTimeout { max: None, ..rule };
    for (rule, wanted, limit) in [
        (rule, Some(3), Some(2)),
        (rule, Some(6), Some(5)),
        (rule, Some(1), Some(1)),
        (rule, Some(0), Some(5)),
        (rule, None, Some(5)),
        (free, None, None),
        (free, Some(8), Some(7)),
    ] {
        let got = rule.response(wanted.map(Duration::from_secs));
        assert_eq!(got, limit.map(Duration::from_secs), "{rule:?} {wanted:?}");
    }
}

#[test]
fn filter_settings_are_found_the_most_specific_first() {
    let any = |wrapped: FilterConfig| Any {
        type_url: "type.googleapis.com/envoy.config.route.v3.FilterConfig".into(),
        value: wrapped.encode_to_vec(),
    };
    let off = any(FilterConfig { disabled: true, ..FilterConfig::default() });
    let plain = Any {
        type_url: "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute".into(),
        value: Vec::new(),
    };
    let on_route =
        RouteProto { typed_per_filter_config: [("f".to_owned(), off)].into(), ..forward(RouteAction::default()) };
    let vhost = VirtualHostProto {
        typed_per_filter_config: [("f".to_owned(), plain.clone()), ("g".to_owned(), plain)].into(),
        ..host("v", &["*"], vec![on_route])
    };
    let table = parse(of_hosts(vec![vhost])).expect("valid");
    let route = selected(&table, &head("h", "/")).expect("matches");
    let all: Vec<_> = route.filter_configs("f", None).map(|config| config.disabled).collect();
    assert_eq!(all, [true, false]);
    assert!(route.filter_configs("g", None).any(|config| matches!(config.settings, Some(FilterSettings::Other))));
    let empty = RouteProto {
        typed_per_filter_config: [("f".to_owned(), any(FilterConfig::default()))].into(),
        ..forward(RouteAction::default())
    };
    let error = parse(of_route(empty)).expect_err("empty");
    assert_eq!(error.message, "Empty route/virtual host per filter configuration for f filter");
    // What is no filter's is nobody's, unless it says that it need not be.
    let nobody = Any { type_url: "type.googleapis.com/envoy.config.core.v3.Node".into(), value: Vec::new() };
    let of = |config: Any| {
        of_route(RouteProto {
            typed_per_filter_config: [("f".to_owned(), config)].into(),
            ..forward(RouteAction::default())
        })
    };
    let error = parse(of(nobody.clone())).expect_err("unknown");
    assert_eq!(
        error.message,
        "Didn't find a registered implementation for 'f' with type URL: 'envoy.config.core.v3.Node'"
    );
    parse(of(any(FilterConfig { config: Some(nobody), is_optional: true, disabled: false }))).expect("optional");
}

#[test]
fn extensions_of_a_retry_policy_are_known_by_their_type() {
    use envoy_types::pb::envoy::config::route::v3::RetryPolicy as Proto;
    use envoy_types::pb::envoy::config::route::v3::retry_policy::{
        RetryHostPredicate, retry_host_predicate::ConfigType,
    };

    let predicate = |type_name: Option<&str>| {
        let any = |name| Any { type_url: format!("type.googleapis.com/{name}"), value: Vec::new() };
        let config_type = type_name.map(|name| ConfigType::TypedConfig(any(name)));
        let policy = Proto {
            retry_host_predicate: vec![RetryHostPredicate { name: "p".to_owned(), config_type }],
            ..Proto::default()
        };
        let action = RouteAction { retry_policy: Some(policy), ..RouteAction::default() };
        parse(of_route(forward(action))).map(drop).map_err(|error| error.message)
    };
    let unknown = |of: &str| Err(format!("Didn't find a registered implementation for 'p' with type URL: '{of}'"));
    assert_eq!(predicate(Some("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate")), Ok(()));
    assert_eq!(predicate(Some("envoy.config.core.v3.Node")), unknown("envoy.config.core.v3.Node"));
    assert_eq!(predicate(None), unknown(""));
}

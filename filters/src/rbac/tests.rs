//! Verdicts by table; those on requests are Envoy's.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use envoy_types::pb::envoy::config::core::v3::{CidrRange as CidrProto, TypedExtensionConfig};
use envoy_types::pb::envoy::config::rbac::v3 as proto;
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as http_proto;
use envoy_types::pb::envoy::extensions::rbac::principals::mtls_authenticated::v3::Config as Mtls;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::SubjectAltNameMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3::Int32Range;
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use prost::Message;
use proto::permission::Rule as May;
use proto::principal::Identifier as Who;
use proto::rbac::Action::{Allow, Deny, Log};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, OtherNameValue, SanType};
use serde_json::{Value, json};
use stats::{Store, StoreOptions};

use super::*;
use crate::config::Session;
use crate::filter_state::Object;
use crate::http_filter::{FilterSettings, RequestContext, RouteContext, Server, Verdict};
use crate::matcher::{NoRuntime, RegexLimits};
use crate::tls::{Certificate, TlsInfo};

const NETWORK: Scope = Scope { layer: Layer::Network, limits: RegexLimits { error_level: 100, warn_level: u32::MAX } };
const HTTP: Scope = Scope { layer: Layer::Http, limits: RegexLimits { error_level: 100, warn_level: u32::MAX } };

fn rbac(action: proto::rbac::Action, policies: &[(&str, May, Who)]) -> proto::Rbac {
    let policy = |(name, may, who): &(&str, May, Who)| {
        let policy = proto::Policy {
            permissions: vec![proto::Permission { rule: Some(may.clone()) }],
            principals: vec![proto::Principal { identifier: Some(who.clone()) }],
            ..proto::Policy::default()
        };
        ((*name).to_owned(), policy)
    };
    proto::Rbac { action: action.into(), policies: policies.iter().map(policy).collect(), audit_logging_options: None }
}

fn rules(scope: Scope, action: proto::rbac::Action, may: May, who: Who) -> Result<Rules, String> {
    let rules = rbac(action, &[("p", may, who)]);
    Rules::parse(&Session::default().root(), rules, scope).map_err(|error| error.to_string())
}

fn range(text: &str, length: u32) -> CidrProto {
    CidrProto { address_prefix: text.into(), prefix_len: Some(UInt32Value { value: length }) }
}

fn exact(text: &str) -> matcher::StringMatcher {
    let pattern = matcher::string_matcher::MatchPattern::Exact(text.into());
    matcher::StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

fn header(name: &str, value: &str) -> HeaderMatcher {
    let specifier = HeaderMatchSpecifier::StringMatch(exact(value));
    HeaderMatcher { name: name.into(), header_match_specifier: Some(specifier), ..HeaderMatcher::default() }
}

fn connection() -> ConnectionInfo {
    let address = |text: &str| Address::Ip(text.parse().expect("address"));
    ConnectionInfo {
        direct_remote: address("9.9.9.9:9"),
        ..ConnectionInfo::between(address("10.0.0.1:5"), address("127.0.0.1:80"))
    }
}

fn stream(connection: ConnectionInfo) -> StreamInfo {
    StreamInfo::new(Rc::new(connection), Instant::now(), SystemTime::UNIX_EPOCH, 1)
}

fn request(path: &'static str) -> RequestHead {
    RequestHead { path: path.into(), ..RequestHead::default() }
}

#[test]
fn a_policy_matches_by_what_is_known_of_a_connection() {
    let not = |rule: May| May::NotRule(Box::new(proto::Permission { rule: Some(rule) }));
    let all = |rules: Vec<May>| {
        let rules = rules.into_iter().map(|rule| proto::Permission { rule: Some(rule) }).collect();
        May::AndRules(proto::permission::Set { rules })
    };
    let ports = |start, end| May::DestinationPortRange(Int32Range { start, end });
    let path = matcher::PathMatcher { rule: Some(matcher::path_matcher::Rule::Path(exact(""))) };
    for (may, who, matches) in [
        (May::Any(true), Who::Any(true), true),
        (May::DestinationPort(80), Who::Any(true), true),
        (May::DestinationPort(81), Who::Any(true), false),
        (ports(1, 80), Who::Any(true), false),
        (ports(80, 81), Who::Any(true), true),
        (not(May::DestinationPort(81)), Who::Any(true), true),
        (all(vec![May::DestinationPort(80), May::DestinationIp(range("10.0.0.0", 8))]), Who::Any(true), false),
        (all(vec![May::DestinationPort(80), May::DestinationIp(range("127.0.0.0", 8))]), Who::Any(true), true),
        (May::UrlPath(path), Who::Any(true), false),
        (May::Any(true), Who::RemoteIp(range("10.0.0.0", 8)), true),
        (May::Any(true), Who::DirectRemoteIp(range("10.0.0.0", 8)), false),
        (May::Any(true), Who::DirectRemoteIp(range("9.0.0.0", 8)), true),
        (May::Any(true), Who::Authenticated(proto::principal::Authenticated::default()), false),
    ] {
        let case = format!("{may:?} {who:?}");
        let judge = |action| {
            let rules = rules(NETWORK, action, may.clone(), who.clone()).expect("valid");
            let judgement = rules.judge(&Caller { connection: &connection(), request: None });
            (judgement.allowed, judgement.policy.map(str::to_owned), judgement.log)
        };
        let named = matches.then(|| "p".to_owned());
        assert_eq!(judge(Allow), (matches, named.clone(), None), "{case}");
        assert_eq!(judge(Deny), (!matches, named.clone(), None), "{case}");
        assert_eq!(judge(Log), (true, named, Some(matches)), "{case}");
    }
}

#[test]
fn a_policy_matches_by_what_a_request_says() {
    let path = |text| May::UrlPath(matcher::PathMatcher { rule: Some(matcher::path_matcher::Rule::Path(exact(text))) });
    let sourced = |source: proto::MetadataSource, value| {
        let segment = matcher::metadata_matcher::path_segment::Segment::Key("k".into());
        let path = vec![matcher::metadata_matcher::PathSegment { segment: Some(segment) }];
        let pattern = matcher::value_matcher::MatchPattern::StringMatch(exact(value));
        let value = Some(matcher::ValueMatcher { match_pattern: Some(pattern) });
        let metadata_matcher = Some(matcher::MetadataMatcher { filter: "ns".into(), path, value, invert: false });
        May::SourcedMetadata(proto::SourcedMetadata { metadata_matcher, metadata_source: source.into() })
    };
    let state = |text| {
        let matcher = Some(matcher::filter_state_matcher::Matcher::StringMatch(exact(text)));
        Who::FilterState(matcher::FilterStateMatcher { key: "key".into(), matcher })
    };
    let mut info = stream(connection());
    info.remote = Address::Ip("8.8.8.8:0".parse().expect("address"));
    let metadata = |value: &str| match json!({"ns": {"k": value}}) {
        Value::Object(metadata) => metadata,
        other => panic!("{other} is an object"),
    };
    info.dynamic_metadata = Some(Box::new(metadata("dynamic")));
    info.route_metadata = Some(Arc::new(metadata("route")));
    info.connection.filter_state.borrow_mut().set("key", Object::Text("kept".into()));
    let head = request("/a?b=c");
    let anyone = Who::Any(true);
    #[expect(deprecated, reason = "it is still there")]
    let source = |range| Who::SourceIp(range);
    for (may, who, matches) in [
        (path("/a"), anyone.clone(), true),
        (path("/a?b=c"), anyone.clone(), false),
        (May::Header(header(":path", "/a?b=c")), anyone.clone(), true),
        (May::Header(header("x", "y")), anyone.clone(), false),
        (sourced(proto::MetadataSource::Dynamic, "dynamic"), anyone.clone(), true),
        (sourced(proto::MetadataSource::Dynamic, "route"), anyone.clone(), false),
        (sourced(proto::MetadataSource::Route, "route"), anyone, true),
        (May::Any(true), Who::RemoteIp(range("8.8.8.8", 32)), true),
        (May::Any(true), source(range("8.8.8.8", 32)), false),
        (May::Any(true), source(range("10.0.0.1", 32)), true),
        (May::Any(true), state("kept"), true),
        (May::Any(true), state("lost"), false),
    ] {
        let case = format!("{may:?} {who:?}");
        let rules = rules(HTTP, Allow, may, who).expect("valid");
        assert_eq!(rules.judge(&Caller::of(&head, &info)).allowed, matches, "{case}");
    }
}

fn certified(validated: bool) -> ConnectionInfo {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "client");
    let ia5 = |text: &str| text.try_into().expect("ASCII");
    params.subject_alt_names = vec![
        SanType::URI(ia5("u:1")),
        SanType::URI(ia5("u:2")),
        SanType::DnsName(ia5("cli.test")),
        SanType::Rfc822Name(ia5("a@b.c")),
        SanType::OtherName((vec![1, 2, 3, 4], OtherNameValue::Utf8String("upn".into()))),
    ];
    let made = params.self_signed(&KeyPair::generate().expect("key")).expect("certificate");
    let peer = vec![Arc::new(Certificate::new(made.der().to_vec()))];
    let connection = connection();
    connection.tls.set(TlsInfo { peer, peer_validated: validated, ..TlsInfo::default() }).expect("empty");
    connection
}

#[test]
fn principals_are_authenticated_by_any_of_their_names() {
    let named = |name: &str| Who::Authenticated(proto::principal::Authenticated { principal_name: Some(exact(name)) });
    let anyone = || Who::Authenticated(proto::principal::Authenticated::default());
    let anonymous = connection();
    anonymous.tls.set(TlsInfo::default()).expect("empty");
    let (client, plain) = (certified(true), connection());
    for (who, by_client, by_anonymous) in [
        (named("u:1"), true, false),
        (named("u:2"), true, false),
        (named("cli.test"), true, false),
        (named("CN=client"), true, false),
        (named("a@b.c"), false, false),
        (named(""), false, true),
        (anyone(), true, true),
    ] {
        let case = format!("{who:?}");
        let rules = rules(HTTP, Allow, May::Any(true), who).expect("valid");
        let allowed = |connection| rules.judge(&Caller { connection, request: None }).allowed;
        assert_eq!(
            (allowed(&client), allowed(&anonymous), allowed(&plain)),
            (by_client, by_anonymous, false),
            "{case}"
        );
    }
}

fn mtls(config: &Mtls) -> Who {
    let type_url = "type.googleapis.com/envoy.extensions.rbac.principals.mtls_authenticated.v3.Config".into();
    let typed_config = Some(Any { type_url, value: config.encode_to_vec() });
    Who::Custom(TypedExtensionConfig { name: "mtls".into(), typed_config })
}

#[test]
fn checked_certificates_authenticate() {
    let san = |san_type, text: &str, oid: &str| Mtls {
        san_matcher: Some(SubjectAltNameMatcher { san_type, matcher: Some(exact(text)), oid: oid.into() }),
        any_validated_client_certificate: true,
    };
    let any = Mtls { san_matcher: None, any_validated_client_certificate: true };
    for (config, matches) in [
        (any, true),
        (san(2, "cli.test", ""), true),
        (san(2, "CLI.test", ""), true),
        (san(2, "u:1", ""), false),
        (san(3, "u:2", ""), true),
        (san(1, "a@b.c", ""), true),
        (san(4, "10.0.0.1", ""), false),
        (san(5, "upn", "1.2.3.4"), true),
        (san(5, "upn", "1.2.3.5"), false),
    ] {
        let rules = rules(HTTP, Allow, May::Any(true), mtls(&config)).expect("valid");
        let allowed = |connection: &ConnectionInfo| rules.judge(&Caller { connection, request: None }).allowed;
        assert_eq!(allowed(&certified(true)), matches, "{config:?}");
        assert!(!allowed(&certified(false)) && !allowed(&connection()), "{config:?}");
    }
    for (config, expected) in [
        (Mtls::default(), "did not have any configured validation"),
        (san(5, "a", ""), "Failed to create SAN matcher for OTHER_NAME with OID: "),
        (san(0, "a", ""), "value must not be in list [SAN_TYPE_UNSPECIFIED]"),
    ] {
        let error = rules(HTTP, Allow, May::Any(true), mtls(&config)).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_a_connection_does_not_have_is_refused() {
    let of = |scope, may, who| rules(scope, Allow, may, who);
    let ports = |start, end| May::DestinationPortRange(Int32Range { start, end });
    for (outcome, expected) in [
        (of(NETWORK, May::Header(header("x", "y")), Who::Any(true)), "not supported by RBAC network filter"),
        (of(NETWORK, May::Any(true), Who::Header(header("x", "y"))), "not supported by RBAC network filter"),
        (of(HTTP, May::Any(false), Who::Any(true)), "value must equal true"),
        (of(HTTP, May::DestinationPort(65536), Who::Any(true)), "less than or equal to 65535"),
        (of(HTTP, ports(3, 3), Who::Any(true)), "range start 3 cannot be greater or equal than range end 3"),
        (of(HTTP, ports(-1, 3), Who::Any(true)), "range start -1 is out of bounds"),
        (of(HTTP, May::OrRules(proto::permission::Set::default()), Who::Any(true)), "at least 1 item(s)"),
        (of(HTTP, May::UriTemplate(TypedExtensionConfig::default()), Who::Any(true)), "uri_template.typed_config"),
    ] {
        let error = outcome.expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn rules_are_not_nested_without_end() {
    let mut may = May::Any(true);
    for _ in 0..40 {
        may = May::NotRule(Box::new(proto::Permission { rule: Some(may) }));
    }
    let error = rules(HTTP, Allow, may, Who::Any(true)).expect_err("too deep");
    assert!(error.contains("rules are nested too deep"), "{error}");
}

struct Nobody;

impl Server for Nobody {
    fn health_check_failed(&self) -> bool {
        false
    }

    fn membership(&self, _: &str) -> Option<(usize, usize)> {
        None
    }
}

fn config(proto: http_proto::Rbac) -> Arc<RbacConfig> {
    Arc::new(RbacConfig::parse(proto, Session::default().root(), RegexLimits::default()).expect("valid"))
}

/// The response's details, the metadata that is left, and what was counted.
fn filtered(filter: &Rbac, store: &Store, settings: &[FilterSettings]) -> (Option<String>, Value, Vec<String>) {
    let mut info = stream(connection());
    let route = RouteContext { settings: settings.iter().collect(), ..RouteContext::default() };
    let mut context = RequestContext::new(Some(route), &NoRuntime, &Nobody, &mut info);
    let details = match filter.decode_head(&request("/"), &mut context) {
        Verdict::Continue => None,
        Verdict::Reply(reply) => {
            assert_eq!((reply.status, &reply.body[..]), (403, &b"RBAC: access denied"[..]));
            info.add_metadata(reply.metadata);
            Some(reply.details.into_owned())
        }
        other => panic!("{other:?}"),
    };
    let metadata = info.dynamic_metadata.map_or(Value::Null, |metadata| Value::Object(*metadata));
    let query = stats::Query::parse("usedonly").expect("query");
    let text = stats::render_text(store, &query);
    let counted = text.lines().filter(|line| !line.ends_with(": 0")).map(str::to_owned).collect();
    (details, metadata, counted)
}

#[test]
fn requests_are_judged_counted_and_written_down() {
    let anyone = |name| [(name, May::Any(true), Who::Any(true))];
    let store = Store::new(1, StoreOptions::default());
    let own = config(http_proto::Rbac {
        rules: Some(rbac(Deny, &anyone("a b"))),
        rules_stat_prefix: "own_".into(),
        shadow_rules: Some(rbac(Log, &anyone("s"))),
        track_per_rule_stats: true,
        ..http_proto::Rbac::default()
    });
    let filter = Rbac::new(own, &store, "http.h.", 0);
    let (details, metadata, counted) = filtered(&filter, &store, &[]);
    assert_eq!(details.as_deref(), Some("rbac_access_denied_matched_policy[a_b]"));
    assert_eq!(
        metadata,
        json!({"envoy.filters.http.rbac": {
            "shadow_effective_policy_id": "s", "shadow_engine_result": "allowed",
            "own_enforced_effective_policy_id": "a b", "own_enforced_engine_result": "denied",
        }})
    );
    let expected = [
        "http.h.rbac.own_.denied: 1",
        "http.h.rbac.own_.policy.a b.denied: 1",
        "http.h.rbac.policy.s.shadow_allowed: 1",
        "http.h.rbac.shadow_allowed: 1",
    ];
    assert_eq!(counted, expected);

    let off = [FilterSettings::Rbac(None)];
    assert_eq!(filtered(&filter, &store, &off), (None, Value::Null, expected.map(str::to_owned).to_vec()));

    let route = config(http_proto::Rbac { rules: Some(rbac(Log, &[])), ..http_proto::Rbac::default() });
    let (details, metadata, counted) = filtered(&filter, &store, &[FilterSettings::Rbac(Some(route))]);
    assert_eq!(details, None);
    assert_eq!(
        metadata,
        json!({
            "envoy.filters.http.rbac": {"own_enforced_engine_result": "allowed"},
            "envoy.common": {"access_log_hint": false},
        })
    );
    assert!(counted.contains(&"http.h.rbac.own_.allowed: 1".to_owned()), "{counted:?}");
}

#[test]
fn prefixes_have_one_dot_between_them() {
    for (prefix, rest, expected) in
        [("a.", "", "a."), ("a.", "b", "a.b."), ("a", "b.", "a.b."), ("a.", "b_", "a.b_."), ("", "b", "b.")]
    {
        assert_eq!(joined(prefix, rest), expected);
    }
}

mod tree {
    use envoy_types::pb::envoy::r#type::matcher::v3::HttpRequestHeaderMatchInput;
    use envoy_types::pb::xds::core::v3::TypedExtensionConfig as Extension;
    use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_list::predicate::single_predicate::Matcher as Value;
    use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_list::predicate::{MatchType, SinglePredicate};
    use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_list::{FieldMatcher, Predicate};
    use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_tree::{MatchMap, TreeType};
    use envoy_types::pb::xds::r#type::matcher::v3::matcher::on_match::OnMatch as What;
    use envoy_types::pb::xds::r#type::matcher::v3::matcher::{MatcherList, MatcherTree, MatcherType, OnMatch};
    use envoy_types::pb::xds::r#type::matcher::v3::{Matcher, StringMatcher, string_matcher};

    use super::*;
    use crate::http::HeaderName;

    fn extension(kind: &str, value: Vec<u8>) -> Extension {
        let typed_config = Some(Any { type_url: format!("type.googleapis.com/{kind}"), value });
        Extension { name: "it".into(), typed_config }
    }

    fn header_input() -> Extension {
        let input = HttpRequestHeaderMatchInput { header_name: "x".into() };
        extension("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", input.encode_to_vec())
    }

    fn input(name: &str) -> Extension {
        extension(&format!("envoy.extensions.matching.common_inputs.{name}"), Vec::new())
    }

    fn action(name: &str, action: proto::rbac::Action) -> OnMatch {
        let config = proto::Action { name: name.into(), action: action.into() };
        let action = extension("envoy.config.rbac.v3.Action", config.encode_to_vec());
        OnMatch { keep_matching: false, on_match: Some(What::Action(action)) }
    }

    fn is(input: Extension, text: &str) -> Predicate {
        let pattern = string_matcher::MatchPattern::Exact(text.into());
        let matcher = StringMatcher { ignore_case: false, match_pattern: Some(pattern) };
        let single = SinglePredicate { input: Some(input), matcher: Some(Value::ValueMatch(matcher)) };
        Predicate { match_type: Some(MatchType::SinglePredicate(single)) }
    }

    fn not(predicate: Predicate) -> Predicate {
        Predicate { match_type: Some(MatchType::NotMatcher(Box::new(predicate))) }
    }

    fn list(fields: Vec<(Predicate, OnMatch)>, on_no_match: Option<OnMatch>) -> Matcher {
        let field = |(predicate, on_match)| FieldMatcher { predicate: Some(predicate), on_match: Some(on_match) };
        let matchers = fields.into_iter().map(field).collect();
        Matcher {
            matcher_type: Some(MatcherType::MatcherList(MatcherList { matchers })),
            on_no_match: on_no_match.map(Box::new),
        }
    }

    fn nested(matcher: Matcher) -> OnMatch {
        OnMatch { keep_matching: false, on_match: Some(What::Matcher(Box::new(matcher))) }
    }

    fn judge(matcher: &Matcher, x: &[&str]) -> (bool, Option<String>, Option<bool>) {
        let session = Session::default();
        let engine = Engine::parse(&session.root(), ("rules", None), ("matcher", Some(matcher.clone())), HTTP);
        let engine = engine.expect("valid").expect("a tree");
        let mut head = request("/");
        for value in x {
            head.headers.append(HeaderName::parse(b"x").expect("name"), (*value).to_owned());
        }
        let info = stream(connection());
        let judgement = engine.judge(&Caller::of(&head, &info));
        (judgement.allowed, judgement.policy.map(str::to_owned), judgement.log)
    }

    fn named(allowed: bool, name: &str) -> (bool, Option<String>, Option<bool>) {
        (allowed, Some(name.into()), None)
    }

    const NOBODY: (bool, Option<String>, Option<bool>) = (false, None, None);

    #[test]
    fn the_first_condition_that_comes_to_an_action_decides() {
        let inner = list(vec![(is(header_input(), "b"), action("inner", Allow))], None);
        let matcher = list(
            vec![
                (not(is(header_input(), "a")), nested(inner)),
                (is(header_input(), "c"), action("c", Deny)),
                (is(header_input(), "a,a"), action("joined", Allow)),
            ],
            Some(action("rest", Allow)),
        );
        assert_eq!(judge(&matcher, &["b"]), named(true, "inner"));
        assert_eq!(judge(&matcher, &["c"]), named(false, "c"));
        assert_eq!(judge(&matcher, &["a"]), named(true, "rest"));
        assert_eq!(judge(&matcher, &["a", "a"]), named(true, "joined"));
        assert_eq!(judge(&list(vec![(is(header_input(), "a"), action("a", Allow))], None), &[]), NOBODY);
        assert_eq!(judge(&Matcher::default(), &[]), NOBODY);
    }

    #[test]
    fn tables_find_texts_and_the_longest_prefix_that_leads_somewhere() {
        let tree = |tree_type| Matcher {
            matcher_type: Some(MatcherType::MatcherTree(MatcherTree {
                input: Some(header_input()),
                tree_type: Some(tree_type),
            })),
            on_no_match: Some(Box::new(action("none", Deny))),
        };
        let map = || {
            let dead_end = nested(list(vec![(is(header_input(), "q"), action("q", Allow))], None));
            let entries = [("a", action("a", Allow)), ("ab", action("ab", Allow)), ("abc", dead_end)];
            MatchMap { map: entries.map(|(key, on_match)| (key.to_owned(), on_match)).into() }
        };
        let (exact, prefix) = (tree(TreeType::ExactMatchMap(map())), tree(TreeType::PrefixMatchMap(map())));
        for (x, by_text, by_prefix) in [
            (&["a"][..], named(true, "a"), named(true, "a")),
            (&["ax"], named(false, "none"), named(true, "a")),
            (&["abcd"], named(false, "none"), named(true, "ab")),
            (&["abc"], named(false, "none"), named(true, "ab")),
            (&["z"], named(false, "none"), named(false, "none")),
            (&[], named(false, "none"), named(false, "none")),
        ] {
            assert_eq!((judge(&exact, x), judge(&prefix, x)), (by_text, by_prefix), "{x:?}");
        }
    }

    #[test]
    fn what_is_known_of_connections_is_looked_at() {
        for (name, text, expected) in [
            ("network.v3.DestinationIPInput", "127.0.0.1", named(true, "it")),
            ("network.v3.DestinationPortInput", "80", named(true, "it")),
            ("network.v3.SourceIPInput", "10.0.0.1", named(true, "it")),
            ("network.v3.SourcePortInput", "5", named(true, "it")),
            ("network.v3.DirectSourceIPInput", "9.9.9.9", named(true, "it")),
            ("network.v3.ServerNameInput", "", named(false, "rest")),
            // A plaintext connection can have no certificate, and nobody may go on by its lack.
            ("ssl.v3.UriSanInput", "", NOBODY),
            ("ssl.v3.DnsSanInput", "", NOBODY),
            ("ssl.v3.SubjectInput", "", NOBODY),
        ] {
            let matcher = list(vec![(is(input(name), text), action("it", Allow))], Some(action("rest", Deny)));
            assert_eq!(judge(&matcher, &[]), expected, "{name}");
        }
    }

    #[test]
    fn a_tree_that_logs_says_so_of_everybody_it_knows() {
        let fields = vec![(is(header_input(), "a"), action("a", Log)), (is(header_input(), "b"), action("b", Allow))];
        let matcher = list(fields, None);
        assert_eq!(judge(&matcher, &["a"]), (true, Some("a".into()), Some(true)));
        assert_eq!(judge(&matcher, &["b"]), (true, Some("b".into()), Some(false)));
        assert_eq!(judge(&matcher, &["c"]), NOBODY);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let keeps = OnMatch { keep_matching: true, ..action("a", Allow) };
        let header = || is(header_input(), "a");
        let foreign = || is(input("network.v3.SourceTypeInput"), "a");
        for (scope, matcher, expected) in [
            (HTTP, list(vec![(foreign(), action("a", Allow))], None), "common_inputs.network.v3.SourceTypeInput"),
            (NETWORK, list(vec![(header(), action("a", Allow))], None), "HttpRequestHeaderMatchInput"),
            (HTTP, list(vec![(header(), keeps)], None), "keep_matching"),
            (HTTP, list(vec![(header(), action("", Allow))], None), "value length must be at least 1 characters"),
            (HTTP, list(Vec::new(), None), "value must contain at least 1 item(s)"),
        ] {
            let session = Session::default();
            let outcome = Engine::parse(&session.root(), ("rules", None), ("matcher", Some(matcher)), scope);
            let error = outcome.expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

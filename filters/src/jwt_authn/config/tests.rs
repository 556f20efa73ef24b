use envoy_types::pb::envoy::config::core::v3::HttpUri;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::http_uri::HttpUpstreamType;
use envoy_types::pb::envoy::config::route::v3::RouteMatch;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::google::protobuf::Duration as ProtoDuration;

use super::*;
use crate::config::Session;

pub(in crate::jwt_authn) const KEYS: &str = r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#;

fn read(at: &At<'_>, source: DataSource) -> Result<Bytes, ConfigError> {
    match source.specifier {
        Some(Specifier::InlineString(text)) => Ok(text.into()),
        _ => Err(at.error("unreadable")),
    }
}

fn retry(_: RetryPolicy, _: &str, _: At<'_>, _: RegexLimits) -> Result<RetryRules, ConfigError> {
    Ok(RetryRules(Arc::new(())))
}

pub(in crate::jwt_authn) fn parse(proto: proto::JwtAuthentication) -> Result<JwtAuthnConfig, ConfigError> {
    let context = ParseContext { limits: RegexLimits::default(), read: &read, retry };
    JwtAuthnConfig::parse(proto, Session::default().root(), context)
}

/// A provider whose keys are these.
pub(in crate::jwt_authn) fn local(issuer: &str, keys: &str) -> proto::JwtProvider {
    let source = DataSource { specifier: Some(Specifier::InlineString(keys.to_owned())), watched_directory: None };
    proto::JwtProvider {
        issuer: issuer.to_owned(),
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(source)),
        ..proto::JwtProvider::default()
    }
}

/// A provider whose keys are far.
pub(in crate::jwt_authn) fn remote(issuer: &str, uri: &str) -> proto::JwtProvider {
    let http_uri = HttpUri {
        uri: uri.to_owned(),
        timeout: Some(ProtoDuration { seconds: 1, nanos: 0 }),
        http_upstream_type: Some(HttpUpstreamType::Cluster("keys".to_owned())),
    };
    let remote = proto::RemoteJwks { http_uri: Some(http_uri), ..proto::RemoteJwks::default() };
    proto::JwtProvider { jwks_source_specifier: Some(JwksSourceSpecifier::RemoteJwks(remote)), ..local(issuer, "") }
}

pub(in crate::jwt_authn) fn needs(requires: RequiresType) -> proto::JwtRequirement {
    proto::JwtRequirement { requires_type: Some(requires) }
}

pub(in crate::jwt_authn) fn provider_name(name: &str) -> proto::JwtRequirement {
    needs(RequiresType::ProviderName(name.to_owned()))
}

/// What all requests with this prefix need.
pub(in crate::jwt_authn) fn rule(prefix: &str, requirement: Option<RequirementType>) -> proto::RequirementRule {
    let path_specifier = Some(PathSpecifier::Prefix(prefix.to_owned()));
    proto::RequirementRule {
        r#match: Some(RouteMatch { path_specifier, ..RouteMatch::default() }),
        requirement_type: requirement,
    }
}

/// A filter for these providers.
pub(in crate::jwt_authn) fn of<const N: usize>(providers: [(&str, proto::JwtProvider); N]) -> proto::JwtAuthentication {
    let providers = providers.into_iter().map(|(name, provider)| (name.to_owned(), provider)).collect();
    proto::JwtAuthentication { providers, ..proto::JwtAuthentication::default() }
}

#[test]
fn what_is_named_has_to_be_there() {
    let needing = |requirement| {
        let rules = vec![rule("/", Some(requirement))];
        parse(proto::JwtAuthentication { rules, ..of([("p", local("", KEYS))]) }).map(drop).map_err(|it| it.to_string())
    };
    let both = |requirements| needs(RequiresType::RequiresAll(proto::JwtRequirementAndList { requirements }));
    assert_eq!(needing(RequirementType::Requires(provider_name("p"))), Ok(()));
    let nested = both(vec![provider_name("p"), provider_name("q")]);
    assert_eq!(
        needing(RequirementType::Requires(nested)).unwrap_err(),
        "rules[0].requires.requires_all.requirements[1]: Required provider ['q'] is not configured."
    );
    assert_eq!(
        needing(RequirementType::RequirementName("n".to_owned())).unwrap_err(),
        "rules[0].requirement_name: Wrong requirement_name: n. It should be one of []"
    );
}

#[test]
fn a_provider_has_to_make_sense() {
    let error = |provider| parse(of([("p", provider)])).map(drop).map_err(|error| error.to_string());
    assert_eq!(error(local("", "")), Ok(()), "it has no keys, and lets nothing through");
    let why = "Provider 'p' in jwt_authn config has invalid local jwks: Jwks is an invalid JSON";
    assert_eq!(error(local("", "x")).unwrap_err(), format!("providers[\"p\"]: {why}"));
    let why = "Provider 'p' has an invalid URI: 'jw.ks'";
    assert_eq!(error(remote("", "jw.ks")).unwrap_err(), format!("providers[\"p\"].remote_jwks.http_uri: {why}"));
    for (claim_name, claim_path, good) in
        [("a.b", None, true), ("", Some("a.b"), true), ("a", Some("b"), false), ("", None, false)]
    {
        let claim = proto::JwtClaimToHeader {
            header_name: "x-c".to_owned(),
            claim_name: claim_name.to_owned(),
            claim_path: claim_path.iter().map(|key: &&str| PathSegment { key: (*key).to_owned() }).collect(),
        };
        let provider = proto::JwtProvider { claim_to_headers: vec![claim], ..local("", KEYS) };
        assert_eq!(error(provider).is_ok(), good, "{claim_name} {claim_path:?}");
    }
}

#[test]
fn defaults() {
    let config = parse(of([("a", remote("", "http://jw.ks")), ("b", local("i", KEYS))])).unwrap();
    let [a, b] = config.providers() else { panic!("two providers") };
    let Keys::Remote(remote) = &a.keys else { panic!("remote keys") };
    assert_eq!(remote.cache, Duration::from_secs(600));
    assert_eq!((b.clock_skew, b.lifetime, b.cache), (60, None, None));
    assert_eq!(config.provider_of("i"), Some(1));
    assert_eq!(config.provider_of("j"), Some(0), "the provider of anybody's");
    assert_eq!(config.stat_prefix(), "jwt_authn.");
    let named = parse(proto::JwtAuthentication { stat_prefix: "foo".to_owned(), ..of([]) }).unwrap();
    assert_eq!(named.stat_prefix(), "jwt_authn.foo.");
}

#[test]
fn filter_state_speaks_where_no_rule_does() {
    let state =
        proto::FilterStateRule { name: "s".to_owned(), requires: [("v".to_owned(), provider_name("p"))].into() };
    let rules = vec![rule("/free", None)];
    let config = proto::JwtAuthentication { rules, filter_state_rules: Some(state), ..of([("p", local("", KEYS))]) };
    let config = parse(config).unwrap();
    let asked = |path: &'static str, value: Option<&'static str>| {
        let mut state = FilterState::default();
        if let Some(value) = value {
            state.set("s", Object::Text(value.into()));
        }
        config.requirement_for(&RequestHead { path: path.into(), ..RequestHead::default() }, &state)
    };
    assert_eq!(asked("/free", Some("v")), None);
    assert_eq!(asked("/", Some("v")), Some(0));
    assert_eq!(asked("/", Some("w")), None);
    assert_eq!(asked("/", None), None);
}

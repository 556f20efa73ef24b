use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Instant, SystemTime};

use stats::{Store, StoreOptions};

use super::*;
use crate::config::Session;
use crate::http_filter::{RouteContext, Server};
use crate::matcher::NoRuntime;
use crate::stream_info::{Address, ConnectionInfo, StreamInfo};

fn policy(origin: &str, change: impl FnOnce(&mut Proto)) -> FilterSettings {
    use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher as Matcher;
    use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
    let matcher = Matcher { match_pattern: Some(MatchPattern::Exact(origin.into())), ignore_case: false };
    let origins = if origin.is_empty() { Vec::new() } else { vec![matcher] };
    let mut proto = Proto { allow_origin_string_match: origins, ..Proto::default() };
    change(&mut proto);
    FilterSettings::Cors(Arc::new(
        CorsPolicy::parse(proto, Session::new([]).root(), RegexLimits::default()).expect("valid"),
    ))
}

/// A proxy nobody asks anything.
struct Nobody;

impl Server for Nobody {
    fn health_check_failed(&self) -> bool {
        false
    }

    fn membership(&self, _: &str) -> Option<(usize, usize)> {
        None
    }
}

/// The headers of the answer, or those that are added to the response.
fn run(levels: &[FilterSettings], method: Method, headers: &[(&str, &str)]) -> (bool, Vec<String>) {
    let store = Store::new(1, StoreOptions::default());
    let mut stream = CorsStream::new(&Cors::new(store.group::<CorsStats>("cors.").shard(0)));
    let mut request = RequestHead { method, ..RequestHead::default() };
    for (name, value) in headers {
        request.headers.append(HeaderName::parse(name.as_bytes()).expect("a name"), value.to_string());
    }
    let route = RouteContext { settings: levels.iter().collect(), cors: &[], forwards: true };
    let nowhere = || Address::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let connection = Rc::new(ConnectionInfo::between(nowhere(), nowhere()));
    let mut info = StreamInfo::new(connection, Instant::now(), SystemTime::now(), 0);
    let context = RequestContext::new(Some(route), &NoRuntime, &Nobody, &mut info);
    let (answered, head) = match stream.decode_head(&request, &context) {
        Verdict::Answer { head, .. } => (true, head),
        Verdict::Continue => {
            let mut head = ResponseHead { status: 200, ..ResponseHead::default() };
            stream.encode_head(&mut head);
            (false, head)
        }
        other => panic!("{other:?}"),
    };
    let line =
        |header: &crate::http::Header| format!("{}: {}", header.name.as_str(), String::from_utf8_lossy(&header.value));
    (answered, head.headers.iter().map(line).collect())
}

const SITE: (&str, &str) = ("origin", "site");
const ASKS: (&str, &str) = ("access-control-request-method", "PUT");
const ALLOWED: &str = "access-control-allow-origin: site";

#[test]
fn a_response_names_the_origin_that_may_see_it() {
    let levels = [policy("site", |it| {
        it.expose_headers = "x-a".into();
        it.allow_credentials = Some(BoolValue { value: true });
    })];
    let exposed = [ALLOWED, "access-control-allow-credentials: true", "access-control-expose-headers: x-a"];
    for (method, headers, added) in [
        (Method::Get, &[SITE][..], &exposed[..]),
        (Method::Get, &[SITE, ASKS], &exposed),
        (Method::Options, &[SITE], &exposed),
        (Method::Get, &[("origin", "elsewhere")], &[]),
        (Method::Get, &[("origin", "")], &[]),
        (Method::Get, &[], &[]),
    ] {
        assert_eq!(run(&levels, method.clone(), headers), (false, added.iter().map(|&line| line.into()).collect()));
    }
}

#[test]
fn a_preflight_is_answered_with_the_first_level_that_says_something() {
    let general = policy("site", |it| {
        it.allow_methods = "GET".into();
        it.max_age = "60".into();
    });
    let route = policy("", |it| {
        it.allow_methods = "*".into();
        it.allow_headers = "*".into();
        it.allow_private_network_access = Some(BoolValue { value: true });
    });
    let asks = [SITE, ASKS, ("access-control-request-private-network", "true")];
    let private = "access-control-allow-private-network: true";
    let (answered, head) = run(&[route, general.clone()], Method::Options, &asks);
    let of_both = [
        ALLOWED,
        "access-control-allow-methods: PUT",
        "access-control-allow-headers: ",
        "access-control-max-age: 60",
        private,
    ];
    assert_eq!((answered, head), (true, of_both.map(str::to_owned).to_vec()));
    let of_one = [ALLOWED, "access-control-allow-methods: GET", "access-control-max-age: 60"];
    assert_eq!(run(&[general], Method::Options, &asks), (true, of_one.map(str::to_owned).to_vec()));
}

#[test]
fn a_preflight_of_another_origin_is_forwarded_unless_the_policy_says_otherwise() {
    let asks = [("origin", "elsewhere"), ASKS];
    for (forward, answered) in [(None, false), (Some(true), false), (Some(false), true)] {
        let levels =
            [policy("site", |it| it.forward_not_matching_preflights = forward.map(|value| BoolValue { value }))];
        assert_eq!(run(&levels, Method::Options, &asks), (answered, vec![]), "{forward:?}");
    }
}

#[test]
fn a_policy_that_only_counts_changes_nothing() {
    use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
    use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
    let percent = |numerator| {
        let default_value = Some(FractionalPercent { numerator, denominator: 0 });
        Some(RuntimeFractionalPercent { default_value, runtime_key: String::new() })
    };
    let levels = [policy("site", |it| (it.filter_enabled, it.shadow_enabled) = (percent(0), percent(100)))];
    assert_eq!(run(&levels, Method::Options, &[SITE, ASKS]), (false, vec![]));
    assert_eq!(run(&[], Method::Options, &[SITE, ASKS]), (false, vec![]));
}

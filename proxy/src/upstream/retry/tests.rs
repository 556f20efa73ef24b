//! Every condition against every outcome, and what else decides.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use envoy_types::pb::envoy::config::route::v3::HeaderMatcher as HeaderMatcherProto;
use envoy_types::pb::google::protobuf::UInt32Value;
use filters::config::Session;
use filters::http::Headers;
use filters::matcher::{FractionalPercent, HeaderMatcher, NoRuntime, RegexLimits};
use serde_json::json;

use super::*;
use crate::config::cluster::{CircuitBreakers, RetryBudget, Thresholds};
use crate::route::retry::{HostPredicate, ResetHeader};
use crate::upstream::breaker::Breakers;
use crate::upstream::host::tests::host;
use crate::upstream::host::{HostSet, PriorityHosts};

fn policy(on: &str) -> RetryPolicy {
    let proto = envoy_types::pb::envoy::config::route::v3::RetryPolicy {
        retry_on: on.to_owned(),
        num_retries: Some(UInt32Value { value: 9 }),
        ..Default::default()
    };
    RetryPolicy::parse(proto, Session::default().root(), RegexLimits::default()).expect("valid")
}

fn request(headers: &[(&str, &str)]) -> RequestHead {
    RequestHead { headers: list(headers), ..RequestHead::default() }
}

fn response(status: u16, headers: &[(&str, &str)]) -> ResponseHead {
    ResponseHead { status, headers: list(headers), ..ResponseHead::default() }
}

fn list(headers: &[(&str, &str)]) -> Headers {
    let mut list = Headers::default();
    for (name, value) in headers {
        list.append(HeaderName::parse(name.as_bytes()).expect("a name"), value.as_bytes().to_vec());
    }
    list
}

fn matching(name: &str) -> HeaderMatcher {
    let proto = HeaderMatcherProto { name: name.to_owned(), ..Default::default() };
    HeaderMatcher::parse(proto, Session::default().root(), RegexLimits::default()).expect("valid")
}

fn state(policy: RetryPolicy, headers: &[(&str, &str)]) -> RetryState {
    *RetryState::new(Some(&Arc::new(policy)), Priority::Default, &request(headers), &NoRuntime).expect("retries")
}

fn breakers(change: impl FnOnce(&mut Thresholds)) -> BreakerHandle {
    let mut limits = CircuitBreakers::default();
    change(&mut limits.default);
    BreakerHandle::new(Arc::new(Breakers::new(&limits)))
}

/// A runtime of one number.
#[derive(Debug)]
struct One(&'static str, u64);

impl Runtime for One {
    fn fraction(&self, _: &str) -> Option<FractionalPercent> {
        None
    }

    fn integer(&self, key: &str) -> Option<u64> {
        (key == self.0).then_some(self.1)
    }
}

fn around<'a>(breakers: &'a BreakerHandle, runtime: &'a dyn Runtime) -> Surroundings<'a> {
    Surroundings { breakers, runtime, now: UNIX_EPOCH + Duration::from_secs(1000), random: 0 }
}

fn retries(ruling: Ruling) -> bool {
    matches!(ruling.decision, Decision::Retry(_))
}

const CONDITIONS: [&str; 11] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
];

#[test]
fn each_condition_retries_the_responses_it_is_about() {
    let limits = breakers(|_| {});
    for (status, headers, expected) in [
        (200, &[][..], &[][..]),
        (200, &[("x-again", "")], &["retriable-headers"]),
        (404, &[], &[]),
        (409, &[], &["retriable-4xx"]),
        (418, &[], &["retriable-status-codes"]),
        (499, &[], &[]),
        (500, &[], &["5xx"]),
        (501, &[], &["5xx"]),
        (502, &[], &["5xx", "gateway-error"]),
        (503, &[], &["5xx", "gateway-error"]),
        (504, &[], &["5xx", "gateway-error"]),
        (505, &[], &["5xx"]),
        (599, &[], &["5xx"]),
        (600, &[], &[]),
        (503, &[("x-envoy-overloaded", "true")], &["5xx", "gateway-error"]),
        (503, &[("x-envoy-ratelimited", "true")], &["envoy-ratelimited"]),
        (200, &[("x-envoy-ratelimited", "true"), ("x-again", "")], &["envoy-ratelimited"]),
    ] {
        for condition in CONDITIONS {
            let mut policy = policy(condition);
            policy.retriable_status_codes = Box::new([418]);
            policy.retriable_headers = Box::new([matching("x-again")]);
            let ruling = state(policy, &[]).after_response(&response(status, headers), &around(&limits, &NoRuntime));
            assert_eq!(retries(ruling), expected.contains(&condition), "{condition}: {status} {headers:?}");
        }
    }
}

#[test]
fn each_condition_retries_the_failures_it_is_about() {
    use FailureKind as F;
    let limits = breakers(|_| {});
    let always = ["5xx", "gateway-error", "reset"];
    for (kind, begun, more) in [
        (F::ConnectFailure, false, &["connect-failure", "reset-before-request"][..]),
        (F::ConnectTimeout, false, &["connect-failure", "reset-before-request"]),
        (F::ConnectionTermination, true, &[]),
        (F::ConnectionTermination, false, &["reset-before-request"]),
        (F::RemoteReset, true, &[]),
        (F::RemoteRefused, true, &["refused-stream"]),
        (F::LocalReset, true, &[]),
        (F::ProtocolError, true, &[]),
    ] {
        for condition in CONDITIONS {
            let ruling = state(policy(condition), &[]).after_failure(kind, begun, &around(&limits, &NoRuntime));
            let expected = always.contains(&condition) || more.contains(&condition);
            assert_eq!(retries(ruling), expected, "{condition}: {kind:?}, begun: {begun}");
        }
    }
    for condition in CONDITIONS {
        let ruling = state(policy(condition), &[]).after_failure(F::Overflow, false, &around(&limits, &NoRuntime));
        assert_eq!(ruling.decision, Decision::No, "{condition}: an overflow is never retried");
    }
}

#[test]
fn grpc_conditions_look_at_the_status_among_the_headers() {
    let limits = breakers(|_| {});
    let conditions = [
        ("cancelled", "1"),
        ("deadline-exceeded", "4"),
        ("resource-exhausted", "8"),
        ("internal", "13"),
        ("unavailable", "14"),
    ];
    for (condition, _) in conditions {
        for status in ["0", "1", "2", "4", "8", "13", "14", "16", "x", ""] {
            let head = response(200, &[("grpc-status", status)]);
            let ruling = state(policy(condition), &[]).after_response(&head, &around(&limits, &NoRuntime));
            assert_eq!(retries(ruling), conditions.contains(&(condition, status)), "{condition}: {status:?}");
        }
        let none = state(policy(condition), &[]).after_response(&response(503, &[]), &around(&limits, &NoRuntime));
        assert!(!retries(none), "{condition} says nothing of HTTP statuses");
    }
}

#[test]
fn headers_add_conditions_each_its_own_kind() {
    let limits = breakers(|_| {});
    let unavailable = response(200, &[("grpc-status", "14")]);
    for (headers, status, expected) in [
        (&[("x-envoy-retry-on", "5xx")][..], response(503, &[]), true),
        (&[("x-envoy-retry-on", "reset , gateway-error")], response(503, &[]), true),
        (&[("x-envoy-retry-on", "unavailable")], unavailable.clone(), false),
        (&[("x-envoy-retry-grpc-on", "unavailable")], unavailable, true),
        (&[("x-envoy-retry-grpc-on", "5xx")], response(503, &[]), false),
        (
            &[("x-envoy-retry-on", "retriable-status-codes"), ("x-envoy-retriable-status-codes", "x, 418 ,+419")],
            response(419, &[]),
            true,
        ),
        (
            &[("x-envoy-retry-on", "retriable-headers"), ("x-envoy-retriable-header-names", "x-b, X-A ")],
            response(200, &[("x-a", "1")]),
            true,
        ),
    ] {
        let request = request(headers);
        let state = RetryState::new(None, Priority::Default, &request, &NoRuntime);
        let ruling = state.expect("asked for").after_response(&status, &around(&limits, &NoRuntime));
        assert_eq!(retries(ruling), expected, "{headers:?}");
    }
    let never_asked = request(&[("x-envoy-max-retries", "3"), ("x-envoy-retriable-status-codes", "418")]);
    assert!(RetryState::new(None, Priority::Default, &never_asked, &NoRuntime).is_none());
    let silent = Arc::new(policy("nonsense"));
    assert!(RetryState::new(Some(&silent), Priority::Default, &request(&[]), &NoRuntime).is_none());
    let only = RetryPolicy { retriable_request_headers: Box::new([matching("x-me")]), ..policy("5xx") };
    assert!(!state(only.clone(), &[]).is_enabled());
    assert!(state(only, &[("x-me", "1")]).is_enabled());
}

#[test]
fn there_are_as_many_retries_as_allowed() {
    let limits = breakers(|_| {});
    for (configured, asked, expected) in
        [(0, None, 0), (2, None, 2), (2, Some("0"), 0), (1, Some("4"), 4), (1, Some("many"), 1), (1, Some("-1"), 1)]
    {
        let asked: Vec<_> = asked.map(|asked| ("x-envoy-max-retries", asked)).into_iter().collect();
        let mut state = state(RetryPolicy { num_retries: configured, ..policy("5xx") }, &asked);
        for n in 0..=expected {
            let decision = state.after_response(&response(503, &[]), &around(&limits, &NoRuntime)).decision;
            let limited = decision == Decision::LimitExceeded;
            assert_eq!(limited, n == expected, "{configured}, {asked:?}: {decision:?} for number {n}");
        }
    }
}

#[test]
fn a_retry_counts_until_its_outcome_is_known() {
    let limits = breakers(|limits| limits.max_retries = 1);
    let in_flight = || limits.breakers().used(Priority::Default, Resource::Retries);
    let around = around(&limits, &NoRuntime);
    let (mut first, mut second) = (state(policy("5xx"), &[]), state(policy("5xx"), &[]));
    let failed = response(503, &[]);
    assert!(retries(first.after_response(&failed, &around)));
    assert_eq!(second.after_response(&failed, &around).decision, Decision::Overflow);
    assert!(retries(first.after_response(&failed, &around)), "its own former retry is over");
    assert_eq!(in_flight(), 1);
    let ruling = first.after_response(&response(200, &[]), &around);
    assert_eq!(ruling, Ruling { decision: Decision::No, retry_succeeded: true });
    assert_eq!(in_flight(), 0);
    let ruling = first.after_response(&response(200, &[]), &around);
    assert!(!ruling.retry_succeeded, "no retry was under way");
    assert!(retries(second.after_response(&failed, &around)));
    drop(second);
    assert_eq!(in_flight(), 0, "a request that is given up leaves nothing behind");
}

#[test]
fn a_budget_takes_the_place_of_the_limit() {
    let budget = RetryBudget { budget_percent: 0.0, min_retry_concurrency: 2, budget_interval: Duration::ZERO };
    let limits = breakers(|limits| limits.retry_budget = Some(budget));
    let around = around(&limits, &NoRuntime);
    let mut states: Vec<_> = (0..3).map(|_| state(policy("5xx"), &[])).collect();
    let allowed: Vec<_> =
        states.iter_mut().map(|state| retries(state.after_response(&response(503, &[]), &around))).collect();
    assert_eq!(allowed, [true, true, false]);
}

#[test]
fn the_runtime_can_forbid_retries_and_set_the_back_off() {
    let limits = breakers(|_| {});
    let (never, half) = (One("upstream.use_retry", 0), One("upstream.use_retry", 50));
    let ruling = |runtime: &dyn Runtime, random| {
        let around = Surroundings { random, ..around(&limits, runtime) };
        state(policy("5xx"), &[]).after_response(&response(503, &[]), &around).decision
    };
    assert_eq!(ruling(&never, 0), Decision::No);
    assert_eq!(ruling(&half, 150), Decision::No);
    assert!(matches!(ruling(&half, 149), Decision::Retry(_)));
    assert_eq!(limits.breakers().used(Priority::Default, Resource::Retries), 0);

    let slow = One("upstream.base_retry_backoff_ms", 1000);
    let mut state = RetryState::new(Some(&Arc::new(policy("5xx"))), Priority::Default, &request(&[]), &slow).unwrap();
    let around = Surroundings { random: 999, ..around(&limits, &slow) };
    let decision = state.after_response(&response(503, &[]), &around).decision;
    assert_eq!(decision, Decision::Retry(Wait::BackOff(Duration::from_millis(999))));
}

#[test]
fn a_response_may_say_when_to_come_back() {
    let limits = breakers(|_| {});
    let name = |name: &str| HeaderName::parse(name.as_bytes()).expect("a name");
    let policy = || RetryPolicy {
        reset_headers: Box::new([
            ResetHeader { name: name("retry-after"), unix_timestamp: false },
            ResetHeader { name: name("x-reset"), unix_timestamp: true },
        ]),
        reset_max_interval: Duration::from_secs(60),
        ..policy("5xx")
    };
    let asked = |seconds| Some(Duration::from_secs(seconds));
    for (headers, expected) in [
        (&[("retry-after", "7")][..], asked(7)),
        (&[("retry-after", "60")], asked(60)),
        (&[("retry-after", "61")], None),
        (&[("retry-after", "0")], None),
        (&[("retry-after", "soon")], None),
        // It is the thousandth second.
        (&[("x-reset", "1005")], asked(5)),
        (&[("x-reset", "999")], None),
        (&[("retry-after", "99"), ("x-reset", "1005")], asked(5)),
        (&[("retry-after", "3"), ("x-reset", "1005")], asked(3)),
    ] {
        let ruling = state(policy(), &[]).after_response(&response(503, headers), &around(&limits, &NoRuntime));
        let expected = expected.map_or(Wait::BackOff(Duration::ZERO), Wait::Asked);
        assert_eq!(ruling.decision, Decision::Retry(expected), "{headers:?}");
    }
    let ruling =
        state(policy(), &[]).after_response(&response(200, &[("retry-after", "7")]), &around(&limits, &NoRuntime));
    assert_eq!(ruling.decision, Decision::No, "the header alone retries nothing");
}

#[test]
fn a_slow_try_is_joined_by_another_whatever_the_conditions() {
    let limits = breakers(|_| {});
    let mut state = state(RetryPolicy { num_retries: 1, ..policy("retriable-4xx") }, &[]);
    assert!(retries(state.beside_slow_try(&around(&limits, &NoRuntime))));
    assert_eq!(state.beside_slow_try(&around(&limits, &NoRuntime)).decision, Decision::LimitExceeded);
}

#[test]
fn predicates_reject_hosts_tried_canaries_and_marked_ones() {
    let locality = Arc::default();
    let make = |canary, lb: serde_json::Value| {
        let plain = host(1, 1, 0, &locality);
        let metadata = json!({"envoy.lb": lb, "other": {"a": "b"}});
        let attributes = crate::upstream::host::HostAttributes {
            canary,
            check: None,
            metadata: metadata.as_object().cloned().map(Arc::new),
            ..plain.attributes().clone()
        };
        Arc::new(Host::new(attributes, Arc::clone(plain.state())))
    };
    let wanted = |value: serde_json::Value| HostPredicate::Metadata(value.as_object().cloned().expect("an object"));
    let (plain, marked) = (make(false, json!({})), make(true, json!({"a": "b", "c": ["d", "e"]})));
    for (predicate, host, expected) in [
        (HostPredicate::Canary, &plain, false),
        (HostPredicate::Canary, &marked, true),
        (wanted(json!({"a": "b"})), &plain, false),
        (wanted(json!({"a": "b"})), &marked, true),
        (wanted(json!({"a": "c"})), &marked, false),
        (wanted(json!({"a": "b", "c": "e"})), &marked, true),
        (wanted(json!({"a": "b", "c": "f"})), &marked, false),
    ] {
        let policy = RetryPolicy { host_predicates: Box::new([predicate.clone()]), ..policy("5xx") };
        assert_eq!(state(policy, &[]).avoids(host), expected, "{predicate:?}");
    }
    let previous = RetryPolicy {
        host_predicates: Box::new([HostPredicate::Previous]),
        host_selection_retry_max_attempts: 4,
        ..policy("5xx")
    };
    let mut state = state(previous, &[]);
    let other = host(2, 1, 0, &locality);
    assert!(!state.avoids(&plain));
    state.attempted(&plain);
    assert!(state.avoids(&plain) && !state.avoids(&other));
    assert_eq!(state.picks(), 5, "the first pick is no further attempt");
}

#[test]
fn priorities_tried_are_left_out_until_all_were() {
    let locality = Arc::default();
    let hosts: Vec<_> = (0..3).map(|priority| host(u8::try_from(priority).unwrap(), 1, priority, &locality)).collect();
    let levels = hosts.iter().map(|host| PriorityHosts::new(vec![(Arc::default(), 0, vec![Arc::clone(host)])]));
    let set = HostSet { priorities: levels.collect(), ..HostSet::empty() };
    let config = LbConfig::default();
    let chosen = |state: &RetryState| state.priority_loads(&set, &config).map(|loads| loads.choose(0).0);
    let mut every = state(RetryPolicy { previous_priorities: Some(1), ..policy("5xx") }, &[]);
    assert_eq!(chosen(&every), None, "nothing was tried");
    for (tried, next) in [(0, 1), (1, 2), (2, 0)] {
        every.attempted(&hosts[tried]);
        assert_eq!(chosen(&every), Some(next), "after priority {tried}");
    }
    let mut second = state(RetryPolicy { previous_priorities: Some(2), ..policy("5xx") }, &[]);
    second.attempted(&hosts[0]);
    assert_eq!(chosen(&second), None, "one is not two");
    second.attempted(&hosts[0]);
    assert_eq!(chosen(&second), Some(1));
    second.attempted(&hosts[1]);
    assert_eq!(chosen(&second), Some(1), "three are not four");
    let never = state(policy("5xx"), &[]);
    assert_eq!(chosen(&never), None);
}

#[test]
fn times_of_day_before_all_time_ask_for_nothing() {
    let limits = breakers(|_| {});
    let around = Surroundings { now: SystemTime::UNIX_EPOCH - Duration::from_secs(1), ..around(&limits, &NoRuntime) };
    let name = HeaderName::parse(b"x-reset").expect("a name");
    let policy = RetryPolicy { reset_headers: Box::new([ResetHeader { name, unix_timestamp: true }]), ..policy("5xx") };
    let ruling = state(policy, &[]).after_response(&response(503, &[("x-reset", "5")]), &around);
    assert_eq!(ruling.decision, Decision::Retry(Wait::BackOff(Duration::ZERO)));
}

//! Conversations of the filter with a service that answers as the test says.

use std::cell::RefCell;
use std::future::ready;
use std::task::Waker;
use std::time::Duration;
use std::time::SystemTime;

use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3::{
    GrpcService, HeaderValue, HeaderValueOption, HttpUri, RuntimeFractionalPercent, http_uri,
};
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as proto;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, HttpStatus};
use envoy_types::pb::google::protobuf::Duration as DurationProto;
use envoy_types::pb::google::rpc::Status;
use prost::Message as _;
use proto::ext_authz::Services;
use stats::{Store, StoreOptions};

use super::*;
use crate::call::config::ParseServices;
use crate::call::{Errand, Question, Service, Task};
use crate::config::{ConfigError, Session};
use crate::http::Headers;
use crate::http_filter::{BodyNeed, Server};
use crate::matcher::{NoRuntime, RegexLimits};
use crate::stream_info::{Address, ConnectionInfo, StreamInfo};

/// A service that says the same to everybody, and remembers what it was asked.
struct Says {
    answer: Result<Answer, Unanswered>,
    asked: RefCell<Vec<(String, Question)>>,
}

impl Calls for Says {
    fn ask(&self, service: &Service, question: Question) -> Pending {
        self.asked.borrow_mut().push((service.cluster.to_string(), question));
        Box::pin(ready(self.answer.clone()))
    }

    fn run(&self, _: Task) -> Errand {
        panic!("there is nothing to run")
    }

    fn sleep(&self, _: Duration) -> Task {
        panic!("there is nothing to wait for")
    }
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

fn services() -> ParseServices {
    ParseServices {
        limits: RegexLimits::default(),
        format: crate::format::parse_header_value,
        retry: |_, _, at, _| Err(at.error("no retries")),
    }
}

fn asks_grpc() -> proto::ExtAuthz {
    let target = EnvoyGrpc { cluster_name: "authz".into(), ..EnvoyGrpc::default() };
    let service = GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)), ..GrpcService::default() };
    proto::ExtAuthz { services: Some(Services::GrpcService(service)), transport_api_version: 2, ..Default::default() }
}

fn asks_http(service: proto::HttpService) -> proto::ExtAuthz {
    let uri = HttpUri {
        uri: "http://a".into(),
        timeout: Some(DurationProto { seconds: 1, nanos: 0 }),
        http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster("authz".into())),
    };
    let service = proto::HttpService { server_uri: Some(uri), ..service };
    proto::ExtAuthz { services: Some(Services::HttpService(service)), transport_api_version: 2, ..Default::default() }
}

fn parse(proto: proto::ExtAuthz) -> Result<ExtAuthzConfig, ConfigError> {
    let session = Session::default();
    let config = ExtAuthzConfig::parse(proto, session.root(), &services(), &Metadata::new())?;
    Ok(config.expect("a service that can be asked"))
}

/// What became of a request.
struct Seen {
    verdict: Verdict,
    head: RequestHead,
    asked: Vec<(String, Question)>,
    route_changed: bool,
    stats: Vec<(String, u64)>,
}

fn run(
    proto: proto::ExtAuthz,
    answer: Result<Answer, Unanswered>,
    settings: &[FilterSettings],
    body: &[Bytes],
) -> Seen {
    let store = Store::new(1, StoreOptions::default());
    let group = store.group::<ExtAuthzStats>("x.");
    let calls = Rc::new(Says { answer, asked: RefCell::default() });
    let asked = Rc::clone(&calls);
    let filter = ExtAuthz::new(Arc::new(parse(proto).expect("valid")), group.shard(0), calls);
    let mut stream = ExtAuthzStream::new(&filter);
    let nowhere = || Address::Internal("".into());
    let connection = Rc::new(ConnectionInfo::between(nowhere(), nowhere()));
    let mut info = StreamInfo::new(connection, Instant::now(), SystemTime::now(), 7);
    let mut head = RequestHead { path: "/a?b=c".into(), authority: "host".into(), ..RequestHead::default() };
    head.headers.append(Known::UserAgent, "u");
    let mut route_changed = false;
    let mut again = false;
    let verdict = loop {
        let route = RouteContext { settings: settings.iter().collect(), cors: &[], forwards: true };
        let mut context = RequestContext::new(Some(route), &NoRuntime, &Nobody, &mut info);
        context.body.complete = body.is_empty();
        context.body.pieces = if again { body } else { &[] };
        let verdict = if again {
            stream.decode_again(&mut head, &mut context)
        } else {
            stream.decode_head(&mut head, &mut context)
        };
        route_changed |= context.route_changed;
        match verdict {
            Verdict::Wait => assert!(stream.poll(&mut Context::from_waker(Waker::noop())).is_ready()),
            Verdict::Buffer(_) => {}
            verdict => break verdict,
        }
        again = true;
    };
    let stats = [("ok", group.total(|it| it.ok().value())), ("denied", group.total(|it| it.denied().value()))];
    let more = [("error", group.total(|it| it.error().value())), ("invalid", group.total(|it| it.invalid().value()))];
    let stats = stats.into_iter().chain(more).filter(|(_, n)| *n > 0).map(|(name, n)| (name.to_owned(), n)).collect();
    Seen { verdict, head, asked: asked.asked.take(), route_changed, stats }
}

fn grpc_answer(response: &CheckResponse) -> Result<Answer, Unanswered> {
    let message = response.encode_to_vec();
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    let mut trailers = Headers::new();
    trailers.append(Known::GrpcStatus, "0");
    let head = ResponseHead { status: 200, ..ResponseHead::default() };
    let body = Bytes::from([&[0], &length[..], &message].concat());
    Ok(Answer { head, body, trailers: Some(Box::new(trailers)) })
}

fn ok(ok: OkHttpResponse) -> Result<Answer, Unanswered> {
    let http_response = Some(HttpResponse::OkResponse(ok));
    grpc_answer(&CheckResponse { status: Some(Status::default()), http_response, ..CheckResponse::default() })
}

fn header(key: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: key.into(), value: value.into(), ..HeaderValue::default() };
    HeaderValueOption { header: Some(header), ..HeaderValueOption::default() }
}

fn replied(verdict: Verdict) -> (u16, String, String) {
    match verdict {
        Verdict::Reply(reply) => {
            (reply.status, String::from_utf8_lossy(&reply.body).into_owned(), reply.details.into_owned())
        }
        other => panic!("{other:?}"),
    }
}

fn question(seen: &Seen) -> envoy_types::pb::envoy::service::auth::v3::AttributeContext {
    let (_, question) = seen.asked.first().expect("asked");
    CheckRequest::decode(&question.body[5..]).expect("a question").attributes.expect("attributes")
}

#[test]
fn a_request_that_passes_is_changed_as_the_service_wants() {
    let response = OkHttpResponse {
        headers: vec![header("x-who", "me")],
        headers_to_remove: vec!["user-agent".into()],
        query_parameters_to_remove: vec!["b".into()],
        ..OkHttpResponse::default()
    };
    let seen = run(proto::ExtAuthz { clear_route_cache: true, ..asks_grpc() }, ok(response), &[], &[]);
    assert!(matches!(seen.verdict, Verdict::Continue));
    let names: Vec<_> = seen.head.headers.iter().map(|header| header.name.as_str()).collect();
    assert_eq!((names, &seen.head.path[..], seen.route_changed), (vec!["x-who"], &b"/a"[..], true));
    assert_eq!(seen.stats, [("ok".to_owned(), 1)]);
    let http = question(&seen).request.and_then(|request| request.http).expect("a request");
    assert_eq!((http.id.as_str(), http.path.as_str(), http.host.as_str()), ("7", "/a?b=c", "host"));
    assert_eq!(http.headers.get("user-agent").map(String::as_str), Some("u"));
}

#[test]
fn a_request_that_does_not_pass_is_answered_as_the_service_wants() {
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: 401 }),
        headers: vec![header("x-why", "so")],
        body: "no entry".into(),
    };
    let http_response = Some(HttpResponse::DeniedResponse(denied));
    let status = Some(Status { code: 7, ..Status::default() });
    let answer = grpc_answer(&CheckResponse { status, http_response, ..CheckResponse::default() });
    let seen = run(proto::ExtAuthz { max_denied_response_body_bytes: 2, ..asks_grpc() }, answer, &[], &[]);
    assert_eq!(replied(seen.verdict), (401, "no".to_owned(), "ext_authz_denied".to_owned()));
    assert_eq!(seen.stats, [("denied".to_owned(), 1)]);
}

#[test]
fn where_no_decision_comes_the_filter_has_its_own() {
    let own =
        |status: u16| Ok(Answer { head: ResponseHead { status, ..ResponseHead::default() }, ..Answer::default() });
    for answer in [Err(Unanswered::NoCluster), Err(Unanswered::Broken), own(503), own(200)] {
        let seen = run(asks_grpc(), answer.clone(), &[], &[]);
        assert_eq!(replied(seen.verdict), (403, String::new(), "ext_authz_error".to_owned()), "{answer:?}");
        let lenient = proto::ExtAuthz { failure_mode_allow: true, failure_mode_allow_header_add: true, ..asks_grpc() };
        let seen = run(lenient, answer, &[], &[]);
        assert!(matches!(seen.verdict, Verdict::Continue));
        assert_eq!(seen.head.headers.iter().last().map(|header| header.name.as_str()), Some(FAILURE_MODE_ALLOWED));
        assert_eq!(seen.stats, [("error".to_owned(), 1)]);
    }
}

#[test]
fn what_a_service_may_not_do_is_an_error() {
    let breaks = OkHttpResponse { headers: vec![header("x-a", "a\r\nb")], ..OkHttpResponse::default() };
    let strict = proto::ExtAuthz { validate_mutations: true, ..asks_grpc() };
    let seen = run(strict, ok(breaks.clone()), &[], &[]);
    assert_eq!(replied(seen.verdict), (500, String::new(), "ext_authz_invalid".to_owned()));
    assert_eq!(seen.stats, [("invalid".to_owned(), 1)]);
    let (status, body, _) = replied(run(asks_grpc(), ok(breaks), &[], &[]).verdict);
    assert_eq!((status, body.as_str()), (503, "invalid header value for: x-a"));
}

#[test]
fn routes_switch_it_off_and_say_more() {
    let say = |settings| {
        let settings = proto::ExtAuthzPerRoute { r#override: Some(settings) };
        FilterSettings::ExtAuthz(RouteSettings::parse(settings, Session::default().root(), &services()).expect("valid"))
    };
    let check = |pairs: &[(&str, &str)]| {
        let context_extensions = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let settings = proto::CheckSettings { context_extensions, ..Default::default() };
        say(proto::ext_authz_per_route::Override::CheckSettings(settings))
    };
    let pass = || ok(OkHttpResponse::default());
    let off = say(proto::ext_authz_per_route::Override::Disabled(true));
    assert!(run(asks_grpc(), pass(), &[off], &[]).asked.is_empty());
    let seen = run(asks_grpc(), pass(), &[check(&[("a", "route")]), check(&[("a", "host"), ("b", "host")])], &[]);
    let mut extensions: Vec<_> = question(&seen).context_extensions.into_iter().collect();
    extensions.sort();
    assert_eq!(extensions, [("a".into(), "route".into()), ("b".into(), "host".to_owned())]);
}

#[test]
fn the_service_sees_as_much_of_a_body_as_it_may() {
    let settings = proto::BufferSettings { max_request_bytes: 4, allow_partial_message: true, pack_as_bytes: false };
    let config = proto::ExtAuthz { with_request_body: Some(settings), ..asks_grpc() };
    for (pieces, shown, partial) in [(vec!["ab", "cdef"], "abcd", "true"), (vec!["abc"], "abc", "false")] {
        let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
        let seen = run(config.clone(), ok(OkHttpResponse::default()), &[], &pieces);
        let http = question(&seen).request.and_then(|request| request.http).expect("a request");
        assert_eq!((http.body.as_str(), http.headers.get(PARTIAL_BODY).map(String::as_str)), (shown, Some(partial)));
    }
    let wants = |rule: BodyRule| rule.need;
    let parsed = parse(config).expect("valid");
    assert_eq!(parsed.body.map(wants), Some(BodyNeed { bytes: 4, partial: true }));
}

#[test]
fn an_http_service_is_asked_like_the_upstream_would_be() {
    let service = proto::HttpService { path_prefix: "/check".into(), ..Default::default() };
    let mut headers = Headers::new();
    headers.append(Known::Location, "/login");
    let head = ResponseHead { status: 302, headers, ..ResponseHead::default() };
    let seen = run(asks_http(service), Ok(Answer { head, ..Answer::default() }), &[], &[]);
    let (cluster, question) = seen.asked.first().expect("asked");
    let names: Vec<_> = question.head.headers.iter().map(|header| header.name.as_str()).collect();
    assert_eq!((cluster.as_str(), &question.head.path[..]), ("authz", &b"/check/a?b=c"[..]));
    assert_eq!(names, ["content-length", "x-envoy-internal"], "what nobody allowed is not told");
    let Verdict::Reply(reply) = seen.verdict else { panic!("it may not pass") };
    assert_eq!(reply.status, 302);
    assert!(reply.changes.contains(&HeaderChange::Append(Known::Location.into(), "/login".into())));
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let off = RuntimeFractionalPercent {
        default_value: Some(FractionalPercent { numerator: 0, denominator: 0 }),
        runtime_key: String::new(),
    };
    let seen =
        run(proto::ExtAuthz { filter_enabled: Some(off), ..asks_grpc() }, ok(OkHttpResponse::default()), &[], &[]);
    assert!(seen.asked.is_empty() && matches!(seen.verdict, Verdict::Continue));
    let prefix = proto::HttpService { path_prefix: "a".into(), ..Default::default() };
    for (proto, expected) in [
        (proto::ExtAuthz { transport_api_version: 2, ..Default::default() }, "services: value is required"),
        (proto::ExtAuthz { transport_api_version: 0, ..asks_grpc() }, "transport_api_version: V2"),
        (proto::ExtAuthz { shadow_mode: true, ..asks_grpc() }, "shadow_mode: "),
        (asks_http(prefix), "http_service.path_prefix: path_prefix should start with \"/\"."),
    ] {
        let error = parse(proto).expect_err("refused").to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

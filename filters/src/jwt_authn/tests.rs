use std::cell::Cell;
use std::task::Waker;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as proto;
use envoy_types::pb::google::protobuf::Duration as ProtoDuration;
use proto::jwt_provider::JwksSourceSpecifier;
use proto::jwt_requirement::RequiresType;
use proto::requirement_rule::RequirementType;
use serde_json::{Value, json};
use stats::{Store, StoreOptions};

use super::config::tests::{KEYS, local, needs, of, parse, provider_name, remote, rule};
use super::*;
use crate::call::{Answer, Question, Service, Task, Unanswered};
use crate::http::ResponseHead;
use crate::http_filter::{RouteContext, Server};
use crate::matcher::NoRuntime;
use crate::stream_info::{Address, ConnectionInfo, StreamInfo};

struct Nobody;

impl Server for Nobody {
    fn health_check_failed(&self) -> bool {
        false
    }

    fn membership(&self, _: &str) -> Option<(usize, usize)> {
        None
    }
}

/// Answers so, once it is told to.
#[derive(Clone, Default)]
struct Keeper {
    open: Rc<Cell<bool>>,
    asked: Rc<Cell<usize>>,
    status: u16,
    tasks: Rc<RefCell<Vec<Task>>>,
    /// How long tasks wanted to sleep. They never wake.
    slept: Rc<RefCell<Vec<Duration>>>,
}

impl Calls for Keeper {
    fn ask(&self, service: &Service, question: Question) -> Pending {
        assert_eq!(&*service.cluster, "keys");
        assert_eq!((&question.head.authority[..], &question.head.path[..]), (&b"jw.ks"[..], &b"/k"[..]));
        self.asked.set(self.asked.get() + 1);
        let keeper = self.clone();
        Box::pin(std::future::poll_fn(move |_| {
            if !keeper.open.get() {
                return Poll::Pending;
            }
            let head = ResponseHead { status: keeper.status, ..ResponseHead::default() };
            Poll::Ready(Ok::<_, Unanswered>(Answer { head, body: KEYS.into(), trailers: None }))
        }))
    }

    fn run(&self, task: Task) -> Errand {
        self.tasks.borrow_mut().push(task);
        let tasks = Rc::clone(&self.tasks);
        Errand::new(move || tasks.borrow_mut().clear())
    }

    fn sleep(&self, time: Duration) -> Task {
        self.slept.borrow_mut().push(time);
        Box::pin(std::future::pending())
    }
}

struct Bench {
    filter: Rc<JwtAuthn>,
    keeper: Keeper,
}

/// What came of a request.
#[derive(Debug)]
struct Seen {
    /// Status, body, details and challenge of an answer.
    denied: Option<(u16, String, String, Option<String>)>,
    head: RequestHead,
    metadata: Value,
    route_changed: bool,
}

impl Bench {
    fn new(proto: proto::JwtAuthentication) -> Self {
        let store = Store::new(1, StoreOptions::default());
        let stats = store.group::<JwtAuthnStats>("http.s.jwt_authn.").shard(0);
        let keeper = Keeper { status: 200, ..Keeper::default() };
        let config = Arc::new(parse(proto).unwrap());
        Self { filter: JwtAuthn::new(config, stats, Rc::new(keeper.clone())), keeper }
    }

    /// All requests need this.
    fn needing<const N: usize>(providers: [(&str, proto::JwtProvider); N], requirement: proto::JwtRequirement) -> Self {
        let rules = vec![rule("/", Some(RequirementType::Requires(requirement)))];
        Self::new(proto::JwtAuthentication { rules, ..of(providers) })
    }

    fn seen(&self, head: RequestHead, settings: &[FilterSettings]) -> Seen {
        let mut request = Request::new(&self.filter, head);
        let verdict = request.decode(settings);
        request.over(verdict)
    }

    /// What came of a request with these header lines.
    fn get(&self, lines: &[(&'static str, String)]) -> Seen {
        self.seen(get("/", lines), &[])
    }
}

struct Request {
    stream: JwtAuthnStream,
    head: RequestHead,
    info: StreamInfo,
    route_changed: bool,
    began: bool,
}

impl Request {
    fn new(filter: &Rc<JwtAuthn>, head: RequestHead) -> Self {
        let pipe = || Address::Pipe("".into());
        let connection = Rc::new(ConnectionInfo::between(pipe(), pipe()));
        let info = StreamInfo::new(connection, Instant::now(), SystemTime::now(), 1);
        Self { stream: JwtAuthnStream::new(filter), head, info, route_changed: false, began: false }
    }

    fn decode(&mut self, settings: &[FilterSettings]) -> Verdict {
        let route = RouteContext { settings: settings.iter().collect(), ..RouteContext::default() };
        let mut context = RequestContext::new(Some(route), &NoRuntime, &Nobody, &mut self.info);
        let verdict = match std::mem::replace(&mut self.began, true) {
            false => self.stream.decode_head(&mut self.head, &mut context),
            true => self.stream.decode_again(&mut self.head, &mut context),
        };
        self.route_changed |= context.route_changed;
        verdict
    }

    fn is_ready(&mut self) -> bool {
        self.stream.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn over(self, verdict: Verdict) -> Seen {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let denied = match verdict {
            Verdict::Continue => None,
            Verdict::Reply(reply) => {
                let challenge = reply.headers.value(&Known::WwwAuthenticate).map(|value| text(value));
                Some((reply.status, text(&reply.body), reply.details.into_owned(), challenge))
            }
            other => panic!("{other:?}"),
        };
        let metadata = self.info.dynamic_metadata.map_or(Value::Null, |it| it[NAMESPACE].clone());
        Seen { denied, head: self.head, metadata, route_changed: self.route_changed }
    }
}

impl Seen {
    fn why(&self) -> Option<&str> {
        self.denied.as_ref().map(|(_, body, ..)| &**body)
    }

    fn header(&self, name: &str) -> Vec<&str> {
        let name = HeaderName::parse(name.as_bytes()).unwrap();
        self.head
            .headers
            .iter()
            .filter(|it| it.name == name)
            .map(|it| std::str::from_utf8(&it.value).unwrap())
            .collect()
    }
}

fn get(path: &'static str, lines: &[(&'static str, String)]) -> RequestHead {
    let mut head = RequestHead { path: path.into(), authority: "test".into(), ..RequestHead::default() };
    head.headers.append(Known::XForwardedProto, "https");
    for (name, value) in lines {
        head.headers.append(HeaderName::parse(name.as_bytes()).unwrap(), value.clone());
    }
    head
}

fn token(claims: &Value) -> String {
    signed(claims, b"secret")
}

fn signed(claims: &Value, secret: &[u8]) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims.to_string().as_bytes()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", encode(signature.as_ref()))
}

fn bearer(token: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {token}"))
}

#[test]
fn without_a_valid_token_a_request_is_denied() {
    let bench = Bench::needing([("p", local("i", KEYS))], provider_name("p"));
    let denied = |lines: &[_]| bench.get(lines).denied.unwrap();
    assert_eq!(
        denied(&[]),
        (
            401,
            "Jwt is missing".to_owned(),
            "jwt_authn_access_denied{Jwt_is_missing}".to_owned(),
            Some("Bearer realm=\"https://test/\"".to_owned())
        )
    );
    let (status, body, details, challenge) = denied(&[bearer(&signed(&json!({"iss": "i"}), b"other"))]);
    assert_eq!((status, &*body), (401, "Jwt verification fails"));
    assert_eq!(details, "jwt_authn_access_denied{Jwt_verification_fails}");
    assert_eq!(challenge.as_deref(), Some("Bearer realm=\"https://test/\", error=\"invalid_token\""));
    assert_eq!(denied(&[bearer(&token(&json!({"iss": "j"})))]).1, "Jwt issuer is not configured");
    let good = bench.get(&[bearer(&token(&json!({"iss": "i"})))]);
    assert!(good.denied.is_none());
    assert!(good.header("authorization").is_empty());
    assert_eq!((bench.filter.stats.allowed().value(), bench.filter.stats.denied().value()), (1, 3));
}

#[test]
fn every_claim_is_checked() {
    let provider = proto::JwtProvider { audiences: vec!["a".to_owned()], require_expiration: true, ..local("", KEYS) };
    let bench = Bench::needing([("p", provider)], provider_name("p"));
    let far = 99_999_999_999.0;
    for (claims, expected) in [
        (json!({"aud": "a", "exp": far}), None),
        (json!({"aud": ["b", "http://a/"], "exp": far}), None),
        (json!({"aud": "b", "exp": far}), Some((403, "Audiences in Jwt are not allowed"))),
        (json!({"exp": far}), Some((403, "Audiences in Jwt are not allowed"))),
        (json!({"aud": "a"}), Some((401, "Jwt verification fails"))),
        (json!({"aud": "a", "exp": 1}), Some((401, "Jwt is expired"))),
        (json!({"aud": "a", "nbf": far, "exp": far}), Some((401, "Jwt not yet valid"))),
    ] {
        let seen = bench.get(&[bearer(&token(&claims))]);
        let denied = seen.denied.as_ref().map(|(status, body, ..)| (*status, &**body));
        assert_eq!(denied, expected, "{claims}");
    }
}

#[test]
fn upstream_metadata_and_routing_learn_of_tokens() {
    let claim = |name: &str, header: &str| proto::JwtClaimToHeader {
        header_name: header.to_owned(),
        claim_name: name.to_owned(),
        claim_path: Vec::new(),
    };
    let provider = proto::JwtProvider {
        forward: true,
        forward_payload_header: "x-payload".to_owned(),
        pad_forward_payload_header: true,
        claim_to_headers: vec![claim("a.b", "x-b"), claim("none", "x-none")],
        payload_in_metadata: "payload".to_owned(),
        header_in_metadata: "header".to_owned(),
        failed_status_in_metadata: "failed".to_owned(),
        normalize_payload_in_metadata: Some(proto::jwt_provider::NormalizePayload {
            space_delimited_claims: vec!["scope".to_owned(), "blank".to_owned()],
        }),
        clear_route_cache: true,
        ..local("", KEYS)
    };
    let bench = Bench::needing([("p", provider)], provider_name("p"));
    let claims = json!({"a": {"b": 7}, "scope": "x  y", "blank": " "});
    let forged = [("x-payload", "forged".to_owned()), ("x-none", "forged".to_owned())];
    let seen = bench.get(&[forged.as_slice(), &[bearer(&token(&claims))]].concat());
    let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
    let padding = "=".repeat((4 - payload.len() % 4) % 4);
    assert_eq!(seen.header("x-payload"), [payload + &padding]);
    assert_eq!(seen.header("x-b"), ["7"]);
    assert!(seen.header("x-none").is_empty());
    assert_eq!(seen.header("authorization").len(), 1);
    assert_eq!(
        seen.metadata,
        json!({
            "header": {"alg": "HS256"},
            "payload": {"a": {"b": 7.0}, "scope": ["x", "y"], "blank": " "},
        })
    );
    assert!(seen.route_changed);
    let unsayable = bench.get(&[bearer(&token(&json!({"a": {"b": "x\r\ny: z"}})))]);
    assert_eq!(unsayable.why(), Some("invalid header value for: x-b"));
    assert!(unsayable.header("x-b").is_empty());
    let failed = bench.get(&[bearer("x")]);
    assert_eq!(failed.metadata["failed"]["code"], json!(4.0));
    assert!(!failed.route_changed);
}

#[test]
fn requirements_are_combined() {
    let any = |requirements| needs(RequiresType::RequiresAny(proto::JwtRequirementOrList { requirements }));
    let all = |requirements| needs(RequiresType::RequiresAll(proto::JwtRequirementAndList { requirements }));
    let missing = || needs(RequiresType::AllowMissing(Default::default()));
    let failed = || needs(RequiresType::AllowMissingOrFailed(Default::default()));
    let p = || provider_name("p");
    let q = || provider_name("q");
    let of_p = || bearer(&token(&json!({"iss": "p"})));
    let of_q = || ("x-q", token(&json!({"iss": "q"})));
    let expired = || ("x-q", token(&json!({"iss": "q", "exp": 1})));
    let (gone, foreign) = (Some("Jwt is missing"), Some("Jwt issuer is not configured"));
    let late = Some("Jwt is expired");
    let misplaced = || bearer(&token(&json!({"iss": "q"})));
    for (n, (requirement, lines, why)) in [
        (any(vec![p(), q()]), vec![], gone),
        (any(vec![p(), q()]), vec![of_p()], None),
        (any(vec![p(), q()]), vec![of_q()], None),
        (any(vec![p(), q()]), vec![expired()], late),
        (any(vec![p(), q()]), vec![misplaced()], foreign),
        (any(vec![p(), q()]), vec![misplaced(), expired()], late),
        (any(vec![q(), p()]), vec![misplaced(), expired()], late),
        (any(vec![p(), missing()]), vec![], None),
        (any(vec![p(), missing()]), vec![misplaced()], foreign),
        (any(vec![q(), missing()]), vec![expired()], late),
        (any(vec![q(), failed()]), vec![expired()], None),
        (any(vec![missing(), failed()]), vec![expired()], None),
        (any(vec![failed(), missing()]), vec![expired()], None),
        (all(vec![p(), q()]), vec![], gone),
        (all(vec![p(), q()]), vec![of_p()], gone),
        (all(vec![p(), q()]), vec![of_p(), of_q()], None),
        (all(vec![p(), q()]), vec![of_p(), expired()], late),
        (all(vec![p(), any(vec![q(), missing()])]), vec![of_p()], None),
        (any(vec![all(vec![p(), q()]), q()]), vec![of_q()], None),
        (missing(), vec![], None),
        (missing(), vec![of_p()], None),
        (missing(), vec![expired()], late),
        (failed(), vec![expired()], None),
        (proto::JwtRequirement::default(), vec![expired()], None),
    ]
    .into_iter()
    .enumerate()
    {
        let from_headers = vec![proto::JwtHeader { name: "x-q".to_owned(), value_prefix: String::new() }];
        let other = proto::JwtProvider { from_headers, ..local("q", KEYS) };
        let bench = Bench::needing([("p", local("p", KEYS)), ("q", other)], requirement);
        assert_eq!(bench.get(&lines).why(), why, "{n}");
    }
}

#[test]
fn tokens_that_nobody_verified_are_marked() {
    let only = proto::ExtractOnlyWithoutValidation { verification_status_header: "x-v".to_owned() };
    let provider = proto::JwtProvider { payload_in_metadata: "payload".to_owned(), ..local("", KEYS) };
    let bench = Bench::needing([("p", provider)], needs(RequiresType::ExtractOnlyWithoutValidation(only)));
    let seen = bench.get(&[bearer("x"), ("x-v", "true".to_owned())]);
    assert!(seen.denied.is_none());
    assert_eq!(seen.header("x-v"), ["false"]);
    assert_eq!(bench.get(&[]).header("x-v").len(), 0);
    assert_eq!(bench.get(&[bearer(&token(&json!({})))]).header("x-v").len(), 0, "it is what it says it is");
}

#[test]
fn routes_have_requirements_of_their_own() {
    let requirement_map = [("one".to_owned(), provider_name("p")), ("two".to_owned(), provider_name("p"))].into();
    let rules = vec![rule("/", Some(RequirementType::RequirementName("one".to_owned())))];
    let bench = Bench::new(proto::JwtAuthentication { rules, requirement_map, ..of([("p", local("", KEYS))]) });
    let says = |settings: &[RouteRequirement]| {
        let settings: Vec<_> = settings.iter().cloned().map(|it| FilterSettings::JwtAuthn(Arc::new(it))).collect();
        bench.seen(get("/", &[]), &settings).denied
    };
    let named = |name: &str| RouteRequirement::Named(name.into());
    assert_eq!(says(&[]).unwrap().1, "Jwt is missing");
    assert!(says(&[RouteRequirement::Disabled, named("one")]).is_none());
    assert_eq!(says(&[named("two"), RouteRequirement::Disabled]).unwrap().1, "Jwt is missing");
    let (status, body, details, challenge) = says(&[named("three")]).unwrap();
    let why = "Wrong requirement_name: three. It should be one of [one,two]";
    assert_eq!((status, body), (403, format!("Failed JWT authentication: {why}")));
    assert_eq!(details, format!("jwt_authn_access_denied{{{}}}", why.replace(' ', "_")));
    assert_eq!(challenge, None);
}

#[test]
fn browsers_may_ask_what_they_may_ask() {
    let rules = vec![rule("/", Some(RequirementType::Requires(provider_name("p"))))];
    let proto = proto::JwtAuthentication { rules, bypass_cors_preflight: true, ..of([("p", local("", KEYS))]) };
    let bench = Bench::new(proto::JwtAuthentication { strip_failure_response: true, ..proto });
    let asks = |lines: &[_]| {
        let head = RequestHead { method: Method::Options, ..get("/", lines) };
        bench.seen(head, &[]).denied
    };
    let origin = ("origin", "o".to_owned());
    let method = ("access-control-request-method", "GET".to_owned());
    assert!(asks(&[origin.clone(), method.clone()]).is_none());
    assert!(asks(std::slice::from_ref(&origin)).is_some());
    let (status, body, details, challenge) = bench.get(&[origin, method]).denied.unwrap();
    assert_eq!((status, &*body, challenge), (401, "", None));
    assert_eq!(details, "jwt_authn_access_denied{Jwt_is_missing}");
    assert_eq!(bench.filter.stats.cors_preflight_bypassed().value(), 1);
}

#[test]
fn verified_tokens_are_remembered() {
    let provider = proto::JwtProvider { jwt_cache_config: Some(Default::default()), ..local("", KEYS) };
    let bench = Bench::needing([("p", provider)], provider_name("p"));
    let good = bearer(&token(&json!({"c": 1})));
    let bad = bearer(&signed(&json!({"c": 1}), b"other"));
    for line in [&good, &good, &bad, &bad] {
        bench.get(std::slice::from_ref(line));
    }
    let stats = &bench.filter.stats;
    assert_eq!((stats.jwt_cache_hit().value(), stats.jwt_cache_miss().value()), (1, 3));
    assert_eq!((stats.allowed().value(), stats.denied().value()), (2, 2));
}

#[test]
fn a_request_waits_for_keys() {
    let bench = Bench::needing([("p", remote("", "http://jw.ks/k"))], provider_name("p"));
    let head = || get("/", &[bearer(&token(&json!({"c": 1})))]);
    let mut first = Request::new(&bench.filter, head());
    assert!(matches!(first.decode(&[]), Verdict::Wait));
    assert!(!first.is_ready());
    bench.keeper.open.set(true);
    assert!(first.is_ready());
    let verdict = first.decode(&[]);
    assert!(first.over(verdict).denied.is_none());
    assert!(bench.seen(head(), &[]).denied.is_none(), "the next one has them");
    assert_eq!(bench.keeper.asked.get(), 1);
    assert_eq!(bench.filter.stats.jwks_fetch_success().value(), 1);
    let late = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    bench.filter.memory[0].keys.borrow_mut().as_mut().unwrap().1 = late;
    let mut later = Request::new(&bench.filter, head());
    assert!(matches!(later.decode(&[]), Verdict::Wait), "they are not good for ever");
}

#[test]
fn keys_that_do_not_come_let_nobody_through() {
    let mut bench = Bench::needing([("p", remote("", "http://jw.ks/k"))], provider_name("p"));
    let keeper = Keeper { status: 503, ..bench.keeper.clone() };
    keeper.open.set(true);
    let Ok(filter) = Rc::try_unwrap(bench.filter) else { panic!("nobody else has it") };
    bench.filter = Rc::new(JwtAuthn { calls: Rc::new(keeper), ..filter });
    let mut request = Request::new(&bench.filter, get("/", &[bearer(&token(&json!({})))]));
    assert!(matches!(request.decode(&[]), Verdict::Wait));
    assert!(request.is_ready());
    let verdict = request.decode(&[]);
    assert_eq!(request.over(verdict).why(), Some("Jwks remote fetch is failed"));
    assert_eq!(bench.filter.stats.jwks_fetch_failed().value(), 1);
}

#[test]
fn what_comes_after_is_looked_at_meanwhile() {
    let requirements = vec![provider_name("far"), provider_name("near")];
    let either =
        || needs(RequiresType::RequiresAny(proto::JwtRequirementOrList { requirements: requirements.clone() }));
    let bench = Bench::needing([("far", remote("", "http://jw.ks/k")), ("near", local("", KEYS))], either());
    let seen = bench.get(&[bearer(&token(&json!({})))]);
    assert!(seen.denied.is_none(), "nobody has to wait");
    let mut waits = Request::new(&bench.filter, get("/", &[bearer(&signed(&json!({}), b"other"))]));
    assert!(matches!(waits.decode(&[]), Verdict::Wait));
    bench.keeper.open.set(true);
    assert!(waits.is_ready());
    let verdict = waits.decode(&[]);
    assert_eq!(waits.over(verdict).why(), Some("Jwt verification fails"));
}

#[test]
fn one_worker_fetches_ahead_for_all() {
    for (status, next) in [(200, Duration::from_secs(595)), (503, Duration::from_millis(1500))] {
        let mut provider = remote("", "http://jw.ks/k");
        let Some(JwksSourceSpecifier::RemoteJwks(far)) = &mut provider.jwks_source_specifier else { panic!("far") };
        let failed_refetch_duration = Some(ProtoDuration { seconds: 1, nanos: 500_000_000 });
        far.async_fetch = Some(proto::JwksAsyncFetch { failed_refetch_duration, fast_listener: true });
        let rules = vec![rule("/", Some(RequirementType::Requires(provider_name("p"))))];
        let config = Arc::new(parse(proto::JwtAuthentication { rules, ..of([("p", provider)]) }).unwrap());
        let store = Store::new(1, StoreOptions::default());
        let stats = || store.group::<JwtAuthnStats>("http.s.jwt_authn.").shard(0);
        let keeper = Keeper { status, ..Keeper::default() };
        keeper.open.set(true);
        let [first, second] = [(), ()].map(|()| JwtAuthn::new(Arc::clone(&config), stats(), Rc::new(keeper.clone())));
        let mut tasks = keeper.tasks.take();
        assert_eq!(tasks.len(), 1);
        assert!(tasks[0].as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!((keeper.asked.get(), keeper.slept.take()), (1, vec![next]));
        for filter in [&first, &second] {
            let mut request = Request::new(filter, get("/", &[bearer(&token(&json!({})))]));
            let there = matches!(request.decode(&[]), Verdict::Continue);
            assert_eq!(there, status == 200, "whether the keys are there, on every worker");
        }
        keeper.tasks.replace(tasks);
        drop(first);
        assert!(keeper.tasks.borrow().is_empty(), "nobody fetches for a filter that is gone");
    }
}

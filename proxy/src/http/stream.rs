//! The life of a request: head in, hygiene, route, upstream, response out, statistics and log.
//!
//! One task runs it and polls both directions: a response may start before the request ends. The stream takes its route
//! table once and keeps it however long it lives; whatever is published meanwhile serves the next request. Every way
//! it can end is a status, a response flag and a details text from one table, and passes through `Stream::finish`.

mod answer;
mod call;
mod charge;
mod converse;
mod deadline;
mod early;
mod exchange;
mod expiry;
mod filtering;
mod finish;
mod hedge;
mod limits;
mod mirror;
mod redirect;
mod refused;
mod respond;
mod retry;
mod routing;
mod upstream;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use filters::flags::{ResponseFlags, details};
use filters::http::{Headers, Known, Method, RequestHead, ResponseHead, Version};
use filters::stream_info::StreamInfo;

use self::call::Mirror;
pub use self::call::WorkerCalls;
use self::deadline::Deadlines;
pub use self::deadline::Expired;
use self::early::Early;
use self::redirect::Redirects;
pub use self::refused::refused;
use super::codec::h1::HeaderCase;
use super::codec::{Downstream, Interrupt};
use super::filter_chain::StreamFilters;
use super::hygiene::{RequestFacts, is_upgrade};
use super::manager::{Connection, Manager};
use super::path::PathVerdict;
use super::reply::LocalReply;
use super::upgrade;
use crate::overload::Action;
use crate::route::{ClusterChoice, Route, RouteAction, RouteId, RouteScope, RouteTable, VirtualHost};
use crate::upstream::cluster::Cluster;
use crate::upstream::lb::override_host::AskedHosts;
use crate::upstream::measure::Measure;
use crate::upstream::responses::ByOrigin;
use crate::upstream::retry::RetryState;
use crate::upstream::server_name::ServerNames;
use crate::worker::timer::Alarm;

/// A request as its codec understood it.
pub struct Incoming {
    /// The head.
    pub head: RequestHead,
    /// When its first byte was seen.
    pub began: Instant,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The client wants the connection to end after this request.
    pub last: bool,
    /// How an HTTP/1 client spelled its header names, where that is to be kept.
    pub case: Option<HeaderCase>,
}

/// Why there is no head to serve, though a request has begun.
#[derive(Debug, Clone, Copy)]
pub enum Unread {
    /// The client left.
    Gone,
    /// It took too long.
    Expired(Expired),
}

/// Serves one request to its end, on a side that has just decoded its head.
pub async fn serve<D: Downstream>(
    manager: &Rc<Manager>,
    connection: &Rc<Connection>,
    alarm: &Alarm,
    down: &mut D,
    incoming: Incoming,
) {
    let mut stream = Stream::new(manager, connection, alarm, down, incoming.began);
    stream.begin(incoming.head.version);
    let mut head = incoming.head;
    upgrade::from_extended_connect(&mut head);
    stream.request = Some(head);
    stream.case = incoming.case;
    stream.run(incoming.expects_continue, incoming.last).await;
    stream.finish();
}

/// Answers what the codec could not make sense of, as Envoy does: a short reply and an end.
pub async fn refuse<D: Downstream>(
    manager: &Rc<Manager>,
    connection: &Rc<Connection>,
    alarm: &Alarm,
    down: &mut D,
    refusal: Refusal,
) {
    let mut stream = Stream::new(manager, connection, alarm, down, refusal.began);
    stream.begin(refusal.version);
    stream.request = refusal.head;
    stream.close_connection();
    stream.reply(LocalReply::new(refusal.status, refusal.body), refusal.details).await;
    if refusal.protocol_error {
        // The reply does not know of the flag yet, only the log does.
        stream.info.flags.insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
        manager.stats.downstream_cx_protocol_error().inc();
    }
    stream.finish();
}

/// Counts, answers and logs a request that ended within its head.
pub async fn give_up<D: Downstream>(
    manager: &Rc<Manager>,
    connection: &Rc<Connection>,
    alarm: &Alarm,
    down: &mut D,
    began: Instant,
    why: Unread,
) {
    let mut stream = Stream::new(manager, connection, alarm, down, began);
    stream.begin(Version::Http11);
    match why {
        Unread::Gone => stream.interrupted(Interrupt::Disconnect),
        Unread::Expired(which) => {
            let _: Step<()> = stream.expired(which).await;
        }
    }
    stream.finish();
}

/// What to answer to bytes that are no request.
pub struct Refusal {
    /// Status.
    pub status: u16,
    /// Body text.
    pub body: &'static str,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
    /// Whether it counts as a protocol error (`DPE`).
    pub protocol_error: bool,
    /// As much of the head as was understood.
    pub head: Option<RequestHead>,
    /// The version spoken.
    pub version: Version,
    /// When its first byte was seen.
    pub began: Instant,
}

/// One request and its response.
struct Stream<'a, D: Downstream> {
    manager: &'a Rc<Manager>,
    connection: &'a Rc<Connection>,
    alarm: &'a Alarm,
    down: &'a mut D,
    deadlines: Deadlines,
    info: StreamInfo,
    request: Option<RequestHead>,
    /// How the client spelled its header names, where that is to be kept.
    case: Option<HeaderCase>,
    /// The head sent downstream, kept for the log.
    response: Option<ResponseHead>,
    /// The trailers sent downstream, kept for the log.
    trailers: Option<Box<Headers>>,
    facts: RequestFacts,
    routed: Option<Routed>,
    cluster: Option<Rc<Cluster>>,
    /// `x-envoy-upstream-alt-stat-name`: where its response codes count too.
    alternative: Option<Rc<ByOrigin>>,
    /// Statistics that the route and its virtual host ask for.
    scopes: [Option<Arc<RouteScope>>; 2],
    /// A canary answered.
    canary: bool,
    /// Decides everything random about this stream, always the same way.
    random: u64,
    /// The request asks for a tunnel, and upstream has not refused it.
    tunnel: bool,
    /// The port that was taken off the authority of a CONNECT, which needs it upstream.
    connect_port: Option<u32>,
    /// The server's name, where requests of the cluster tell it.
    server_names: Option<Rc<ServerNames>>,
    /// The request is as it goes upstream, and what answers it knows how many tries there were.
    prepared: bool,
    /// The status of a timeout: 504, or 204 for a client that asked for it.
    timeout_status: u16,
    /// `hedge_on_per_try_timeout`
    hedges: bool,
    /// The request was complete with its head.
    head_only: bool,
    /// Pieces of the body that came before there was an upstream to take them.
    early: Early,
    /// The end of the response was handed to the downstream side.
    response_ended: bool,
    /// It was let through as an upgrade or CONNECT, whatever upstream says to that.
    upgrade: bool,
    /// Whether a gRPC response succeeded is known only at its end, which has not come.
    grpc_pending: bool,
    /// Cookies made up so that requests stick to a host (`set-cookie`).
    cookies: Vec<Bytes>,
    /// Upstream has answered with a head, perhaps an informational one: the response has started in the router's eyes.
    upstream_started: bool,
    /// It was refused while its body was read, of which for the client nothing was taken.
    overlong: bool,
    /// It was counted, logged and taken back.
    over: bool,
    /// What is remembered of the redirects it followed.
    redirects: Option<Box<Redirects>>,
    /// The hosts it asks for, once a cluster wanted to know.
    asked: OnceCell<AskedHosts>,
    /// Copies of the request that still want its body.
    mirrors: Vec<Mirror>,
    /// What decides about further tries, while there may be any.
    retry: Option<Box<RetryState>>,
    /// What is measured of the try under way, if its cluster asks for that.
    measure: Option<Box<Measure>>,
    /// The HTTP filters that have seen the request.
    filters: StreamFilters,
}

/// The route of a stream, found again in the table it keeps.
#[derive(Clone)]
struct Routed {
    table: Rc<Arc<RouteTable>>,
    id: RouteId,
    /// The weighted cluster chosen.
    ordinal: Option<u32>,
}

impl Routed {
    fn resolve(&self) -> Option<(&Arc<VirtualHost>, &Arc<Route>)> {
        self.table.resolve(self.id)
    }

    /// The cluster chosen on `route`, which is this one, for a request; `None` when the route does not forward.
    fn choice<'r>(&self, route: &'r Route, request: Option<&RequestHead>) -> Option<ClusterChoice<'r>> {
        match &route.action {
            RouteAction::Forward(forward) => Some(forward.choice_again(self.ordinal, request?)),
            _ => None,
        }
    }
}

/// How a step of the stream ends it early.
enum End {
    /// A local reply was sent, or there is nobody to send one to.
    Done,
    /// The upstream's redirect is followed: the stream is about another request.
    Redirected,
}

/// A step of the stream: its value, or the end.
type Step<T> = Result<T, End>;

impl<'a, D: Downstream> Stream<'a, D> {
    fn new(
        manager: &'a Rc<Manager>,
        connection: &'a Rc<Connection>,
        alarm: &'a Alarm,
        down: &'a mut D,
        began: Instant,
    ) -> Self {
        let random = fastrand::u64(..);
        Self {
            manager,
            connection,
            alarm,
            down,
            deadlines: Deadlines::new(),
            info: StreamInfo::new(Rc::clone(&connection.info), began, manager.worker.timers().recent_wall(), random),
            request: None,
            case: None,
            response: None,
            trailers: None,
            facts: RequestFacts::default(),
            routed: None,
            cluster: None,
            alternative: None,
            scopes: [None, None],
            canary: false,
            random,
            tunnel: false,
            connect_port: None,
            server_names: None,
            prepared: false,
            timeout_status: 504,
            hedges: false,
            head_only: true,
            early: Early::default(),
            response_ended: false,
            upgrade: false,
            grpc_pending: false,
            cookies: Vec::new(),
            upstream_started: false,
            overlong: false,
            over: false,
            redirects: None,
            asked: OnceCell::new(),
            mirrors: Vec::new(),
            retry: None,
            measure: None,
            filters: StreamFilters::default(),
        }
    }

    /// Counts the request; everything counted here is taken back in [`Self::finish`].
    fn begin(&mut self, version: Version) {
        let (stats, connection) = (&self.manager.stats, self.connection);
        stats.downstream_rq_total().inc();
        stats.downstream_rq_active().inc();
        match version {
            Version::Http2 => stats.downstream_rq_http2_total().inc(),
            Version::Http10 | Version::Http11 => stats.downstream_rq_http1_total().inc(),
        }
        self.info.protocol = Some(version);
        connection.active.set(connection.active.get() + 1);
        connection.requests.set(connection.requests.get() + 1);
        let timers = self.manager.worker.timers();
        let config = &self.manager.config;
        let began = timers.tick(self.info.start);
        self.deadlines.set_idle(timers.recent(), config.timeouts.stream_idle);
        self.deadlines.set_request(began, config.timeouts.request);
        self.deadlines.set_max_duration(began, config.timeouts.max_stream_duration);
        if !config.access_logs.is_empty() {
            self.deadlines.set_log_flush(began, config.access_log_options.flush_interval);
        }
        if config.limits.max_requests_per_connection.is_some_and(|max| connection.requests.get() >= u64::from(max)) {
            stats.downstream_cx_max_requests_reached().inc();
            connection.give_up_at_once();
        }
    }

    async fn run(&mut self, expects_continue: bool, last: bool) {
        if self.manager.worker.overloaded(Action::StopAcceptingRequests) {
            self.manager.stats.downstream_rq_overload_close().inc();
            self.info.flags.insert(ResponseFlags::OVERLOAD_MANAGER);
            return self.reply(LocalReply::new(503, "envoy overloaded"), details::OVERLOAD).await;
        }
        let Some(mut head) = self.request.take() else { return };
        self.head_only = self.down.request_complete();
        let step = self.prepare(&mut head).await;
        self.request = Some(head);
        if step.is_err() {
            return;
        }
        if last {
            self.connection.at_once.set(true);
        }
        if expects_continue && !self.manager.config.proxy_100_continue {
            self.send_informational(&ResponseHead { status: 100, ..ResponseHead::default() });
            if let Some(head) = &mut self.request {
                head.headers.remove(&Known::Expect);
            }
        }
        // A redirect that is followed here is another request, of the same client.
        while self.route().await.is_ok() {
            match self.forward().await {
                Err(End::Redirected) => {}
                Ok(()) | Err(End::Done) => return,
            }
        }
    }

    /// Checks and normalises the head, and applies the connection manager's hygiene.
    async fn prepare(&mut self, head: &mut RequestHead) -> Step<()> {
        let config = Arc::clone(&self.manager.config);
        self.info.method = Some(head.method.clone());
        if head.authority_missing && head.version != Version::Http2 {
            return self.reply_to(head, LocalReply::new(400, ""), details::MISSING_HOST).await;
        }
        let connect = head.is_plain_connect();
        if head.path.is_empty() && !connect {
            return self.reply_to(head, LocalReply::new(404, ""), details::MISSING_PATH).await;
        }
        if !connect && head.path.first() != Some(&b'/') {
            self.manager.stats.downstream_rq_non_relative_path().inc();
            return self.reply_to(head, LocalReply::new(404, ""), details::ABSOLUTE_PATH_REJECTED).await;
        }
        match config.path.normalize(head) {
            PathVerdict::Continue => {}
            PathVerdict::Reject => {
                self.manager.stats.downstream_rq_failed_path_normalization().inc();
                return self.reply_to(head, LocalReply::new(400, ""), details::PATH_NORMALIZATION_FAILED).await;
            }
            PathVerdict::Redirect => {
                self.manager.stats.downstream_rq_redirected_with_normalized_path().inc();
                let reply = LocalReply::new(307, "").with_header(Known::Location, head.path.clone());
                return self.reply_to(head, reply, details::PATH_NORMALIZATION_FAILED).await;
            }
        }
        let local_port = self.connection.info.local.ip().map(|address| address.port());
        let port = config.path.normalize_host(head, local_port);
        // HTTP/2 says every upgrade by CONNECT.
        let connects = head.method == Method::Connect || head.version == Version::Http2 && is_upgrade(&head.headers);
        self.connect_port = port.filter(|_| connects);
        let table = self.manager.routes.table();
        let internal_only = table.as_ref().map_or(&[][..], |table| table.internal_only_headers());
        let mutated = self.manager.worker.with_rng(|rng| {
            config.request.mutate(head, &self.connection.peer, &self.connection.info, internal_only, rng)
        });
        match mutated {
            Ok(facts) => {
                if let Some(client) = &facts.client {
                    self.info.remote = client.clone();
                }
                self.facts = facts;
                Ok(())
            }
            Err(rejection) => {
                self.manager.stats.downstream_rq_rejected_via_ip_detection().inc();
                self.reply_to(head, LocalReply::new(rejection.status, ""), rejection.details).await
            }
        }
    }

    /// The connection is given up after this response: HTTP/1 says `connection: close`, HTTP/2 GOAWAY.
    fn close_connection(&self) {
        self.connection.give_up();
    }

    async fn reply_to(&mut self, head: &mut RequestHead, reply: LocalReply, why: &'static str) -> Step<()> {
        self.request = Some(std::mem::take(head));
        let step = self.reply_end(reply, why).await;
        *head = self.request.take().unwrap_or_default();
        step
    }

    async fn reply_end<T>(&mut self, reply: LocalReply, why: impl Into<Cow<'static, str>>) -> Step<T> {
        self.reply(reply, why).await;
        Err(End::Done)
    }

    /// The client is gone, reset the stream, or broke the protocol: nothing can be answered any more.
    fn interrupted(&mut self, interrupt: Interrupt) {
        let stats = &self.manager.stats;
        match interrupt {
            Interrupt::Disconnect => {
                self.info.flags.insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
                self.info.details = Some(details::DOWNSTREAM_REMOTE_DISCONNECT.into());
            }
            Interrupt::Reset(how) => {
                self.info.flags.insert(ResponseFlags::DOWNSTREAM_REMOTE_RESET);
                self.info.details = Some(how.into());
            }
            Interrupt::Closed(details) => {
                self.info.flags.insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
                self.info.details = Some(details.into());
            }
            Interrupt::Codec(details) => {
                self.info.flags.insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
                self.info.details = Some(details.into());
            }
            Interrupt::Malformed { details, .. } => {
                stats.downstream_cx_protocol_error().inc();
                if self.info.protocol != Some(Version::Http2) {
                    stats.downstream_cx_destroy_active_rq().inc();
                    stats.downstream_cx_destroy_local_active_rq().inc();
                }
                self.info.flags.insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
                self.info.details = Some(details.into());
            }
        }
        self.down.abort();
    }
}

//! The life of a request: head in, hygiene, route, upstream, response out, statistics and log.
//!
//! One task runs it and polls both directions: a response may start before the request ends. The stream takes its route
//! table once and keeps it however long it lives; whatever is published meanwhile serves the next request. Every way
//! it can end is a status, a response flag and a details text from one table, and passes through `Stream::finish`.

mod deadline;
mod exchange;
mod finish;
mod respond;
mod upstream;

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use filters::flags::{ResponseFlags, details};
use filters::http::{Headers, Known, Method, RequestHead, ResponseHead, Version};
use filters::stream_info::StreamInfo;

use self::deadline::Deadlines;
use super::codec::{Downstream, Interrupt};
use super::hygiene::{RequestFacts, is_upgrade};
use super::manager::{Connection, Manager};
use super::path::PathVerdict;
use super::reply::LocalReply;
use crate::overload::Action;
use crate::route::{MatchInput, Route, RouteAction, RouteId, RouteTable, Selection, VirtualHost};
use crate::upstream::cluster::Cluster;
use crate::worker::timer::Alarm;

/// A request as its codec understood it.
pub struct Incoming {
    /// The head.
    pub head: RequestHead,
    /// When its first byte was seen.
    pub began: Instant,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
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
    stream.request = Some(incoming.head);
    stream.run(incoming.expects_continue).await;
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
    if refusal.protocol_error {
        stream.info.flags.insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
        manager.stats.downstream_cx_protocol_error().inc();
    }
    stream.close_connection();
    stream.reply(LocalReply::new(refusal.status, refusal.body), refusal.details).await;
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
struct Stream<'a, D> {
    manager: &'a Rc<Manager>,
    connection: &'a Rc<Connection>,
    alarm: &'a Alarm,
    down: &'a mut D,
    deadlines: Deadlines,
    info: StreamInfo,
    request: Option<RequestHead>,
    /// The head sent downstream, kept for the log.
    response: Option<ResponseHead>,
    /// The trailers sent downstream, kept for the log.
    trailers: Option<Box<Headers>>,
    facts: RequestFacts,
    routed: Option<Routed>,
    cluster: Option<Rc<Cluster>>,
    /// Decides everything random about this stream, always the same way.
    random: u64,
    tunnel: bool,
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
}

/// How a step of the stream ends it early.
enum End {
    /// A local reply was sent, or there is nobody to send one to.
    Done,
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
            info: StreamInfo::new(Rc::clone(&connection.info), began, SystemTime::now(), random),
            request: None,
            response: None,
            trailers: None,
            facts: RequestFacts::default(),
            routed: None,
            cluster: None,
            random,
            tunnel: false,
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
        self.deadlines.set_idle(timers, config.timeouts.stream_idle);
        self.deadlines.set_request(timers, config.timeouts.request);
        self.deadlines.set_max_duration(timers, config.timeouts.max_stream_duration);
        if config.limits.max_requests_per_connection.is_some_and(|max| connection.requests.get() >= u64::from(max)) {
            stats.downstream_cx_max_requests_reached().inc();
            self.close_connection();
        }
    }

    async fn run(&mut self, expects_continue: bool) {
        if self.manager.worker.overloaded(Action::StopAcceptingRequests) {
            self.manager.stats.downstream_rq_overload_close().inc();
            self.info.flags.insert(ResponseFlags::OVERLOAD_MANAGER);
            return self.reply(LocalReply::new(503, "envoy overloaded"), details::OVERLOAD).await;
        }
        let Some(mut head) = self.request.take() else { return };
        let step = self.prepare(&mut head).await;
        self.request = Some(head);
        if step.is_err() {
            return;
        }
        if expects_continue && !self.manager.config.proxy_100_continue {
            self.down.send_informational(&ResponseHead { status: 100, ..ResponseHead::default() });
            if let Some(head) = &mut self.request {
                head.headers.remove(&Known::Expect);
            }
        }
        if self.route().await.is_ok() {
            self.forward().await;
        }
    }

    /// Checks and normalises the head, and applies the connection manager's hygiene.
    async fn prepare(&mut self, head: &mut RequestHead) -> Step<()> {
        let config = Arc::clone(&self.manager.config);
        self.info.method = Some(head.method.clone());
        if head.authority.is_empty() && head.version != Version::Http10 && head.version != Version::Http2 {
            self.close_connection();
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
        config.path.normalize_host(head, local_port);
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

    /// Finds the route and acts on those that need no upstream.
    async fn route(&mut self) -> Step<()> {
        let Some(head) = &self.request else { return Err(End::Done) };
        let Some(table) = self.manager.routes.table() else {
            self.no_route();
            return self.reply_end(LocalReply::new(404, ""), details::ROUTE_CONFIGURATION_NOT_FOUND).await;
        };
        let runtime = self.manager.worker.runtime();
        let input = MatchInput { random: self.random, runtime: &*runtime, tls: None };
        let found = match table.select(head, &input) {
            Selection::Matched { id, route, .. } => {
                if !route.name.is_empty() {
                    self.info.route_name = Some(Arc::clone(&route.name));
                }
                Ok(id)
            }
            Selection::RequireTls(_) => Err(Some(crate::route::redirect::tls_redirect(head))),
            Selection::NoRoute(_) | Selection::NoVirtualHost => Err(None),
        };
        let upgrade = upgrade_protocol(head).map(<[u8]>::to_vec);
        match found {
            Ok(id) => self.routed = Some(Routed { table, id, ordinal: None }),
            Err(Some(location)) => {
                self.manager.stats.rq_redirect().inc();
                let reply = LocalReply::new(301, "").with_header(Known::Location, location);
                return self.reply_end(reply, details::DIRECT_RESPONSE).await;
            }
            Err(None) => {}
        }
        if let Some(protocol) = upgrade
            && !self.upgrade_allowed(&protocol)
        {
            if protocol.eq_ignore_ascii_case(b"connect") && self.routed.is_none() {
                self.no_route();
                self.close_connection();
                return self.reply_end(LocalReply::new(404, ""), details::ROUTE_NOT_FOUND).await;
            }
            self.manager.stats.downstream_rq_ws_on_non_ws_route().inc();
            return self.reply_end(LocalReply::new(403, ""), details::UPGRADE_FAILED).await;
        }
        self.manager.stats.rq_total().inc();
        let Some(routed) = self.routed.clone() else {
            self.no_route();
            return self.reply_end(LocalReply::new(404, ""), details::ROUTE_NOT_FOUND).await;
        };
        let Some((_, route)) = routed.resolve() else { return Err(End::Done) };
        match &route.action {
            RouteAction::Forward(_) => Ok(()),
            RouteAction::NonForwarding => {
                self.no_route();
                self.reply_end(LocalReply::new(404, ""), details::ROUTE_NOT_FOUND).await
            }
            RouteAction::DirectResponse(direct) => {
                self.manager.stats.rq_direct_response().inc();
                let reply = LocalReply::new(direct.status, direct.body.clone());
                self.reply_end(reply, details::DIRECT_RESPONSE).await
            }
            RouteAction::Redirect(redirect) => {
                self.manager.stats.rq_redirect().inc();
                let Some(head) = &self.request else { return Err(End::Done) };
                let location = redirect.location(head, &route.matcher.path, &self.info);
                let reply = LocalReply::new(redirect.status, "").with_header(Known::Location, location);
                self.reply_end(reply, details::DIRECT_RESPONSE).await
            }
        }
    }

    fn no_route(&mut self) {
        self.manager.stats.no_route().inc();
        self.info.flags.insert(ResponseFlags::NO_ROUTE_FOUND);
    }

    /// The route's word about an upgrade, else the connection manager's.
    fn upgrade_allowed(&self, protocol: &[u8]) -> bool {
        let of_route = self.routed.as_ref().and_then(Routed::resolve).and_then(|(_, route)| match &route.action {
            RouteAction::Forward(forward) => forward.upgrade(protocol).map(|upgrade| upgrade.enabled),
            _ => None,
        });
        of_route.unwrap_or_else(|| self.manager.config.upgrade_enabled(protocol))
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
                stats.downstream_rq_rx_reset().inc();
                self.info.flags.insert(ResponseFlags::DOWNSTREAM_REMOTE_RESET);
                self.info.details = Some(how.into());
            }
            Interrupt::Malformed { details, .. } => {
                stats.downstream_cx_protocol_error().inc();
                self.info.flags.insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
                self.info.details = Some(details.into());
            }
        }
        self.down.abort();
    }
}

/// The protocol a request wants its connection or stream to become: an HTTP/1 `upgrade`, an HTTP/2 `:protocol`, or
/// CONNECT itself.
fn upgrade_protocol(head: &RequestHead) -> Option<&[u8]> {
    if head.method == Method::Connect {
        return Some(head.protocol.as_deref().unwrap_or(b"CONNECT"));
    }
    if head.version != Version::Http2 && is_upgrade(&head.headers) {
        return head.headers.value(&Known::Upgrade).map(|value| &value[..]);
    }
    None
}

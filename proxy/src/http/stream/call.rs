//! Requests of the proxy's own: copies of others ([mirroring](super::mirror)), and those that filters
//! [ask for](filters::call). Each goes through its cluster as anybody's request does: breakers, pools, statistics, tries
//! after the first if there is a retry policy; and each is counted as Envoy counts those of its asynchronous client.
//!
//! A call is a future: dropped it is given up. What comes to nothing is answered here, as a client would be.

mod asked;
mod feed;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use filters::call::{Answer, Unanswered};
use filters::http::{Frame, Headers, Known, RequestHead, ResponseHead};
use filters::stream_info::{ConnectionInfo, StreamInfo};

pub use self::asked::WorkerCalls;
pub(super) use self::feed::{Feed, Mirror};
use super::converse::give_up;
use super::mirror::Original;
use super::routing::upgrade_protocol;
use crate::config::cluster::UpstreamProtocol;
use crate::route::retry::RetryPolicy;
use crate::upstream::breaker::Priority;
use crate::upstream::cluster::{Cluster, Purpose};
use crate::upstream::exchange::Exchange;
use crate::upstream::failure::{FailureKind, UpstreamFailure};
use crate::upstream::host::Host;
use crate::upstream::lb::PickContext;
use crate::upstream::lb::override_host::Asking;
use crate::upstream::outlier::Outcome;
use crate::upstream::pool::PoolProtocol;
use crate::upstream::responses::Origin;
use crate::upstream::retry::{Decision, RetryState, Ruling, Surroundings, Wait};
use crate::upstream::server_name::ServerNames;
use crate::worker::Worker;
use crate::worker::timer::Tick;

/// A call on its way.
pub(super) struct Call {
    worker: Rc<Worker>,
    cluster: Rc<Cluster>,
    head: RequestHead,
    /// The server's name, where requests tell it.
    names: Option<Rc<ServerNames>>,
    /// What the cluster finds its host by.
    hash: Option<u64>,
    timeout: Option<Duration>,
    /// How long a try may take to answer.
    per_try: Option<Duration>,
    /// When to try again.
    retry: Option<Arc<RetryPolicy>>,
    buffer_limit: usize,
    feed: Rc<RefCell<Feed>>,
    /// Whose request it is a copy of.
    connection: Rc<ConnectionInfo>,
    lineage: Vec<Arc<str>>,
    /// Where the try under way is.
    host: RefCell<Option<Arc<Host>>>,
    /// The answer has begun.
    answered: Cell<bool>,
}

/// What is kept of an answer.
#[derive(Clone, Copy)]
pub(super) enum Kept {
    /// Nothing: nobody waits for it.
    Nothing,
    /// All of it, if its body is no longer than this.
    UpTo(usize),
}

/// How a try ended.
enum Ended {
    /// It was answered, or gave its answer up on the way.
    Answered(Result<Answer, Unanswered>),
    /// Another follows.
    Again(Wait),
}

/// How a try came to nothing.
struct Failed {
    failure: UpstreamFailure,
    /// Some of the request was sent.
    begun: bool,
    /// It took too long.
    late: bool,
}

impl Failed {
    const fn new(failure: UpstreamFailure, begun: bool) -> Self {
        Self { failure, begun, late: false }
    }
}

/// A try under way: dropped before its end it is given up.
struct UnderWay {
    cluster: Rc<Cluster>,
    up: Option<Exchange>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(up) = self.up.take() {
            give_up(&self.cluster, up);
        }
    }
}

impl Call {
    /// A copy of this request with its own head, which goes to this cluster.
    pub(super) fn copy(
        original: &Original<'_>,
        cluster: Rc<Cluster>,
        head: RequestHead,
        feed: Rc<RefCell<Feed>>,
    ) -> Self {
        // Only the cluster itself may say what it is hashed by: a copy has no route.
        let hash = cluster.hash_policy(None).and_then(|policy| policy.hash(&head, original.info, None));
        let lineage = original.lineage.iter().chain([&cluster.config().name]).cloned().collect();
        Self {
            worker: Rc::clone(original.worker),
            names: ServerNames::of_request(&cluster, &head),

            hash,
            timeout: original.timeout,
            buffer_limit: original.buffer_limit,
            feed,
            connection: Rc::clone(&original.info.connection),
            lineage,
            per_try: None,
            retry: None,
            cluster,
            head,
            host: RefCell::default(),
            answered: Cell::new(false),
        }
    }

    /// Sends it and waits for its answer; no longer than its timeout after all of it is there.
    pub(super) async fn send(self, kept: Kept) -> Result<Answer, Unanswered> {
        self.worker.calls().rq_total().inc();
        let timers = Rc::clone(self.worker.timers());
        let alarm = timers.alarm();
        let mut deadline = Tick::NEVER;
        let outcome = {
            let mut exchange = pin!(self.exchange(kept));
            poll_fn(|cx| {
                timers.turn();
                let mut feed = self.feed.borrow_mut();
                feed.reader = Some(cx.waker().clone());
                if feed.abandoned {
                    return Poll::Ready(Some(Err(Unanswered::Broken)));
                }
                if std::mem::take(&mut feed.too_long) {
                    self.cluster.context().stats.retry_or_shadow_abandoned().inc();
                }
                if feed.complete && deadline == Tick::NEVER {
                    deadline = timers.recent().after_opt(self.timeout);
                }
                drop(feed);
                if alarm.poll(deadline, cx).is_ready() {
                    return Poll::Ready(None);
                }
                exchange.as_mut().poll(cx).map(Some)
            })
            .await
        };
        self.feed.borrow_mut().close();
        outcome.unwrap_or_else(|| self.late())
    }

    /// It took too long.
    fn late(&self) -> Result<Answer, Unanswered> {
        self.cluster.context().stats.upstream_rq_timeout().inc();
        if self.answered.get() {
            return Err(Unanswered::Broken);
        }
        let host = self.host.borrow();
        if let Some(host) = &*host {
            host.shard(self.worker.index()).rq_timeout.inc();
            self.worker.note(host, Outcome::TimedOut(504));
        }
        self.charge(504, host.as_deref(), None);
        Ok(own(504, "upstream request timeout"))
    }

    async fn exchange(&self, kept: Kept) -> Result<Answer, Unanswered> {
        let context = self.cluster.context();
        let runtime = self.worker.runtime();
        if runtime.fraction(context.maintenance_key()).is_some_and(|share| share.contains(fastrand::u64(..))) {
            context.stats.upstream_rq_maintenance_mode().inc();
            self.charge(503, None, None);
            return Ok(own(503, "maintenance mode"));
        }
        if self.cluster.drops().is_some() {
            self.charge(503, None, None);
            return Ok(own(503, "drop overload"));
        }
        let asked = OnceCell::new();
        let asking = Asking { head: &self.head, metadata: None, state: &asked };
        let wanted = PickContext { hash: self.hash, asking: Some(&asking), ..PickContext::default() };
        let Some(mut host) = self.cluster.pick(&wanted) else { return self.no_host() };
        let policy = self.cluster.config().http.retry.as_ref().or(self.retry.as_ref());
        let mut retry = RetryState::new(policy, Priority::Default, &self.head, &*runtime);
        if retry.as_ref().is_some_and(|retry| retry.is_enabled()) {
            self.feed.borrow_mut().body.keep(self.buffer_limit);
        }
        self.send_copies();
        loop {
            let wait = match self.attempt(&host, &mut retry, kept).await {
                Ended::Answered(answer) => return answer,
                Ended::Again(wait) => wait,
            };
            *self.host.borrow_mut() = None;
            self.worker.timers().sleep_until(self.worker.timers().recent().after(wait.duration())).await;
            let stats = &context.stats;
            stats.upstream_rq_retry().inc();
            match wait {
                Wait::BackOff(_) => stats.upstream_rq_retry_backoff_exponential().inc(),
                Wait::Asked(_) => stats.upstream_rq_retry_backoff_ratelimited().inc(),
            }
            let picked = match retry.as_deref() {
                Some(retry) => self.cluster.pick(&PickContext {
                    loads: Some(&|hosts, config| retry.priority_loads(hosts, config)),
                    avoid: Some(&|host| retry.avoids(host)),
                    max_attempts: retry.picks(),
                    ..wanted
                }),
                None => self.cluster.pick(&wanted),
            };
            host = match picked {
                Some(host) => host,
                None => return self.no_host(),
            };
            self.feed.borrow_mut().body.rewind();
        }
    }

    /// Sends the copies of this copy that its cluster wants.
    fn send_copies(&self) {
        let Some(policies) = &self.cluster.config().http.mirrors else { return };
        let random = fastrand::u64(..);
        let info = StreamInfo::new(Rc::clone(&self.connection), Instant::now(), SystemTime::now(), random);
        let end = self.feed.borrow().is_over();
        let original = Original {
            worker: &self.worker,
            head: &self.head,
            end,
            info: &info,
            random,
            timeout: self.timeout,
            buffer_limit: self.buffer_limit,
            lineage: &self.lineage,
        };
        let onward = original.send(policies);
        let mut feed = self.feed.borrow_mut();
        for mirror in &onward {
            let mut copied = mirror.0.borrow_mut();
            copied.complete = feed.complete;
            feed.body.pieces().for_each(|piece| copied.body.push(piece.clone()));
        }
        if !feed.complete {
            feed.onward = onward;
        }
    }

    fn no_host(&self) -> Result<Answer, Unanswered> {
        self.cluster.context().stats.upstream_cx_none_healthy().inc();
        self.charge(503, None, None);
        Ok(own(503, "no healthy upstream"))
    }

    /// One try on one host.
    async fn attempt(&self, host: &Arc<Host>, retry: &mut Option<Box<RetryState>>, kept: Kept) -> Ended {
        let owner = self.cluster.owner(host);
        let _active = owner.config().lb.policy.needs_active_requests().then(|| host.state().begin_request());
        let Failed { failure, begun, late } = match self.talk(&owner, host, retry, kept).await {
            Ok(ended) => return ended,
            Err(failed) => failed,
        };
        if late {
            owner.context().stats.upstream_rq_per_try_timeout().inc();
            host.shard(self.worker.index()).rq_timeout.inc();
            self.worker.note(host, Outcome::TimedOut(504));
        } else if failure.kind != FailureKind::Overflow {
            self.worker.note(host, Outcome::ConnectFailed);
        }
        host.shard(self.worker.index()).rq_error.inc();
        if let Some(wait) = self.rule(retry, |retry, around| retry.after_failure(failure.kind, begun, around)) {
            return Ended::Again(wait);
        }
        let status = if late { 504 } else { failure.kind.status() };
        self.charge(status, Some(host), None);
        let body = if late { "upstream request timeout".to_owned() } else { failure.body(false) };
        Ended::Answered(Ok(own(status, body)))
    }

    /// One exchange; an error, and whether any of the request was sent, only as long as there is no answer.
    async fn talk(
        &self,
        owner: &Rc<Cluster>,
        host: &Arc<Host>,
        retry: &mut Option<Box<RetryState>>,
        kept: Kept,
    ) -> Result<Ended, Failed> {
        let protocol = match owner.config().http.protocol {
            UpstreamProtocol::Auto => PoolProtocol::Auto,
            UpstreamProtocol::Http2 => PoolProtocol::Http2,
            UpstreamProtocol::Http1 | UpstreamProtocol::UseDownstream => PoolProtocol::Http1,
        };
        let purpose = Purpose { names: self.names.as_ref(), ..Purpose::default() };
        let Some(pool) = owner.pool(host, Priority::Default, protocol, purpose) else {
            return Err(Failed::new(UpstreamFailure::no_place_in_line(), false));
        };
        let lease = pool.acquire().await;
        if let Some(retry) = retry {
            retry.attempted(host);
        }
        let lease = lease.map_err(|failure| Failed::new(failure, false))?;
        self.worker.note(host, Outcome::Connected);
        *self.host.borrow_mut() = Some(Arc::clone(host));
        let end = self.feed.borrow().is_over();
        let tunnel = upgrade_protocol(&self.head).is_some();
        let up = Exchange::start(lease, &self.head, end, tunnel, None).map_err(|failure| Failed::new(failure, true))?;
        let mut way = UnderWay { cluster: Rc::clone(owner), up: Some(up) };
        let mut sent = end;
        let asked = self.worker.timers().recent_instant();
        let mut keeping = Keeping::new(kept, self.head.is_grpc());
        let mut broke = FailureKind::LocalReset;
        let (alarm, mut late) = (self.worker.timers().alarm(), false);
        let mut deadline = Tick::NEVER;
        let ended = poll_fn(|cx| {
            let Some(up) = &mut way.up else { return Poll::Ready(Ok(Ended::Answered(Err(Unanswered::Broken)))) };
            while !sent && matches!(up.poll_writable(cx), Poll::Ready(Ok(()))) {
                let mut feed = self.feed.borrow_mut();
                match feed.take() {
                    Some(Frame::Data(data)) => {
                        sent = feed.is_over();
                        up.send_data(data, sent);
                    }
                    Some(Frame::Trailers(trailers)) => {
                        sent = true;
                        up.send_trailers(&trailers);
                    }
                    None if feed.complete => {
                        sent = true;
                        up.send_data(Bytes::new(), true);
                    }
                    None => break,
                }
            }
            let _ = up.poll_flush(cx);
            if sent && deadline == Tick::NEVER {
                deadline = self.worker.timers().recent().after_opt(self.per_try);
            }
            if !self.answered.get() && alarm.poll(deadline, cx).is_ready() {
                late = true;
                return Poll::Ready(Err(UpstreamFailure::new(FailureKind::LocalReset)));
            }
            while !self.answered.get() {
                let mut head = std::task::ready!(up.poll_head(cx))?;
                if head.status < 200 && head.status != 101 {
                    continue;
                }
                self.worker.note_answer(host, Some(&self.head), &head);
                if let Some(wait) = self.rule(retry, |retry, around| retry.after_response(&head, around)) {
                    host.shard(self.worker.index()).rq_error.inc();
                    self.cluster.context().responses.retried(&self.worker, head.status);
                    return Poll::Ready(Ok(Ended::Again(wait)));
                }
                self.answered.set(true);
                *retry = None;
                self.feed.borrow_mut().body.release();
                self.answered(host, &head);
                // Whoever asked is told what a client would be.
                let took = self.worker.timers().recent_instant().saturating_duration_since(asked);
                head.headers.set(Known::XEnvoyUpstreamServiceTime, took.as_millis().to_string());
                if !keeping.head(head) {
                    return Poll::Ready(Ok(Ended::Answered(Ok(keeping.take()))));
                }
            }
            while !up.response_complete() {
                match std::task::ready!(up.poll_frame(cx)) {
                    Ok(Some(frame)) => {
                        if !keeping.frame(frame) {
                            return Poll::Ready(Ok(Ended::Answered(Err(Unanswered::Broken))));
                        }
                    }
                    Ok(None) => break,
                    // What it said first is what counts.
                    Err(failure) => {
                        broke = failure.kind;
                        return Poll::Ready(Ok(Ended::Answered(Err(Unanswered::Broken))));
                    }
                }
            }
            Poll::Ready(Ok(Ended::Answered(Ok(keeping.take()))))
        });
        let ended: Result<Ended, UpstreamFailure> = ended.await;
        if let Some(up) = way.up.take() {
            match &ended {
                Ok(_) if sent && up.response_complete() => up.finish(sent),
                Ok(_) => up.count_reset(owner, broke),
                Err(failure) => up.count_reset(owner, failure.kind),
            }
        }
        ended.map_err(|failure| Failed { failure, begun: true, late })
    }

    /// Asks for a ruling and counts it; how long to wait for another try, if there is one.
    fn rule(
        &self,
        retry: &mut Option<Box<RetryState>>,
        ask: impl FnOnce(&mut RetryState, &Surroundings<'_>) -> Ruling,
    ) -> Option<Wait> {
        let retry = retry.as_deref_mut()?;
        let context = self.cluster.context();
        if retry.is_enabled() && !self.feed.borrow().body.keeps() {
            return None;
        }
        let around = Surroundings {
            breakers: &context.breakers,
            runtime: &*self.worker.runtime(),
            now: self.worker.timers().recent_wall(),
            random: self.worker.with_rng(|rng| rng.u64(..)),
        };
        let Ruling { decision, retry_succeeded } = ask(retry, &around);
        if retry_succeeded {
            context.stats.upstream_rq_retry_success().inc();
        }
        match decision {
            Decision::Retry(_) | Decision::No => {}
            Decision::LimitExceeded => context.stats.upstream_rq_retry_limit_exceeded().inc(),
            Decision::Overflow => context.stats.upstream_rq_retry_overflow().inc(),
        }
        decision.wait()
    }

    fn answered(&self, host: &Host, head: &ResponseHead) {
        let shard = host.shard(self.worker.index());
        if head.status >= 500 {
            shard.rq_error.inc()
        } else {
            shard.rq_success.inc()
        }
        self.charge(head.status, Some(host), Some(head));
    }

    /// Counts a response code; a request that says so comes from inside.
    fn charge(&self, status: u16, host: Option<&Host>, head: Option<&ResponseHead>) {
        let says =
            head.is_some_and(|head| head.headers.value(&Known::XEnvoyUpstreamCanary).is_some_and(|v| v == "true"));
        let origin = Origin {
            internal: self.head.headers.value(&Known::XEnvoyInternal).is_some_and(|value| value == "true"),
            canary: says || host.is_some_and(|host| host.attributes().canary),
            zone: host.map_or("", |host| &host.attributes().locality.zone),
        };
        let responses = &self.cluster.context().responses;
        responses.own().each(&self.worker, origin, |responses| responses.code(status));
    }
}

/// What was kept of an answer so far.
struct Keeping {
    kept: Kept,
    /// It has to be gRPC.
    grpc: bool,
    answer: Answer,
    body: BytesMut,
}

impl Keeping {
    fn new(kept: Kept, grpc: bool) -> Self {
        let grpc = grpc && matches!(kept, Kept::UpTo(_));
        Self { kept, grpc, answer: Answer::default(), body: BytesMut::new() }
    }

    /// Whether what follows matters.
    fn head(&mut self, head: ResponseHead) -> bool {
        let matters = !self.grpc || head.status == 200;
        self.answer.head = head;
        matters
    }

    /// Whether there is room for it, and sense in it.
    fn frame(&mut self, frame: Frame) -> bool {
        let Kept::UpTo(limit) = self.kept else { return true };
        match frame {
            Frame::Data(data) => {
                if self.body.len() + data.len() > limit {
                    return false;
                }
                self.body.extend_from_slice(&data);
                // The flags of the message.
                return !self.grpc || self.body.first().is_none_or(|flags| *flags <= 1);
            }
            Frame::Trailers(trailers) => self.answer.trailers = Some(trailers),
        }
        true
    }

    fn take(&mut self) -> Answer {
        let body = self.body.split().freeze();
        Answer { body, ..std::mem::take(&mut self.answer) }
    }
}

/// The answer in the place of one that does not come.
fn own(status: u16, body: impl Into<Bytes>) -> Answer {
    Answer { head: ResponseHead { status, ..ResponseHead::default() }, body: body.into(), trailers: None }
}

/// Says who asks: the proxy itself, from its own address.
pub(super) fn sign(headers: &mut Headers) {
    headers.set(Known::XEnvoyInternal, Bytes::from_static(b"true"));
    let via = headers.value(&Known::XForwardedFor).map(|via| [&via[..], b","].concat()).unwrap_or_default();
    headers.set(Known::XForwardedFor, [&via[..], own_address().as_bytes()].concat());
}

/// The address by which this machine is known elsewhere: the one it would send from.
fn own_address() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        // Connecting a datagram socket sends nothing: it only looks for a route.
        let asked = UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| {
            socket.connect(("192.0.2.1", 9))?;
            socket.local_addr()
        });
        let address = asked.map(|address| address.ip());
        address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_string()
    })
}

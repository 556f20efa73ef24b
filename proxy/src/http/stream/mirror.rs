//! Mirroring: copies of a request that go to other clusters, whose answers nobody waits for.
//!
//! A copy has a task of its own, which outlives the request once it was given all of it. Its body comes through a [`Feed`]:
//! pieces are shared, not copied, and a copy whose upstream is slow holds the client back, as a slow upstream does, rather
//! than pile up what it has not sent. A request that ends before it is complete takes its copies with it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use filters::http::{Frame, Known, RequestHead, ResponseHead};

use super::limits::tell_time_limit;
use super::routing::upgrade_protocol;
use super::upstream::give_up;
use super::{Downstream, Stream};
use crate::config::cluster::UpstreamProtocol;
use crate::route::ForwardAction;
use crate::upstream::breaker::Priority;
use crate::upstream::cluster::Cluster;
use crate::upstream::exchange::Exchange;
use crate::upstream::failure::{FailureKind, UpstreamFailure};
use crate::upstream::host::Host;
use crate::upstream::lb::PickContext;
use crate::upstream::outlier::Outcome;
use crate::upstream::pool::PoolProtocol;
use crate::upstream::responses::Origin;
use crate::worker::Worker;
use crate::worker::timer::Tick;

/// A copy that still wants its body.
pub(super) struct Mirror(Rc<RefCell<Feed>>);

/// The way of a body into a copy.
#[derive(Default)]
struct Feed {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Nothing follows.
    complete: bool,
    /// Nothing follows, although it is not complete.
    abandoned: bool,
    /// The copy is over, and takes nothing more.
    closed: bool,
    /// Whoever sends the copy.
    reader: Option<Waker>,
    /// Whoever waits until less lies here.
    writer: Option<Waker>,
}

impl Feed {
    fn push(&mut self, frame: Frame) {
        if self.closed {
            return;
        }
        if let Frame::Data(data) = &frame {
            self.bytes += data.len();
        }
        self.frames.push_back(frame);
        self.wake_reader();
    }

    fn take(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        if let Frame::Data(data) = &frame {
            self.bytes -= data.len();
        }
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        Some(frame)
    }

    /// Nobody reads any more: nobody has to wait for that.
    fn close(&mut self) {
        self.closed = true;
        self.frames.clear();
        self.bytes = 0;
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// Whether the piece taken last was the last one.
    fn is_over(&self) -> bool {
        self.complete && self.frames.is_empty()
    }

    fn wake_reader(&self) {
        if let Some(reader) = &self.reader {
            reader.wake_by_ref();
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let mut feed = self.0.borrow_mut();
        feed.abandoned = !feed.complete;
        feed.wake_reader();
    }
}

impl<D: Downstream> Stream<'_, D> {
    /// Sends copies of the request, which is as it goes upstream, where its route says.
    pub(super) fn send_copies(&mut self, forward: &ForwardAction) {
        let (Some(policies), Some(request)) = (&forward.mirrors, &self.request) else { return };
        if upgrade_protocol(request).is_some() {
            return;
        }
        let worker = &self.manager.worker;
        let runtime = worker.runtime();
        for policy in policies.iter() {
            let cluster = policy.cluster(request, self.random, &*runtime).and_then(|name| worker.cluster(&name));
            let Some(cluster) = cluster else { continue };
            let mut head = policy.head(request, &self.info);
            let timeout = self.deadlines.whole();
            if let Some(timeout) = timeout {
                tell_time_limit(&mut head.headers, timeout, false, false);
            }
            head.headers.set(Known::XEnvoyInternal, Bytes::from_static(b"true"));
            let via =
                head.headers.value(&Known::XForwardedFor).map(|via| [&via[..], b","].concat()).unwrap_or_default();
            head.headers.set(Known::XForwardedFor, [&via[..], own_address().as_bytes()].concat());
            let feed = Rc::new(RefCell::new(Feed { complete: self.head_only, ..Feed::default() }));
            if !self.head_only {
                self.mirrors.push(Mirror(Rc::clone(&feed)));
            }
            let copy = Copy { worker: Rc::clone(worker), cluster, head, end: self.head_only, feed };
            tokio::task::spawn_local(copy.send(timeout));
        }
    }

    /// Whether a copy has taken too little of the body for more to be read.
    pub(super) fn poll_mirrors(&self, cx: &Context<'_>) -> Poll<()> {
        for Mirror(feed) in &self.mirrors {
            let mut feed = feed.borrow_mut();
            if feed.bytes >= self.manager.buffer_limit {
                feed.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Gives the copies a piece of the body, which may be the last one.
    pub(super) fn feed_mirrors(&mut self, frame: Option<&Frame>) {
        let complete = self.down.request_complete();
        for Mirror(feed) in &self.mirrors {
            let mut feed = feed.borrow_mut();
            feed.complete = complete;
            match frame {
                Some(frame) => feed.push(frame.clone()),
                None => feed.wake_reader(),
            }
        }
        if complete {
            self.mirrors.clear();
        }
    }
}

/// A copy on its way.
struct Copy {
    worker: Rc<Worker>,
    cluster: Rc<Cluster>,
    head: RequestHead,
    /// The head is all of it.
    end: bool,
    feed: Rc<RefCell<Feed>>,
}

/// A try under way: dropped before its end it is given up.
struct UnderWay<'a> {
    cluster: &'a Cluster,
    up: Option<Exchange>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(up) = self.up.take() {
            give_up(self.cluster, up);
        }
    }
}

impl Copy {
    /// Sends it and drops the answer; no longer than `timeout` after all of it is there.
    async fn send(self, timeout: Option<Duration>) {
        self.worker.calls().rq_total().inc();
        let timers = Rc::clone(self.worker.timers());
        let alarm = timers.alarm();
        let mut deadline = Tick::NEVER;
        let late = {
            let mut exchange = pin!(self.exchange());
            poll_fn(|cx| {
                timers.turn();
                let mut feed = self.feed.borrow_mut();
                feed.reader = Some(cx.waker().clone());
                if feed.abandoned {
                    return Poll::Ready(false);
                }
                if feed.complete && deadline == Tick::NEVER {
                    deadline = timers.recent().after_opt(timeout);
                }
                drop(feed);
                if alarm.poll(deadline, cx).is_ready() {
                    return Poll::Ready(true);
                }
                exchange.as_mut().poll(cx).map(|()| false)
            })
            .await
        };
        self.feed.borrow_mut().close();
        if late {
            self.cluster.context().stats.upstream_rq_timeout().inc();
            self.charge(504, None, None);
        }
    }

    async fn exchange(&self) {
        let context = self.cluster.context();
        let runtime = self.worker.runtime();
        if runtime.fraction(context.maintenance_key()).is_some_and(|share| share.contains(fastrand::u64(..))) {
            context.stats.upstream_rq_maintenance_mode().inc();
            return self.charge(503, None, None);
        }
        if self.cluster.drops().is_some() {
            return self.charge(503, None, None);
        }
        let Some(host) = self.cluster.pick(&PickContext::default()) else {
            context.stats.upstream_cx_none_healthy().inc();
            return self.charge(503, None, None);
        };
        let _active = self.cluster.config().lb.policy.needs_active_requests().then(|| host.state().begin_request());
        if let Err(failure) = self.talk(&host).await {
            if failure.kind != FailureKind::Overflow {
                self.worker.note(&host, Outcome::ConnectFailed);
            }
            host.shard(self.worker.index()).rq_error.inc();
            self.charge(failure.kind.status(), Some(&host), None);
        }
    }

    /// One exchange; an error only as long as there is no answer.
    async fn talk(&self, host: &Arc<Host>) -> Result<(), UpstreamFailure> {
        let protocol = match self.cluster.config().http.protocol {
            UpstreamProtocol::Http2 => PoolProtocol::Http2,
            UpstreamProtocol::Http1 | UpstreamProtocol::UseDownstream => PoolProtocol::Http1,
        };
        let Some(pool) = self.cluster.pool(host, Priority::Default, protocol, None) else {
            return Err(UpstreamFailure::no_place_in_line());
        };
        let lease = pool.acquire().await?;
        self.worker.note(host, Outcome::Connected);
        let up = Exchange::start(lease, &self.head, self.end, false, None)?;
        let mut way = UnderWay { cluster: &self.cluster, up: Some(up) };
        let (mut sent, mut answered) = (self.end, false);
        let ended = poll_fn(|cx| {
            let Some(up) = &mut way.up else { return Poll::Ready(Ok(())) };
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
            while !answered {
                let head = std::task::ready!(up.poll_head(cx))?;
                if head.status < 200 && head.status != 101 {
                    continue;
                }
                answered = true;
                self.answered(host, &head);
            }
            while !up.response_complete() {
                match std::task::ready!(up.poll_frame(cx)) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    // What it said first is what counts.
                    Err(_) => return Poll::Ready(Ok(())),
                }
            }
            Poll::Ready(Ok(()))
        });
        let ended: Result<(), UpstreamFailure> = ended.await;
        if let Some(up) = way.up.take() {
            match &ended {
                Ok(()) => up.finish(sent),
                Err(failure) => up.count_reset(&self.cluster, failure.kind),
            }
        }
        ended
    }

    fn answered(&self, host: &Host, head: &ResponseHead) {
        self.worker.note(host, Outcome::answer(head, self.head.is_grpc()));
        let shard = host.shard(self.worker.index());
        if head.status >= 500 {
            shard.rq_error.inc()
        } else {
            shard.rq_success.inc()
        }
        self.charge(head.status, Some(host), Some(head));
    }

    /// Counts a response code. A copy is the proxy's own request, so it comes from inside.
    fn charge(&self, status: u16, host: Option<&Host>, head: Option<&ResponseHead>) {
        let says =
            head.is_some_and(|head| head.headers.value(&Known::XEnvoyUpstreamCanary).is_some_and(|v| v == "true"));
        let origin = Origin {
            internal: true,
            canary: says || host.is_some_and(|host| host.attributes().canary),
            zone: host.map_or("", |host| &host.attributes().locality.zone),
        };
        let responses = &self.cluster.context().responses;
        responses.own().each(&self.worker, origin, |responses| responses.code(status));
    }
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

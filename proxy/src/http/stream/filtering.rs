//! The filters before the router: each sees the request in turn, may wait for some of its body or for something of its own, and
//! lets it go on, changed or not, or answers it.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use filters::flags::details;
use filters::http::{Frame, ResponseHead};
use filters::http_filter::{Body, BodyNeed, Destination, HeaderLimits, Reply, Verdict};

use super::expiry::Broken;
use super::{Downstream, End, Routed, Step, Stream};
use crate::http::filter_chain::{Around, FilterChain, StreamFilters, Way};
use crate::http::reply::LocalReply;

impl<D: Downstream> Stream<'_, D> {
    /// Shows the request to the filters before the router, one of which may answer it. `moved` is where the same request would
    /// be answered, instead of here; as the filters leave the request, it comes back.
    pub(super) async fn filter(&mut self, upgrade: Option<&[u8]>, moved: Option<Bytes>) -> Step<Option<Bytes>> {
        let manager = self.manager;
        let chain = manager.filters.chain(upgrade.and_then(|protocol| manager.config.upgrade(protocol)));
        if chain.is_empty() {
            self.filters = StreamFilters::none();
            return Ok(moved);
        }
        self.pass(chain, moved).await
    }

    async fn pass(&mut self, chain: &FilterChain, mut moved: Option<Bytes>) -> Step<Option<Bytes>> {
        let routed = self.routed.clone();
        self.filters = chain.instances(way(&routed, moved.is_some()), self.request.as_ref());
        for at in 0..self.filters.len() {
            let mut asks = Asks::First;
            loop {
                let (verdict, route_changed) = self.ask_filter(chain, at, asks, moved.is_some());
                if route_changed {
                    moved = self.find_route_again();
                }
                asks = match verdict {
                    Verdict::Continue => break,
                    Verdict::Buffer(need) => {
                        self.gather(need).await?;
                        Asks::WithBody
                    }
                    Verdict::Wait => {
                        self.await_filter(at).await?;
                        Asks::Again
                    }
                    Verdict::Answer { head, details } => {
                        self.answer_by_head(head, details).await;
                        return Err(End::Done);
                    }
                    Verdict::Reply(reply) => {
                        if reply.status == 400 && !matches!(asks, Asks::First) && self.down.request_complete() {
                            // It closes the connection, to a client that has said all it had to say.
                            self.connection.at_once.set(true);
                        }
                        self.reply_of_filter(*reply).await;
                        return Err(End::Done);
                    }
                    Verdict::Take => {
                        self.swallow().await?;
                        if let Some(reply) = self.filters.reply(&*self.manager.worker) {
                            self.reply_of_filter(reply).await;
                        }
                        return Err(End::Done);
                    }
                };
            }
        }
        Ok(moved)
    }

    /// What the filter in this place makes of the request, and whether the route is to be looked for anew.
    fn ask_filter(&mut self, chain: &FilterChain, at: usize, asks: Asks, moved: bool) -> (Verdict, bool) {
        let Some(mut head) = self.request.take() else { return (Verdict::Continue, false) };
        let pieces: Vec<Bytes> = match asks {
            Asks::WithBody => self.early.pieces().filter_map(data).cloned().collect(),
            Asks::First | Asks::Again => Vec::new(),
        };
        let routed = self.routed.clone();
        let server = &*self.manager.worker;
        let limits = &self.manager.config.limits;
        let around = Around {
            way: way(&routed, moved),
            runtime: &*server.runtime(),
            server,
            info: &mut self.info,
            body: Body { pieces: &pieces, complete: self.down.request_complete() },
            cluster: self.cluster.as_deref().map(|cluster| cluster as &dyn Destination),
            limits: HeaderLimits { count: limits.max_headers_count, bytes: limits.max_request_headers_bytes },
            again: !matches!(asks, Asks::First),
        };
        let asked = self.filters.decode(at, chain, &mut head, around);
        self.request = Some(head);
        asked
    }

    /// A filter changed what the route was found by.
    fn find_route_again(&mut self) -> Option<Bytes> {
        (self.routed, self.cluster) = (None, None);
        self.info.route_name = None;
        (self.info.route_metadata, self.info.virtual_host_metadata) = (None, None);
        if let Some(upstream) = &mut self.info.upstream {
            (upstream.cluster, upstream.cluster_metadata) = (None, None);
        }
        self.find_route().flatten()
    }

    /// Reads as much of the body as a filter wants to see at once.
    async fn gather(&mut self, need: BodyNeed) -> Step<()> {
        let timers = Rc::clone(self.manager.worker.timers());
        let limit = if need.partial { self.manager.buffer_limit } else { need.bytes };
        let mut waited = false;
        let gathered = poll_fn(|cx| {
            if waited {
                timers.turn();
            }
            waited = true;
            loop {
                let bytes = self.early.bytes();
                if need.partial && bytes >= need.bytes {
                    return Poll::Ready(Ok(true));
                }
                if bytes > limit {
                    return Poll::Ready(Ok(false));
                }
                if self.down.request_complete() {
                    return Poll::Ready(Ok(true));
                }
                match self.poll_downstream(cx) {
                    Poll::Ready(Ok(Some(frame))) => self.early.push(frame),
                    Poll::Ready(Ok(None)) => return Poll::Ready(Ok(true)),
                    Poll::Ready(Err(interrupt)) => return Poll::Ready(Err(Broken::Gone(interrupt))),
                    Poll::Pending => return self.poll_deadlines(None, cx).map(|which| Err(Broken::Expired(which))),
                }
                self.deadlines.touch(&timers);
            }
        });
        match gathered.await {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.manager.stats.downstream_rq_too_large().inc();
                self.overlong = true;
                self.reply_end(LocalReply::new(413, "Payload Too Large"), details::REQUEST_PAYLOAD_TOO_LARGE).await
            }
            Err(broken) => self.broken_off(broken).await,
        }
    }

    /// Waits until the filter in this place can be asked again.
    async fn await_filter(&mut self, at: usize) -> Step<()> {
        match self.wait_until(|stream, cx| stream.filters.poll(at, cx)).await {
            Ok(()) => Ok(()),
            Err(broken) => self.broken_off(broken).await,
        }
    }

    async fn broken_off(&mut self, broken: Broken) -> Step<()> {
        match broken {
            Broken::Gone(interrupt) => self.gone(interrupt).await,
            Broken::Expired(which) => self.expired(which).await,
        }
    }

    /// Answers as a filter wants, by a head alone.
    async fn answer_by_head(&mut self, head: ResponseHead, why: &'static str) {
        self.info.details = Some(why.into());
        if self.down.request_complete() {
            let timers = self.manager.worker.timers();
            self.info.timing.last_downstream_rx.get_or_insert_with(|| timers.recent_instant());
        }
        self.send_head(head, true);
        self.flush().await;
    }

    /// Answers in a filter's name.
    async fn reply_of_filter(&mut self, reply: Reply) {
        let Reply { status, body, headers, changes, details, flags, metadata } = reply;
        self.info.flags.insert(flags);
        self.reply(LocalReply { headers, changes, ..LocalReply::new(status, body) }, details).await;
        self.info.add_metadata(metadata);
    }
}

/// With what a filter is asked.
#[derive(Clone, Copy)]
enum Asks {
    First,
    /// It has seen the head, and here is the body it wanted.
    WithBody,
    /// It waited for something of its own.
    Again,
}

/// Where a request would go; `moved` says that it is to come by TLS.
fn way(routed: &Option<Routed>, moved: bool) -> Way<'_> {
    match routed.as_ref().and_then(|routed| Some((routed.resolve()?.1, routed.ordinal))) {
        Some((route, ordinal)) => Way::Route(route, ordinal),
        None if moved => Way::Elsewhere,
        None => Way::Nowhere,
    }
}

fn data(frame: &Frame) -> Option<&Bytes> {
    match frame {
        Frame::Data(data) => Some(data),
        Frame::Trailers(_) => None,
    }
}

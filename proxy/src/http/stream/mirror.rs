//! Mirroring: copies of a request that go to other clusters, whose answers nobody waits for.
//!
//! A copy is a [call](super::call) with a task of its own, which outlives the request once it was given all of it. Its body comes through
//! a [`Feed`]: pieces are shared, not copied, and a copy whose upstream is slow holds the client back, as a slow upstream
//! does, rather than pile up what it has not sent. A request that ends before it is complete takes its copies with it.
//!
//! A cluster may want copies of whatever is sent to it, and a copy is no exception. But a cluster that a request has been
//! sent to gets no copy of that request's copies: the chain has an end.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use filters::http::{Frame, Method, RequestHead};
use filters::stream_info::StreamInfo;

use super::call::{Call, Feed, Kept, Mirror, sign};
use super::limits::tell_time_limit;
use super::routing::upgrade_protocol;
use super::{Downstream, Stream};
use crate::route::ForwardAction;
use crate::route::mirror::MirrorPolicy;
use crate::upstream::cluster::Cluster;
use crate::worker::Worker;

/// A request that copies are made of.
pub(super) struct Original<'a> {
    pub(super) worker: &'a Rc<Worker>,
    /// As it goes upstream.
    pub(super) head: &'a RequestHead,
    /// The head is all of it.
    pub(super) end: bool,
    pub(super) info: &'a StreamInfo,
    /// What decides which share of requests it belongs to.
    pub(super) random: u64,
    /// How long copies may take.
    pub(super) timeout: Option<Duration>,
    /// How much of the body may be kept.
    pub(super) buffer_limit: usize,
    /// The clusters that it, and what it is a copy of, were sent to.
    pub(super) lineage: &'a [Arc<str>],
}

impl Original<'_> {
    /// Sends the copies that these policies want; those that still want a body.
    pub(super) fn send(&self, policies: &[MirrorPolicy]) -> Vec<Mirror> {
        if self.head.method == Method::Connect {
            return Vec::new();
        }
        let runtime = self.worker.runtime();
        let mut mirrors = Vec::new();
        for policy in policies {
            let name = policy.cluster(self.head, self.random, &*runtime);
            let Some(cluster) = name.and_then(|name| self.worker.cluster(&name)) else { continue };
            if self.lineage.len() > 1 && self.lineage.contains(&cluster.config().name) {
                continue;
            }
            let mut head = policy.head(self.head, self.info);
            if let Some(timeout) = self.timeout {
                tell_time_limit(&mut head.headers, timeout, false, false);
            }
            sign(&mut head.headers);
            let feed = Rc::new(RefCell::new(Feed::new(self.end.then(Bytes::new))));
            if !self.end {
                mirrors.push(Mirror(Rc::clone(&feed)));
            }
            let call = Call::copy(self, cluster, head, feed);
            tokio::task::spawn_local(async move {
                let _ = call.send(Kept::Nothing).await;
            });
        }
        mirrors
    }
}

impl<D: Downstream> Stream<'_, D> {
    /// Sends copies of the request, which is as it goes upstream, where its cluster says, or else its route.
    pub(super) fn send_copies(&mut self, cluster: &Cluster, forward: &ForwardAction) {
        let policies = cluster.config().http.mirrors.as_ref().or(forward.mirrors.as_ref());
        let (Some(policies), Some(head)) = (policies, &self.request) else { return };
        let original = Original {
            worker: &self.manager.worker,
            head,
            end: self.head_only && upgrade_protocol(head).is_none(),
            info: &self.info,
            random: self.random,
            timeout: self.deadlines.whole(),
            buffer_limit: self.manager.buffer_limit,
            lineage: std::slice::from_ref(&cluster.config().name),
        };
        self.mirrors = original.send(policies);
    }

    /// Whether a copy has taken too little of the body for more to be read.
    pub(super) fn poll_mirrors(&self, cx: &Context<'_>) -> Poll<()> {
        for Mirror(feed) in &self.mirrors {
            std::task::ready!(feed.borrow_mut().poll_room(self.manager.buffer_limit, cx));
        }
        Poll::Ready(())
    }

    /// Gives the copies a piece of the body, which may be the last one.
    pub(super) fn feed_mirrors(&mut self, frame: Option<&Frame>) {
        let complete = self.down.request_complete();
        for Mirror(feed) in &self.mirrors {
            feed.borrow_mut().push(frame, complete);
        }
        if complete {
            self.mirrors.clear();
        }
    }
}

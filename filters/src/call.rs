//! Requests of the proxy's own, which filters ask it to make.
//!
//! Filters know what to ask and what an answer means; whom to ask is a [`Service`] of their configuration, and how (the
//! cluster's hosts, pools, limits and statistics, tries after the first) is the proxy's, behind [`Calls`]. As for whoever
//! asks Envoy's asynchronous client, a call that came to nothing is answered by the proxy itself, with the status that a client
//! would have got.

pub mod config;
pub mod grpc;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::http::{Headers, RequestHead, ResponseHead};

/// Whom to ask.
#[derive(Debug, Clone)]
pub struct Service {
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// How long an answer may take; `None`: as long as it likes.
    pub timeout: Option<Duration>,
    /// When to try again, as the proxy understands it; `None`: as the cluster says, if it does.
    pub retry: Option<RetryRules>,
    /// Requests say that it is the proxy that asks, and from where.
    pub signed: bool,
}

/// A retry policy, which only the proxy can read.
#[derive(Clone)]
pub struct RetryRules(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for RetryRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RetryRules")
    }
}

/// What to ask.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The head, without what the proxy adds to each of its own requests.
    pub head: RequestHead,
    /// The whole body; empty for none.
    pub body: Bytes,
}

/// What came back.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The head.
    pub head: ResponseHead,
    /// The whole body.
    pub body: Bytes,
    /// The trailers, if there were any.
    pub trailers: Option<Box<Headers>>,
}

/// Why nothing came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// There is no such cluster.
    NoCluster,
    /// The answer had begun, and broke off, took too long, or became longer than anybody wants to keep.
    Broken,
}

/// An answer that is on its way. Dropping it gives the call up.
pub type Pending = Pin<Box<dyn Future<Output = Result<Answer, Unanswered>>>>;

/// What a filter does besides its streams' work.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A task that runs. Dropping it ends it.
pub struct Errand(Option<Box<dyn FnOnce()>>);

impl Errand {
    /// A task that this ends.
    pub fn new(end: impl FnOnce() + 'static) -> Self {
        Self(Some(Box::new(end)))
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Errand")
    }
}

/// Who makes calls: a worker.
pub trait Calls {
    /// Asks. Nothing happens until the answer is polled for.
    fn ask(&self, service: &Service, question: Question) -> Pending;

    /// Runs a task until it ends or is dropped.
    fn run(&self, task: Task) -> Errand;

    /// Waits.
    fn sleep(&self, time: Duration) -> Task;
}

//! Calls in the name of filters.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use filters::call::{Calls, Errand, Pending, Question, Service, Task, Unanswered};
use filters::stream_info::{Address, ConnectionInfo, StreamInfo};

use super::{Call, Feed, Kept, sign};
use crate::http::stream::limits::tell_time_limit;
use crate::route::retry::RetryPolicy;
use crate::upstream::server_name::ServerNames;
use crate::worker::Worker;

/// The longest body that is kept of an answer (`http.async_response_buffer_limit`).
const ANSWER_LIMIT: usize = 32 << 20;

/// The calls of a worker.
pub struct WorkerCalls {
    worker: Rc<Worker>,
    /// They are nobody's requests.
    connection: Rc<ConnectionInfo>,
}

impl WorkerCalls {
    /// Calls that go through the clusters of `worker`.
    #[must_use]
    pub fn new(worker: &Rc<Worker>) -> Rc<Self> {
        let nobody = Address::Internal("".into());
        let connection = Rc::new(ConnectionInfo::between(nobody.clone(), nobody));
        Rc::new(Self { worker: Rc::clone(worker), connection })
    }
}

impl Calls for WorkerCalls {
    fn ask(&self, service: &Service, question: Question) -> Pending {
        let Some(cluster) = self.worker.cluster(&service.cluster) else {
            return Box::pin(async { Err(Unanswered::NoCluster) });
        };
        let Question { mut head, body } = question;
        if service.signed {
            sign(&mut head.headers);
        }
        let retry = service.retry.as_ref().and_then(|rules| Arc::clone(&rules.0).downcast::<RetryPolicy>().ok());
        let timeout = service.timeout.filter(|timeout| !timeout.is_zero());
        let policy = cluster.config().http.retry.as_ref().or(retry.as_ref());
        let per_try = policy.and_then(|policy| policy.per_try_timeout);
        // One that is no tighter than the whole limit is none.
        let per_try = per_try.filter(|limit| !limit.is_zero() && timeout.is_none_or(|whole| *limit < whole));
        if let Some(limit) = per_try.or(timeout) {
            tell_time_limit(&mut head.headers, limit, false, false);
        }
        let hash = cluster.hash_policy(None).and_then(|policy| {
            let random = fastrand::u64(..);
            let info = StreamInfo::new(Rc::clone(&self.connection), Instant::now(), SystemTime::now(), random);
            policy.hash(&head, &info, None)
        });
        let call = Call {
            worker: Rc::clone(&self.worker),
            names: ServerNames::of_request(&cluster, &head),
            head,
            hash,
            timeout,
            per_try,
            retry,
            buffer_limit: body.len(),
            feed: Rc::new(RefCell::new(Feed::new(Some(body)))),
            connection: Rc::clone(&self.connection),
            lineage: vec![Arc::clone(&cluster.config().name)],
            cluster,
            host: RefCell::default(),
            answered: Cell::new(false),
        };
        Box::pin(call.send(Kept::UpTo(ANSWER_LIMIT)))
    }
    fn run(&self, task: Task) -> Errand {
        let task = tokio::task::spawn_local(task);
        Errand::new(move || task.abort())
    }

    fn sleep(&self, time: Duration) -> Task {
        Box::pin(tokio::time::sleep(time))
    }
}

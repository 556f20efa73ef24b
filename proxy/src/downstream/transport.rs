//! What stands between a client's socket and the network filters of its chain: nothing, or a TLS session.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use filters::stream_info::ConnectionInfo;
use filters::tls::TlsInfo;
use stats::Store;

use crate::config::filter_chain::{self, FilterChain};
use crate::observe::catalogue::ListenerStats;
use crate::tls::handshake;
use crate::tls::server::ServerContext;
use crate::tls::statistics::TlsCounters;
use crate::transport::Io;
use crate::worker::Worker;

/// The transport socket of a chain on one worker.
pub struct Transport {
    tls: Option<(Arc<ServerContext>, TlsCounters)>,
    /// `transport_socket_connect_timeout`
    timeout: Option<Duration>,
}

impl Transport {
    /// The transport socket of `chain`, counting below `listener.<stat_prefix>.` as the worker of this index.
    #[must_use]
    pub fn new(chain: &FilterChain, store: &Arc<Store>, stat_prefix: &str, worker: usize) -> Self {
        let tls = match &chain.transport {
            filter_chain::Transport::RawBuffer => None,
            filter_chain::Transport::Tls(context) => {
                let counters = TlsCounters::of_listener(store, stat_prefix, worker);
                Some((Arc::clone(context), counters))
            }
        };
        Self { tls, timeout: chain.transport_socket_connect_timeout }
    }

    /// Makes the client's session, and notes what is known of it.
    ///
    /// # Errors
    /// When there is none, and why is noted; the socket is as the handshake left it.
    pub async fn secure(
        &self,
        mut io: Io,
        info: &ConnectionInfo,
        worker: &Rc<Worker>,
        stats: &ListenerStats,
    ) -> Result<Io, Io> {
        let Some((context, counters)) = &self.tls else { return Ok(io) };
        let outcome = {
            let mut made = std::pin::pin!(handshake::accept(&mut io, context, counters));
            let timers = worker.timers();
            let (alarm, deadline) = (timers.alarm(), timers.now().after_opt(self.timeout));
            poll_fn(|cx| match made.as_mut().poll(cx) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending => alarm.poll(deadline, cx).map(|()| None),
            })
            .await
        };
        let (known, session) = match outcome {
            Some(Ok(session)) => (session.info().clone(), Some(session)),
            Some(Err(failed)) => (failed.info, None),
            None => {
                stats.downstream_cx_transport_socket_connect_timeout().inc();
                (TlsInfo::default(), None)
            }
        };
        let _ = info.tls.set(known);
        match session {
            Some(session) => Ok(session.over(io)),
            None => Err(io),
        }
    }
}

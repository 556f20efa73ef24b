//! A connection in the eyes of its listener: counted from accepting to its end, and then logged.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use filters::format::{AccessLogType, FormatContext};
use filters::stream_info::{ConnectionInfo, StreamId, StreamInfo};

use crate::downstream::accept::ActiveListener;
use crate::observe::catalogue::{ListenerStats, ListenerWorkerStats};
use crate::transport::Meter;
use crate::worker::Worker;

/// Counts a connection on its listener from accepting to its end, and then logs it.
pub(super) struct Counted {
    stats: (ListenerStats, ListenerWorkerStats),
    opened: Instant,
    log: Option<ConnectionLog>,
}

/// What a listener's access log needs at the end of a connection.
struct ConnectionLog {
    info: Rc<ConnectionInfo>,
    listener: Arc<ActiveListener>,
    worker: Rc<Worker>,
    meter: Rc<Meter>,
}

impl ConnectionLog {
    fn new(info: &Rc<ConnectionInfo>, listener: &Arc<ActiveListener>, worker: &Rc<Worker>) -> Option<Self> {
        listener.config.logs.get().filter(|logs| !logs.is_empty())?;
        info.outcome.wanted.set(true);
        let (info, listener, worker) = (Rc::clone(info), Arc::clone(listener), Rc::clone(worker));
        Some(Self { info, listener, worker, meter: Rc::default() })
    }

    fn write(&self) {
        let outcome = &self.info.outcome;
        // Out of the connection: it would keep itself alive.
        let stream = outcome.stream.take();
        let stream = stream.unwrap_or_else(|| {
            let began = SystemTime::now().checked_sub(self.info.accepted.elapsed());
            let began = began.unwrap_or(UNIX_EPOCH);
            let mut stream = StreamInfo::new(Rc::clone(&self.info), self.info.accepted, began, StreamId::None);
            stream.add_connection();
            stream.protocol = outcome.protocol.get();
            stream.flags = outcome.flags.get();
            stream.details = outcome.details.get().map(Into::into);
            stream.bytes_received = self.meter.received.get();
            stream.bytes_sent = self.meter.sent.get();
            stream.end = Some(Instant::now());
            Box::new(stream)
        });
        let context = FormatContext { log_type: AccessLogType::NotSet, ..FormatContext::new(&stream) };
        for log in self.listener.config.logs.get().into_iter().flat_map(|logs| logs.iter()) {
            log.log(&context, self.worker.logs(), &*self.worker.runtime());
        }
    }
}

impl Counted {
    pub(super) fn new(
        stats: (ListenerStats, ListenerWorkerStats),
        info: &Rc<ConnectionInfo>,
        listener: &Arc<ActiveListener>,
        worker: &Rc<Worker>,
    ) -> Self {
        stats.0.downstream_cx_total().inc();
        stats.0.downstream_cx_active().inc();
        stats.1.downstream_cx_total().inc();
        stats.1.downstream_cx_active().inc();
        Self { stats, opened: info.accepted, log: ConnectionLog::new(info, listener, worker) }
    }
}

impl Counted {
    /// What is to count the connection's bytes, if anybody wants to know them.
    pub(super) fn meter(&self) -> Option<Rc<Meter>> {
        self.log.as_ref().map(|log| Rc::clone(&log.meter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let (stats, of_worker) = &self.stats;
        stats.downstream_cx_destroy().inc();
        stats.downstream_cx_active().dec();
        of_worker.downstream_cx_active().dec();
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        stats.downstream_cx_length_ms().record(millis);
        if let Some(log) = self.log.take().filter(|_| !std::thread::panicking()) {
            log.write();
        }
    }
}

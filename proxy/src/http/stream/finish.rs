//! The end of a stream: what it counted is taken back, what it was is counted and logged.

use std::time::Instant;

use filters::format::{AccessLogType, FormatContext};

use super::{Downstream, Stream};

impl<D: Downstream> Stream<'_, D> {
    /// Every stream ends here, once.
    pub(super) fn finish(mut self) {
        let now = Instant::now();
        self.info.end = Some(now);
        let connection = self.connection;
        connection.active.set(connection.active.get().saturating_sub(1));
        let (stats, listener) = (&self.manager.stats, &self.manager.listener_stats);
        stats.downstream_rq_active().dec();
        let millis = now.saturating_duration_since(self.info.start).as_millis();
        stats.downstream_rq_time().record(u64::try_from(millis).unwrap_or(u64::MAX));
        match self.info.response_code / 100 {
            1 => (stats.downstream_rq_1xx().inc(), listener.downstream_rq_1xx().inc()),
            2 => (stats.downstream_rq_2xx().inc(), listener.downstream_rq_2xx().inc()),
            3 => (stats.downstream_rq_3xx().inc(), listener.downstream_rq_3xx().inc()),
            4 => (stats.downstream_rq_4xx().inc(), listener.downstream_rq_4xx().inc()),
            5 => (stats.downstream_rq_5xx().inc(), listener.downstream_rq_5xx().inc()),
            _ => ((), ()),
        };
        if self.info.response_code != 0 {
            stats.downstream_rq_completed().inc();
            listener.downstream_rq_completed().inc();
        }
        let logs = &self.manager.config.access_logs;
        if logs.is_empty() {
            return;
        }
        let (received, sent) = self.down.wire_bytes();
        self.info.downstream_bytes.wire_rx = received;
        self.info.downstream_bytes.wire_tx = sent;
        let worker = &self.manager.worker;
        let context = FormatContext {
            request: self.request.as_ref(),
            response: self.response.as_ref(),
            trailers: self.trailers.as_deref(),
            log_type: AccessLogType::DownstreamEnd,
            ..FormatContext::new(&self.info)
        };
        for log in logs {
            log.log(&context, worker.logs(), &*worker.runtime());
        }
    }
}

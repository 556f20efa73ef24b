//! What a stream counts: the codes it answers with, and at its end what it was; then its line in the logs, which
//! `access_log_options` may ask for earlier too.

use filters::flags::ResponseFlags;
use filters::format::{AccessLogType, FormatContext};
use filters::http::Version;

use super::routing::upgrade_protocol;
use super::{Downstream, Stream};

impl<D: Downstream> Stream<'_, D> {
    /// Counts a head sent downstream, informational ones too.
    pub(super) fn count_code(&self, status: u16) {
        if self.info.health_check {
            return;
        }
        let (stats, listener) = (&self.manager.stats, &self.manager.listener_stats);
        match status / 100 {
            1 => (stats.downstream_rq_1xx().inc(), listener.downstream_rq_1xx().inc()),
            2 => (stats.downstream_rq_2xx().inc(), listener.downstream_rq_2xx().inc()),
            3 => (stats.downstream_rq_3xx().inc(), listener.downstream_rq_3xx().inc()),
            4 => (stats.downstream_rq_4xx().inc(), listener.downstream_rq_4xx().inc()),
            5 => (stats.downstream_rq_5xx().inc(), listener.downstream_rq_5xx().inc()),
            _ => ((), ()),
        };
        stats.downstream_rq_completed().inc();
        listener.downstream_rq_completed().inc();
    }

    /// Every stream that runs to an end does so here, once.
    pub(super) fn finish(mut self) {
        self.take_back();
        self.conclude();
    }

    /// What [`Self::begin`] counted as active is so no longer.
    fn take_back(&mut self) {
        self.over = true;
        let active = &self.connection.active;
        active.set(active.get().saturating_sub(1));
        self.manager.stats.downstream_rq_active().dec();
        let outcome = &self.connection.info.outcome;
        if self.info.flags.contains(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR) {
            outcome.flags.set(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
        } else {
            outcome.protocol.set(self.info.protocol);
        }
        if self.info.health_check {
            self.manager.stats.tracing_health_check().inc();
        }
        if self.upgrade {
            self.manager.stats.downstream_cx_upgrades_active().dec();
        }
    }

    /// Counts and logs what the stream was.
    fn conclude(&mut self) {
        let now = self.manager.worker.timers().recent_instant();
        self.info.end = Some(now);
        let (connection, stats) = (self.connection, &self.manager.stats);
        // Whoever broke it off: Envoy counts every stream that did not run to its end on both sides.
        if !self.response_ended || !self.down.request_complete() || self.overlong {
            stats.downstream_rq_rx_reset().inc();
            if self.asked_for_connection()
                && (self.info.flags.contains(ResponseFlags::UPSTREAM_CONNECTION_FAILURE)
                    || self.info.flags.contains(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION))
            {
                self.down.connect_failed();
            }
        }
        let lived = now.saturating_duration_since(self.info.start);
        if self.info.protocol == Some(Version::Http2) {
            connection.request_ended(lived, self.info.response_code != 0, &*self.manager.worker.runtime());
        }
        let millis = lived.as_millis();
        stats.downstream_rq_time().record(u64::try_from(millis).unwrap_or(u64::MAX));
        self.log(AccessLogType::DownstreamEnd);
    }

    /// Whether an HTTP/2 client sent CONNECT, plain or extended: an error of the connection behind it is then told apart
    /// (RFC 9113 section 8.5).
    fn asked_for_connection(&self) -> bool {
        self.info.protocol == Some(Version::Http2)
            && self.request.as_ref().is_some_and(|head| upgrade_protocol(head).is_some())
    }

    /// Writes what is known about the stream now to the logs whose filter wants it.
    pub(super) fn log(&mut self, log_type: AccessLogType) {
        let logs = &self.manager.config.access_logs;
        if logs.is_empty() {
            return;
        }
        self.info.downstream_bytes = self.down.meter();
        let worker = &self.manager.worker;
        let context = FormatContext {
            request: self.request.as_ref(),
            response: self.response.as_ref(),
            trailers: self.trailers.as_deref(),
            log_type,
            ..FormatContext::new(&self.info)
        };
        for log in logs {
            log.log(&context, worker.logs(), &*worker.runtime());
        }
    }
}

/// A stream that is dropped on its way: this side cut its connection, or something panicked.
impl<D: Downstream> Drop for Stream<'_, D> {
    fn drop(&mut self) {
        if self.over || self.info.protocol.is_none() {
            return;
        }
        self.take_back();
        // In a panic, whatever a log would be asked for may be the reason.
        if !std::thread::panicking() {
            self.manager.count_cut_while_active();
            self.info.flags.insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
            self.info.details = Some(self.connection.cut_details().into());
            self.conclude();
        }
    }
}

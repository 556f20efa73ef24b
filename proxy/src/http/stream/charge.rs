//! Counting what became of a request for its cluster, and for the route and virtual cluster that ask for it.

use std::time::Instant;

use filters::http::{Known, ResponseHead};

use super::{Downstream, Stream};
use crate::upstream::host::Host;
use crate::upstream::responses::{Origin, Responses};

impl<D: Downstream> Stream<'_, D> {
    /// Whom a response is counted for: `host` gave it, or failed to.
    pub(super) fn origin<'h>(&self, host: Option<&'h Host>, head: Option<&ResponseHead>) -> Origin<'h> {
        let attributes = host.map(Host::attributes);
        let says =
            head.is_some_and(|head| head.headers.value(&Known::XEnvoyUpstreamCanary).is_some_and(|v| v == "true"));
        Origin {
            internal: self.facts.internal,
            canary: says || attributes.is_some_and(|host| host.canary),
            zone: attributes.map_or("", |host| &host.locality.zone),
        }
    }

    /// Counts a response code, whether upstream sent it or it stands for a failure.
    pub(super) fn charge(&self, status: u16, origin: Origin<'_>) {
        self.each_family(origin, |responses| responses.code(status));
    }

    /// Counts how long the response took, now that it is complete. Only a request that was complete too has a time.
    pub(super) fn charge_time(&self, origin: Origin<'_>) {
        let timing = &self.info.timing;
        let Some(asked) = timing.last_downstream_rx else { return };
        let answered = timing.last_upstream_rx.unwrap_or_else(|| self.manager.worker.timers().recent_instant());
        let millis = millis(asked, answered);
        self.each_family(origin, |responses| responses.time(millis));
    }

    fn each_family(&self, origin: Origin<'_>, count: impl Fn(&Responses)) {
        let Some(cluster) = &self.cluster else { return };
        if !self.manager.config.router().dynamic_stats {
            return;
        }
        let worker = &self.manager.worker;
        cluster.context().responses.own().each(worker, origin, &count);
        if let Some(alternative) = &self.alternative {
            alternative.each(worker, origin, &count);
        }
    }
}

fn millis(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
}

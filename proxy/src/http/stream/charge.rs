//! Counting what became of a request for its cluster, and for the route and virtual cluster that ask for it.

use std::sync::Arc;
use std::time::Instant;

use filters::http::{Known, ResponseHead};

use super::{Downstream, Stream};
use crate::observe::catalogue::RouteStats;
use crate::route::{Route, VirtualHost};
use crate::upstream::cluster::Cluster;
use crate::upstream::host::Host;
use crate::upstream::measure::Measure;
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

    /// Takes the statistics that a route and its virtual host ask for, and the name of the virtual cluster.
    pub(super) fn take_scopes(&mut self, host: &VirtualHost, route: &Route) {
        if let (Some(clusters), Some(head)) = (&host.virtual_clusters, &self.request) {
            let (name, scope) = clusters.find(head);
            self.info.virtual_cluster = name.map(Arc::clone);
            self.scopes[0] = Some(Arc::clone(scope));
        }
        self.scopes[1].clone_from(&route.scope);
    }

    /// Counts for the route and the virtual cluster.
    pub(super) fn count_scopes(&self, count: impl Fn(&RouteStats)) {
        self.scopes.iter().flatten().for_each(|scope| scope.count(self.manager.worker.index(), &count));
    }

    /// Counts a response code, whether upstream sent it or it stands for a failure.
    pub(super) fn charge(&self, status: u16, origin: Origin<'_>) {
        if self.counts_responses() {
            self.each_family(origin, |responses| responses.code(status));
            let worker = self.manager.worker.index();
            self.scopes.iter().flatten().for_each(|scope| scope.code(worker, status));
        }
    }

    /// Counts how long the response took, now that it is complete. Only a request that was complete too has a time.
    pub(super) fn charge_time(&self, origin: Origin<'_>) {
        let timing = &self.info.timing;
        let Some(asked) = timing.last_downstream_rx else { return };
        let answered = timing.last_upstream_rx.unwrap_or_else(|| self.manager.worker.timers().recent_instant());
        if self.counts_responses() {
            let millis = millis(asked, answered);
            self.each_family(origin, |responses| responses.time(millis));
            let worker = self.manager.worker.index();
            self.scopes.iter().flatten().for_each(|scope| scope.time(worker, millis));
        }
    }

    /// Begins to measure a try, if its cluster asks for that.
    pub(super) fn begin_measure(&self, cluster: &Cluster) -> Option<Box<Measure>> {
        let mut measure = Measure::begin(cluster.context(), self.deadlines.try_limits().response)?;
        if let Some(head) = &self.request {
            measure.asks(head);
        }
        Some(measure)
    }

    /// Counts which part of the route's timeout the request took, if its cluster asks for that.
    pub(super) fn charge_budget(&self) {
        if let Some(measures) = self.cluster.as_ref().and_then(|cluster| cluster.context().measures.as_ref())
            && let Some(asked) = self.info.timing.last_downstream_rx
        {
            measures.request_over(self.since(asked), self.deadlines.route_limit());
        }
    }

    /// The router's `dynamic_stats`; health checks are nobody's responses.
    fn counts_responses(&self) -> bool {
        !self.info.health_check && self.manager.config.router().dynamic_stats
    }

    fn each_family(&self, origin: Origin<'_>, count: impl Fn(&Responses)) {
        let Some(cluster) = &self.cluster else { return };
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

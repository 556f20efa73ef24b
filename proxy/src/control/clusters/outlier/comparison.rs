//! Hosts whose requests went worse than others' since the last sweep.

use std::time::Instant;

use filters::matcher::Runtime;

use super::Detector;
use crate::upstream::outlier::{Finding, Kind, Origin, Volume};

/// What the last sweep computed, in percent; `None` where too little was known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Over what hosts answered.
    pub external: Option<Comparison>,
    /// Over how they could be reached, if that is told apart.
    pub local: Option<Comparison>,
}

/// How well the hosts of a cluster do on the whole, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The mean of their success rates.
    pub average: f64,
    /// Whoever is below is an outlier.
    pub threshold: f64,
}

impl Detector {
    /// Looks for hosts whose requests went worse than others'.
    pub(super) fn compare(
        &mut self,
        now: Instant,
        origin: Origin,
        intervals: Vec<(u64, Volume)>,
        runtime: &dyn Runtime,
        random: &mut fastrand::Rng,
    ) {
        self.rates.of_mut(origin).take();
        let config = self.detection.config();
        let number = |key: &str, configured: u64| runtime.integer(key).unwrap_or(configured);
        let least_hosts = number("outlier_detection.success_rate_minimum_hosts", config.success_rate_minimum_hosts);
        let least_volume = number("outlier_detection.success_rate_request_volume", config.success_rate_request_volume);
        let stdev_factor = number("outlier_detection.success_rate_stdev_factor", config.success_rate_stdev_factor);
        let least_failing_hosts =
            number("outlier_detection.failure_percentage_minimum_hosts", config.failure_percentage_minimum_hosts);
        let least_failing_volume =
            number("outlier_detection.failure_percentage_request_volume", config.failure_percentage_request_volume);
        let threshold = number("outlier_detection.failure_percentage_threshold", config.failure_percentage_threshold);
        let hosts = self.hosts.len() as u64;
        if hosts < least_hosts && hosts < least_failing_hosts {
            return;
        }
        let (mut compared, mut failing) = (Vec::new(), Vec::new());
        for (id, volume) in intervals {
            let Some(watched) = self.hosts.get_mut(&id) else { continue };
            let Some(rate) = volume.rate() else { continue };
            if watched.is_ejected() {
                continue;
            }
            if volume.total >= least_volume.min(least_failing_volume) {
                watched.rates[origin as usize] = Some(rate);
            }
            if volume.total >= least_volume {
                compared.push((id, rate));
            }
            if volume.total >= least_failing_volume {
                failing.push((id, rate));
            }
        }
        if !compared.is_empty() && compared.len() as u64 >= least_hosts {
            let comparison = Comparison::new(&compared, stdev_factor);
            *self.rates.of_mut(origin) = Some(comparison);
            let kind = match origin {
                Origin::External => Kind::SuccessRate,
                Origin::Local => Kind::SuccessRateLocalOrigin,
            };
            for (id, rate) in compared.into_iter().filter(|(_, rate)| *rate < comparison.threshold) {
                self.found(now, id, kind, (rate, Some(comparison)), runtime, random);
            }
        }
        if !failing.is_empty() && failing.len() as u64 >= least_failing_hosts {
            let kind = match origin {
                Origin::External => Kind::FailurePercentage,
                Origin::Local => Kind::FailurePercentageLocalOrigin,
            };
            #[expect(clippy::cast_precision_loss, reason = "a percentage; more than 2^53 is never reached either way")]
            let threshold = threshold as f64;
            for (id, rate) in failing.into_iter().filter(|(_, rate)| 100.0 - rate >= threshold) {
                self.found(now, id, kind, (rate, None), runtime, random);
            }
        }
    }

    /// A sweep found a host to be an outlier.
    fn found(
        &mut self,
        now: Instant,
        id: u64,
        kind: Kind,
        figures: (f64, Option<Comparison>),
        runtime: &dyn Runtime,
        random: &mut fastrand::Rng,
    ) {
        let Some(watched) = self.hosts.get(&id) else { return };
        let judged = self.detection.judge(watched.host.state(), kind, runtime, &mut |below| random.u64(..below));
        if let Some(verdict) = judged {
            self.book(now, id, Finding { kind, verdict }, Some(figures), runtime, random);
        }
    }
}

impl Rates {
    const fn of_mut(&mut self, origin: Origin) -> &mut Option<Comparison> {
        match origin {
            Origin::External => &mut self.external,
            Origin::Local => &mut self.local,
        }
    }
}

impl Comparison {
    /// Of success rates in percent; `stdev_factor` in thousandths.
    #[expect(clippy::cast_precision_loss, reason = "hosts and thousandths are far below 2^53")]
    fn new(hosts: &[(u64, f64)], stdev_factor: u64) -> Self {
        let count = hosts.len() as f64;
        let average = hosts.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let variance = hosts.iter().map(|(_, rate)| (rate - average).powi(2)).sum::<f64>() / count;
        Self { average, threshold: average - stdev_factor as f64 / 1000.0 * variance.sqrt() }
    }
}

//! `outlier_detection.*` of a cluster, and the log of outlier events (`cluster_manager.outlier_detection.event_log_path`):
//! a line of JSON for each, as `envoy.data.cluster.v3.OutlierDetectionEvent` is printed.

use std::io::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;
use stats::{GroupHandle, Store};

use super::clusters::{OutlierChange, OutlierEvent};
use crate::observe::access_log::{LogFile, WorkerLogs};
use crate::observe::catalogue::OutlierStats;
use crate::upstream::outlier::{Finding, Kind, Verdict};

/// Control's shard of a cluster's `outlier_detection.*`.
pub(super) struct OutlierCounts {
    stats: OutlierStats,
    /// Keeps them in the scrape.
    _group: Arc<GroupHandle<OutlierStats>>,
}

impl OutlierCounts {
    /// Those below `cluster.<stat_name>.`; of a version that has ejected nobody yet.
    pub(super) fn new(store: &Arc<Store>, stat_name: &str) -> Self {
        let group = store.group::<OutlierStats>(&format!("cluster.{stat_name}.outlier_detection."));
        let stats = group.shard(store.control_shard());
        stats.ejections_active().set(0);
        Self { stats, _group: group }
    }

    /// Counts what happened.
    pub(super) fn count(&self, event: &OutlierEvent) {
        let stats = &self.stats;
        stats.ejections_active().set(event.active.into());
        let OutlierChange::Found { finding: Finding { kind, verdict }, .. } = event.what else { return };
        match kind {
            Kind::Consecutive5xx => {
                stats.ejections_detected_consecutive_5xx().inc();
                stats.ejections_consecutive_5xx().inc();
            }
            Kind::ConsecutiveGatewayFailure => stats.ejections_detected_consecutive_gateway_failure().inc(),
            Kind::ConsecutiveLocalOriginFailure => stats.ejections_detected_consecutive_local_origin_failure().inc(),
            Kind::SuccessRate => {
                stats.ejections_detected_success_rate().inc();
                stats.ejections_success_rate().inc();
            }
            Kind::SuccessRateLocalOrigin => {
                stats.ejections_detected_local_origin_success_rate().inc();
                stats.ejections_success_rate().inc();
            }
            Kind::FailurePercentage => stats.ejections_detected_failure_percentage().inc(),
            Kind::FailurePercentageLocalOrigin => stats.ejections_detected_local_origin_failure_percentage().inc(),
            // Nobody is ejected for that.
            Kind::Degraded => return stats.ejections_detected_degradation().inc(),
        }
        match verdict {
            Verdict::Overflow => return stats.ejections_overflow().inc(),
            // The old counter does not ask whether anything came of it.
            Verdict::Enforced | Verdict::Spared if matches!(kind, Kind::Consecutive5xx | Kind::SuccessRate) => {
                stats.ejections_total().inc();
            }
            Verdict::Enforced | Verdict::Spared => {}
        }
        if verdict == Verdict::Spared {
            return;
        }
        stats.ejections_enforced_total().inc();
        match kind {
            Kind::Consecutive5xx => stats.ejections_enforced_consecutive_5xx().inc(),
            Kind::ConsecutiveGatewayFailure => stats.ejections_enforced_consecutive_gateway_failure().inc(),
            Kind::ConsecutiveLocalOriginFailure => stats.ejections_enforced_consecutive_local_origin_failure().inc(),
            Kind::SuccessRate => stats.ejections_enforced_success_rate().inc(),
            Kind::SuccessRateLocalOrigin => stats.ejections_enforced_local_origin_success_rate().inc(),
            Kind::FailurePercentage => stats.ejections_enforced_failure_percentage().inc(),
            Kind::FailurePercentageLocalOrigin => stats.ejections_enforced_local_origin_failure_percentage().inc(),
            Kind::Degraded => {}
        }
    }
}

/// The log of outlier events.
pub(super) struct OutlierLog {
    file: Arc<LogFile>,
    lines: WorkerLogs,
}

impl OutlierLog {
    /// A log to this file.
    pub(super) fn new(file: Arc<LogFile>) -> Self {
        Self { file, lines: WorkerLogs::new() }
    }

    /// Writes a line, if the event is one that is logged.
    pub(super) fn write(&self, cluster: &str, event: &OutlierEvent, wall: SystemTime) {
        let Some(line) = line(cluster, event, wall) else { return };
        // Writing to memory cannot fail.
        self.lines.write(&self.file, |out| _ = writeln!(out, "{line}"));
        // Few and far between: nobody has to wait for them.
        self.lines.flush();
    }
}

/// The event as Envoy prints it; `None` for what it does not log.
fn line(cluster: &str, event: &OutlierEvent, wall: SystemTime) -> Option<String> {
    let (kind, action, enforced, details) = match event.what {
        OutlierChange::Found { finding: Finding { verdict: Verdict::Overflow, .. }, .. } | OutlierChange::Left => {
            return None;
        }
        OutlierChange::Found { finding: Finding { kind, verdict }, rate, comparison } => {
            let rate = whole(rate);
            let details = match kind {
                Kind::Consecutive5xx
                | Kind::ConsecutiveGatewayFailure
                | Kind::ConsecutiveLocalOriginFailure
                | Kind::Degraded => r#","eject_consecutive_event":{}"#.to_owned(),
                Kind::SuccessRate | Kind::SuccessRateLocalOrigin => {
                    let average = whole(comparison.map(|comparison| comparison.average));
                    let threshold = whole(comparison.map(|comparison| comparison.threshold));
                    format!(
                        r#","eject_success_rate_event":{{"host_success_rate":{rate},"cluster_average_success_rate":{average},"cluster_success_rate_ejection_threshold":{threshold}}}"#
                    )
                }
                Kind::FailurePercentage | Kind::FailurePercentageLocalOrigin => {
                    format!(r#","eject_failure_percentage_event":{{"host_success_rate":{rate}}}"#)
                }
            };
            (name(kind), "EJECT", verdict == Verdict::Enforced, details)
        }
        // Nothing says of an end what had begun: the field keeps its default.
        OutlierChange::Readmitted => (name(Kind::Consecutive5xx), "UNEJECT", false, String::new()),
    };
    let timestamp = timestamp(wall);
    let since = event.since_last.map_or_else(String::new, |since| {
        let seconds = since.as_secs();
        format!(r#","secs_since_last_action":"{seconds}""#)
    });
    let (cluster, url) = (Value::from(cluster), Value::from(event.host.address().to_string()));
    let ejections = event.ejections;
    Some(format!(
        r#"{{"type":"{kind}","timestamp":"{timestamp}"{since},"cluster_name":{cluster},"upstream_url":{url},"action":"{action}","num_ejections":{ejections},"enforced":{enforced}{details}}}"#
    ))
}

/// A point in time as protobuf prints one in JSON: whole seconds have no fraction.
pub(super) fn timestamp(wall: SystemTime) -> String {
    let text = DateTime::<Utc>::from(wall).to_rfc3339_opts(SecondsFormat::Millis, true);
    text.replace(".000Z", "Z")
}

/// A percentage without its fraction.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "truncation is meant; a cast saturates")]
fn whole(percent: Option<f64>) -> u32 {
    percent.unwrap_or(0.0) as u32
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Consecutive5xx => "CONSECUTIVE_5XX",
        Kind::ConsecutiveGatewayFailure => "CONSECUTIVE_GATEWAY_FAILURE",
        Kind::ConsecutiveLocalOriginFailure => "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
        Kind::SuccessRate => "SUCCESS_RATE",
        Kind::SuccessRateLocalOrigin => "SUCCESS_RATE_LOCAL_ORIGIN",
        Kind::FailurePercentage => "FAILURE_PERCENTAGE",
        Kind::FailurePercentageLocalOrigin => "FAILURE_PERCENTAGE_LOCAL_ORIGIN",
        Kind::Degraded => "DEGRADED",
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::clusters::Comparison;
    use super::*;
    use crate::upstream::host::tests::host;

    fn event(what: OutlierChange, ejections: u32, since_last: Option<Duration>) -> OutlierEvent {
        OutlierEvent { host: host(1, 1, 0, &Arc::default()), what, ejections, since_last, active: 0 }
    }

    #[test]
    fn lines_are_those_of_envoy() {
        let found = |kind, verdict, rate, comparison| OutlierChange::Found {
            finding: Finding { kind, verdict },
            rate,
            comparison,
        };
        let wall = UNIX_EPOCH + Duration::from_millis(1_795_422_256_159);
        let enforced = found(Kind::Consecutive5xx, Verdict::Enforced, None, None);
        assert_eq!(
            line("c", &event(enforced, 1, None), wall).unwrap(),
            r#"{"type":"CONSECUTIVE_5XX","timestamp":"2026-11-23T08:24:16.159Z","cluster_name":"c","upstream_url":"10.0.0.1:80","action":"EJECT","num_ejections":1,"enforced":true,"eject_consecutive_event":{}}"#
        );
        assert_eq!(
            line("c", &event(OutlierChange::Readmitted, 1, Some(Duration::from_millis(3241))), wall).unwrap(),
            r#"{"type":"CONSECUTIVE_5XX","timestamp":"2026-11-23T08:24:16.159Z","secs_since_last_action":"3","cluster_name":"c","upstream_url":"10.0.0.1:80","action":"UNEJECT","num_ejections":1,"enforced":false}"#
        );
        let comparison = Comparison { average: 90.0, threshold: 52.9 };
        let compared = found(Kind::SuccessRate, Verdict::Spared, Some(50.5), Some(comparison));
        let text = line("c", &event(compared, 0, None), wall).unwrap();
        assert!(text.ends_with(
            r#""enforced":false,"eject_success_rate_event":{"host_success_rate":50,"cluster_average_success_rate":90,"cluster_success_rate_ejection_threshold":52}}"#
        ));
        let overflow = found(Kind::Consecutive5xx, Verdict::Overflow, None, None);
        assert_eq!(line("c", &event(overflow, 0, None), wall), None);
    }

    #[test]
    fn a_whole_second_has_no_fraction() {
        assert_eq!(timestamp(UNIX_EPOCH), "1970-01-01T00:00:00Z");
    }
}

//! The log of health check events: lines of JSON as Envoy prints `envoy.data.core.v3.HealthCheckEvent`.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use filters::stream_info::Address;
use serde_json::{Map, Value, json};

use super::session::{Event, Report};
use crate::config::cluster::{Checker, ClusterConfig, HealthCheck};
use crate::control::clusters::HealthEvent;
use crate::control::outlier_log::timestamp;
use crate::observe::access_log::{LogFile, LogFiles, WorkerLogs};

/// The files clusters log health check events to.
pub struct HealthLogs {
    files: Arc<LogFiles>,
    lines: WorkerLogs,
    /// By the cluster's name: open for as long as it may log.
    open: HashMap<Arc<str>, Vec<Arc<LogFile>>>,
}

impl HealthLogs {
    /// No file yet.
    #[must_use]
    pub fn new(files: Arc<LogFiles>) -> Self {
        Self { files, lines: WorkerLogs::new(), open: HashMap::new() }
    }

    /// Opens the files a version of a cluster logs to.
    ///
    /// # Errors
    /// In Envoy's words, when one cannot be opened.
    pub fn open(&mut self, config: &ClusterConfig) -> Result<(), String> {
        let targets = config.health_check.iter().flat_map(|check| &check.events.logs);
        let files: Vec<_> = targets.map(|target| self.files.open(target)).collect::<Result<_, _>>()?;
        if files.is_empty() {
            self.open.remove(&config.name);
        } else {
            self.open.insert(Arc::clone(&config.name), files);
        }
        Ok(())
    }

    /// The cluster is gone.
    pub fn close(&mut self, cluster: &str) {
        self.open.remove(cluster);
    }

    /// Writes a line to each file of the cluster's.
    pub fn write(&self, config: &ClusterConfig, event: &HealthEvent, wall: SystemTime) {
        let (Some(files), Some(check)) = (self.open.get(&config.name), &config.health_check) else { return };
        let line = line(&config.name, check, event, wall);
        for file in files {
            // Writing to memory cannot fail.
            self.lines.write(file, |out| _ = writeln!(out, "{line}"));
        }
        // Few and far between: nobody has to wait for them.
        self.lines.flush();
    }
}

/// The event as Envoy prints it: fields in the order of their numbers, what is zero too.
fn line(cluster: &str, check: &HealthCheck, event: &HealthEvent, wall: SystemTime) -> String {
    let HealthEvent { host, event, report, status, first } = event;
    let attributes = host.attributes();
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    let kind = match &check.checker {
        Checker::Http(_) => "HTTP",
        Checker::Grpc(_) => "GRPC",
        Checker::Tcp(_) => "TCP",
    };
    put("health_checker_type", kind.into());
    put("host", address(host.address()));
    put("cluster_name", cluster.into());
    match event {
        Event::Unhealthy => {
            put("eject_unhealthy_event", json!({"failure_type": failure_type(*report), "http_status_code": status}));
        }
        Event::Healthy => {
            put("add_healthy_event", json!({"first_check": first}));
        }
        Event::Failure | Event::Success | Event::Degraded | Event::NoLongerDegraded => {}
    }
    put("timestamp", timestamp(wall).into());
    match event {
        Event::Failure => {
            let failure =
                json!({"failure_type": failure_type(*report), "first_check": first, "http_status_code": status});
            put("health_check_failure_event", failure);
        }
        Event::Degraded => {
            put("degraded_healthy_host", json!({}));
        }
        Event::NoLongerDegraded => {
            put("no_longer_degraded_host", json!({}));
        }
        Event::Healthy | Event::Unhealthy | Event::Success => {}
    }
    if let Some(metadata) = &attributes.metadata {
        put(
            "metadata",
            json!({"filter_metadata": plain(&Value::Object((**metadata).clone())), "typed_filter_metadata": {}}),
        );
    }
    let locality = &attributes.locality;
    put("locality", json!({"region": locality.region, "zone": locality.zone, "sub_zone": locality.sub_zone}));
    if *event == Event::Success {
        put("successful_health_check_event", json!({}));
    }
    Value::Object(out).to_string()
}

/// Whole numbers have no fraction.
#[expect(clippy::cast_possible_truncation, reason = "a whole number of this size is exact")]
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(whole) if whole.fract() == 0.0 && whole.abs() < 9e15 => (whole as i64).into(),
            _ => value.clone(),
        },
        Value::Array(values) => values.iter().map(plain).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), plain(value))).collect(),
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

const fn failure_type(report: Report) -> &'static str {
    match report {
        // Nothing failed.
        Report::Passed { .. } | Report::Refused { .. } => "ACTIVE",
        Report::Seen => "PASSIVE",
        Report::Unreachable => "NETWORK",
        Report::TimedOut => "NETWORK_TIMEOUT",
    }
}

fn address(address: &Address) -> Value {
    match address {
        Address::Ip(ip) => json!({"socket_address": {
            "protocol": "TCP",
            "address": ip.ip().to_string(),
            "port_value": ip.port(),
            "resolver_name": "",
            "ipv4_compat": false,
            "network_namespace_filepath": "",
        }}),
        Address::Pipe(path) => json!({"pipe": {"path": path.to_string(), "mode": 0}}),
        Address::Internal(name) => {
            json!({"envoy_internal_address": {"server_listener_name": name.to_string(), "endpoint_id": ""}})
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use envoy_types::pb::envoy::config::core::v3 as proto;
    use envoy_types::pb::google::protobuf::{Duration as ProtoDuration, UInt32Value};
    use filters::config::Session;

    use super::*;
    use crate::upstream::host::tests::host;

    fn check() -> Arc<HealthCheck> {
        let checker = proto::health_check::HttpHealthCheck { path: "/".into(), ..Default::default() };
        let second = || Some(ProtoDuration { seconds: 1, nanos: 0 });
        let proto = proto::HealthCheck {
            timeout: second(),
            interval: second(),
            unhealthy_threshold: Some(UInt32Value { value: 1 }),
            healthy_threshold: Some(UInt32Value { value: 1 }),
            health_checker: Some(proto::health_check::HealthChecker::HttpHealthCheck(checker)),
            ..Default::default()
        };
        HealthCheck::parse_list(Session::default().root(), vec![proto], "c", false).unwrap().unwrap()
    }

    #[test]
    fn lines_are_those_of_envoy() {
        let check = check();
        let wall = UNIX_EPOCH + Duration::from_millis(1_795_422_256_159);
        let event = |event, report, status, first| {
            let event = HealthEvent { host: host(1, 1, 0, &Arc::default()), event, report, status, first };
            line("c", &check, &event, wall)
        };
        let begin = r#"{"health_checker_type":"HTTP","host":{"socket_address":{"protocol":"TCP","address":"10.0.0.1","port_value":80,"resolver_name":"","ipv4_compat":false,"network_namespace_filepath":""}},"cluster_name":"c","#;
        let time = r#""timestamp":"2026-11-23T08:24:16.159Z","#;
        let place = r#""locality":{"region":"","zone":"","sub_zone":""}"#;
        let refused = Report::Refused { retriable: false, excluded: false };
        let passed = Report::Passed { degraded: false };
        for (line, expected) in [
            (
                event(Event::Unhealthy, refused, 503, false),
                format!(
                    r#"{begin}"eject_unhealthy_event":{{"failure_type":"ACTIVE","http_status_code":503}},{time}{place}}}"#
                ),
            ),
            (
                event(Event::Healthy, passed, 200, true),
                format!(r#"{begin}"add_healthy_event":{{"first_check":true}},{time}{place}}}"#),
            ),
            (
                event(Event::Failure, Report::TimedOut, 0, true),
                format!(
                    r#"{begin}{time}"health_check_failure_event":{{"failure_type":"NETWORK_TIMEOUT","first_check":true,"http_status_code":0}},{place}}}"#
                ),
            ),
            (
                event(Event::Degraded, passed, 200, false),
                format!(r#"{begin}{time}"degraded_healthy_host":{{}},{place}}}"#),
            ),
            (
                event(Event::Success, passed, 200, false),
                format!(r#"{begin}{time}{place},"successful_health_check_event":{{}}}}"#),
            ),
        ] {
            assert_eq!(line, expected);
        }
    }
}

//! `/clusters`.

use std::fmt::Write as _;

use filters::stream_info::Address;
use serde_json::{Map, Value, json};

use super::backend::{ClusterView, HostView, OutlierView, ThresholdsView};
use crate::upstream::host::HealthFlags;

/// `cluster::key::value` lines.
pub(super) fn text(clusters: &[ClusterView]) -> String {
    let mut out = String::new();
    for cluster in clusters {
        let name = line_safe(&cluster.name);
        // Writing to a `String` cannot fail.
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(out, "{name}::{key}::{value}");
        };
        line("observability_name", &line_safe(&cluster.observability_name));
        if let Some(outlier) = &cluster.outlier {
            line("outlier::success_rate_average", &rate(outlier.success_rate_average));
            line("outlier::success_rate_ejection_threshold", &rate(outlier.success_rate_ejection_threshold));
            line("outlier::local_origin_success_rate_average", &rate(outlier.local_origin_success_rate_average));
            line(
                "outlier::local_origin_success_rate_ejection_threshold",
                &rate(outlier.local_origin_success_rate_ejection_threshold),
            );
        }
        for (priority, limits) in ["default", "high"].into_iter().zip(&cluster.thresholds) {
            let ThresholdsView { max_connections, max_pending_requests, max_requests, max_retries } = limits;
            line(&format!("{priority}_priority::max_connections"), max_connections);
            line(&format!("{priority}_priority::max_pending_requests"), max_pending_requests);
            line(&format!("{priority}_priority::max_requests"), max_requests);
            line(&format!("{priority}_priority::max_retries"), max_retries);
        }
        line("added_via_api", &cluster.added_via_api);
        for host in &cluster.hosts {
            let address = host.address.to_string();
            let address = line_safe(&address);
            let mut host_line = |key: &str, value: &dyn std::fmt::Display| line(&format!("{address}::{key}"), value);
            for (key, value) in counts(host) {
                host_line(key, &value);
            }
            host_line("hostname", &line_safe(&host.hostname));
            host_line("health_flags", &host.health);
            host_line("weight", &host.weight);
            host_line("region", &line_safe(&host.locality.region));
            host_line("zone", &line_safe(&host.locality.zone));
            host_line("sub_zone", &line_safe(&host.locality.sub_zone));
            host_line("canary", &host.canary);
            host_line("priority", &host.priority);
            host_line("success_rate", &rate(host.success_rate));
            host_line("local_origin_success_rate", &rate(host.local_origin_success_rate));
        }
    }
    out
}

/// `{"cluster_statuses": […]}`; what is zero or empty is left out.
pub(super) fn json(clusters: &[ClusterView]) -> Value {
    let mut out = Map::new();
    if !clusters.is_empty() {
        out.insert("cluster_statuses".into(), clusters.iter().map(cluster_json).collect());
    }
    Value::Object(out)
}

fn cluster_json(cluster: &ClusterView) -> Value {
    let mut out = Map::new();
    put(&mut out, "name", &cluster.name);
    if cluster.added_via_api {
        out.insert("added_via_api".into(), true.into());
    }
    let OutlierView { success_rate_ejection_threshold, local_origin_success_rate_ejection_threshold, .. } =
        cluster.outlier.unwrap_or_default();
    put_rate(&mut out, "success_rate_ejection_threshold", success_rate_ejection_threshold);
    if !cluster.hosts.is_empty() {
        out.insert("host_statuses".into(), cluster.hosts.iter().map(host_json).collect());
    }
    put_rate(&mut out, "local_origin_success_rate_ejection_threshold", local_origin_success_rate_ejection_threshold);
    let thresholds = cluster.thresholds.iter().enumerate().map(|(priority, limits)| {
        let mut out = Map::new();
        if priority > 0 {
            out.insert("priority".into(), "HIGH".into());
        }
        out.insert("max_connections".into(), limits.max_connections.into());
        out.insert("max_pending_requests".into(), limits.max_pending_requests.into());
        out.insert("max_requests".into(), limits.max_requests.into());
        out.insert("max_retries".into(), limits.max_retries.into());
        Value::Object(out)
    });
    out.insert("circuit_breakers".into(), json!({"thresholds": thresholds.collect::<Vec<_>>()}));
    put(&mut out, "observability_name", &cluster.observability_name);
    put(&mut out, "eds_service_name", &cluster.eds_service_name);
    Value::Object(out)
}

fn host_json(host: &HostView) -> Value {
    let mut out = Map::new();
    out.insert("address".into(), address(&host.address));
    let gauge = |name: &str| matches!(name, "cx_active" | "rq_active" | "rq_pending_active");
    let counts = counts(host);
    let (gauges, counters): (Vec<_>, Vec<_>) = counts.into_iter().partition(|(name, _)| gauge(name));
    let stat = |(name, value): &(&str, u64)| {
        let mut out = Map::new();
        if gauge(name) {
            out.insert("type".into(), "GAUGE".into());
        }
        put(&mut out, "name", name);
        if *value > 0 {
            out.insert("value".into(), value.to_string().into());
        }
        Value::Object(out)
    };
    out.insert("stats".into(), counters.iter().chain(&gauges).map(stat).collect());
    out.insert("health_status".into(), health(host.health));
    put_rate(&mut out, "success_rate", host.success_rate);
    if host.weight > 0 {
        out.insert("weight".into(), host.weight.into());
    }
    put(&mut out, "hostname", &host.hostname);
    if host.priority > 0 {
        out.insert("priority".into(), host.priority.into());
    }
    put_rate(&mut out, "local_origin_success_rate", host.local_origin_success_rate);
    let mut locality = Map::new();
    put(&mut locality, "region", &host.locality.region);
    put(&mut locality, "zone", &host.locality.zone);
    put(&mut locality, "sub_zone", &host.locality.sub_zone);
    out.insert("locality".into(), Value::Object(locality));
    Value::Object(out)
}

fn health(flags: HealthFlags) -> Value {
    let mut out = Map::new();
    for (flag, name) in [
        (HealthFlags::FAILED_ACTIVE_HC, "failed_active_health_check"),
        (HealthFlags::FAILED_OUTLIER_CHECK, "failed_outlier_check"),
        (HealthFlags::DEGRADED_ACTIVE_HC, "failed_active_degraded_check"),
        (HealthFlags::PENDING_DYNAMIC_REMOVAL, "pending_dynamic_removal"),
        (HealthFlags::PENDING_ACTIVE_HC, "pending_active_hc"),
        (HealthFlags::EXCLUDED_VIA_IMMEDIATE_HC_FAIL, "excluded_via_immediate_hc_fail"),
        (HealthFlags::ACTIVE_HC_TIMEOUT, "active_hc_timeout"),
        (HealthFlags::DEGRADED_OUTLIER_DETECTION, "failed_degraded_outlier_detection"),
    ] {
        if flags.contains(flag) {
            out.insert(name.into(), true.into());
        }
    }
    let eds = if flags.contains(HealthFlags::FAILED_EDS_HEALTH) {
        "UNHEALTHY"
    } else if flags.contains(HealthFlags::EDS_STATUS_DRAINING) {
        "DRAINING"
    } else if flags.contains(HealthFlags::DEGRADED_EDS_HEALTH) {
        "DEGRADED"
    } else {
        "HEALTHY"
    };
    out.insert("eds_health_status".into(), eds.into());
    Value::Object(out)
}

/// In the order of the text page, which is alphabetical.
fn counts(host: &HostView) -> [(&'static str, u64); 9] {
    let stats = &host.stats;
    [
        ("cx_active", stats.cx_active),
        ("cx_connect_fail", stats.cx_connect_fail),
        ("cx_total", stats.cx_total),
        ("rq_active", stats.rq_active),
        ("rq_error", stats.rq_error),
        ("rq_pending_active", stats.rq_pending_active),
        ("rq_success", stats.rq_success),
        ("rq_timeout", stats.rq_timeout),
        ("rq_total", stats.rq_total),
    ]
}

/// An address as protobuf's JSON.
pub(super) fn address(address: &Address) -> Value {
    match address {
        Address::Ip(ip) => json!({"socket_address": {"address": ip.ip().to_string(), "port_value": ip.port()}}),
        Address::Pipe(path) => json!({"pipe": {"path": &**path}}),
        Address::Internal(name) => json!({"envoy_internal_address": {"server_listener_name": &**name}}),
    }
}

/// A name that control planes or DNS gave: no line breaks or other control characters in a line-based page.
pub(super) fn line_safe(name: &str) -> std::borrow::Cow<'_, str> {
    if name.chars().any(char::is_control) { name.escape_debug().to_string().into() } else { name.into() }
}

fn rate(value: Option<f64>) -> f64 {
    value.unwrap_or(-1.0)
}

fn put(out: &mut Map<String, Value>, key: &str, value: &str) {
    if !value.is_empty() {
        out.insert(key.into(), value.into());
    }
}

fn put_rate(out: &mut Map<String, Value>, key: &str, value: Option<f64>) {
    if let Some(value) = value {
        out.insert(key.into(), json!({"value": value}));
    }
}

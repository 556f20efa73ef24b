//! Answers to health checks of this proxy: `envoy.filters.http.health_check`.
//!
//! Requests that match are health checks. Either the filter answers them all, by whether the proxy is to take requests and by how
//! many hosts of clusters are healthy; or they pass like any other (`pass_through_mode`), except while the proxy is to take none
//! or while the last answer is fresh enough to be repeated (`cache_time`). Whoever makes an answer, it names the cluster this proxy
//! belongs to; and while the proxy is to take no requests, every answer says so.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_types::pb::envoy::extensions::filters::http::health_check::v3::HealthCheck as Proto;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::Duration as ProtoDuration;

use crate::config::duration::duration;
use crate::config::{At, ConfigError};
use crate::flags::{ResponseFlags, details};
use crate::http::{Headers, Known, RequestHead, ResponseHead};
use crate::http_filter::{Reply, RequestContext, Server, Verdict};
use crate::matcher::{HeaderMatcher, RegexLimits};

stats::group! {
    /// `http.<stat_prefix>.health_check.`
    pub struct HealthCheckFilterStats {
        counters {
            request_total, ok, failed, degraded, cached_response, failed_cluster_not_found, failed_cluster_empty,
            failed_cluster_unhealthy
        }
    }
}

/// The settings of a filter; all workers share them, and the last answer.
#[derive(Debug)]
pub struct HealthCheckConfig {
    /// All have to match.
    headers: Box<[HeaderMatcher]>,
    pass_through: bool,
    cache: Option<Cache>,
    /// Percent of a cluster's hosts that have to be healthy, or no worse than degraded.
    clusters: BTreeMap<Arc<str>, u64>,
    /// `node.cluster`
    node_cluster: Bytes,
}

impl HealthCheckConfig {
    /// Compiles the settings, for a node of this cluster.
    ///
    /// # Errors
    /// When a matcher, a percentage or the time is none, or when answers are to be kept that nobody else gives.
    pub fn parse(proto: Proto, at: At<'_>, limits: RegexLimits, node_cluster: &str) -> Result<Self, ConfigError> {
        let Proto { pass_through_mode, cache_time, cluster_min_healthy_percentages, headers } = proto;
        let pass_through = at.required("pass_through_mode", pass_through_mode)?.value;
        let cache_time = cache_time.map(|time| whole_millis(&at.field("cache_time"), &time)).transpose()?;
        let cache = cache_time.filter(|time| !time.is_zero()).map(Cache::new);
        if cache.is_some() && !pass_through {
            return Err(at.error("cache_time_ms must not be set when path_through_mode is disabled"));
        }
        let here = at.field("headers");
        let percents = at.field("cluster_min_healthy_percentages");
        let percent = |(name, Percent { value }): (String, Percent)| {
            if (0.0..=100.0).contains(&value) {
                // Envoy takes whole percents.
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "truncation is meant")]
                Ok((name.into(), value as u64))
            } else {
                Err(percents.key(&name).field("value").error("value must be inside range [0, 100]"))
            }
        };
        Ok(Self {
            headers: headers
                .into_iter()
                .enumerate()
                .map(|(n, matcher)| HeaderMatcher::parse(matcher, here.index(n), limits))
                .collect::<Result<_, _>>()?,
            pass_through,
            cache,
            clusters: cluster_min_healthy_percentages.into_iter().map(percent).collect::<Result<_, _>>()?,
            node_cluster: Bytes::copy_from_slice(node_cluster.as_bytes()),
        })
    }
}

/// Fractions of a millisecond do not count.
fn whole_millis(at: &At<'_>, proto: &ProtoDuration) -> Result<Duration, ConfigError> {
    let whole = duration(at, proto)?;
    Ok(whole - Duration::from_nanos(u64::from(whole.subsec_nanos() % 1_000_000)))
}

/// The last answer. It is fresh until the period ends in which it was given: periods follow each other from the start on.
#[derive(Debug)]
struct Cache {
    began: Instant,
    period: Duration,
    /// The status in the lowest 16 bits, whether it said degraded above, then the number of the period, counted from 1.
    last: AtomicU64,
}

impl Cache {
    fn new(period: Duration) -> Self {
        Self { began: Instant::now(), period, last: AtomicU64::new(0) }
    }

    fn period(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.began).as_millis() / self.period.as_millis().max(1);
        u64::try_from(passed).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn keep(&self, now: Instant, head: &ResponseHead) {
        let degraded = u64::from(head.headers.contains(&Known::XEnvoyDegraded));
        self.last.store(self.period(now) << 17 | degraded << 16 | u64::from(head.status), Relaxed);
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.last.load(Relaxed) >> 17 == self.period(now)
    }

    /// The last answer's status, and whether it said degraded.
    fn last(&self) -> (u16, bool) {
        let last = self.last.load(Relaxed);
        (u16::try_from(last & 0xffff).unwrap_or(0), last >> 16 & 1 == 1)
    }
}

/// The filter of a chain on one worker.
pub struct HealthCheck {
    config: Arc<HealthCheckConfig>,
    stats: HealthCheckFilterStats,
}

impl HealthCheck {
    /// A filter that counts here.
    #[must_use]
    pub fn new(config: Arc<HealthCheckConfig>, stats: HealthCheckFilterStats) -> Rc<Self> {
        Rc::new(Self { config, stats })
    }

    /// What is to be answered to a health check: a status, why, and whether the proxy says that it is degraded.
    fn answer(&self, server: &dyn Server) -> (u16, &'static str, bool) {
        let Self { config, stats } = self;
        if server.health_check_failed() {
            return (503, details::HEALTH_CHECK_FAILED, false);
        }
        if let Some(cache) = &config.cache {
            stats.cached_response().inc();
            let (status, degraded) = cache.last();
            return (status, details::HEALTH_CHECK_CACHED, degraded);
        }
        for (name, percent) in &config.clusters {
            let Some((well, total)) = server.membership(name) else {
                stats.failed_cluster_not_found().inc();
                return (503, details::HEALTH_CHECK_FAILED_NO_CLUSTER_FOUND, false);
            };
            if total == 0 && *percent > 0 {
                stats.failed_cluster_empty().inc();
                return (503, details::HEALTH_CHECK_FAILED_CLUSTER_EMPTY, false);
            }
            if 100 * (well as u64) < total as u64 * percent {
                stats.failed_cluster_unhealthy().inc();
                return (503, details::HEALTH_CHECK_FAILED_CLUSTER_UNHEALTHY, false);
            }
        }
        if config.clusters.is_empty() {
            (200, details::HEALTH_CHECK_OK, false)
        } else {
            (200, details::HEALTH_CHECK_OK_CLUSTER_HEALTHY, false)
        }
    }
}

/// The filter of a stream.
pub struct HealthCheckStream {
    filter: Rc<HealthCheck>,
    /// The request is a health check.
    asked: bool,
}

impl HealthCheckStream {
    /// A stream that has not begun.
    #[must_use]
    pub fn new(filter: &Rc<HealthCheck>) -> Self {
        Self { filter: Rc::clone(filter), asked: false }
    }

    /// Sees the request.
    pub fn decode_head(&mut self, head: &RequestHead, context: &mut RequestContext<'_>) -> Verdict {
        let config = &self.filter.config;
        if !config.headers.iter().all(|matcher| matcher.matches(head)) {
            return Verdict::Continue;
        }
        self.asked = true;
        context.info.health_check = true;
        let fresh = || config.cache.as_ref().is_some_and(|cache| cache.is_fresh(Instant::now()));
        if !config.pass_through || context.server.health_check_failed() || fresh() {
            return Verdict::Take;
        }
        Verdict::Continue
    }

    /// The answer to a request that was taken.
    #[must_use]
    pub fn reply(&self, server: &dyn Server) -> Reply {
        let stats = &self.filter.stats;
        stats.request_total().inc();
        let (status, details, degraded) = self.filter.answer(server);
        let mut headers = Headers::default();
        if degraded {
            stats.degraded().inc();
            headers.append(Known::XEnvoyDegraded, Bytes::new());
        }
        let mut flags = ResponseFlags::default();
        if (200..300).contains(&status) {
            stats.ok().inc();
        } else {
            stats.failed().inc();
            flags.insert(ResponseFlags::LOCAL_HEALTH_CHECK_FAILED);
        }
        Reply { status, headers, details: details.into(), flags, ..Reply::default() }
    }

    /// Sees the final response.
    pub fn encode_head(&self, head: &mut ResponseHead, server: &dyn Server) {
        let config = &self.filter.config;
        if self.asked {
            if let Some(cache) = &config.cache {
                cache.keep(Instant::now(), head);
            }
            head.headers.set(Known::XEnvoyUpstreamHealthcheckedCluster, config.node_cluster.clone());
        }
        if server.health_check_failed() {
            head.headers.set(Known::XEnvoyImmediateHealthCheckFail, &b"true"[..]);
        }
    }
}

#[cfg(test)]
mod tests;

//! The network filters that stand before the one which ends a chain: who may connect, and how often.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::RuntimeFeatureFlag;
use envoy_types::pb::envoy::extensions::filters::network as extensions;
use envoy_types::pb::envoy::r#type::v3::TokenBucket as BucketProto;
use envoy_types::pb::google::protobuf::Any;
use filters::config::duration::duration;
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::matcher::Runtime;

use super::rbac::RbacConfig;
use super::token_bucket::TokenBucket;
use super::{type_name, unpack};

/// A bucket is not filled more often than this.
const SHORTEST_FILL: Duration = Duration::from_millis(50);

/// A filter before the terminal one.
#[derive(Debug, Clone)]
pub enum ReadFilter {
    /// `envoy.filters.network.connection_limit`.
    ConnectionLimit(Arc<ConnectionLimit>),
    /// `envoy.filters.network.local_ratelimit`.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// `envoy.filters.network.rbac`.
    Rbac(Arc<RbacConfig>),
    /// `envoy.filters.network.sni_cluster`: the server name is the cluster of the TCP proxy.
    SniCluster,
}

/// `ConnectionLimit`, and how many connections there are: a number all workers share.
#[derive(Debug)]
pub struct ConnectionLimit {
    /// `connection_limit.<stat_prefix>.`
    pub stat_prefix: Arc<str>,
    /// Connections at the same time.
    pub max_connections: u64,
    /// How long one too many is held before it is closed.
    pub delay: Option<Duration>,
    /// Whether anything is limited.
    pub enabled: Switch,
    /// Connections that are open.
    pub open: AtomicU64,
}

/// `LocalRateLimit`, and the bucket all workers draw from.
#[derive(Debug)]
pub struct LocalRateLimit {
    /// `local_rate_limit.<stat_prefix>.`
    pub stat_prefix: Arc<str>,
    /// A connection takes a token.
    pub bucket: TokenBucket,
    /// Whether anything is limited.
    pub enabled: Switch,
}

/// `RuntimeFeatureFlag`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    default: bool,
    key: Box<str>,
}

ledger! {
    /// What `local_ratelimit` may say that Legate does not do.
    pub mod unsupported for "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit" {
        share_key => Refuse, "filter chains do not share a bucket, more connections would pass";
    }
}

/// Parses a filter of this kind; `None` for a message that is none of them.
pub(super) fn parse(at: &At<'_>, config: &Any) -> Result<Option<ReadFilter>, ConfigError> {
    Ok(Some(match type_name(config) {
        "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit" => {
            ReadFilter::ConnectionLimit(Arc::new(ConnectionLimit::parse(at, unpack(at, config)?)?))
        }
        "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit" => {
            ReadFilter::LocalRateLimit(Arc::new(LocalRateLimit::parse(at, unpack(at, config)?)?))
        }
        "envoy.extensions.filters.network.rbac.v3.RBAC" => {
            ReadFilter::Rbac(Arc::new(RbacConfig::parse(at, unpack(at, config)?)?))
        }
        "envoy.extensions.filters.network.sni_cluster.v3.SniCluster" => {
            let extensions::sni_cluster::v3::SniCluster {} = unpack(at, config)?;
            ReadFilter::SniCluster
        }
        _ => return Ok(None),
    }))
}

impl ConnectionLimit {
    fn parse(at: &At<'_>, proto: extensions::connection_limit::v3::ConnectionLimit) -> Result<Self, ConfigError> {
        let extensions::connection_limit::v3::ConnectionLimit { stat_prefix, max_connections, delay, runtime_enabled } =
            proto;
        let max_connections = at.required("max_connections", max_connections)?.value;
        if max_connections == 0 {
            return Err(at.field("max_connections").error("value must be greater than or equal to 1"));
        }
        Ok(Self {
            stat_prefix: prefix(at, stat_prefix)?,
            max_connections,
            delay: match delay {
                Some(value) => Some(duration(&at.field("delay"), &value)?).filter(|delay| !delay.is_zero()),
                None => None,
            },
            enabled: Switch::parse(&at.field("runtime_enabled"), runtime_enabled)?,
            open: AtomicU64::new(0),
        })
    }
}

impl LocalRateLimit {
    fn parse(at: &At<'_>, proto: extensions::local_ratelimit::v3::LocalRateLimit) -> Result<Self, ConfigError> {
        let extensions::local_ratelimit::v3::LocalRateLimit { stat_prefix, token_bucket, runtime_enabled, share_key } =
            proto;
        at.unsupported(&unsupported::share_key, &share_key)?;
        Ok(Self {
            stat_prefix: prefix(at, stat_prefix)?,
            bucket: bucket(&at.field("token_bucket"), at.required("token_bucket", token_bucket)?)?,
            enabled: Switch::parse(&at.field("runtime_enabled"), runtime_enabled)?,
        })
    }
}

fn bucket(at: &At<'_>, proto: BucketProto) -> Result<TokenBucket, ConfigError> {
    let BucketProto { max_tokens, tokens_per_fill, fill_interval } = proto;
    let tokens = tokens_per_fill.map_or(1, |tokens| tokens.value);
    if tokens == 0 {
        return Err(at.field("tokens_per_fill").error("value must be greater than 0"));
    }
    let interval = duration(&at.field("fill_interval"), &at.required("fill_interval", fill_interval)?)?;
    if interval.is_zero() {
        return Err(at.field("fill_interval").error("value must be greater than 0s"));
    }
    if interval < SHORTEST_FILL {
        return Err(at.error("local rate limit token bucket fill timer must be >= 50ms"));
    }
    Ok(TokenBucket::new(max_tokens, f64::from(tokens) / interval.as_secs_f64(), Instant::now()))
}

fn prefix(at: &At<'_>, text: String) -> Result<Arc<str>, ConfigError> {
    if text.is_empty() {
        return Err(at.field("stat_prefix").error("value length must be at least 1 characters"));
    }
    Ok(text.into())
}

impl Switch {
    fn parse(at: &At<'_>, proto: Option<RuntimeFeatureFlag>) -> Result<Self, ConfigError> {
        let Some(RuntimeFeatureFlag { default_value, runtime_key }) = proto else {
            return Ok(Self { default: true, key: "".into() });
        };
        let default = at.required("default_value", default_value)?.value;
        Ok(Self { default, key: runtime_key.into() })
    }

    /// Whether it is on now.
    #[must_use]
    pub fn is_on(&self, runtime: &dyn Runtime) -> bool {
        let now = if self.key.is_empty() { None } else { runtime.boolean(&self.key) };
        now.unwrap_or(self.default)
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf as wkt;
    use extensions::connection_limit::v3::ConnectionLimit as LimitProto;
    use extensions::local_ratelimit::v3::LocalRateLimit as RateProto;
    use filters::config::Session;

    use super::*;

    fn limit(max: Option<u64>, prefix: &str) -> Result<ConnectionLimit, String> {
        let proto = LimitProto {
            stat_prefix: prefix.into(),
            max_connections: max.map(|value| wkt::UInt64Value { value }),
            ..LimitProto::default()
        };
        ConnectionLimit::parse(&Session::default().root(), proto).map_err(|error| error.to_string())
    }

    fn rate(max_tokens: u32, millis: i32, share_key: &str) -> Result<LocalRateLimit, String> {
        let fill_interval = Some(wkt::Duration { seconds: 0, nanos: millis * 1_000_000 });
        let proto = RateProto {
            stat_prefix: "p".into(),
            token_bucket: Some(BucketProto { max_tokens, tokens_per_fill: None, fill_interval }),
            runtime_enabled: None,
            share_key: share_key.into(),
        };
        LocalRateLimit::parse(&Session::default().root(), proto).map_err(|error| error.to_string())
    }

    #[test]
    fn what_envoy_rejects_is_rejected() {
        for (outcome, expected) in [
            (limit(None, "p").map(drop), "max_connections: value is required"),
            (limit(Some(0), "p").map(drop), "max_connections: value must be greater"),
            (limit(Some(1), "").map(drop), "stat_prefix: value length"),
            (rate(1, 0, "").map(drop), "token_bucket.fill_interval: value must be greater"),
            (rate(1, 49, "").map(drop), "token_bucket: local rate limit token bucket fill timer"),
            (rate(1, 100, "all").map(drop), "share_key: envoy.extensions.filters.network.local_ratelimit"),
        ] {
            let error = outcome.expect_err(expected);
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(limit(Some(1), "p").is_ok() && rate(1, 50, "").is_ok());
    }

    #[test]
    fn a_switch_is_on_unless_somebody_turned_it_off() {
        let on = Switch::parse(&Session::default().root(), None).expect("valid");
        assert!(on.is_on(&filters::matcher::NoRuntime));
        let flag = RuntimeFeatureFlag { default_value: Some(wkt::BoolValue { value: false }), runtime_key: "k".into() };
        let off = Switch::parse(&Session::default().root(), Some(flag)).expect("valid");
        assert!(!off.is_on(&filters::matcher::NoRuntime));
    }
}

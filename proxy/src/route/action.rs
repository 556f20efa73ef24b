//! What a route does with a request.

use std::sync::Arc;

use bytes::Bytes;
use filters::cors::CorsPolicy;
use filters::http::{HeaderKey, Method, RequestHead};
use filters::matcher::Runtime;
use filters::stream_info::StreamInfo;

use super::hash::HashPolicy;
use super::headers::{FilterConfigs, MutationChain};
use super::internal_redirect::InternalRedirect;
use super::metadata::MetadataMatch;
use super::mirror::MirrorPolicy;
use super::policy::{ConnectConfig, Priority, Timeouts, UpgradeConfig};
use super::redirect::RedirectAction;
use super::retry::RetryPolicy;
use super::rewrite::{HostRewrite, PathRewrite};
use crate::config::cluster::ClusterConfig;
use crate::http::reply::BodyFormat;

/// What a route does.
#[derive(Debug)]
pub enum RouteAction {
    /// Sends the request upstream.
    Forward(Box<ForwardAction>),
    /// Answers with a redirect.
    Redirect(Box<RedirectAction>),
    /// Answers from configuration.
    DirectResponse(DirectResponse),
    /// A filter answers; a request that reaches the router is a 503, as if its cluster did not exist.
    NonForwarding,
}

/// `DirectResponseAction`.
#[derive(Debug)]
pub struct DirectResponse {
    /// 200..=599.
    pub status: u16,
    /// May be empty.
    pub body: Bytes,
    /// How the body is written for a request, which may take the one above in; without a content type it is plain text.
    pub format: Option<BodyFormat>,
}

/// `RouteAction`: where a request goes and how.
#[derive(Debug)]
pub struct ForwardAction {
    /// Which cluster.
    pub clusters: ClusterSpecifier,
    /// The status when that cluster does not exist: 503, 404 or 500.
    pub cluster_not_found: u16,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Circuit-breaker class.
    pub priority: Priority,
    /// When and how the request is sent again; the virtual host's unless the route has its own.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Whether a try that takes too long goes on beside the next one, so that its own time limit ends nothing
    /// (`hedge_policy.hedge_on_per_try_timeout`).
    pub hedge_on_per_try_timeout: bool,
    /// What requests are hashed by.
    pub hash_policy: Option<Arc<HashPolicy>>,
    /// Which hosts of the cluster requests may go to.
    pub metadata_match: Option<MetadataMatch>,
    /// Which requests are sent a second time, to other clusters: the most specific level's policies.
    pub mirrors: Option<Arc<[MirrorPolicy]>>,
    /// Which other origins may see responses, if the CORS filter finds no settings of its own: the route's `cors`, then the
    /// virtual host's.
    pub cors: Box<[Arc<CorsPolicy>]>,
    /// Which redirects of the upstream are followed here.
    pub internal_redirect: Option<Box<InternalRedirect>>,
    /// Upgrades that differ from the connection manager's.
    pub upgrades: Box<[UpgradeConfig]>,
    pub(crate) path_rewrite: Option<PathRewrite>,
    pub(crate) host_rewrite: Option<HostRewrite>,
    /// Whether the original host is appended to `x-forwarded-host` when it is rewritten.
    pub(crate) append_x_forwarded_host: bool,
}

/// How the cluster is found.
#[derive(Debug)]
pub enum ClusterSpecifier {
    /// This one.
    Static(Arc<str>),
    /// The one this request header names.
    Header(HeaderKey),
    /// One of several by weight.
    Weighted(WeightedClusters),
}

/// `WeightedCluster`.
#[derive(Debug)]
pub struct WeightedClusters {
    pub(crate) entries: Box<[WeightedEntry]>,
    /// Sum of the configured weights; not 0.
    pub(crate) total: u64,
    pub(crate) random_header: Option<HeaderKey>,
    /// The route's hash of a request decides instead of chance.
    pub(crate) use_hash: bool,
    /// Whether weights may come from the runtime.
    pub(crate) runtime: bool,
}

/// `WeightedCluster.ClusterWeight`.
#[derive(Debug)]
pub struct WeightedEntry {
    pub(crate) cluster: EntryCluster,
    pub(crate) weight: u32,
    pub(crate) runtime_key: Option<Box<str>>,
    /// The route's, with this entry's own on top; `None` leaves it to the route.
    pub(crate) metadata_match: Option<MetadataMatch>,
    pub(crate) host_rewrite: Option<Bytes>,
    pub(crate) request_headers: MutationChain,
    pub(crate) response_headers: MutationChain,
    pub(crate) filter_configs: FilterConfigs,
}

/// How an entry's cluster is found.
#[derive(Debug)]
pub(crate) enum EntryCluster {
    Name(Arc<str>),
    Header(HeaderKey),
}

/// The cluster chosen for one request.
#[derive(Debug, Clone)]
pub struct ClusterChoice<'t> {
    /// Its name.
    pub name: ClusterName<'t>,
    /// The weighted entry it comes from.
    pub(crate) entry: Option<&'t WeightedEntry>,
    /// That entry's number; with it, [`ForwardAction::choice_again`] finds the choice again.
    pub ordinal: Option<u32>,
}

/// A chosen cluster's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterName<'t> {
    /// A configured name.
    Configured(&'t Arc<str>),
    /// The value of a request header.
    FromHeader(Bytes),
    /// None: the header is missing or the weights are all 0. Answered like a cluster that does not exist.
    None,
}

impl ClusterName<'_> {
    /// The name as text; `None` when there is none.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Configured(name) => Some(name),
            Self::FromHeader(value) => std::str::from_utf8(value).ok(),
            Self::None => None,
        }
    }
}

impl ForwardAction {
    /// Chooses the cluster for a request; the same random value always chooses the same.
    #[must_use]
    pub fn cluster(&self, head: &RequestHead, random: u64, runtime: &dyn Runtime) -> ClusterChoice<'_> {
        match &self.clusters {
            ClusterSpecifier::Static(name) => {
                ClusterChoice { name: ClusterName::Configured(name), entry: None, ordinal: None }
            }
            ClusterSpecifier::Header(key) => ClusterChoice { name: from_header(head, key), entry: None, ordinal: None },
            ClusterSpecifier::Weighted(weighted) => weighted.choose(head, random, runtime),
        }
    }

    /// What chooses among weighted clusters instead of a random value; `None` leaves it to chance.
    #[must_use]
    pub fn selector(&self, head: &RequestHead, info: &StreamInfo) -> Option<u64> {
        match &self.clusters {
            ClusterSpecifier::Weighted(weighted) if weighted.use_hash => {
                self.hash_policy.as_ref()?.hash(head, info, None)
            }
            _ => None,
        }
    }

    /// Which hosts of the chosen cluster a request may go to; `None` for any.
    #[must_use]
    pub fn metadata_match(&self, ordinal: Option<u32>) -> Option<&MetadataMatch> {
        let of_entry = match (&self.clusters, ordinal) {
            (ClusterSpecifier::Weighted(weighted), Some(ordinal)) => {
                weighted.entries.get(ordinal as usize).and_then(|entry| entry.metadata_match.as_ref())
            }
            _ => None,
        };
        of_entry.or(self.metadata_match.as_ref())
    }

    /// An earlier choice with weighted entry `ordinal` ([`ClusterChoice::ordinal`]) on the same route.
    #[must_use]
    pub fn choice_again(&self, ordinal: Option<u32>, head: &RequestHead) -> ClusterChoice<'_> {
        match (&self.clusters, ordinal) {
            (ClusterSpecifier::Static(name), _) => {
                ClusterChoice { name: ClusterName::Configured(name), entry: None, ordinal: None }
            }
            (ClusterSpecifier::Header(key), _) => {
                ClusterChoice { name: from_header(head, key), entry: None, ordinal: None }
            }
            (ClusterSpecifier::Weighted(weighted), ordinal) => weighted.choice(ordinal, head),
        }
    }

    /// When and how a request to a cluster is sent again: by the cluster's word, else this one's.
    #[must_use]
    pub fn retry_on<'a>(&'a self, cluster: &'a ClusterConfig) -> Option<&'a Arc<RetryPolicy>> {
        cluster.http.retry.as_ref().or(self.retry.as_ref())
    }

    /// How a request ends here, its body going upstream as plain TCP; `None` for those that are forwarded.
    #[must_use]
    pub fn terminates(&self, head: &RequestHead) -> Option<&ConnectConfig> {
        if head.method != Method::Connect && head.method != Method::Post {
            return None;
        }
        let config = self.upgrade(b"connect")?.connect.as_ref()?;
        (head.method == Method::Connect || config.allow_post).then_some(config)
    }

    /// The route's own word about an upgrade to `protocol`, any case.
    #[must_use]
    pub fn upgrade(&self, protocol: &[u8]) -> Option<&UpgradeConfig> {
        self.upgrades.iter().find(|upgrade| upgrade.protocol.as_bytes().eq_ignore_ascii_case(protocol))
    }
}

impl WeightedClusters {
    fn choose(&self, head: &RequestHead, random: u64, runtime: &dyn Runtime) -> ClusterChoice<'_> {
        let random = self.random_header.as_ref().and_then(|key| header_number(head, key)).unwrap_or(random);
        let chosen = if self.runtime {
            let weight = |entry: &WeightedEntry| {
                let set = entry.runtime_key.as_ref().and_then(|key| runtime.integer(key));
                set.unwrap_or_else(|| entry.weight.into())
            };
            let total = self.entries.iter().map(weight).fold(0, u64::saturating_add);
            self.pick(random, total, weight)
        } else {
            self.pick(random, self.total, |entry| entry.weight.into())
        };
        self.choice(chosen, head)
    }

    fn pick(&self, random: u64, total: u64, weight: impl Fn(&WeightedEntry) -> u64) -> Option<u32> {
        let mut left = random.checked_rem(total)?;
        for (ordinal, entry) in (0..).zip(&self.entries) {
            let weight = weight(entry);
            if left < weight {
                return Some(ordinal);
            }
            left -= weight;
        }
        None
    }

    fn choice(&self, ordinal: Option<u32>, head: &RequestHead) -> ClusterChoice<'_> {
        let entry = ordinal.and_then(|ordinal| self.entries.get(ordinal as usize));
        let name = match entry.map(|entry| &entry.cluster) {
            None => ClusterName::None,
            Some(EntryCluster::Name(name)) => ClusterName::Configured(name),
            Some(EntryCluster::Header(key)) => from_header(head, key),
        };
        ClusterChoice { name, entry, ordinal }
    }
}

fn from_header<'t>(head: &RequestHead, key: &HeaderKey) -> ClusterName<'t> {
    match head.value(key) {
        Some(value) if !value.is_empty() => ClusterName::FromHeader(Bytes::copy_from_slice(value)),
        _ => ClusterName::None,
    }
}

fn header_number(head: &RequestHead, key: &HeaderKey) -> Option<u64> {
    std::str::from_utf8(head.value(key)?).ok()?.trim_ascii().parse().ok()
}

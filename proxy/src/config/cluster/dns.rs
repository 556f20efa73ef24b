//! How a DNS cluster looks its names up: `DnsCluster`, or the deprecated fields of `Cluster` it replaced.

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily as ExtensionFamily;
use envoy_types::pb::envoy::extensions::clusters::dns::v3 as extension;
use envoy_types::pb::envoy::extensions::network::dns_resolver as resolvers;
use envoy_types::pb::google::protobuf as google;
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::stream_info::Address;

use super::{decode, duration, type_name};
use crate::config::address;
use crate::config::endpoint::LoadAssignment;

ledger! {
    /// What is not implemented.
    pub mod cares_unsupported for "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig" {
    use_resolvers_as_fallback => Warn, "the given resolvers are always used";
    filter_unroutable_families => Warn, "every address found is used";
    udp_max_queries => Warn, "a socket serves one query";
    max_udp_channel_duration => Warn, "a socket serves one query";
    reinit_channel_on_timeout => Warn, "a socket serves one query";
    qcache_max_ttl => Warn, "answers are not cached beyond a refresh";
    edns0_max_payload_size => Warn, "the resolver decides";
} }

ledger! {
    /// What is not implemented.
    pub mod resolver_unsupported for "envoy.config.core.v3.DnsResolverOptions" {
    no_default_search_domain => Warn, "search domains of the system apply to names without a dot only";
} }

/// How a DNS cluster finds addresses.
#[derive(Debug, Clone, PartialEq)]
pub struct DnsConfig {
    /// Names, and what is known about the hosts they stand for.
    pub assignment: LoadAssignment,
    /// Which addresses count.
    pub family: LookupFamily,
    /// Time from one answer to the next question (5 s).
    pub refresh_rate: Duration,
    /// The least such time when the answer's own lifetime decides.
    pub min_refresh_rate: Duration,
    /// Lengthens each wait by a random time up to this.
    pub jitter: Duration,
    /// Ask again when the answer's own lifetime ends, not after `refresh_rate`.
    pub respect_ttl: bool,
    /// Waits after failures; `None` waits `refresh_rate`.
    pub failure_backoff: Option<Backoff>,
    /// Whom to ask.
    pub resolver: ResolverConfig,
}

/// Random waits that grow from `base` to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Bound of the first wait.
    pub base: Duration,
    /// Bound of every wait.
    pub max: Duration,
}

/// Which addresses of a name count (`dns_lookup_family`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum LookupFamily {
    /// IPv6, or IPv4 if there is none.
    #[default]
    Auto,
    /// IPv4.
    V4Only,
    /// IPv6.
    V6Only,
    /// IPv4, or IPv6 if there is none.
    V4Preferred,
    /// Both.
    All,
}

/// Whom to ask and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ResolverConfig {
    /// Servers instead of the system's.
    pub servers: Vec<SocketAddr>,
    /// Ask by TCP.
    pub use_tcp: bool,
    /// How long one question may take (5 s); `None` for the default.
    pub query_timeout: Option<Duration>,
    /// How often a question is put (4); `None` for the default.
    pub tries: Option<u32>,
    /// Spread questions over the servers.
    pub rotate: bool,
}

/// Where the settings stand.
pub(super) enum DnsFields {
    /// In `Cluster` itself.
    Cluster(Box<ClusterFields>),
    /// In the `DnsCluster` extension.
    Extension(Box<extension::DnsCluster>),
}

/// The DNS fields of `Cluster`.
#[derive(Default)]
pub(super) struct ClusterFields {
    pub(super) refresh_rate: Option<google::Duration>,
    pub(super) jitter: Option<google::Duration>,
    pub(super) failure_refresh_rate: Option<cluster::cluster::RefreshRate>,
    pub(super) respect_ttl: bool,
    pub(super) lookup_family: i32,
    pub(super) resolvers: Vec<core::Address>,
    pub(super) use_tcp: bool,
    pub(super) resolution_config: Option<core::DnsResolutionConfig>,
    pub(super) typed_resolver: Option<core::TypedExtensionConfig>,
}

impl DnsConfig {
    pub(super) fn parse(at: At<'_>, assignment: LoadAssignment, fields: DnsFields) -> Result<Self, ConfigError> {
        match fields {
            DnsFields::Cluster(fields) => Self::cluster(at, assignment, *fields),
            DnsFields::Extension(proto) => Self::extension(at.field("cluster_type"), assignment, *proto),
        }
    }

    fn cluster(at: At<'_>, assignment: LoadAssignment, fields: ClusterFields) -> Result<Self, ConfigError> {
        use cluster::cluster::DnsLookupFamily;
        let ClusterFields {
            refresh_rate,
            jitter,
            failure_refresh_rate,
            respect_ttl,
            lookup_family,
            resolvers,
            use_tcp,
            resolution_config,
            typed_resolver,
        } = fields;
        let failure = failure_refresh_rate.map(|cluster::cluster::RefreshRate { base_interval, max_interval }| {
            backoff(at.field("dns_failure_refresh_rate"), base_interval, max_interval)
        });
        // The typed resolver wins over the middle generation, that over the first.
        let resolver = match (typed_resolver, resolution_config) {
            (Some(typed), _) => ResolverConfig::typed(at.field("typed_dns_resolver_config"), typed)?,
            (None, Some(config)) => {
                let core::DnsResolutionConfig { resolvers, dns_resolver_options } = config;
                let at = at.field("dns_resolution_config");
                ResolverConfig::of(at, resolvers, dns_resolver_options)?
            }
            (None, None) => ResolverConfig {
                servers: servers(at.field("dns_resolvers"), resolvers)?,
                use_tcp,
                ..ResolverConfig::default()
            },
        };
        Ok(Self {
            assignment,
            family: match DnsLookupFamily::try_from(lookup_family) {
                Ok(DnsLookupFamily::Auto) => LookupFamily::Auto,
                Ok(DnsLookupFamily::V4Only) => LookupFamily::V4Only,
                Ok(DnsLookupFamily::V6Only) => LookupFamily::V6Only,
                Ok(DnsLookupFamily::V4Preferred) => LookupFamily::V4Preferred,
                Ok(DnsLookupFamily::All) => LookupFamily::All,
                Err(_) => {
                    return Err(at.field("dns_lookup_family").error("value must be one of the defined enum values"));
                }
            },
            refresh_rate: refresh(at.field("dns_refresh_rate"), refresh_rate)?,
            min_refresh_rate: Duration::ZERO,
            jitter: duration(at.field("dns_jitter"), jitter)?.unwrap_or_default(),
            respect_ttl,
            failure_backoff: failure.transpose()?,
            resolver,
        })
    }

    fn extension(at: At<'_>, assignment: LoadAssignment, proto: extension::DnsCluster) -> Result<Self, ConfigError> {
        let extension::DnsCluster {
            dns_refresh_rate,
            dns_failure_refresh_rate,
            respect_dns_ttl,
            dns_jitter,
            typed_dns_resolver_config,
            dns_lookup_family,
            // Decides the cluster's kind, before we get here.
            all_addresses_in_single_endpoint: _,
            dns_min_refresh_rate,
        } = proto;
        let failure =
            dns_failure_refresh_rate.map(|extension::dns_cluster::RefreshRate { base_interval, max_interval }| {
                backoff(at.field("dns_failure_refresh_rate"), base_interval, max_interval)
            });
        let resolver = typed_dns_resolver_config
            .map(|typed| ResolverConfig::typed(at.field("typed_dns_resolver_config"), typed))
            .transpose()?;
        Ok(Self {
            assignment,
            family: match ExtensionFamily::try_from(dns_lookup_family) {
                Ok(ExtensionFamily::Unspecified | ExtensionFamily::Auto) => LookupFamily::Auto,
                Ok(ExtensionFamily::V4Only) => LookupFamily::V4Only,
                Ok(ExtensionFamily::V6Only) => LookupFamily::V6Only,
                Ok(ExtensionFamily::V4Preferred) => LookupFamily::V4Preferred,
                Ok(ExtensionFamily::All) => LookupFamily::All,
                Err(_) => {
                    return Err(at.field("dns_lookup_family").error("value must be one of the defined enum values"));
                }
            },
            refresh_rate: refresh(at.field("dns_refresh_rate"), dns_refresh_rate)?,
            min_refresh_rate: duration(at.field("dns_min_refresh_rate"), dns_min_refresh_rate)?.unwrap_or_default(),
            jitter: duration(at.field("dns_jitter"), dns_jitter)?.unwrap_or_default(),
            respect_ttl: respect_dns_ttl,
            failure_backoff: failure.transpose()?,
            resolver: resolver.unwrap_or_default(),
        })
    }
}

impl ResolverConfig {
    fn of(
        at: At<'_>,
        resolvers: Vec<core::Address>,
        options: Option<core::DnsResolverOptions>,
    ) -> Result<Self, ConfigError> {
        let core::DnsResolverOptions { use_tcp_for_dns_lookups, no_default_search_domain } =
            options.unwrap_or_default();
        let options_at = at.field("dns_resolver_options");
        options_at.unsupported(&resolver_unsupported::no_default_search_domain, &no_default_search_domain)?;
        let servers = servers(at.field("resolvers"), resolvers)?;
        Ok(Self { servers, use_tcp: use_tcp_for_dns_lookups, ..Self::default() })
    }

    /// c-ares's servers and timing are honoured; the system's resolver is what we have anyway.
    fn typed(at: At<'_>, proto: core::TypedExtensionConfig) -> Result<Self, ConfigError> {
        let core::TypedExtensionConfig { name, typed_config } = proto;
        let any = typed_config.unwrap_or_default();
        match type_name(&any.type_url) {
            "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig" => {
                let config: resolvers::cares::v3::CaresDnsResolverConfig = decode(at, &any)?;
                Self::cares(at.field("typed_config"), config)
            }
            "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig"
            | "envoy.extensions.network.dns_resolver.hickory.v3.HickoryDnsResolverConfig"
            | "envoy.extensions.network.dns_resolver.apple.v3.AppleDnsResolverConfig" => {
                at.warn(
                    type_name(&any.type_url),
                    "names are looked up through the servers of /etc/resolv.conf and /etc/hosts",
                );
                Ok(Self::default())
            }
            other => Err(at.unknown_extension(&name, other)),
        }
    }

    fn cares(at: At<'_>, proto: resolvers::cares::v3::CaresDnsResolverConfig) -> Result<Self, ConfigError> {
        let resolvers::cares::v3::CaresDnsResolverConfig {
            resolvers,
            use_resolvers_as_fallback,
            filter_unroutable_families,
            dns_resolver_options,
            udp_max_queries,
            query_timeout_seconds,
            query_tries,
            rotate_nameservers,
            edns0_max_payload_size,
            max_udp_channel_duration,
            reinit_channel_on_timeout,
            qcache_max_ttl,
        } = proto;
        at.unsupported(&cares_unsupported::use_resolvers_as_fallback, &use_resolvers_as_fallback)?;
        at.unsupported(&cares_unsupported::filter_unroutable_families, &filter_unroutable_families)?;
        at.unsupported(&cares_unsupported::udp_max_queries, &udp_max_queries)?;
        at.unsupported(&cares_unsupported::max_udp_channel_duration, &max_udp_channel_duration)?;
        at.unsupported(&cares_unsupported::reinit_channel_on_timeout, &reinit_channel_on_timeout)?;
        at.unsupported(&cares_unsupported::qcache_max_ttl, &qcache_max_ttl)?;
        at.unsupported(&cares_unsupported::edns0_max_payload_size, &edns0_max_payload_size)?;
        Ok(Self {
            query_timeout: query_timeout_seconds.map(|v| Duration::from_secs(v.value)),
            tries: query_tries.map(|v| v.value),
            rotate: rotate_nameservers,
            ..Self::of(at, resolvers, dns_resolver_options)?
        })
    }
}

fn servers(at: At<'_>, protos: Vec<core::Address>) -> Result<Vec<SocketAddr>, ConfigError> {
    let mut servers = Vec::with_capacity(protos.len());
    for (index, proto) in protos.into_iter().enumerate() {
        let at = at.index(index);
        match address::endpoint(at, proto)? {
            // Port 0 stands for the usual one.
            address::EndpointAddress::Resolved(Address::Ip(ip)) if ip.port() == 0 => {
                servers.push(SocketAddr::new(ip.ip(), 53));
            }
            address::EndpointAddress::Resolved(Address::Ip(ip)) => servers.push(ip),
            address::EndpointAddress::Resolved(other) => {
                return Err(at.error(format_args!("malformed IP address: {other}")));
            }
            address::EndpointAddress::Name { host, .. } => {
                return Err(at.error(format_args!("malformed IP address: {host}")));
            }
        }
    }
    Ok(servers)
}

fn refresh(at: At<'_>, proto: Option<google::Duration>) -> Result<Duration, ConfigError> {
    match duration(at, proto)? {
        None => Ok(Duration::from_secs(5)),
        Some(rate) if rate > Duration::from_millis(1) => Ok(rate),
        Some(_) => Err(at.error("value must be greater than 1ms")),
    }
}

fn backoff(at: At<'_>, base: Option<google::Duration>, max: Option<google::Duration>) -> Result<Backoff, ConfigError> {
    let base = duration(at.field("base_interval"), base)?;
    let base = at.required("base_interval", base)?;
    if base <= Duration::from_millis(1) {
        return Err(at.field("base_interval").error("value must be greater than 1ms"));
    }
    let max = duration(at.field("max_interval"), max)?.unwrap_or_else(|| base.saturating_mul(10));
    if max < base {
        return Err(
            at.error("dns_failure_refresh_rate must have max_interval greater than or equal to the base_interval")
        );
    }
    Ok(Backoff { base, max })
}

//! Which cluster a request goes to: one by name, one that a header names, or one of several by weight, each with changes of
//! its own; and what its host is called there.

use envoy_types::pb::envoy::config::route::v3::WeightedCluster;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterSpecifier as ClusterSpecifierProto, HostRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier as WeightHostRewrite;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::{ClusterWeight, RandomValueSpecifier};
use filters::config::{At, ConfigError};
use filters::http::HeaderKey;
use filters::matcher::Substitution;
use filters::mutation::Template;

use super::action::{Inherited, header_key};
use super::{Level, Parser, ledger};
use crate::route::MetadataMatch;
use crate::route::action::{ClusterSpecifier, EntryCluster, WeightedClusters, WeightedEntry};
use crate::route::headers::{FilterConfigs, MutationChain};
use crate::route::rewrite::HostRewrite;

impl Parser<'_> {
    pub(super) fn clusters(
        &mut self,
        proto: Option<ClusterSpecifierProto>,
        inherited: &Inherited<'_>,
        metadata_match: Option<&MetadataMatch>,
        at: At<'_>,
    ) -> Result<ClusterSpecifier, ConfigError> {
        use ledger::route_action as row;
        Ok(match proto.ok_or_else(|| at.field("cluster_specifier").error("is required"))? {
            ClusterSpecifierProto::Cluster(name) => {
                if name.is_empty() {
                    return Err(at.field("cluster").error("value length must be at least 1 characters"));
                }
                ClusterSpecifier::Static(self.cluster(&name, "cluster", at.field("cluster"))?)
            }
            ClusterSpecifierProto::ClusterHeader(name) => {
                ClusterSpecifier::Header(header_key(&name, at.field("cluster_header"))?)
            }
            ClusterSpecifierProto::WeightedClusters(weighted) => {
                let at = at.field("weighted_clusters");
                ClusterSpecifier::Weighted(self.weighted(weighted, inherited, metadata_match, at)?)
            }
            ClusterSpecifierProto::ClusterSpecifierPlugin(plugin) => {
                at.unsupported(&row::cluster_specifier_plugin, &Some(plugin))?;
                no_cluster()
            }
            ClusterSpecifierProto::InlineClusterSpecifierPlugin(plugin) => {
                at.unsupported(&row::inline_cluster_specifier_plugin, &Some(plugin))?;
                no_cluster()
            }
        })
    }

    fn weighted(
        &mut self,
        proto: WeightedCluster,
        inherited: &Inherited<'_>,
        metadata_match: Option<&MetadataMatch>,
        at: At<'_>,
    ) -> Result<WeightedClusters, ConfigError> {
        // Since the sum of the weights counts, Envoy no longer looks at `total_weight`.
        #[expect(deprecated, reason = "Envoy still accepts the field")]
        let WeightedCluster { clusters, total_weight: _, runtime_key_prefix, random_value_specifier } = proto;
        let mut use_hash = false;
        let random_header = match random_value_specifier {
            None => None,
            Some(RandomValueSpecifier::HeaderName(name)) if name.is_empty() => None,
            Some(RandomValueSpecifier::HeaderName(name)) => Some(header_key(&name, at.field("header_name"))?),
            Some(RandomValueSpecifier::UseHashPolicy(flag)) => {
                use_hash = flag.value;
                None
            }
        };
        let all = at.field("clusters");
        if clusters.is_empty() {
            return Err(all.error("value must contain at least 1 item(s)"));
        }
        let entries = clusters
            .into_iter()
            .enumerate()
            .map(|(n, entry)| self.weighted_entry(entry, &runtime_key_prefix, inherited, metadata_match, all.index(n)))
            .collect::<Result<Box<[_]>, _>>()?;
        let total: u64 = entries.iter().map(|entry| u64::from(entry.weight)).sum();
        if total > u32::MAX.into() {
            return Err(at.error(format_args!(
                "The sum of weights of all weighted clusters of route {} exceeds {}",
                inherited.route_name,
                u32::MAX
            )));
        }
        if total == 0 {
            return Err(at.error("Sum of weights in the weighted_cluster must be greater than 0."));
        }
        Ok(WeightedClusters { entries, total, random_header, use_hash, runtime: !runtime_key_prefix.is_empty() })
    }

    fn weighted_entry(
        &mut self,
        proto: ClusterWeight,
        runtime_key_prefix: &str,
        inherited: &Inherited<'_>,
        of_route: Option<&MetadataMatch>,
        at: At<'_>,
    ) -> Result<WeightedEntry, ConfigError> {
        let ClusterWeight {
            name,
            cluster_header,
            weight,
            metadata_match,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            typed_per_filter_config,
            host_rewrite_specifier,
        } = proto;
        let weight = weight.ok_or_else(|| at.field("weight").error("Field 'weight' is missing"))?.value;
        let runtime_key = (!runtime_key_prefix.is_empty()).then(|| format!("{runtime_key_prefix}.{name}").into());
        let cluster = match (&name[..], &cluster_header[..]) {
            ("", "") => return Err(at.error("At least one of name or cluster_header need to be specified")),
            (name, "") => EntryCluster::Name(self.cluster(name, "weighted cluster", at.field("name"))?),
            ("", header) => EntryCluster::Header(header_key(header, at.field("cluster_header"))?),
            _ => return Err(at.error("Only one of name or cluster_header can be specified")),
        };
        let level = Level {
            request: self.request(request_headers_to_add, request_headers_to_remove, at)?,
            response: self.response(response_headers_to_add, response_headers_to_remove, at)?,
            filters: self.filters(typed_per_filter_config, at)?,
        };
        let levels = inherited.levels;
        Ok(WeightedEntry {
            cluster,
            weight,
            runtime_key,
            metadata_match: match (MetadataMatch::parse(metadata_match), of_route) {
                (Some(own), Some(of_route)) => Some(of_route.merged(&own)),
                (own, _) => own,
            },
            host_rewrite: match host_rewrite_specifier {
                Some(WeightHostRewrite::HostRewriteLiteral(host)) if !host.is_empty() => Some(host.into()),
                _ => None,
            },
            request_headers: MutationChain::new(
                Some(&level.request),
                levels.map(|level| &level.request),
                self.most_specific_wins,
            ),
            response_headers: MutationChain::new(
                Some(&level.response),
                levels.map(|level| &level.response),
                self.most_specific_wins,
            ),
            filter_configs: FilterConfigs::new([&level.filters]),
        })
    }

    pub(super) fn host_rewrite(
        &self,
        proto: Option<HostRewriteSpecifier>,
        at: At<'_>,
    ) -> Result<Option<HostRewrite>, ConfigError> {
        use HostRewriteSpecifier as S;
        Ok(match proto {
            None => None,
            Some(S::HostRewriteLiteral(host) | S::HostRewriteHeader(host) | S::HostRewrite(host))
                if host.is_empty() =>
            {
                None
            }
            Some(S::HostRewriteLiteral(host)) => Some(HostRewrite::Literal(host.into())),
            Some(S::AutoHostRewrite(flag)) => flag.value.then_some(HostRewrite::Auto),
            Some(S::HostRewriteHeader(name)) => {
                Some(HostRewrite::Header(header_key(&name, at.field("host_rewrite_header"))?))
            }
            Some(S::HostRewritePathRegex(rewrite)) => Some(HostRewrite::PathRegex(Substitution::parse(
                rewrite,
                at.field("host_rewrite_path_regex"),
                self.env.regex,
            )?)),
            Some(S::HostRewrite(text)) => {
                let template = Template::parse(&text, self.env.parse_format).map_err(|error| {
                    at.field("host_rewrite").error(format_args!("Failed to create host rewrite formatter: {error}"))
                })?;
                Some(HostRewrite::Template(template))
            }
        })
    }
}

/// What a cluster specifier becomes that was let through without an implementation: a request finds no cluster.
fn no_cluster() -> ClusterSpecifier {
    ClusterSpecifier::Header(HeaderKey::Status)
}

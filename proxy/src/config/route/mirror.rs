//! `request_mirror_policies`, at every level that has them: route, virtual host, table, and cluster.

use std::sync::Arc;

use envoy_types::pb::envoy::config::common::mutation_rules::v3::HeaderMutation;
use envoy_types::pb::envoy::config::common::mutation_rules::v3::header_mutation::{Action, RemoveOnMatch};
use envoy_types::pb::envoy::config::route::v3::route_action::RequestMirrorPolicy;
use filters::config::{At, ConfigError};
use filters::http::HeaderKey;
use filters::matcher::{RegexLimits, RuntimeFraction, StringMatcher};
use filters::mutation::{Fields, HeaderMutations, ParseFormat};

use super::Parser;
use super::ledger::mirror as row;
use crate::route::mirror::{HeaderChange, MirrorCluster, MirrorHost, MirrorPolicy};

impl Parser<'_> {
    /// The policies of one level of a table, whose clusters it names; `None` when it has none, and those above it count.
    pub(super) fn mirrors(
        &mut self,
        policies: Vec<RequestMirrorPolicy>,
        at: At<'_>,
    ) -> Result<Option<Arc<[MirrorPolicy]>>, ConfigError> {
        let (regex, parse_format) = (self.env.regex, self.env.parse_format);
        let cluster = &mut |name: &str, at: At<'_>| self.cluster(name, "shadow cluster", at);
        MirrorParser { regex, parse_format, cluster }.list(policies, at)
    }
}

/// The policies of a cluster; `None` when it has none, and those of routes count. The clusters they name need not exist.
pub(crate) fn of_cluster(
    policies: Vec<RequestMirrorPolicy>,
    at: At<'_>,
) -> Result<Option<Arc<[MirrorPolicy]>>, ConfigError> {
    let cluster = &mut |name: &str, _: At<'_>| Ok(name.into());
    let parser =
        MirrorParser { regex: RegexLimits::default(), parse_format: filters::format::parse_header_value, cluster };
    parser.list(policies, at)
}

/// Takes note of a cluster that is named.
type NoteCluster<'a> = dyn FnMut(&str, At<'_>) -> Result<Arc<str>, ConfigError> + 'a;

/// What reading a policy needs.
struct MirrorParser<'a> {
    regex: RegexLimits,
    parse_format: ParseFormat,
    cluster: &'a mut NoteCluster<'a>,
}

impl MirrorParser<'_> {
    fn list(
        mut self,
        policies: Vec<RequestMirrorPolicy>,
        at: At<'_>,
    ) -> Result<Option<Arc<[MirrorPolicy]>>, ConfigError> {
        if policies.is_empty() {
            return Ok(None);
        }
        let list = at.field("request_mirror_policies");
        let policies = policies.into_iter().enumerate();
        policies.map(|(n, policy)| self.mirror(policy, list.index(n))).collect::<Result<Arc<[_]>, _>>().map(Some)
    }

    fn mirror(&mut self, proto: RequestMirrorPolicy, at: At<'_>) -> Result<MirrorPolicy, ConfigError> {
        let RequestMirrorPolicy {
            cluster,
            cluster_header,
            runtime_fraction,
            trace_sampled,
            disable_shadow_host_suffix_append,
            request_headers_mutations,
            host_rewrite_literal,
        } = proto;
        at.unsupported(&row::trace_sampled, &trace_sampled)?;
        let cluster = match (&cluster[..], &cluster_header[..]) {
            ("", "") => {
                return Err(
                    at.error("Exactly one of cluster or cluster_header in request mirror policy need to be specified")
                );
            }
            (cluster, "") => MirrorCluster::Name((self.cluster)(cluster, at.field("cluster"))?),
            ("", header) => MirrorCluster::Header(
                HeaderKey::parse(header)
                    .ok_or_else(|| at.field("cluster_header").error(format_args!("'{header}' is not a header name")))?,
            ),
            (cluster, header) => {
                return Err(at.error(format_args!(
                    "Only one of cluster '{cluster}' or cluster_header '{header}' in request mirror policy can be specified"
                )));
            }
        };
        let fraction = runtime_fraction.map(|fraction| RuntimeFraction::parse(fraction, at.field("runtime_fraction")));
        let list = at.field("request_headers_mutations");
        if request_headers_mutations.len() > 1000 {
            return Err(list.error("value must contain no more than 1000 item(s)"));
        }
        let changes = request_headers_mutations.into_iter().enumerate();
        Ok(MirrorPolicy {
            cluster,
            fraction: fraction.transpose()?,
            changes: changes.map(|(n, change)| self.change(change, list.index(n))).collect::<Result<_, _>>()?,
            host: match &host_rewrite_literal[..] {
                "" if disable_shadow_host_suffix_append => MirrorHost::Kept,
                "" => MirrorHost::Suffixed,
                _ => MirrorHost::Literal(host_rewrite_literal.into()),
            },
        })
    }

    fn change(&self, proto: HeaderMutation, at: At<'_>) -> Result<HeaderChange, ConfigError> {
        const FIELDS: Fields = Fields { add: "append", remove: "remove" };
        let HeaderMutation { action } = proto;
        let (add, remove) = match at.required("action", action)? {
            Action::Append(option) => (vec![option], Vec::new()),
            Action::Remove(name) => (Vec::new(), vec![name]),
            Action::RemoveOnMatch(RemoveOnMatch { key_matcher }) => {
                let at = at.field("remove_on_match");
                let matcher = at.required("key_matcher", key_matcher)?;
                let matcher = StringMatcher::parse(matcher, at.field("key_matcher"), self.regex)?;
                return Ok(HeaderChange::Remove(matcher));
            }
        };
        HeaderMutations::parse(add, remove, at, FIELDS, self.parse_format).map(HeaderChange::ByName)
    }
}

//! Listener filters and when they are skipped.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as proto;
use envoy_types::pb::envoy::extensions::filters::listener as extensions;
use filters::config::{At, ConfigError, Entry};
use filters::ledger;

use crate::config::cluster::PassTlvs;
use crate::config::filter_chain::{type_name, unpack, untyped};

/// The most of a client hello `tls_inspector` looks at when it does not say.
const DEFAULT_MAX_CLIENT_HELLO: usize = 16 * 1024;

/// One listener filter.
#[derive(Debug, Clone)]
pub struct ListenerFilterConfig {
    /// The label in configuration.
    pub name: Arc<str>,
    /// What it does.
    pub kind: ListenerFilterKind,
    /// Connections it does not look at.
    pub disabled: Option<Predicate>,
}

/// The listener filters Legate has.
#[derive(Debug, Clone)]
pub enum ListenerFilterKind {
    /// `envoy.filters.listener.tls_inspector`.
    TlsInspector(TlsInspectorConfig),
    /// `envoy.filters.listener.http_inspector`.
    HttpInspector,
    /// `envoy.filters.listener.original_dst`.
    OriginalDst,
    /// `envoy.filters.listener.proxy_protocol`.
    ProxyProtocol(Arc<ProxyProtocolConfig>),
}

/// `TlsInspector`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsInspectorConfig {
    /// Bytes of a client hello that are looked at.
    pub max_client_hello_size: usize,
    /// What is no client hello is closed instead of taken for plain text.
    pub close_on_parsing_errors: bool,
}

/// `ProxyProtocol`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocolConfig {
    /// What starts with neither signature passes untouched.
    pub allow_requests_without_proxy_protocol: bool,
    /// Version 1 is accepted.
    pub allow_v1: bool,
    /// Version 2 is accepted.
    pub allow_v2: bool,
    /// `proxy_proto.<stat_prefix>.`; empty for none.
    pub stat_prefix: Arc<str>,
    /// TLVs of version 2 that become dynamic metadata.
    pub rules: Vec<TlvRule>,
    /// Facts of version 2 that upstreams may be told.
    pub pass: PassTlvs,
}

/// A TLV that becomes dynamic metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlvRule {
    /// Type byte.
    pub tlv_type: u8,
    /// Name space of the metadata.
    pub namespace: Arc<str>,
    /// Key in it.
    pub key: Arc<str>,
    /// Encode the value in base64 rather than replace what is no UTF-8.
    pub base64: bool,
}

/// `ListenerFilterChainMatchPredicate`: true means the filter is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predicate {
    /// Always.
    Any,
    /// At least one.
    Or(Vec<Self>),
    /// All.
    And(Vec<Self>),
    /// The opposite.
    Not(Box<Self>),
    /// The destination port is in `[start, end)`.
    DestinationPort {
        /// First port.
        start: i32,
        /// First port after.
        end: i32,
    },
}

ledger! {
    /// What a listener filter may say that Legate does not do.
    pub mod unsupported for "envoy.config.listener.v3.ListenerFilter" {
        config_discovery => Refuse, "extension configuration discovery is not there yet";
    }
}

ledger! {
    /// What `tls_inspector` may say that Legate does not do.
    pub mod tls_inspector for "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" {
        enable_ja3_fingerprinting => Warn, "fingerprints are only logged";
        enable_ja4_fingerprinting => Warn, "fingerprints are only logged";
    }
}

ledger! {
    /// What `proxy_protocol` may say that Legate does not do.
    pub mod proxy_protocol for "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" {
        tlv_location => Refuse, "filters would look for the values in filter state";
    }
}

/// Listener filters Envoy has and Legate has not, refused by name.
pub static UNSUPPORTED_FILTERS: &[Entry] = &[
    Entry::refused(
        "envoy.extensions.filters.listener.original_src.v3.OriginalSrc",
        "upstream would see another source",
    ),
    Entry::refused(
        "envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit",
        "connections would not be limited",
    ),
    Entry::refused("envoy.extensions.filters.listener.set_filter_state.v3.Config", "filter state would be missing"),
    Entry::refused(
        "envoy.extensions.filters.listener.dynamic_modules.v3.DynamicModuleListenerFilter",
        "modules are not loaded",
    ),
];

/// Parses `listener_filters`.
pub(crate) fn parse(at: &At<'_>, list: Vec<proto::ListenerFilter>) -> Result<Vec<ListenerFilterConfig>, ConfigError> {
    let mut parsed = Vec::with_capacity(list.len());
    for (index, filter) in list.into_iter().enumerate() {
        parsed.extend(listener_filter(&at.index(index), filter)?);
    }
    Ok(parsed)
}

impl Predicate {
    /// Whether the filter is skipped for a connection to `port` (`None` for a Unix socket).
    #[must_use]
    pub fn matches(&self, port: Option<u16>) -> bool {
        match self {
            Self::Any => true,
            Self::Or(rules) => rules.iter().any(|rule| rule.matches(port)),
            Self::And(rules) => rules.iter().all(|rule| rule.matches(port)),
            Self::Not(rule) => !rule.matches(port),
            Self::DestinationPort { start, end } => port.is_some_and(|port| (*start..*end).contains(&i32::from(port))),
        }
    }
}

/// `None` when the operator chose to load the listener without it.
fn listener_filter(at: &At<'_>, filter: proto::ListenerFilter) -> Result<Option<ListenerFilterConfig>, ConfigError> {
    use proto::listener_filter::ConfigType;
    let proto::ListenerFilter { name, filter_disabled, config_type } = filter;
    let config = match config_type {
        Some(ConfigType::TypedConfig(config)) => config,
        Some(ConfigType::ConfigDiscovery(source)) => {
            at.unsupported(&unsupported::config_discovery, &Some(source))?;
            return Ok(None);
        }
        None => return Err(at.field("typed_config").unknown_extension(&name, "")),
    };
    let here = at.field("typed_config");
    let config = untyped(&here, config)?;
    let kind = match type_name(&config) {
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
            ListenerFilterKind::TlsInspector(parse_tls_inspector(&here, unpack(&here, &config)?)?)
        }
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
            let extensions::http_inspector::v3::HttpInspector {} = unpack(&here, &config)?;
            ListenerFilterKind::HttpInspector
        }
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => {
            let extensions::original_dst::v3::OriginalDst {} = unpack(&here, &config)?;
            ListenerFilterKind::OriginalDst
        }
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" => {
            ListenerFilterKind::ProxyProtocol(Arc::new(parse_proxy_protocol(&here, unpack(&here, &config)?)?))
        }
        other => {
            let Some(entry) = UNSUPPORTED_FILTERS.iter().find(|entry| entry.message == other) else {
                return Err(here.unknown_extension(&name, other));
            };
            at.refuse_or_warn(entry)?;
            return Ok(None);
        }
    };
    let disabled = match filter_disabled {
        Some(rule) => Some(predicate(&at.field("filter_disabled"), rule, 0)?),
        None => None,
    };
    Ok(Some(ListenerFilterConfig { name: name.into(), kind, disabled }))
}

fn parse_tls_inspector(
    at: &At<'_>,
    config: extensions::tls_inspector::v3::TlsInspector,
) -> Result<TlsInspectorConfig, ConfigError> {
    let extensions::tls_inspector::v3::TlsInspector {
        enable_ja3_fingerprinting,
        enable_ja4_fingerprinting,
        initial_read_buffer_size: _, // A hint about memory: reads start small and grow here anyway.
        close_connection_on_client_hello_parsing_errors,
        max_client_hello_size,
    } = config;
    at.unsupported(
        &tls_inspector::enable_ja3_fingerprinting,
        &enable_ja3_fingerprinting.map(|v| v.value).unwrap_or(false),
    )?;
    at.unsupported(
        &tls_inspector::enable_ja4_fingerprinting,
        &enable_ja4_fingerprinting.map(|v| v.value).unwrap_or(false),
    )?;
    let max = match max_client_hello_size {
        None => DEFAULT_MAX_CLIENT_HELLO,
        Some(size) if (256..=16384).contains(&size.value) => size.value as usize,
        Some(_) => return Err(at.field("max_client_hello_size").error("value must be inside range (255, 16384]")),
    };
    Ok(TlsInspectorConfig {
        max_client_hello_size: max,
        close_on_parsing_errors: close_connection_on_client_hello_parsing_errors,
    })
}

fn parse_proxy_protocol(
    at: &At<'_>,
    config: extensions::proxy_protocol::v3::ProxyProtocol,
) -> Result<ProxyProtocolConfig, ConfigError> {
    use core::proxy_protocol_config::Version;
    let extensions::proxy_protocol::v3::ProxyProtocol {
        rules,
        allow_requests_without_proxy_protocol,
        pass_through_tlvs,
        disallowed_versions,
        stat_prefix,
        tlv_location,
    } = config;
    at.unsupported(&proxy_protocol::tlv_location, &tlv_location)?;
    let disallows = |version: Version| disallowed_versions.contains(&(version as i32));
    let (allow_v1, allow_v2) = (!disallows(Version::V1), !disallows(Version::V2));
    if !allow_v1 && !allow_v2 {
        return Err(at
            .field("disallowed_versions")
            .error("Proxy Protocol filter is misconfigured: all proxy protocol versions are disallowed."));
    }
    let list = at.field("rules");
    let mut parsed = Vec::with_capacity(rules.len());
    for (index, rule) in rules.into_iter().enumerate() {
        parsed.extend(tlv_rule(&list.index(index), rule)?);
    }
    Ok(ProxyProtocolConfig {
        allow_requests_without_proxy_protocol,
        allow_v1,
        allow_v2,
        stat_prefix: stat_prefix.into(),
        rules: parsed,
        pass: PassTlvs::parse(at.field("pass_through_tlvs"), pass_through_tlvs)?,
    })
}

/// `None` when the rule stores nothing.
fn tlv_rule(
    at: &At<'_>,
    rule: extensions::proxy_protocol::v3::proxy_protocol::Rule,
) -> Result<Option<TlvRule>, ConfigError> {
    use extensions::proxy_protocol::v3::proxy_protocol::{KeyValuePair, Rule};
    const NAMESPACE: &str = "envoy.filters.listener.proxy_protocol";
    let Rule { tlv_type, on_tlv_present } = rule;
    let tlv_type = u8::try_from(tlv_type).map_err(|_| at.field("tlv_type").error("value must be less than 256"))?;
    let Some(KeyValuePair { metadata_namespace, key, value_string_encoding }) = on_tlv_present else { return Ok(None) };
    let here = at.field("on_tlv_present");
    if key.is_empty() {
        return Err(here.field("key").error("value length must be at least 1 characters"));
    }
    let base64 = match value_string_encoding {
        0 | 1 => false,
        2 => true,
        other => return Err(here.field("value_string_encoding").error(format_args!("unknown encoding {other}"))),
    };
    let namespace = if metadata_namespace.is_empty() { NAMESPACE.into() } else { metadata_namespace.into() };
    Ok(Some(TlvRule { tlv_type, namespace, key: key.into(), base64 }))
}

/// `depth` bounds the recursion: configuration comes from outside.
fn predicate(
    at: &At<'_>,
    rule: proto::ListenerFilterChainMatchPredicate,
    depth: u32,
) -> Result<Predicate, ConfigError> {
    use proto::listener_filter_chain_match_predicate::{MatchSet, Rule};
    if depth > 32 {
        return Err(at.error("predicates are nested too deep"));
    }
    let set = |name: &str, MatchSet { rules }: MatchSet| {
        let here = at.field(name);
        let list = here.field("rules");
        if rules.len() < 2 {
            return Err(list.error("value must contain at least 2 item(s)"));
        }
        let parsed = rules.into_iter().enumerate().map(|(index, rule)| predicate(&list.index(index), rule, depth + 1));
        parsed.collect::<Result<Vec<_>, _>>()
    };
    Ok(match at.required("rule", rule.rule)? {
        Rule::OrMatch(rules) => Predicate::Or(set("or_match", rules)?),
        Rule::AndMatch(rules) => Predicate::And(set("and_match", rules)?),
        Rule::NotMatch(rule) => Predicate::Not(Box::new(predicate(&at.field("not_match"), *rule, depth + 1)?)),
        Rule::AnyMatch(true) => Predicate::Any,
        Rule::AnyMatch(false) => return Err(at.field("any_match").error("value must equal true")),
        Rule::DestinationPortRange(range) => Predicate::DestinationPort { start: range.start, end: range.end },
    })
}

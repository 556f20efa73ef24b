//! Network filters: what Legate has, what Envoy has beyond it, and the rule that exactly the last one is terminal.

use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::listener::v3 as proto;
use envoy_types::pb::envoy::extensions::filters::network::direct_response::v3 as direct_response;
use envoy_types::pb::envoy::extensions::filters::network::echo::v3 as echo;
use filters::config::{At, ConfigError, Entry, Verdict};
use filters::ledger;

use super::read_filter::{self, ReadFilter};
use super::{HttpManager, NetworkFilter, type_name, unpack, untyped};
use crate::config::access_log::data_source;
use crate::config::tcp_proxy::TcpProxyConfig;

const HTTP: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const DIRECT_RESPONSE: &str = "envoy.extensions.filters.network.direct_response.v3.Config";
const ECHO: &str = "envoy.extensions.filters.network.echo.v3.Echo";

ledger! {
    /// What a network filter may say that Legate does not do.
    pub mod unsupported for "envoy.config.listener.v3.Filter" {
        config_discovery => Refuse, "extension configuration discovery is not there yet";
    }
}

macro_rules! filters {
    ($($(#[$terminal:ident])? $name:literal => $reason:literal;)*) => {
        /// Network filters Envoy has and Legate has not, refused by name.
        pub static UNSUPPORTED_FILTERS: &[Entry] = &[$(Entry {
            message: concat!("envoy.extensions.filters.network.", $name),
            field: "",
            verdict: Verdict::Refuse,
            reason: $reason,
        },)*];

        /// Those of them which end a chain.
        static TERMINAL: &[&str] = &[$($(terminal!($terminal $name),)?)*];
    };
}

macro_rules! terminal {
    (terminal $name:literal) => {
        concat!("envoy.extensions.filters.network.", $name)
    };
}

filters! {
    "dynamic_modules.v3.DynamicModuleNetworkFilter" => "modules are not loaded";
    "ext_authz.v3.ExtAuthz" => "connections would not be authorised";
    "ext_proc.v3.NetworkExternalProcessor" => "connections would not be processed";
    "geoip.v3.Geoip" => "locations would be missing";
    "mongo_proxy.v3.MongoProxy" => "database protocols are not understood";
    "ratelimit.v3.RateLimit" => "connections would not be limited";
    "set_filter_state.v3.Config" => "filter state would be missing";
    "sni_dynamic_forward_proxy.v3.FilterConfig" => "the server name would choose the host";
    "tcp_bandwidth_limit.v3.TcpBandwidthLimit" => "bandwidth would not be limited";
    "wasm.v3.Wasm" => "Wasm modules are not run";
    "zookeeper_proxy.v3.ZooKeeperProxy" => "database protocols are not understood";
    #[terminal] "dubbo_proxy.v3.DubboProxy" => "Dubbo is not understood";
    #[terminal] "generic_proxy.v3.GenericProxy" => "generic codecs are not there";
    #[terminal] "redis_proxy.v3.RedisProxy" => "database protocols are not understood";
    #[terminal] "reverse_tunnel.v3.ReverseTunnel" => "reverse tunnels are not there";
    #[terminal] "thrift_proxy.v3.ThriftProxy" => "Thrift is not understood";
}

/// Parses `filters` of a chain.
pub(super) fn parse(at: &At<'_>, list: Vec<proto::Filter>) -> Result<(Vec<ReadFilter>, NetworkFilter), ConfigError> {
    let last = list.len().saturating_sub(1);
    let mut found = NetworkFilter::Empty;
    let mut before = Vec::new();
    for (index, filter) in list.into_iter().enumerate() {
        let at = at.index(index);
        let label = filter.name.clone();
        let Step { kind, filter, terminal } = step(&at, filter)?;
        if terminal && index != last {
            return Err(at.error(format_args!(
                "Error: terminal filter named {label} of type {kind} must be the last filter in a network filter chain."
            )));
        }
        if !terminal && index == last {
            return Err(at.error(format_args!(
                "Error: non-terminal filter named {label} of type {kind} is the last filter in a network filter chain."
            )));
        }
        match filter {
            Some(Parsed::Terminal(filter)) => found = filter,
            Some(Parsed::Before(filter)) => before.push(filter),
            None => {}
        }
    }
    Ok((before, found))
}

struct Step {
    /// The extension's name, `envoy.filters.network.tcp_proxy`.
    kind: String,
    /// `None` when the operator chose to load the chain without it.
    filter: Option<Parsed>,
    terminal: bool,
}

enum Parsed {
    Terminal(NetworkFilter),
    Before(ReadFilter),
}

fn step(at: &At<'_>, filter: proto::Filter) -> Result<Step, ConfigError> {
    use proto::filter::ConfigType;
    let proto::Filter { name, config_type } = filter;
    let config = match config_type {
        Some(ConfigType::TypedConfig(config)) => config,
        Some(ConfigType::ConfigDiscovery(source)) => {
            at.unsupported(&unsupported::config_discovery, &Some(source))?;
            return Ok(Step { kind: name, filter: None, terminal: false });
        }
        None => return Err(at.field("typed_config").unknown_extension(&name, "")),
    };
    let here = at.field("typed_config");
    let config = untyped(&here, config)?;
    let kind = type_name(&config);
    let (filter, terminal) = match kind {
        HTTP => {
            let config = Bytes::copy_from_slice(&config.value);
            (Some(Parsed::Terminal(NetworkFilter::Http(HttpManager { config }))), true)
        }
        TCP => {
            let config = TcpProxyConfig::parse(&here, unpack(&here, &config)?)?;
            (Some(Parsed::Terminal(NetworkFilter::TcpProxy(Arc::new(config)))), true)
        }
        DIRECT_RESPONSE => {
            let direct_response::Config { response } = unpack(&here, &config)?;
            let response = match response {
                Some(source) => data_source(&here.field("response"), source)?,
                None => Bytes::new(),
            };
            (Some(Parsed::Terminal(NetworkFilter::DirectResponse(response))), true)
        }
        ECHO => {
            let echo::Echo {} = unpack(&here, &config)?;
            (Some(Parsed::Terminal(NetworkFilter::Echo)), true)
        }
        other => {
            if let Some(filter) = read_filter::parse(&here, &config)? {
                return Ok(Step { kind: extension_name(other), filter: Some(Parsed::Before(filter)), terminal: false });
            }
            let Some(entry) = UNSUPPORTED_FILTERS.iter().find(|entry| entry.message == other) else {
                return Err(here.unknown_extension(&name, other));
            };
            at.refuse_or_warn(entry)?;
            (None, TERMINAL.contains(&other))
        }
    };
    Ok(Step { kind: extension_name(kind), filter, terminal })
}

/// `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy` is registered as `envoy.filters.network.tcp_proxy`.
fn extension_name(kind: &str) -> String {
    let inner = kind.strip_prefix("envoy.extensions.").unwrap_or(kind);
    let inner = inner.rsplit_once('.').map_or(inner, |(path, _)| path);
    format!("envoy.{}", inner.strip_suffix(".v3").unwrap_or(inner))
}

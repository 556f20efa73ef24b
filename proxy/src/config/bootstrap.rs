//! `envoy.config.bootstrap.v3.Bootstrap`: what the process starts from.
//!
//! [`load()`] reads file and `--config-yaml` into bytes and checks them; [`Bootstrap::parse`] makes runtime types of them.
//! Static listeners and clusters stay as bytes: their managers parse them like discovered ones.

mod admin;
pub mod load;
mod node;
mod overload;
pub mod runtime;
mod stats;

pub use self::admin::AdminConfig;
pub use self::node::NODE_REQUIRED;

use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::bootstrap::v3 as proto;
use envoy_types::pb::envoy::config::bootstrap::v3::bootstrap::{
    ApplicationLogConfig, DynamicResources as DynamicProto, StaticResources as StaticProto, StatsFlush,
    application_log_config,
};
use envoy_types::pb::envoy::config::core::v3::Node;
use filters::config::{At, ConfigError, Entry};
use filters::ledger;
use filters::matcher::RegexLimits;
use prost::{Message, Name};
use xds_client::GrpcSource;

use self::runtime::LayerConfig;
use super::cluster::{BindConfig, duration};
use super::config_source::{self, ConfigSource, Files};
use crate::cli::{Mode, Options};
use crate::observe::access_log::LogTarget;
use crate::overload::OverloadConfig;

pub use self::load::{LoadError, Loaded, load};

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.config.bootstrap.v3.Bootstrap" {
    node_context_params => Warn, "resource names are not xdstp:// URLs, for which alone they count";
    hds_config => Warn, "health discovery is not here; nothing is checked on behalf of a management server";
    flags_path => Warn, "there is no file-based flag directory";
    stats_sinks => Warn, "statistics are not pushed to sinks yet; they are on the admin pages";
    deferred_stat_options => Warn, "statistics always come into being with their first use";
    watchdog => Warn, "threads are watched with the default timeouts, and nothing is killed";
    watchdogs => Warn, "threads are watched with the default timeouts, and nothing is killed";
    tracing => Warn, "tracing is not here yet; no spans are sent";
    enable_dispatcher_stats => Warn, "there are no dispatchers; workers have no such statistics";
    header_prefix => Refuse, "it renames every x-envoy- header, on which routing and security depend";
    use_tcp_for_dns_lookups => Warn, "clusters without a resolver of their own use UDP, then TCP for truncated answers";
    dns_resolution_config => Warn, "clusters without a resolver of their own use the system's";
    typed_dns_resolver_config => Warn, "clusters without a resolver of their own use the system's";
    bootstrap_extensions => Refuse, "no bootstrap extension but internal listeners is known";
    fatal_actions => Warn, "a crash ends the process without further actions";
    config_sources => Refuse, "resources by xdstp:// authority are not here";
    default_config_source => Refuse, "resources by xdstp:// authority are not here";
    default_socket_interface => Refuse, "sockets are the kernel's";
    certificate_provider_instances => Refuse, "certificate providers are not here";
    inline_headers => Warn, "every header is found as fast";
    perf_tracing_file_path => Warn, "there is no performance trace";
    default_regex_engine => Refuse, "expressions are RE2's";
    xds_delegate_extension => Refuse, "no such extension is known";
    xds_config_tracker_extension => Warn, "updates are shown in statistics and on the admin pages";
    listener_manager => Warn, "there is one listener manager";
    grpc_async_client_manager_config => Warn, "connections to control planes are shared while in use";
    memory_allocator_manager => Warn, "the allocator gives memory back by itself";
    enable_worker_cpu_affinity => Warn, "workers are not pinned to CPUs";
    stats_eviction => Warn, "statistics disappear with what they count";
    json_format => Warn, "the application log is text";
} }

ledger! {
    /// What is not implemented.
    pub mod manager_unsupported for "envoy.config.bootstrap.v3.ClusterManager" {
    load_stats_config => Warn, "load is not reported to a management server yet";
    enable_deferred_cluster_creation => Warn, "clusters always come into being on a worker with their first use";
} }

ledger! {
    /// What is not implemented.
    pub mod outlier_unsupported for "envoy.config.bootstrap.v3.ClusterManager.OutlierDetection" {
    event_service => Warn, "outlier events are logged to a file";
} }

ledger! {
    /// What is not implemented.
    pub mod dynamic_unsupported for "envoy.config.bootstrap.v3.Bootstrap.DynamicResources" {
    lds_resources_locator => Refuse, "resources by xdstp:// name are not here";
    cds_resources_locator => Refuse, "resources by xdstp:// name are not here";
} }

/// The start of everything.
#[derive(Debug)]
pub struct Bootstrap {
    /// Who we are, as control planes are told.
    pub node: Node,
    /// The admin server, if there is one.
    pub admin: Option<AdminConfig>,
    /// Static clusters, as `Cluster` bytes with their names.
    pub clusters: Vec<(String, Bytes)>,
    /// Static listeners, as `Listener` bytes with their names.
    pub listeners: Vec<(String, Bytes)>,
    /// Static secrets, as `Secret` bytes with their names.
    pub secrets: Vec<(String, Bytes)>,
    /// Where discovered configuration comes from.
    pub dynamic: DynamicResources,
    /// Runtime layers in order.
    pub layers: Vec<LayerConfig>,
    /// `re2.max_program_size.*` of the static layers.
    pub regex_limits: RegexLimits,
    /// How statistics are named and selected.
    pub stats: ::stats::StoreOptions,
    /// `stats_flush_interval`, or on every scrape.
    pub stats_flush: Flush,
    /// `stats_server_version_override`.
    pub server_version: Option<u64>,
    /// What to do about overload.
    pub overload: OverloadConfig,
    /// `cluster_manager.local_cluster_name`; empty if none.
    pub local_cluster_name: String,
    /// `cluster_manager.outlier_detection.event_log_path`: where outlier events are logged.
    pub outlier_log: Option<LogTarget>,
    /// `cluster_manager.upstream_bind_config`: for clusters without their own.
    pub upstream_bind_config: Option<BindConfig>,
    /// `application_log_config.log_format.text_format`.
    pub log_format: Option<String>,
}

/// The rows of the support ledger about bootstraps.
pub static LEDGER: &[&[&Entry]] = &[
    unsupported::ALL,
    admin::unsupported::ALL,
    manager_unsupported::ALL,
    outlier_unsupported::ALL,
    dynamic_unsupported::ALL,
    overload::unsupported::ALL,
    overload::heap_unsupported::ALL,
    overload::action_unsupported::ALL,
    stats::unsupported::ALL,
];

/// When histograms are merged and sinks are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// This often.
    Every(Duration),
    /// When the admin pages are asked (`stats_flush_on_admin`).
    OnAdmin,
}

/// `dynamic_resources`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DynamicResources {
    /// The aggregated stream.
    pub ads: Option<GrpcSource>,
    /// Where clusters come from.
    pub clusters: Option<ConfigSource>,
    /// Where listeners come from.
    pub listeners: Option<ConfigSource>,
}

impl Bootstrap {
    /// Makes runtime types of a bootstrap.
    ///
    /// # Errors
    /// What is wrong with it, or not supported.
    #[expect(deprecated, reason = "every field is accounted for, deprecated ones too")]
    pub fn parse(at: At<'_>, proto: proto::Bootstrap, options: &Options) -> Result<Self, ConfigError> {
        let proto::Bootstrap {
            node,
            node_context_params,
            static_resources,
            dynamic_resources,
            cluster_manager,
            hds_config,
            flags_path,
            stats_sinks,
            deferred_stat_options,
            stats_config,
            stats_flush_interval,
            watchdog,
            watchdogs,
            tracing,
            layered_runtime,
            admin,
            overload_manager,
            enable_dispatcher_stats,
            header_prefix,
            stats_server_version_override,
            use_tcp_for_dns_lookups,
            dns_resolution_config,
            typed_dns_resolver_config,
            bootstrap_extensions,
            fatal_actions,
            config_sources,
            default_config_source,
            default_socket_interface,
            certificate_provider_instances,
            inline_headers,
            perf_tracing_file_path,
            default_regex_engine,
            xds_delegate_extension,
            xds_config_tracker_extension,
            listener_manager,
            application_log_config,
            grpc_async_client_manager_config,
            memory_allocator_manager,
            enable_worker_cpu_affinity,
            stats_flush,
            stats_eviction,
        } = proto;
        at.unsupported(&unsupported::node_context_params, &node_context_params)?;
        at.unsupported(&unsupported::hds_config, &hds_config)?;
        at.unsupported(&unsupported::flags_path, &flags_path)?;
        at.unsupported(&unsupported::stats_sinks, &stats_sinks)?;
        at.unsupported(&unsupported::deferred_stat_options, &deferred_stat_options)?;
        at.unsupported(&unsupported::watchdog, &watchdog)?;
        at.unsupported(&unsupported::watchdogs, &watchdogs)?;
        at.unsupported(&unsupported::tracing, &tracing)?;
        at.unsupported(&unsupported::enable_dispatcher_stats, &enable_dispatcher_stats)?;
        // The prefix that is the default anyway is no change.
        at.unsupported(&unsupported::header_prefix, &(!matches!(header_prefix.as_str(), "" | "x-envoy")))?;
        at.unsupported(&unsupported::use_tcp_for_dns_lookups, &use_tcp_for_dns_lookups)?;
        at.unsupported(&unsupported::dns_resolution_config, &dns_resolution_config)?;
        at.unsupported(&unsupported::typed_dns_resolver_config, &typed_dns_resolver_config)?;
        at.unsupported(&unsupported::fatal_actions, &fatal_actions)?;
        at.unsupported(&unsupported::config_sources, &config_sources)?;
        at.unsupported(&unsupported::default_config_source, &default_config_source)?;
        at.unsupported(&unsupported::certificate_provider_instances, &certificate_provider_instances)?;
        at.unsupported(&unsupported::inline_headers, &inline_headers)?;
        at.unsupported(&unsupported::perf_tracing_file_path, &perf_tracing_file_path)?;
        at.unsupported(&unsupported::xds_delegate_extension, &xds_delegate_extension)?;
        at.unsupported(&unsupported::xds_config_tracker_extension, &xds_config_tracker_extension)?;
        at.unsupported(&unsupported::listener_manager, &listener_manager)?;
        at.unsupported(&unsupported::grpc_async_client_manager_config, &grpc_async_client_manager_config)?;
        at.unsupported(&unsupported::memory_allocator_manager, &memory_allocator_manager)?;
        at.unsupported(&unsupported::enable_worker_cpu_affinity, &enable_worker_cpu_affinity)?;
        at.unsupported(&unsupported::stats_eviction, &stats_eviction)?;
        harmless_extensions(at, &bootstrap_extensions, &default_socket_interface, default_regex_engine.as_ref())?;

        let layers = layered_runtime
            .map(|proto| runtime::parse(at.field("layered_runtime"), proto))
            .transpose()?
            .unwrap_or_default();
        let regex_limits = runtime::regex_limits(&layers);
        let node = node::complete(node.unwrap_or_default(), options);
        let dynamic = dynamic_resources
            .map(|proto| parse_dynamic(at.field("dynamic_resources"), proto, options.mode))
            .transpose()?
            .unwrap_or_default();
        let ManagerConfig { local_cluster_name, outlier_log, upstream_bind_config } = match cluster_manager {
            Some(proto) => parse_cluster_manager(at.field("cluster_manager"), proto)?,
            None => ManagerConfig::default(),
        };
        let needs_node = dynamic != DynamicResources::default() || !local_cluster_name.is_empty();
        node::require(at, &node, needs_node)?;
        let StaticProto { listeners, clusters, secrets } = static_resources.unwrap_or_default();
        let on_admin = matches!(stats_flush, Some(StatsFlush::StatsFlushOnAdmin(true)));
        let interval = duration(at.field("stats_flush_interval"), stats_flush_interval)?;
        Ok(Self {
            node,
            admin: admin.map(|proto| admin::parse(at.field("admin"), proto, regex_limits)).transpose()?.flatten(),
            clusters: clusters.into_iter().map(|c| (c.name.clone(), c.encode_to_vec().into())).collect(),
            listeners: listeners.into_iter().map(|l| (l.name.clone(), l.encode_to_vec().into())).collect(),
            secrets: secrets.into_iter().map(|s| (s.name.clone(), s.encode_to_vec().into())).collect(),
            dynamic,
            layers,
            regex_limits,
            stats: stats::parse(
                at.field("stats_config"),
                stats_config.unwrap_or_default(),
                &options.stats_tags,
                regex_limits,
            )?,
            stats_flush: flush(at, interval, on_admin)?,
            server_version: stats_server_version_override.map(|version| version.value),
            overload: overload_manager
                .map(|proto| overload::parse(at.field("overload_manager"), proto))
                .transpose()?
                .unwrap_or_default(),
            local_cluster_name,
            outlier_log,
            upstream_bind_config,
            log_format: log_format(at, application_log_config, options)?,
        })
    }
}

fn flush(at: At<'_>, interval: Option<Duration>, on_admin: bool) -> Result<Flush, ConfigError> {
    let interval_at = at.field("stats_flush_interval");
    match (interval, on_admin) {
        (Some(_), true) => Err(at.error("Only one of stats_flush_interval or stats_flush_on_admin should be set!")),
        (None, true) => Ok(Flush::OnAdmin),
        (None, false) => Ok(Flush::Every(Duration::from_secs(5))),
        (Some(interval), false) if !(Duration::from_millis(1)..Duration::from_secs(300)).contains(&interval) => {
            Err(interval_at.error("value must be inside range [1ms, 5m)"))
        }
        (Some(interval), false) => Ok(Flush::Every(interval)),
    }
}

/// Extensions that only name what is the case anyway pass; others are refused.
fn harmless_extensions(
    at: At<'_>,
    extensions: &[envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig],
    socket_interface: &str,
    regex_engine: Option<&envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig>,
) -> Result<(), ConfigError> {
    const INTERNAL: &str = "envoy.extensions.bootstrap.internal_listener.v3.InternalListener";
    const SOCKETS: &str = "envoy.extensions.network.socket_interface.v3.DefaultSocketInterface";
    const RE2: &str = "envoy.extensions.regex_engines.v3.GoogleRE2";
    let type_of = |extension: &envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig| {
        extension
            .typed_config
            .as_ref()
            .map_or_else(String::new, |any| xds_client::proto::type_name(&any.type_url).to_owned())
    };
    let list = at.field("bootstrap_extensions");
    for (index, extension) in extensions.iter().enumerate() {
        if ![INTERNAL, SOCKETS].contains(&type_of(extension).as_str()) {
            list.index(index).refuse_or_warn(&unsupported::bootstrap_extensions)?;
        }
    }
    let odd_sockets = !socket_interface.is_empty()
        && socket_interface != "envoy.extensions.network.socket_interface.default_socket_interface";
    at.unsupported(&unsupported::default_socket_interface, &odd_sockets)?;
    at.unsupported(&unsupported::default_regex_engine, &regex_engine.is_some_and(|engine| type_of(engine) != RE2))
}

fn log_format(
    at: At<'_>,
    proto: Option<ApplicationLogConfig>,
    options: &Options,
) -> Result<Option<String>, ConfigError> {
    use application_log_config::log_format::LogFormat;
    let Some(ApplicationLogConfig { log_format: Some(application_log_config::LogFormat { log_format }) }) = proto
    else {
        return Ok(None);
    };
    if options.log_format_set {
        return Err(at
            .field("application_log_config")
            .error("Only one of ApplicationLogConfig.log_format or CLI option --log-format can be specified."));
    }
    match log_format {
        Some(LogFormat::TextFormat(format)) => Ok(Some(format)),
        Some(LogFormat::JsonFormat(_)) => {
            at.field("application_log_config").refuse_or_warn(&unsupported::json_format)?;
            Ok(None)
        }
        None => Ok(None),
    }
}

fn parse_dynamic(at: At<'_>, proto: DynamicProto, mode: Mode) -> Result<DynamicResources, ConfigError> {
    let DynamicProto { lds_config, lds_resources_locator, cds_config, cds_resources_locator, ads_config } = proto;
    at.unsupported(&dynamic_unsupported::lds_resources_locator, &lds_resources_locator)?;
    at.unsupported(&dynamic_unsupported::cds_resources_locator, &cds_resources_locator)?;
    let listener_files = if mode == Mode::Validate { Files::MayCome } else { Files::Exist };
    let source = |name: &'static str, proto, files| config_source::parse(at.field(name), proto, files);
    Ok(DynamicResources {
        ads: ads_config.map(|proto| config_source::ads(at.field("ads_config"), proto)).transpose()?,
        clusters: cds_config.map(|proto| source("cds_config", proto, Files::Exist)).transpose()?,
        listeners: lds_config.map(|proto| source("lds_config", proto, listener_files)).transpose()?,
    })
}

/// `cluster_manager`.
#[derive(Default)]
struct ManagerConfig {
    local_cluster_name: String,
    outlier_log: Option<LogTarget>,
    upstream_bind_config: Option<BindConfig>,
}

fn parse_cluster_manager(at: At<'_>, proto: proto::ClusterManager) -> Result<ManagerConfig, ConfigError> {
    let proto::ClusterManager {
        local_cluster_name,
        outlier_detection,
        upstream_bind_config,
        load_stats_config,
        enable_deferred_cluster_creation,
    } = proto;
    let proto::cluster_manager::OutlierDetection { event_log_path, event_service } =
        outlier_detection.unwrap_or_default();
    let at_log = at.field("outlier_detection");
    at_log.unsupported(&outlier_unsupported::event_service, &event_service)?;
    let outlier_log = (!event_log_path.is_empty()).then(|| LogTarget::of(&event_log_path));
    at.unsupported(&manager_unsupported::load_stats_config, &load_stats_config)?;
    at.unsupported(&manager_unsupported::enable_deferred_cluster_creation, &enable_deferred_cluster_creation)?;
    let bind = upstream_bind_config
        .map(|proto| BindConfig::parse(at.field("upstream_bind_config"), "Bootstrap", proto))
        .transpose()?;
    Ok(ManagerConfig { local_cluster_name, outlier_log, upstream_bind_config: bind })
}

/// The type that documents are read as.
pub(crate) fn type_name() -> String {
    proto::Bootstrap::full_name()
}

#[cfg(test)]
mod tests;

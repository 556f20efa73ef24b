//! `/server_info`.

use envoy_types::pb::envoy::config::core::v3::Node;
use prost::Message as _;
use serde_json::{Map, Value, json};
use xds_client::proto::{JsonOptions, to_json};

use super::SharedState;
use crate::cli::{DrainStrategy, HOT_RESTART_VERSION, Mode, Options, version};

/// What does not change while the process runs.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    options: Value,
    node: Value,
    hot_restart_version: &'static str,
}

impl ServerInfo {
    /// From the command line and the completed node.
    #[must_use]
    pub fn new(options: &Options, node: &Node) -> Self {
        let print = JsonOptions { snake_case: true, redact: true, always_print_fields: true };
        Self {
            node: to_json("envoy.config.core.v3.Node", &node.encode_to_vec(), &print).unwrap_or_default(),
            options: options_json(options),
            hot_restart_version: hot_restart_version(options),
        }
    }

    /// `/hot_restart_version`.
    pub(super) const fn hot_restart_version(&self) -> &'static str {
        self.hot_restart_version
    }

    /// The page.
    pub(super) fn to_json(&self, state: &SharedState) -> Value {
        let uptime = format!("{}s", state.started.elapsed().as_secs());
        let mut out = Map::new();
        out.insert("version".into(), version().into());
        out.insert("state".into(), state.name().to_string().into());
        out.insert("uptime_current_epoch".into(), uptime.as_str().into());
        out.insert("uptime_all_epochs".into(), uptime.into());
        out.insert("hot_restart_version".into(), self.hot_restart_version.into());
        out.insert("command_line_options".into(), self.options.clone());
        out.insert("node".into(), self.node.clone());
        out.insert("hot_restart_initializing".into(), false.into());
        Value::Object(out)
    }
}

const fn hot_restart_version(options: &Options) -> &'static str {
    if options.disable_hot_restart { "disabled" } else { HOT_RESTART_VERSION }
}

/// In Envoy's order.
fn options_json(options: &Options) -> Value {
    let seconds = |duration: std::time::Duration| match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        millis => format!("{}.{millis:03}s", duration.as_secs()),
    };
    let tags: Vec<String> = options.stats_tags.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    json!({
        "base_id": options.base_id.to_string(),
        "concurrency": options.concurrency,
        "config_path": options.config_path,
        "config_yaml": options.config_yaml,
        "allow_unknown_static_fields": options.allow_unknown_static_fields,
        "admin_address_path": options.admin_address_path,
        "local_address_ip_version": if options.local_address_v6 { "v6" } else { "v4" },
        "log_level": options.log_level.name(),
        "component_log_level": options.component_log_level,
        "log_format": options.log_format,
        "log_path": options.log_path,
        "service_cluster": options.service_cluster,
        "service_node": options.service_node,
        "service_zone": options.service_zone,
        "file_flush_interval": seconds(options.file_flush_interval),
        "drain_time": seconds(options.drain_time),
        "parent_shutdown_time": seconds(options.parent_shutdown_time),
        "mode": if options.mode == Mode::Serve { "Serve" } else { "Validate" },
        "disable_hot_restart": options.disable_hot_restart,
        "enable_mutex_tracing": options.enable_mutex_tracing,
        "restart_epoch": 0,
        "cpuset_threads": options.cpuset_threads,
        "reject_unknown_dynamic_fields": options.reject_unknown_dynamic_fields,
        "log_format_escaped": options.log_format_escaped,
        "disabled_extensions": options.disabled_extensions,
        "ignore_unknown_dynamic_fields": options.ignore_unknown_dynamic_fields,
        "use_dynamic_base_id": options.use_dynamic_base_id,
        "base_id_path": options.base_id_path,
        "drain_strategy": if options.drain_strategy == DrainStrategy::Gradual { "Gradual" } else { "Immediate" },
        "enable_fine_grain_logging": options.enable_fine_grain_logging,
        "socket_path": options.socket_path,
        "socket_mode": options.socket_mode,
        "enable_core_dump": options.enable_core_dump,
        "stats_tag": tags,
        "skip_hot_restart_on_no_parent": options.skip_hot_restart_on_no_parent,
        "skip_hot_restart_parent_stats": options.skip_hot_restart_parent_stats,
        "skip_deprecated_logs": options.skip_deprecated_logs,
        "file_flush_min_size": options.file_flush_min_size_kb,
        "log_stacktrace_single_entry": options.log_stacktrace_single_entry,
    })
}

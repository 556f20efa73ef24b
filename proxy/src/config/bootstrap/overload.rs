//! `overload_manager`.

use envoy_types::pb::envoy::config::overload::v3 as proto;
use envoy_types::pb::envoy::config::overload::v3::trigger::TriggerOneof;
use envoy_types::pb::envoy::config::overload::v3::{ScaledTrigger, ThresholdTrigger, resource_monitor};
use envoy_types::pb::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
use envoy_types::pb::envoy::extensions::resource_monitors::fixed_heap::v3::FixedHeapConfig;
use filters::config::{At, ConfigError};
use filters::ledger;
use xds_client::proto::type_name;

use crate::config::cluster::{decode, duration};
use crate::overload::{Action, ActionConfig, MAX_CONNECTIONS, Monitor, OverloadConfig, Trigger};

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.config.overload.v3.OverloadManager" {
    resource_monitors => Warn, "only fixed_heap and global_downstream_max_connections are here; actions it triggers are not taken";
    actions => Warn, "this action is not here yet and is not taken";
    loadshed_points => Warn, "load shed points are not here yet; nothing is shed there";
    buffer_factory_config => Warn, "streams are not reset by the memory they hold";
} }

ledger! {
    /// What is not implemented.
    pub mod heap_unsupported for "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig" {
    max_heap_size_bytes_runtime => Warn, "the limit does not follow the runtime; its default value counts";
} }

ledger! {
    /// What is not implemented.
    pub mod action_unsupported for "envoy.config.overload.v3.OverloadAction" {
    typed_config => Warn, "the action's options have their defaults";
} }

pub(super) fn parse(at: At<'_>, proto: proto::OverloadManager) -> Result<OverloadConfig, ConfigError> {
    let proto::OverloadManager { refresh_interval, resource_monitors, actions, loadshed_points, buffer_factory_config } =
        proto;
    at.unsupported(&unsupported::loadshed_points, &loadshed_points)?;
    at.unsupported(&unsupported::buffer_factory_config, &buffer_factory_config)?;
    let mut config = OverloadConfig::default();
    if let Some(interval) = duration(at.field("refresh_interval"), refresh_interval)? {
        config.refresh_interval = interval.max(std::time::Duration::from_millis(1));
    }
    let mut names: Vec<String> = Vec::new();
    let list = at.field("resource_monitors");
    for (index, proto::ResourceMonitor { name, config_type }) in resource_monitors.into_iter().enumerate() {
        let at = list.index(index);
        if names.contains(&name) {
            return Err(at.field("name").error(format_args!("Duplicate resource monitor {name}")));
        }
        monitor(at, &name, config_type, &mut config)?;
        names.push(name);
    }
    let list = at.field("actions");
    for (index, action) in actions.into_iter().enumerate() {
        if let Some(action) = parse_action(list.index(index), action, &names)? {
            if config.actions.iter().any(|known| known.action == action.action) {
                let name = action.action.name();
                return Err(list.index(index).error(format_args!("Duplicate overload action {name}")));
            }
            config.actions.push(action);
        }
    }
    Ok(config)
}

fn monitor(
    at: At<'_>,
    name: &str,
    config_type: Option<resource_monitor::ConfigType>,
    config: &mut OverloadConfig,
) -> Result<(), ConfigError> {
    let resource_monitor::ConfigType::TypedConfig(any) = at.required("typed_config", config_type)?;
    let at = at.field("typed_config");
    match type_name(&any.type_url) {
        "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig" => {
            let FixedHeapConfig { max_heap_size_bytes, max_heap_size_bytes_runtime } = decode(at, &any)?;
            at.unsupported(&heap_unsupported::max_heap_size_bytes_runtime, &max_heap_size_bytes_runtime)?;
            let runtime_default = max_heap_size_bytes_runtime.map_or(0, |runtime| runtime.default_value);
            let max_heap_size_bytes = if max_heap_size_bytes == 0 { runtime_default } else { max_heap_size_bytes };
            if max_heap_size_bytes == 0 {
                return Err(at.field("max_heap_size_bytes").error("max_heap_size_bytes must be greater than 0"));
            }
            config.monitors.push((name.to_owned(), Monitor::FixedHeap { max_heap_size_bytes }));
        }
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig" => {
            if name != MAX_CONNECTIONS {
                return Err(at.error(format_args!("this resource monitor must be named {MAX_CONNECTIONS}")));
            }
            let DownstreamConnectionsConfig { max_active_downstream_connections } = decode(at, &any)?;
            let max = u64::try_from(max_active_downstream_connections).ok().filter(|max| *max > 0);
            config.max_downstream_connections =
                Some(max.ok_or_else(|| {
                    at.field("max_active_downstream_connections").error("value must be greater than 0")
                })?);
        }
        _ => at.refuse_or_warn(&unsupported::resource_monitors)?,
    }
    Ok(())
}

fn parse_action(
    at: At<'_>,
    proto: proto::OverloadAction,
    monitors: &[String],
) -> Result<Option<ActionConfig>, ConfigError> {
    let proto::OverloadAction { name, triggers, typed_config } = proto;
    if triggers.is_empty() {
        return Err(at.field("triggers").error("value must contain at least 1 item(s)"));
    }
    let list = at.field("triggers");
    let mut parsed: Vec<(String, Trigger)> = Vec::with_capacity(triggers.len());
    for (index, proto::Trigger { name: monitor, trigger_oneof }) in triggers.into_iter().enumerate() {
        let at = list.index(index);
        if !monitors.contains(&monitor) {
            return Err(at
                .field("name")
                .error(format_args!("Unknown trigger resource {monitor} for overload action {name}")));
        }
        if parsed.iter().any(|(known, _)| *known == monitor) {
            return Err(at.field("name").error(format_args!("Duplicate trigger resource for overload action {name}")));
        }
        parsed.push((monitor, trigger(at, trigger_oneof)?));
    }
    let Some(action) = Action::by_name(&name) else {
        at.refuse_or_warn(&unsupported::actions)?;
        return Ok(None);
    };
    at.unsupported(&action_unsupported::typed_config, &typed_config)?;
    Ok(Some(ActionConfig { action, triggers: parsed }))
}

fn trigger(at: At<'_>, proto: Option<TriggerOneof>) -> Result<Trigger, ConfigError> {
    let fraction = |at: At<'_>, value: f64| {
        if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(at.error("value must be inside range [0, 1]")) }
    };
    match at.required("trigger_oneof", proto)? {
        TriggerOneof::Threshold(ThresholdTrigger { value }) => {
            Ok(Trigger::Threshold(fraction(at.field("threshold"), value)?))
        }
        TriggerOneof::Scaled(ScaledTrigger { scaling_threshold, saturation_threshold }) => {
            let at = at.field("scaled");
            let scaling = fraction(at.field("scaling_threshold"), scaling_threshold)?;
            let saturation = fraction(at.field("saturation_threshold"), saturation_threshold)?;
            if scaling >= saturation {
                return Err(at.error("scaling_threshold must be less than saturation_threshold"));
            }
            Ok(Trigger::Scaled { scaling, saturation })
        }
    }
}

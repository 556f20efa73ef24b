//! `/config_dump`: what is configured, from the bytes that were received, with secrets redacted.
//!
//! The page is built as JSON, section by section; `resource`, `name_regex` and `mask` are applied while or after building,
//! so that a page about one list prints nothing else.

use std::time::SystemTime;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use filters::matcher::Regex;
use hyper::StatusCode;
use serde_json::{Map, Value};
use xds_client::proto::{JsonOptions, to_json, type_url};

use super::backend::{ConfigDump, ConfigDumpEntry, DynamicListenerDump, ErrorState, RawResource};
use super::http::Page;
use super::query::Query;

const OPTIONS: JsonOptions = JsonOptions { snake_case: true, redact: true, always_print_fields: false };

/// One message of the dump.
struct Section {
    /// Message name below `envoy.admin.v3`.
    message: &'static str,
    /// Fields that are not lists, in the order of the message.
    fields: Vec<(&'static str, Value)>,
    /// Lists: field, message of the elements, elements.
    lists: Vec<(&'static str, &'static str, Vec<Value>)>,
    /// Names of fields that are not lists.
    scalars: &'static [&'static str],
}

/// The page.
pub(super) fn page(dump: &ConfigDump, query: &Query) -> Page {
    match build(dump, query) {
        Ok(configs) if configs.is_empty() => Page::json(&Value::Object(Map::new())),
        Ok(configs) => Page::json(&Value::Object(Map::from_iter([("configs".to_owned(), Value::Array(configs))]))),
        Err((status, message)) => Page { content_type: "text/plain", ..Page::error(status, message) },
    }
}

fn build(dump: &ConfigDump, query: &Query) -> Result<Vec<Value>, (StatusCode, String)> {
    let bad = |message: String| (StatusCode::BAD_REQUEST, message);
    let given = |name: &str| query.get(name).filter(|value| !value.is_empty());
    let names = match given("name_regex") {
        Some(pattern) => Names(Some(Regex::new(pattern).map_err(|reason| {
            bad(format!("INVALID_ARGUMENT: Error while parsing name_regex from {pattern}: {reason}"))
        })?)),
        None => Names(None),
    };
    let mask = given("mask");
    let sections = sections(dump, &names, query.has("include_eds"));
    let Some(resource) = given("resource") else {
        return whole(sections, mask).map_err(bad);
    };
    for section in sections {
        if section.scalars.contains(&resource) {
            return Err(bad(format!(
                "{resource} is not a repeated field. Use ?mask={resource} to get only this field\n"
            )));
        }
        let Some((_, element, values)) = section.lists.into_iter().find(|(field, ..)| *field == resource) else {
            continue;
        };
        let at_type = type_url(&format!("envoy.admin.v3.{}.{element}", section.message));
        return values
            .into_iter()
            .map(|value| {
                let masked = match mask {
                    Some(mask) => masked(value, mask)
                        .ok_or_else(|| bad(format!("FieldMask {mask} could not be successfully used.")))?,
                    None => value,
                };
                Ok(with_type(&at_type, masked))
            })
            .collect();
    }
    Err((StatusCode::NOT_FOUND, format!("{resource} not found in config dump")))
}

/// All sections; with a mask, those it fits.
fn whole(sections: Vec<Section>, mask: Option<&str>) -> Result<Vec<Value>, String> {
    let mut configs = Vec::new();
    for section in sections {
        let Section { message, fields, lists, scalars } = section;
        if let Some(mask) = mask {
            let known = |path: &str| {
                let (first, deeper) = path.split_once('.').map_or((path, false), |(first, _)| (first, true));
                scalars.contains(&first) || (!deeper && lists.iter().any(|(field, ..)| *field == first))
            };
            if !mask.split(',').all(known) {
                continue;
            }
        }
        let mut out: Map<String, Value> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let filled = lists.into_iter().filter(|(_, _, values)| !values.is_empty());
        out.extend(filled.map(|(field, _, values)| (field.to_owned(), Value::Array(values))));
        let mut value = Value::Object(out);
        if let Some(mask) = mask {
            value = masked(value, mask).unwrap_or(Value::Object(Map::new()));
        }
        configs.push(with_type(&type_url(&format!("envoy.admin.v3.{message}")), value));
    }
    if configs.is_empty() && mask.is_some() {
        return Err(format!(
            "FieldMask {} could not be successfully applied to any configs.",
            mask.unwrap_or_default()
        ));
    }
    Ok(configs)
}

/// Keeps the fields that the mask names; `None` when it asks for a field inside a list.
fn masked(value: Value, mask: &str) -> Option<Value> {
    let mut out = Value::Object(Map::new());
    for path in mask.split(',').filter(|path| !path.is_empty()) {
        let steps: Vec<&str> = path.split('.').collect();
        copy(&value, &steps, &mut out)?;
    }
    Some(out)
}

fn copy(from: &Value, steps: &[&str], to: &mut Value) -> Option<()> {
    let Some((step, rest)) = steps.split_first() else { return Some(()) };
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return None };
    if let Some(type_name) = from.get("@type") {
        to.insert("@type".into(), type_name.clone());
    }
    let Some(field) = from.get(*step) else { return Some(()) };
    if rest.is_empty() {
        to.insert((*step).to_owned(), field.clone());
        return Some(());
    }
    copy(field, rest, to.entry(*step).or_insert_with(|| Value::Object(Map::new())))
}

/// `name_regex`.
struct Names(Option<Regex>);

impl Names {
    fn fits(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|regex| regex.is_match(name.as_bytes()))
    }

    fn of<'a>(&self, entries: &'a [ConfigDumpEntry]) -> impl Iterator<Item = &'a ConfigDumpEntry> {
        entries.iter().filter(|entry| self.fits(&entry.name))
    }
}

fn sections(dump: &ConfigDump, names: &Names, include_eds: bool) -> Vec<Section> {
    let list = |entries: &[ConfigDumpEntry], field: &str, with_name: bool| -> Vec<Value> {
        names.of(entries).map(|entry| entry_json(entry, field, with_name)).collect()
    };
    let version = |version: &str| if version.is_empty() { Vec::new() } else { vec![("version_info", version.into())] };
    let mut sections = Vec::new();
    if let Some((bytes, updated)) = &dump.bootstrap {
        let bootstrap = to_json("envoy.config.bootstrap.v3.Bootstrap", bytes, &OPTIONS);
        let bootstrap = bootstrap.unwrap_or_else(|error| Value::String(error.to_string()));
        sections.push(Section {
            message: "BootstrapConfigDump",
            fields: vec![("bootstrap", bootstrap), ("last_updated", timestamp(*updated))],
            lists: Vec::new(),
            scalars: &["bootstrap", "last_updated"],
        });
    }
    sections.push(Section {
        message: "ClustersConfigDump",
        fields: version(&dump.clusters_version),
        lists: vec![
            ("static_clusters", "StaticCluster", list(&dump.static_clusters, "cluster", false)),
            ("dynamic_active_clusters", "DynamicCluster", list(&dump.dynamic_active_clusters, "cluster", false)),
            ("dynamic_warming_clusters", "DynamicCluster", list(&dump.dynamic_warming_clusters, "cluster", false)),
        ],
        scalars: &["version_info"],
    });
    // Without a cluster there is no such section, however empty the others may be.
    if include_eds && !(dump.static_endpoints.is_empty() && dump.dynamic_endpoints.is_empty()) {
        sections.push(Section {
            message: "EndpointsConfigDump",
            fields: Vec::new(),
            lists: vec![
                (
                    "static_endpoint_configs",
                    "StaticEndpointConfig",
                    list(&dump.static_endpoints, "endpoint_config", false),
                ),
                (
                    "dynamic_endpoint_configs",
                    "DynamicEndpointConfig",
                    list(&dump.dynamic_endpoints, "endpoint_config", false),
                ),
            ],
            scalars: &[],
        });
    }
    let dynamic = dump.dynamic_listeners.iter().filter(|listener| names.fits(&listener.name)).map(dynamic_listener);
    sections.push(Section {
        message: "ListenersConfigDump",
        fields: version(&dump.listeners_version),
        lists: vec![
            ("static_listeners", "StaticListener", list(&dump.static_listeners, "listener", false)),
            ("dynamic_listeners", "DynamicListener", dynamic.collect()),
        ],
        scalars: &["version_info"],
    });
    if dump.speaks_http {
        sections.extend(route_sections(dump, list));
    }
    sections.push(Section {
        message: "SecretsConfigDump",
        fields: Vec::new(),
        lists: vec![
            ("static_secrets", "StaticSecret", list(&dump.static_secrets, "secret", true)),
            ("dynamic_active_secrets", "DynamicSecret", list(&dump.dynamic_active_secrets, "secret", true)),
            ("dynamic_warming_secrets", "DynamicSecret", list(&dump.dynamic_warming_secrets, "secret", true)),
        ],
        scalars: &[],
    });
    sections
}

fn route_sections(dump: &ConfigDump, list: impl Fn(&[ConfigDumpEntry], &str, bool) -> Vec<Value>) -> [Section; 2] {
    let scoped = Section {
        message: "ScopedRoutesConfigDump",
        fields: Vec::new(),
        lists: vec![
            ("inline_scoped_route_configs", "InlineScopedRouteConfigs", Vec::new()),
            ("dynamic_scoped_route_configs", "DynamicScopedRouteConfigs", Vec::new()),
        ],
        scalars: &[],
    };
    let routes = Section {
        message: "RoutesConfigDump",
        fields: Vec::new(),
        lists: vec![
            ("static_route_configs", "StaticRouteConfig", list(&dump.static_routes, "route_config", false)),
            ("dynamic_route_configs", "DynamicRouteConfig", list(&dump.dynamic_routes, "route_config", false)),
        ],
        scalars: &[],
    };
    [scoped, routes]
}

fn entry_json(entry: &ConfigDumpEntry, field: &str, with_name: bool) -> Value {
    let mut out = Map::new();
    // A resource that was never accepted is known by its name alone.
    if with_name {
        out.insert("name".into(), entry.name.as_str().into());
    }
    if !entry.version_info.is_empty() {
        out.insert("version_info".into(), entry.version_info.as_str().into());
    }
    if let Some(resource) = &entry.resource {
        out.insert(field.to_owned(), any_json(resource));
    }
    if let Some(updated) = entry.last_updated {
        out.insert("last_updated".into(), timestamp(updated));
    }
    if let Some(error) = &entry.error_state {
        out.insert("error_state".into(), error_json(error));
    }
    Value::Object(out)
}

fn dynamic_listener(listener: &DynamicListenerDump) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), listener.name.as_str().into());
    let states = [
        ("active_state", &listener.active),
        ("warming_state", &listener.warming),
        ("draining_state", &listener.draining),
    ];
    for (name, state) in states {
        if let Some(state) = state {
            out.insert(name.into(), entry_json(state, "listener", false));
        }
    }
    if let Some(error) = &listener.error_state {
        out.insert("error_state".into(), error_json(error));
    }
    Value::Object(out)
}

fn error_json(error: &ErrorState) -> Value {
    let mut out = Map::new();
    if let Some(failed) = &error.failed_configuration {
        out.insert("failed_configuration".into(), any_json(failed));
    }
    if let Some(when) = error.last_update_attempt {
        out.insert("last_update_attempt".into(), timestamp(when));
    }
    if !error.details.is_empty() {
        out.insert("details".into(), error.details.as_str().into());
    }
    if !error.version_info.is_empty() {
        out.insert("version_info".into(), error.version_info.as_str().into());
    }
    Value::Object(out)
}

/// A resource as a packed message: what cannot be printed is named, never quoted, for it may hold secrets.
fn any_json(RawResource { type_url, bytes }: &RawResource) -> Value {
    let value = resource_json(type_url, bytes);
    with_type(type_url, value)
}

fn resource_json(type_url: &str, bytes: &Bytes) -> Value {
    to_json(type_url, bytes, &OPTIONS)
        .unwrap_or_else(|error| Value::Object(Map::from_iter([("error".to_owned(), error.to_string().into())])))
}

fn with_type(type_url: &str, value: Value) -> Value {
    let mut out = Map::from_iter([("@type".to_owned(), Value::from(type_url))]);
    if let Value::Object(fields) = value {
        out.extend(fields.into_iter().filter(|(name, _)| name != "@type"));
    }
    Value::Object(out)
}

fn timestamp(time: SystemTime) -> Value {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true).into()
}

//! `/listeners`.

use serde_json::{Map, Value};

use super::backend::ListenerView;
use super::clusters::{address, line_safe};

/// `name::address` lines.
pub(super) fn text(listeners: &[ListenerView]) -> String {
    let lines = listeners.iter().flat_map(|listener| {
        let name = line_safe(&listener.name);
        listener.addresses.iter().map(move |address| {
            let address = address.to_string();
            format!("{name}::{}\n", line_safe(&address))
        })
    });
    lines.collect()
}

/// `{"listener_statuses": […]}`.
pub(super) fn json(listeners: &[ListenerView]) -> Value {
    let status = |listener: &ListenerView| {
        let mut out = Map::new();
        out.insert("name".into(), listener.name.as_str().into());
        if let Some((first, more)) = listener.addresses.split_first() {
            out.insert("local_address".into(), address(first));
            if !more.is_empty() {
                out.insert("additional_local_addresses".into(), more.iter().map(address).collect());
            }
        }
        Value::Object(out)
    };
    let mut out = Map::new();
    if !listeners.is_empty() {
        out.insert("listener_statuses".into(), listeners.iter().map(status).collect());
    }
    Value::Object(out)
}

//! `ProxyStatusConfig`.

use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as proto;
use filters::config::{At, ConfigError};
use proto::proxy_status_config::ProxyName;

use super::values::header_value;
use crate::http::hygiene::ProxyStatus;

/// What a configuration says about the header; without a name of its own the proxy is called `server_name`.
pub(super) fn parse(
    at: &At<'_>,
    config: proto::ProxyStatusConfig,
    server_name: &str,
    node_id: &str,
) -> Result<ProxyStatus, ConfigError> {
    let proto::ProxyStatusConfig {
        remove_details,
        remove_connection_termination_details,
        remove_response_flags,
        set_recommended_response_code,
        proxy_name,
    } = config;
    let name = match proxy_name {
        None => server_name.to_owned(),
        Some(ProxyName::UseNodeId(_)) => node_id.to_owned(),
        Some(ProxyName::LiteralProxyName(name)) => name,
    };
    Ok(ProxyStatus {
        name: header_value(at, "literal_proxy_name", name)?,
        details: !remove_details,
        termination_details: !remove_connection_termination_details,
        flags: !remove_response_flags,
        recommended_status: set_recommended_response_code,
    })
}

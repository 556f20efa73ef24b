//! Bootstraps, put together from the parts that matter to a test. Parts are YAML in flow style, so that they nest without
//! indentation.

/// A route configuration with one virtual host that sends everything to the cluster `up`.
pub const TO_UP: &str =
    r#"{name: all, domains: ["*"], routes: [{name: up, match: {prefix: "/"}, route: {cluster: up}}]}"#;

/// One line of an access log: everything about a request that does not depend on time.
pub const LOG_FORMAT: &str = "code=%RESPONSE_CODE% details=%RESPONSE_CODE_DETAILS% flags=%RESPONSE_FLAGS% \
    protocol=%PROTOCOL% method=%REQ(:METHOD)% path=%REQ(:PATH)% authority=%REQ(:AUTHORITY)% scheme=%REQ(:SCHEME)% \
    original=%REQ(X-ENVOY-ORIGINAL-PATH)% route=%ROUTE_NAME% cluster=%UPSTREAM_CLUSTER% host=%UPSTREAM_HOST% \
    in=%BYTES_RECEIVED% out=%BYTES_SENT% client=%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% chain=%FILTER_CHAIN_NAME% \
    sni=%REQUESTED_SERVER_NAME% grpc=%GRPC_STATUS% upstream_protocol=%UPSTREAM_PROTOCOL% \
    attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT% end=%CONNECTION_TERMINATION_DETAILS%";

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const HTTP_OPTIONS: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// An admin section, on a port of the kernel's choice.
pub const ADMIN: &str = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}";

/// A socket address on loopback.
pub fn address(port: u16) -> String {
    format!("{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}")
}

/// A bootstrap with these static listeners and clusters, and `more` top-level lines.
pub fn bootstrap(listeners: &[String], clusters: &[String], more: &str) -> String {
    let list = |parts: &[String]| parts.iter().map(|part| format!("\n  - {part}")).collect::<String>();
    format!(
        "{ADMIN}\n{more}\nstatic_resources:\n  listeners:{}\n  clusters:{}\n",
        if listeners.is_empty() { " []".to_owned() } else { list(listeners) },
        if clusters.is_empty() { " []".to_owned() } else { list(clusters) },
    )
}

/// A listener with an HTTP connection manager. `manager` and `listener` add fields to each; the file `NAME.log` gets the
/// access log.
pub fn http_listener(name: &str, manager: &str, virtual_hosts: &str, listener: &str) -> String {
    let chain = format!("{{filters: [{}]}}", http_filter(name, manager, virtual_hosts));
    listener_of(name, &format!("filter_chains: [{chain}]"), listener)
}

/// A listener with any filter chains. Statistics go by its name.
pub fn listener_of(name: &str, chains: &str, more: &str) -> String {
    let address = if more.contains("address:") { String::new() } else { format!("address: {},", address(0)) };
    format!("{{name: {name}, stat_prefix: {name}, {address} {} {chains}}}", listed(more))
}

/// The network filter of an HTTP connection manager.
pub fn http_filter(name: &str, manager: &str, virtual_hosts: &str) -> String {
    let own = |field: &str| {
        manager.match_indices(&format!("{field}:")).any(|(at, _)| {
            // Not the end of a longer word.
            !manager.get(..at).unwrap_or_default().ends_with(|last: char| last.is_alphanumeric() || last == '_')
        })
    };
    let routes = format!("route_config: {{name: {name}_routes, virtual_hosts: [{virtual_hosts}]}},");
    let routes = if own("route_config") || own("rds") { String::new() } else { routes };
    let filters = format!(r#"http_filters: [{{name: router, typed_config: {{"@type": {ROUTER}}}}}],"#);
    let filters = if own("http_filters") { String::new() } else { filters };
    let log = if own("access_log") { String::new() } else { format!("access_log: [{}],", access_log(name)) };
    // Envoy gives a client a second to close first; here it would only be waited for.
    let close = if own("delayed_close_timeout") { "" } else { "delayed_close_timeout: 0.02s," };
    let prefix = if own("stat_prefix") { String::new() } else { format!("stat_prefix: {name},") };
    format!(
        r#"{{name: hcm, typed_config: {{"@type": {HCM}, {close} {prefix} {routes} {filters} {log} {}}}}}"#,
        listed(manager)
    )
}

/// A file access log in [`LOG_FORMAT`].
pub fn access_log(name: &str) -> String {
    let format = format!(r#"log_format: {{text_format_source: {{inline_string: "{LOG_FORMAT}\n"}}}}"#);
    format!(r#"{{name: file, typed_config: {{"@type": {FILE_LOG}, path: "${{DIR}}/{name}.log", {format}}}}}"#)
}

/// A text whose access logs go nowhere: for a configuration that does not belong to a proxy's directory.
pub fn unlogged(text: &str) -> String {
    let mut parts = text.split("\"${DIR}/");
    let mut unlogged = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        unlogged.push_str("\"/dev/null\"");
        unlogged.push_str(part.split_once('"').map_or("", |(_, rest)| rest));
    }
    unlogged
}

/// A TCP proxy filter.
pub fn tcp_filter(name: &str, more: &str) -> String {
    let kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let log = access_log(name);
    format!(
        r#"{{name: tcp, typed_config: {{"@type": {kind}, stat_prefix: {name}, access_log: [{log}], {}}}}}"#,
        listed(more)
    )
}

/// A static cluster with one endpoint per port.
pub fn cluster(name: &str, ports: &[u16], more: &str) -> String {
    let hosts: Vec<String> =
        ports.iter().map(|port| format!("{{endpoint: {{address: {}}}}}", address(*port))).collect();
    let hosts = hosts.join(", ");
    let endpoints = format!("{{cluster_name: {name}, endpoints: [{{lb_endpoints: [{hosts}]}}]}}");
    let endpoints = if more.contains("load_assignment:") || more.contains("ORIGINAL_DST") || more.contains("EDS") {
        String::new()
    } else {
        format!("load_assignment: {endpoints},")
    };
    let timeout = if more.contains("connect_timeout:") { "" } else { "connect_timeout: 2s," };
    format!("{{name: {name}, {timeout} {endpoints} {}}}", listed(more))
}

/// Cluster fields: speak HTTP/2 to the upstream.
pub fn http2() -> String {
    protocol("explicit_http_config: {http2_protocol_options: {}}")
}

/// Cluster fields: HTTP protocol options.
pub fn protocol(options: &str) -> String {
    format!(
        "typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
         {{\"@type\": {HTTP_OPTIONS}, {options}}}}}"
    )
}

/// A list of fields, ended by a comma unless it is empty.
fn listed(fields: &str) -> String {
    let fields = fields.trim().trim_end_matches(',');
    if fields.is_empty() { String::new() } else { format!("{fields},") }
}

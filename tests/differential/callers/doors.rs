//! The listeners, what they do about those who come, and who comes to each.

use super::{Caller, PLAIN, callers, formats, rules};
use crate::support::bootstrap::{http_filter, listener_of};
use crate::support::pki::Pki;

const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const CONTEXT: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";
const NETWORK_RBAC: &str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";
const ANSWER: &str = "{match: {prefix: /}, direct_response: {status: 200}, response_headers_to_add: [{header: {key: x-seen, value: '%REQ(X-FORWARDED-CLIENT-CERT)%'}}]}";

/// A listener, and what it is asked.
pub struct Door {
    pub name: String,
    /// Filters of its chain before the connection manager.
    before: String,
    /// Fields of that, and its routes.
    manager: String,
    routes: String,
    /// Fields of the validation context; `None`: no TLS.
    trust: Option<&'static str>,
    /// Its own certificate.
    certificate: &'static str,
    /// What it logs of each request.
    format: String,
    pub logs_connections: bool,
    pub callers: Vec<Caller>,
    /// Header lines of the requests of each connection.
    pub requests: Vec<String>,
    /// Whether somebody comes by HTTP/2, too.
    pub http2: bool,
    /// Requests go to the upstream that has the certificate of who asks.
    by_upstream: bool,
}

/// Those who differ by what rules can ask.
fn various() -> Vec<Caller> {
    let mut callers =
        callers(["", "client", "nosan", "chained-full", "server", "uris", "kinds", "quoted", "foreign", "subjectless"]);
    for server_name in ["srv.test", "SRV.test", "other.test"] {
        callers.push(Caller { certificate: "client", server_name: Some(server_name) });
    }
    callers
}

impl Door {
    fn new(name: &str, manager: &str, routes: &str, callers: Vec<Caller>) -> Self {
        Self {
            name: name.to_owned(),
            before: String::new(),
            manager: manager.to_owned(),
            routes: routes.to_owned(),
            trust: Some(""),
            certificate: "server",
            format:
                "%REQ(:PATH)% code=%RESPONSE_CODE% details=%RESPONSE_CODE_DETAILS% subject=%DOWNSTREAM_PEER_SUBJECT% \
                     xfcc=%REQ(X-FORWARDED-CLIENT-CERT)%"
                    .to_owned(),
            logs_connections: false,
            callers,
            requests: vec![String::new()],
            http2: false,
            by_upstream: false,
        }
    }

    /// The path of a caller's requests.
    pub fn path(&self, caller: Caller) -> String {
        match caller.certificate {
            "" | "-" if self.by_upstream => "/to_server".to_owned(),
            "client" if self.by_upstream => "/to_server".to_owned(),
            name if self.by_upstream => format!("/to_{name}"),
            name => format!("/{name}"),
        }
    }

    /// The listener, with `$` in its YAML replaced by the directory of certificates.
    pub fn listener(&self, pki: &Pki) -> String {
        let Self { name, before, manager, routes, trust, certificate, format, .. } = self;
        let file = |name: &str, format: &str| {
            let format = if format.starts_with('{') {
                format!("json_format: {format}")
            } else {
                format!(r#"text_format_source: {{inline_string: "{format}\n"}}"#)
            };
            format!(
                r#"{{name: file, typed_config: {{"@type": {FILE_LOG}, path: "${{DIR}}/{name}.log", log_format: {{{format}}}}}}}"#
            )
        };
        let hosts = format!(r#"{{name: all, domains: ["*"], routes: [{routes}]}}"#);
        let manager = if manager.is_empty() { String::new() } else { format!(", {manager}") };
        let filter = http_filter(name, &format!("access_log: [{}]{manager}", file(name, format)), &hosts);
        let socket = trust.map(|trust| {
            let context = format!(
                "common_tls_context: {{alpn_protocols: [h2, http/1.1], tls_certificates: [{{certificate_chain: {{filename: $/{certificate}.pem}}, \
                 private_key: {{filename: $/{certificate}.key}}}}], validation_context: {{trusted_ca: {{filename: $/ca.pem}}, {trust}}}}}"
            );
            let context = context.replace('$', &pki.directory().display().to_string());
            format!(r#", transport_socket: {{name: tls, typed_config: {{"@type": {CONTEXT}, {context}}}}}"#)
        });
        let more = if self.logs_connections {
            let format = "flags=%RESPONSE_FLAGS% end=%CONNECTION_TERMINATION_DETAILS% metadata=%DYNAMIC_METADATA(envoy.filters.network.rbac)% \
                          uri=%DOWNSTREAM_PEER_URI_SAN%";
            format!("access_log: [{}]", file(&format!("{name}.connections"), format))
        } else {
            String::new()
        };
        let chain = format!("filter_chains: [{{filters: [{before}{filter}]{}}}]", socket.unwrap_or_default());
        listener_of(name, &chain, &more)
    }
}

/// All of them.
pub fn doors() -> Vec<Door> {
    let mut doors = Vec::new();
    forwarded(&mut doors);
    printed(&mut doors);
    ruled(&mut doors);
    asked(&mut doors);
    doors
}

/// `x-forwarded-client-cert`: every mode with every detail, after headers of every form.
fn forwarded(doors: &mut Vec<Door>) {
    const GIVEN: [&str; 7] = [
        "",
        "x-forwarded-client-cert: By=a;Hash=b\r\n",
        "x-forwarded-client-cert: By=a\r\nx-forwarded-client-cert: By=c\r\n",
        "x-forwarded-client-cert: \r\n",
        "x-forwarded-client-cert: [{}]\r\n",
        "x-forwarded-client-cert: [\r\n",
        "x-forwarded-for: 10.0.0.1\r\nx-envoy-internal: true\r\nx-forwarded-client-cert: By=a\r\n",
    ];
    const DETAILS: [(&str, &str); 8] = [
        ("none", ""),
        ("subject", "subject: true"),
        ("cert", "cert: true"),
        ("chain", "chain: true"),
        ("dns", "dns: true"),
        ("uri", "uri: true"),
        ("all", "subject: true, cert: true, chain: true, dns: true, uri: true, issuer: true"),
        ("json", "subject: true, cert: true, chain: true, dns: true, uri: true, issuer: true, format: JSON"),
    ];
    for mode in ["SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"] {
        for (name, details) in DETAILS {
            let sets = mode.contains("APPEND") || mode.contains("SET");
            if !sets && name != "all" {
                continue;
            }
            let manager =
                format!("forward_client_cert_details: {mode}, set_current_client_cert_details: {{{details}}}");
            let mut callers = callers(["", "client", "nosan", "chained-full"]);
            if sets {
                callers.extend(super::callers(Pki::STRANGERS));
            }
            let door = Door::new(&format!("{}_{name}", mode.to_lowercase()), &manager, ANSWER, callers);
            doors.push(Door { requests: GIVEN.map(str::to_owned).to_vec(), http2: true, ..door });
        }
        let manager = format!(
            "forward_client_cert_details: {mode}, set_current_client_cert_details: {{subject: true, dns: true, uri: true}}"
        );
        let plain = Door::new(&format!("{}_plain", mode.to_lowercase()), &manager, ANSWER, vec![PLAIN]);
        doors.push(Door { requests: GIVEN.map(str::to_owned).to_vec(), trust: None, ..plain });
        let untrusted = Door::new(
            &format!("{}_untrusted", mode.to_lowercase()),
            &manager,
            ANSWER,
            callers(["", "client", "other", "expired", "self"]),
        );
        doors.push(Door {
            requests: GIVEN.map(str::to_owned).to_vec(),
            trust: Some("trust_chain_verification: ACCEPT_UNTRUSTED"),
            ..untrusted
        });
    }
    for certificate in Pki::STRANGERS {
        let manager = "forward_client_cert_details: SANITIZE_SET, set_current_client_cert_details: {uri: true}";
        let door = Door::new(&format!("by_{certificate}"), manager, ANSWER, callers(["", "client"]));
        doors.push(Door { certificate, ..door });
    }
}

/// What is printed of both sessions, in logs and headers.
fn printed(doors: &mut Vec<Door>) {
    let everybody = || [callers(["", "client", "nosan", "chained-full"]), callers(Pki::STRANGERS)].concat();
    let direct = format!(
        "{{match: {{prefix: /}}, direct_response: {{status: 200}}, response_headers_to_add: [{}]}}",
        formats::headers("x-f")
    );
    let format = || format!("%REQ(:PATH)% {}", formats::text());
    let given = || vec![String::new(), "x-forwarded-client-cert: By=a;Hash=b;URI=c\r\n".to_owned()];
    let set = "forward_client_cert_details: APPEND_FORWARD, set_current_client_cert_details: {subject: true, dns: true, uri: true, chain: true}";
    doors.push(Door {
        format: format(),
        requests: given(),
        http2: true,
        ..Door::new("printed", set, &direct, everybody())
    });
    let json = format!("{{path: '%REQ(:PATH)%', {}}}", formats::json());
    doors.push(Door { format: json, ..Door::new("printed_json", set, &direct, everybody()) });
    doors.push(Door { trust: None, format: format(), ..Door::new("printed_plain", "", &direct, vec![PLAIN]) });
    for certificate in Pki::STRANGERS {
        let door = Door::new(&format!("printed_by_{certificate}"), "", &direct, callers(["", "client"]));
        doors.push(Door { certificate, format: format(), ..door });
    }
    let servers = ["server", "rsa", "chained-full"].into_iter().chain(super::strangers().map(|(name, _)| name));
    let routes: Vec<String> = servers
        .map(|name| {
            format!(
                "{{match: {{path: /to_{name}}}, route: {{cluster: to_{name}}}, request_headers_to_add: [{}], response_headers_to_add: [{}]}}",
                formats::headers("x-q"),
                formats::headers("x-s")
            )
        })
        .collect();
    let strangers = super::strangers().map(|(certificate, _)| Caller { certificate, server_name: None });
    let there = callers(["client", "chained-full"]).into_iter().chain(strangers).collect();
    let manager = format!("{set}, generate_request_id: false");
    let forwarding = Door::new("printed_of_upstreams", &manager, &routes.join(", "), there);
    doors.push(Door { format: format(), requests: given(), by_upstream: true, ..forwarding });
}

/// RBAC, of requests and of connections.
fn ruled(doors: &mut Vec<Door>) {
    let untrusted = "trust_chain_verification: ACCEPT_UNTRUSTED";
    let engines = rules::engines(true);
    let filter = |fields: &str| {
        format!(
            "http_filters: [{{name: own, typed_config: {{'@type': {HTTP}.rbac.v3.RBAC, {fields}}}}}, {{name: router, typed_config: {{'@type': {HTTP}.router.v3.Router}}}}]"
        )
    };
    let by_rule: Vec<String> = engines
        .iter()
        .map(|(name, engine)| {
            let settings = format!(
                "own: {{'@type': {HTTP}.rbac.v3.RBACPerRoute, rbac: {{{engine}, {}, shadow_rules_stat_prefix: s_}}}}",
                rules::shadow(engine)
            );
            format!(
                "{{match: {{prefix: /, headers: [{{name: x-rule, string_match: {{exact: {name}}}}}]}}, direct_response: {{status: 200}}, typed_per_filter_config: {{{settings}}}}}"
            )
        })
        .collect();
    let requests = || engines.iter().map(|(name, _)| format!("x-rule: {name}\r\n")).collect::<Vec<_>>();
    let format = "%REQ(:PATH)% %REQ(X-RULE)% %RESPONSE_CODE_DETAILS% %DYNAMIC_METADATA(envoy.filters.http.rbac)% \
                  %DYNAMIC_METADATA(envoy.common)%";
    let door = Door::new("rules", &filter(""), &by_rule.join(", "), various());
    doors.push(Door { requests: requests(), format: format.to_owned(), ..door });
    let strangers = callers(["", "client", "other", "expired", "self", "nosan"]);
    let door = Door::new("rules_untrusted", &filter(""), &by_rule.join(", "), strangers);
    doors.push(Door { requests: requests(), format: format.to_owned(), trust: Some(untrusted), ..door });
    let door = Door::new("rules_plain", &filter(""), &by_rule.join(", "), vec![PLAIN]);
    doors.push(Door { requests: requests(), format: format.to_owned(), trust: None, ..door });
    let criteria = [
        ("presented", "presented: true"),
        ("absent", "presented: false"),
        ("valid", "validated: true"),
        ("invalid", "validated: false"),
    ];
    let by_tls = criteria.map(|(name, criteria)| {
        format!("{{match: {{prefix: /, tls_context: {{{criteria}}}, headers: [{{name: x-rule, string_match: {{exact: {name}}}}}]}}, direct_response: {{status: 200}}}}")
    });
    let requests: Vec<_> = criteria.iter().map(|(name, _)| format!("x-rule: {name}\r\n")).collect();
    for (name, trust) in [("routes", Some("")), ("routes_untrusted", Some(untrusted)), ("routes_plain", None)] {
        let all = match trust {
            None => vec![PLAIN],
            Some("") => callers(["", "client", "nosan"]),
            Some(_) => callers(["", "client", "other", "expired"]),
        };
        doors.push(Door { trust, requests: requests.clone(), ..Door::new(name, "", &by_tls.join(", "), all) });
    }
    for (name, engine) in rules::engines(false) {
        let rbac = format!(
            "{{name: rbac, typed_config: {{'@type': {NETWORK_RBAC}, stat_prefix: net, {engine}, {}, shadow_rules_stat_prefix: s_}}}}, ",
            rules::shadow(&engine)
        );
        let door = Door::new(&format!("network_{name}"), "", ANSWER, various());
        doors.push(Door { before: rbac, logs_connections: true, ..door });
    }
}

/// `ext_authz`: what an authorization service learns.
fn asked(doors: &mut Vec<Door>) {
    let told = [
        ("authz", ""),
        ("authz_certificate", "include_peer_certificate: true"),
        ("authz_session", "include_tls_session: true"),
        ("authz_both", "include_peer_certificate: true, include_tls_session: true"),
    ];
    for (name, more) in told {
        let manager = format!(
            "generate_request_id: false, http_filters: [{{name: authz, typed_config: {{'@type': {HTTP}.ext_authz.v3.ExtAuthz, transport_api_version: V3, \
             grpc_service: {{envoy_grpc: {{cluster_name: authz}}, timeout: 5s}}, {more}}}}}, {{name: router, typed_config: {{'@type': {HTTP}.router.v3.Router}}}}]"
        );
        let everybody = [various(), callers(Pki::STRANGERS)].concat();
        doors.push(Door::new(name, &manager, ANSWER, everybody));
    }
}

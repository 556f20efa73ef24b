//! Who may connect to whom, upstream: what the proxy makes of servers that are right or wrong about TLS, and what they see of
//! it.

use std::collections::BTreeMap;

use rustls::ProtocolVersion;

use crate::report::compare;
use crate::support::bootstrap::{bootstrap, cluster, http_filter, listener_of, protocol};
use crate::support::client::get;
use crate::support::eventually;
use crate::support::pki::Pki;
use crate::support::proxy::{Kind, Proxy};
use crate::support::tls_upstream::{TlsServer, TlsUpstream};

const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const CONTEXT: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const FORMAT: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% reason=%UPSTREAM_TRANSPORT_FAILURE_REASON% \
    version=%UPSTREAM_TLS_VERSION% cipher=%UPSTREAM_TLS_CIPHER% subject=%UPSTREAM_PEER_SUBJECT% \
    issuer=%UPSTREAM_PEER_ISSUER% uri=%UPSTREAM_PEER_URI_SAN% dns=%UPSTREAM_PEER_DNS_SAN%";

/// Each request has a connection of its own.
const ONE_REQUEST: &str =
    "common_http_protocol_options: {max_requests_per_connection: 1}, explicit_http_config: {http_protocol_options: {}}";

/// A cluster and the server of its one host. `$` in its YAML is the directory of certificates.
struct Way {
    name: &'static str,
    /// Fields of `UpstreamTlsContext`.
    context: String,
    server: TlsServer,
}

fn ways(pki: &Pki) -> Vec<Way> {
    let way = |name, context: String, server| Way { name, context, server };
    let common = |more: &str| format!("common_tls_context: {{{more}}}");
    let checked = |more: &str| common(&format!("validation_context: {{trusted_ca: {{filename: $/ca.pem}}, {more}}}"));
    let server = TlsServer::default;
    let with = |certificate| TlsServer { certificate, ..server() };
    let san = |kind: &str, matcher: &str| {
        checked(&format!("match_typed_subject_alt_names: [{{san_type: {kind}, matcher: {{{matcher}}}}}]"))
    };
    let ours = |name: &str, more: &str| {
        common(&format!(
            "tls_certificates: [{{certificate_chain: {{filename: $/{name}.pem}}, private_key: {{filename: $/{name}.key}}}}], {more}"
        ))
    };
    let asking = || TlsServer { clients_of: Some("ca"), ..server() };
    let only = |version| TlsServer { version: Some(version), ..server() };
    let to_13 = "tls_params: {tls_maximum_protocol_version: TLSv1_3}";
    vec![
        way("unchecked", common(""), server()),
        way("unchecked_other", common(""), with("other")),
        way("checked", checked(""), server()),
        way("rsa", checked(""), with("rsa")),
        way("other", checked(""), with("other")),
        way("expired", checked(""), with("expired")),
        way("any_time", checked("allow_expired_certificate: true"), with("expired")),
        way("future", checked(""), with("future")),
        way("self_signed", checked(""), with("self")),
        way("untrusted", checked("trust_chain_verification: ACCEPT_UNTRUSTED"), with("self")),
        way("pinned", common("validation_context: {trusted_ca: {filename: $/self.pem}}"), with("self")),
        way("chain", checked(""), with("chained-full")),
        way("half_a_chain", checked(""), with("chained")),
        way("revoked", checked("crl: {filename: $/crl.pem}"), with("revoked")),
        way("not_revoked", checked("crl: {filename: $/crl.pem}"), server()),
        way("for_servers_only", checked(""), with("serveronly")),
        way("nameless", checked(""), with("nosan")),
        way("san", san("DNS", "exact: srv.test"), server()),
        way("san_wildcard", san("DNS", "exact: a.wild.test"), server()),
        way("san_wrong", san("DNS", "exact: other.test"), server()),
        way("san_uri", san("URI", "exact: spiffe://td/srv"), server()),
        way("san_ip", san("IP_ADDRESS", "exact: 127.0.0.1"), server()),
        way("hash", checked(&format!("verify_certificate_hash: ['{}']", pki.fingerprint("server"))), server()),
        way("hash_wrong", checked(&format!("verify_certificate_hash: ['{}']", pki.fingerprint("client"))), server()),
        way("spki", checked(&format!("verify_certificate_spki: ['{}']", pki.key_print("server"))), server()),
        way("sni", format!("sni: srv.test, {}", common("")), server()),
        way("sni_and_san", format!("sni: srv.test, auto_sni_san_validation: true, {}", checked("")), server()),
        way("sni_and_wrong_san", format!("sni: no.test, auto_sni_san_validation: true, {}", checked("")), server()),
        way("auto_host_sni", format!("auto_host_sni: true, {}", common("")), server()),
        way("asked", ours("client", ""), asking()),
        way("asked_13", ours("client", to_13), asking()),
        way("asked_for_another", ours("other", ""), asking()),
        way("asked_for_nothing", common(""), asking()),
        way("asked_for_nothing_13", common(to_13), asking()),
        way("server_12", common(to_13), only(ProtocolVersion::TLSv1_2)),
        way("server_13", common(to_13), only(ProtocolVersion::TLSv1_3)),
        way("server_13_only", common(""), only(ProtocolVersion::TLSv1_3)),
        way(
            "signed",
            checked("").replacen('{', "{tls_params: {signature_algorithms: [ecdsa_secp256r1_sha256]}, ", 1),
            server(),
        ),
        way(
            "signed_by_rsa",
            checked("").replacen(
                '{',
                "{tls_params: {signature_algorithms: [ecdsa_secp256r1_sha256, rsa_pss_rsae_sha256]}, ",
                1,
            ),
            with("rsa"),
        ),
        way(
            "signed_in_vain",
            checked("").replacen('{', "{tls_params: {signature_algorithms: [rsa_pss_rsae_sha256]}, ", 1),
            server(),
        ),
        way("signs", ours("client", "tls_params: {signature_algorithms: [ecdsa_secp256r1_sha256]}"), asking()),
        way("compliant", checked("").replacen('{', "{tls_params: {compliance_policies: [FIPS_202205]}, ", 1), server()),
        way(
            "compliant_12",
            checked("").replacen('{', "{tls_params: {compliance_policies: [FIPS_202205]}, ", 1),
            only(ProtocolVersion::TLSv1_2),
        ),
        way("alpn", common("alpn_protocols: [http/1.1]"), TlsServer { alpn: &["http/1.1", "h2"], ..server() }),
        way("alpn_of_another", common("alpn_protocols: [foo]"), TlsServer { alpn: &["http/1.1"], ..server() }),
        way("plain_server", common(""), TlsServer { plain: true, ..server() }),
    ]
}

fn observe(kind: Kind, pki: &Pki) -> BTreeMap<String, String> {
    let ways = ways(pki);
    let servers: Vec<TlsUpstream> = ways.iter().map(|way| TlsUpstream::start(&way.server, pki)).collect();
    let clusters: Vec<String> = ways
        .iter()
        .zip(&servers)
        .map(|(way, server)| {
            let context = way.context.replace('$', &pki.directory().display().to_string());
            let socket = format!(r#"transport_socket: {{name: tls, typed_config: {{"@type": {CONTEXT}, {context}}}}}"#);
            cluster(way.name, &[server.port()], &format!("{socket}, {}", protocol(ONE_REQUEST)))
        })
        .collect();
    let routes: Vec<String> = ways
        .iter()
        .map(|way| format!("{{match: {{path: /{}}}, route: {{cluster: {}}}}}", way.name, way.name))
        .collect();
    let hosts = format!(r#"{{name: all, domains: ["*"], routes: [{}]}}"#, routes.join(", "));
    let log = format!(
        r#"access_log: [{{name: file, typed_config: {{"@type": {FILE_LOG}, path: "${{DIR}}/in.log", log_format: {{text_format_source: {{inline_string: "%PATH% {FORMAT}\n"}}}}}}}}]"#
    );
    let chain = format!("filter_chains: [{{filters: [{}]}}]", http_filter("in", &log, &hosts));
    let proxy = Proxy::start(kind, &bootstrap(&[listener_of("in", &chain, "")], &clusters, ""));
    let mut seen = BTreeMap::new();
    for (way, server) in ways.iter().zip(&servers) {
        let name = way.name;
        // The second finds a session to resume, where there may be one.
        for _ in 0..2 {
            let answer = get(proxy.listener("in"), &format!("/{name}")).map(|answer| answer.text());
            let first = answer.as_deref().unwrap_or_default().lines().next().unwrap_or_default().to_owned();
            seen.insert(format!("{name} answer"), first);
        }
        let saw = eventually("both connections", || Some(server.seen()).filter(|seen| seen.len() >= 2));
        let mut saw = saw;
        saw.sort();
        seen.insert(format!("{name} server"), saw.join("\n"));
        let prefix = format!("cluster.{name}.");
        let stats = proxy.stats(&format!("^{prefix}(ssl|upstream_cx_(connect_fail|total))").replace('.', "\\."));
        let counted: Vec<String> = stats
            .iter()
            .filter(|(name, value)| **value != 0 && !name.contains(".certificate."))
            .map(|(name, value)| format!("{}={value}", name.trim_start_matches(&prefix)))
            .collect();
        seen.insert(format!("{name} statistics"), counted.join(" "));
        let path = format!("/{name} ");
        let lines = eventually("the log", || {
            let lines: Vec<_> = proxy.lines("in.log").into_iter().filter(|line| line.starts_with(&path)).collect();
            (lines.len() == 2).then_some(lines)
        });
        seen.insert(format!("{name} log"), lines.join("\n"));
    }
    seen
}

/// Compares.
pub fn run() {
    let pki = Pki::new();
    compare("upstream TLS", |kind| observe(kind, &pki));
}

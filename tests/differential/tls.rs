//! Who may connect to whom, downstream: what a client sees, what is logged, and what is counted, for every way to be right
//! or wrong about TLS.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustls::{CipherSuite, NamedGroup, ProtocolVersion};

use crate::report::compare;
use crate::support::bootstrap::{bootstrap, http_filter, listener_of};
use crate::support::pki::Pki;
use crate::support::proxy::{Kind, Proxy};
use crate::support::tls_client::TlsClient;
use crate::support::{PATIENCE, eventually};

const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const CONTEXT: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
/// What is known about the session.
const FORMAT: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% reason=%DOWNSTREAM_TRANSPORT_FAILURE_REASON% \
    version=%DOWNSTREAM_TLS_VERSION% cipher=%DOWNSTREAM_TLS_CIPHER% sni=%REQUESTED_SERVER_NAME% \
    subject=%DOWNSTREAM_PEER_SUBJECT% issuer=%DOWNSTREAM_PEER_ISSUER% uri=%DOWNSTREAM_PEER_URI_SAN% \
    dns=%DOWNSTREAM_PEER_DNS_SAN% email=%DOWNSTREAM_PEER_EMAIL_SAN% print=%DOWNSTREAM_PEER_FINGERPRINT_256% \
    serial=%DOWNSTREAM_PEER_SERIAL% from=%DOWNSTREAM_PEER_CERT_V_START% until=%DOWNSTREAM_PEER_CERT_V_END% \
    local=%DOWNSTREAM_LOCAL_SUBJECT% local_uri=%DOWNSTREAM_LOCAL_URI_SAN% local_dns=%DOWNSTREAM_LOCAL_DNS_SAN% \
    local_ip=%DOWNSTREAM_LOCAL_IP_SAN% xfcc=%REQ(X-FORWARDED-CLIENT-CERT)%";

/// A listener and who comes to it. `$` in its YAML is the directory of certificates.
struct Way {
    name: &'static str,
    /// Fields of `DownstreamTlsContext`.
    context: String,
    /// Fields of the connection manager.
    manager: &'static str,
    clients: Vec<(&'static str, TlsClient)>,
}

fn certificate(name: &str) -> String {
    format!("{{certificate_chain: {{filename: $/{name}.pem}}, private_key: {{filename: $/{name}.key}}}}")
}

/// A context with the certificate `server`, and these fields of `CommonTlsContext`.
fn common(more: &str) -> String {
    format!("common_tls_context: {{tls_certificates: [{}], {more}}}", certificate("server"))
}

/// A context that wants a certificate, and checks it by these fields.
fn mutual(validation: &str) -> String {
    format!("require_client_certificate: true, {}", common(&format!("validation_context: {{{validation}}}")))
}

const CA: &str = "trusted_ca: {filename: $/ca.pem}";

fn ways(pki: &Pki) -> Vec<Way> {
    let client = TlsClient::default;
    let with = |name: &str| TlsClient { certificate: Some(pki.path(name)), ..client() };
    let in_12 = |client: TlsClient| TlsClient { version: Some(ProtocolVersion::TLSv1_2), ..client };
    let plain = || vec![("nobody", client()), ("nobody, TLS 1.2", in_12(client()))];
    let everybody = || {
        let names = [
            "client",
            "other",
            "expired",
            "future",
            "self",
            "nosan",
            "chained-full",
            "chained",
            "serveronly",
            "revoked",
        ];
        names.map(|name| (name, with(name))).into_iter().chain([("client, TLS 1.2", in_12(with("client")))]).collect()
    };
    let of = |names: &[&'static str]| names.iter().map(|name| (*name, with(name))).collect::<Vec<_>>();
    let way = |name, context: String, clients| Way { name, context, manager: "", clients };
    const URI: &str = "match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: spiffe://td/cli}}]";
    let any = || [of(&["client", "other"]), plain()].concat();
    let optional = |validation: &str| common(&format!("validation_context: {{{validation}}}"));
    let san = |kind: &str, matcher: &str| {
        let names = format!("{CA}, match_typed_subject_alt_names: [{{san_type: {kind}, matcher: {{{matcher}}}}}]");
        mutual(&names)
    };
    let asking = |name: &'static str| TlsClient { server_name: Some(name), ..client() };
    let alpn = |alpn| TlsClient { alpn, ..client() };
    let suites = |suites: &[CipherSuite], version| TlsClient {
        suites: Some(suites.to_vec()),
        version: Some(version),
        ..client()
    };
    let old = ProtocolVersion::TLSv1_2;
    let groups = |groups: &[NamedGroup]| TlsClient { groups: Some(groups.to_vec()), ..client() };
    let choosy = || {
        vec![
            ("chacha", suites(&[CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256], old)),
            (
                "256 first",
                suites(
                    &[
                        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                    ],
                    old,
                ),
            ),
            ("rsa only", suites(&[CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256], old)),
            ("chacha in 1.3", suites(&[CipherSuite::TLS13_CHACHA20_POLY1305_SHA256], ProtocolVersion::TLSv1_3)),
            ("128 in 1.3", suites(&[CipherSuite::TLS13_AES_128_GCM_SHA256], ProtocolVersion::TLSv1_3)),
            ("P-256", groups(&[NamedGroup::secp256r1])),
            ("P-384", groups(&[NamedGroup::secp384r1])),
        ]
    };
    let two = format!("common_tls_context: {{tls_certificates: [{}, {}]}}", certificate("rsa"), certificate("server"));
    let hash = pki.fingerprint("client");
    let forwarded = |name, manager| Way {
        name,
        context: mutual(CA),
        manager,
        clients: vec![
            ("client", TlsClient { lines: "x-forwarded-client-cert: By=a;Hash=b\r\n", ..with("client") }),
            ("without", TlsClient { lines: "", ..with("client") }),
            ("chained", TlsClient { lines: "", ..with("chained-full") }),
        ],
    };
    const ALL: &str = "set_current_client_cert_details: {subject: true, dns: true, uri: true}";
    let mut ways = vec![
        way("plain", common(""), plain()),
        way("required", mutual(CA), everybody()),
        way("required_nobody", mutual(CA), plain()),
        way("optional", common(&format!("validation_context: {{{CA}}}")), [everybody(), plain()].concat()),
        way("unasked", common(""), of(&["client"])),
        way(
            "required_of_nothing",
            format!("require_client_certificate: true, {}", common("")),
            [of(&["client"]), plain()].concat(),
        ),
        way("untrusted", mutual(&format!("{CA}, trust_chain_verification: ACCEPT_UNTRUSTED")), everybody()),
        way("untrusted_nobody", mutual(&format!("{CA}, trust_chain_verification: ACCEPT_UNTRUSTED")), plain()),
        way("untrusted_of_nothing", mutual("trust_chain_verification: ACCEPT_UNTRUSTED"), any()),
        way("untrusted_of_nothing_optional", optional("trust_chain_verification: ACCEPT_UNTRUSTED"), any()),
        way(
            "untrusted_san_optional",
            optional(&format!("{CA}, {URI}, trust_chain_verification: ACCEPT_UNTRUSTED")),
            [any(), of(&["nosan"])].concat(),
        ),
        way("san_optional", optional(&format!("{CA}, {URI}")), [any(), of(&["nosan"])].concat()),
        way("hash_optional", optional(&format!("{CA}, verify_certificate_hash: ['{hash}']")), any()),
        way("hash_alone_optional", optional(&format!("verify_certificate_hash: ['{hash}']")), any()),
        way(
            "spki_optional",
            optional(&format!("{CA}, verify_certificate_spki: ['{}']", pki.key_print("client"))),
            any(),
        ),
        way("any_time", mutual(&format!("{CA}, allow_expired_certificate: true")), everybody()),
        way("pinned_self", mutual("trusted_ca: {filename: $/self.pem}"), of(&["self", "client"])),
        way("pinned_leaf", mutual("trusted_ca: {filename: $/client.pem}"), of(&["client", "nosan"])),
        way("pinned_expired", mutual("trusted_ca: {filename: $/expired.pem}"), of(&["expired"])),
        way(
            "pinned_between",
            mutual("trusted_ca: {filename: $/between.pem}"),
            of(&["chained", "chained-full", "client"]),
        ),
        way("both_cas", mutual("trusted_ca: {filename: $/both-cas.pem}"), of(&["client", "other", "self"])),
        way("depth", mutual(&format!("{CA}, max_verify_depth: 0")), of(&["client", "chained-full"])),
        way(
            "revoked",
            mutual(&format!("{CA}, crl: {{filename: $/crl.pem}}")),
            of(&["client", "revoked", "chained-full", "other"]),
        ),
        way(
            "revoked_leaf",
            mutual(&format!("{CA}, crl: {{filename: $/crl.pem}}, only_verify_leaf_cert_crl: true")),
            of(&["client", "revoked", "chained-full"]),
        ),
        way("san_uri", san("URI", "exact: spiffe://td/cli"), everybody()),
        way("san_uri_prefix", san("URI", "prefix: spiffe://td/"), of(&["client", "nosan"])),
        way("san_uri_suffix", san("URI", "suffix: /cli"), of(&["client", "server"])),
        way("san_uri_regex", san("URI", "safe_regex: {regex: 'spiffe://[a-z]+/cli'}"), of(&["client", "server"])),
        way("san_dns", san("DNS", "exact: cli.test"), of(&["client", "server"])),
        way("san_dns_wildcard", san("DNS", "exact: a.wild.test"), of(&["client", "server"])),
        way("san_dns_deep", san("DNS", "exact: a.b.wild.test"), of(&["server"])),
        way("san_email", san("EMAIL", "exact: a@b.c"), of(&["client", "server"])),
        way("san_ip", san("IP_ADDRESS", "exact: 127.0.0.1"), of(&["client", "server"])),
        way(
            "san_old",
            mutual(&format!("{CA}, match_subject_alt_names: [{{exact: spiffe://td/cli}}]")),
            of(&["client", "server"]),
        ),
        way("hash", mutual(&format!("{CA}, verify_certificate_hash: ['{hash}']")), of(&["client", "server"])),
        way(
            "hash_colons",
            mutual(&format!("verify_certificate_hash: ['{}']", colons(&hash))),
            of(&["client", "server"]),
        ),
        way(
            "spki",
            mutual(&format!("{CA}, verify_certificate_spki: ['{}']", pki.key_print("client"))),
            of(&["client", "server"]),
        ),
        way(
            "alpn",
            common("alpn_protocols: [h2, http/1.1]"),
            vec![
                ("http/1.1", alpn(&["http/1.1"])),
                ("foo", alpn(&["foo"])),
                ("foo and http/1.1", alpn(&["foo", "http/1.1"])),
                ("none", client()),
            ],
        ),
        way("only_12", common("tls_params: {tls_maximum_protocol_version: TLSv1_2}"), plain()),
        way("only_13", common("tls_params: {tls_minimum_protocol_version: TLSv1_3}"), plain()),
        way("suites", common("tls_params: {cipher_suites: [ECDHE-ECDSA-AES256-GCM-SHA384]}"), plain()),
        way("groups", common("tls_params: {ecdh_curves: [P-256]}"), plain()),
        way(
            "signed",
            common("tls_params: {signature_algorithms: [rsa_pss_rsae_sha256, ecdsa_secp256r1_sha256]}"),
            plain(),
        ),
        way("signed_in_vain", common("tls_params: {signature_algorithms: [rsa_pss_rsae_sha256, ed25519]}"), plain()),
        way(
            "clients_sign",
            mutual(CA).replacen(
                "common_tls_context: {",
                "common_tls_context: {tls_params: {signature_algorithms: [ecdsa_secp256r1_sha256, rsa_pkcs1_sha256]}, ",
                1,
            ),
            of(&["client", "server"]),
        ),
        way("compliant", common("tls_params: {compliance_policies: [FIPS_202205]}"), plain()),
        way(
            "compliant_choosy",
            common(
                "tls_params: {compliance_policies: [FIPS_202205], ecdh_curves: [X25519], tls_maximum_protocol_version: TLSv1_2}",
            ),
            // In TLS 1.3 BoringSSL says twice that there is no suite.
            choosy().into_iter().filter(|(who, _)| *who != "chacha in 1.3").collect(),
        ),
        way("choosy", common(""), choosy()),
        way(
            "names",
            common(""),
            vec![
                ("srv.test", asking("srv.test")),
                ("SRV.test", asking("SRV.test")),
                ("other.test", asking("other.test")),
            ],
        ),
        way(
            "two_keys",
            two.clone(),
            vec![
                ("any", asking("srv.test")),
                ("nameless", client()),
                ("unknown", asking("unknown.test")),
                (
                    "ecdsa only",
                    TlsClient {
                        server_name: Some("srv.test"),
                        ..suites(&[CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256], old)
                    },
                ),
            ],
        ),
        way(
            "two_keys_scanned",
            format!("{two}, full_scan_certs_on_sni_mismatch: true"),
            vec![("unknown", asking("unknown.test"))],
        ),
        way(
            "named",
            format!("require_sni: true, {}", common("")),
            vec![("nameless", client()), ("srv.test", asking("srv.test"))],
        ),
    ];
    for (name, manager) in [
        ("xfcc_sanitize", format!("forward_client_cert_details: SANITIZE, {ALL}")),
        ("xfcc_forward", format!("forward_client_cert_details: FORWARD_ONLY, {ALL}")),
        ("xfcc_append", format!("forward_client_cert_details: APPEND_FORWARD, {ALL}")),
        ("xfcc_set", format!("forward_client_cert_details: SANITIZE_SET, {ALL}")),
        ("xfcc_always", format!("forward_client_cert_details: ALWAYS_FORWARD_ONLY, {ALL}")),
    ] {
        ways.push(forwarded(name, String::leak(manager)));
    }
    ways
}

/// A fingerprint with colons, as OpenSSL prints it.
fn colons(hash: &str) -> String {
    hash.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect::<Vec<_>>().join(":")
}

fn listener(way: &Way, pki: &Pki) -> String {
    let name = way.name;
    let log = format!(
        r#"{{name: file, typed_config: {{"@type": {FILE_LOG}, path: "${{DIR}}/{name}.log", log_format: {{text_format_source: {{inline_string: "{FORMAT}\n"}}}}}}}}"#
    );
    let answer = r#"{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: "yes"}}}]}"#;
    let filter = http_filter(name, &format!("access_log: [{log}], {}", way.manager), answer);
    let context = way.context.replace('$', &pki.directory().display().to_string());
    let socket = format!(r#"{{name: tls, typed_config: {{"@type": {CONTEXT}, {context}}}}}"#);
    listener_of(
        name,
        &format!("filter_chains: [{{filters: [{filter}], transport_socket: {socket}}}]"),
        &format!("access_log: [{log}]"),
    )
}

fn observe(kind: Kind, pki: &Pki) -> BTreeMap<String, String> {
    let ways = ways(pki);
    let listeners: Vec<String> = ways.iter().map(|way| listener(way, pki)).collect();
    let proxy = Proxy::start(kind, &bootstrap(&listeners, &[], ""));
    let mut seen = BTreeMap::new();
    for way in &ways {
        let address = proxy.listener(way.name);
        for (number, (who, client)) in way.clients.iter().enumerate() {
            let outcome = client.get(address);
            let text = match &outcome.session {
                Ok(session) => format!(
                    "{} {} alpn={:?} server={} {}",
                    session.version,
                    session.suite,
                    session.alpn,
                    pki.name_of(&session.certificate),
                    outcome.answer.lines().next().unwrap_or_default()
                ),
                Err(_) if client.version != Some(ProtocolVersion::TLSv1_2) => "no session".to_owned(),
                Err(reason) => format!("no session: {reason}"),
            };
            let destroyed = format!("listener.{}.downstream_cx_destroy", way.name);
            let count = i64::try_from(number + 1).expect("a few");
            proxy.wait_for_stat(&destroyed, |n| n == count);
            seen.insert(format!("{} {who}", way.name), text);
        }
        let prefix = format!("listener.{}.ssl.", way.name);
        let stats = proxy.stats(&prefix.replace('.', "\\."));
        let counted: Vec<String> = stats
            .iter()
            .filter(|(name, value)| **value != 0 && !name.contains(".certificate."))
            .map(|(name, value)| format!("{}={value}", name.trim_start_matches(&prefix)))
            .collect();
        seen.insert(format!("{} statistics", way.name), counted.join(" "));
        let sessions = way.clients.len();
        let lines = eventually("the log", || {
            let lines = proxy.lines(&format!("{}.log", way.name));
            let ended = lines.iter().filter(|line| line.starts_with("0 ")).count();
            (ended >= sessions).then_some(lines)
        });
        // Both logs are one file, and which line is first is chance.
        let mut lines = lines;
        lines.sort();
        seen.insert(format!("{} log", way.name), lines.join("\n"));
    }
    seen
}

/// Compares.
pub fn run() {
    let pki = Pki::new();
    compare("downstream TLS", |kind| observe(kind, &pki));
}

/// Bytes that are no handshake.
pub fn hostile() {
    let pki = Pki::new();
    let strange: Vec<(&str, Vec<u8>)> = vec![
        ("plain http", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        ("a post", b"POST / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        ("connect", b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        ("garbage", vec![0xff; 64]),
        ("an alert", vec![21, 3, 1, 0, 2, 2, 40]),
        ("an oversized record", [&[22, 3, 1, 0xff, 0xff][..], &[1; 4096]].concat()),
        ("application data", [&[23, 3, 3, 0, 5][..], b"hello"].concat()),
        ("a handshake of an unknown kind", vec![22, 3, 1, 0, 4, 99, 0, 0, 0]),
    ];
    compare("strange bytes to TLS listeners", |kind| {
        let ways: Vec<Way> = strange
            .iter()
            .enumerate()
            .map(|(n, (what, _))| Way {
                name: String::leak(format!("way{n}")),
                context: common(""),
                manager: "",
                clients: vec![(*what, TlsClient::default())],
            })
            .collect();
        let listeners: Vec<String> = ways.iter().map(|way| listener(way, &pki)).collect();
        let proxy = Proxy::start(kind, &bootstrap(&listeners, &[], ""));
        let mut seen = BTreeMap::new();
        for (way, (what, bytes)) in ways.iter().zip(&strange) {
            let mut socket = TcpStream::connect(proxy.listener(way.name)).expect("a connection");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket.write_all(bytes).expect("bytes sent");
            std::thread::sleep(Duration::from_millis(50));
            let _ = socket.shutdown(std::net::Shutdown::Write);
            let _ = socket.read_to_end(&mut Vec::new());
            proxy.wait_for_stat(&format!("listener.{}.downstream_cx_destroy", way.name), |n| n == 1);
            std::thread::sleep(Duration::from_millis(20));
            let errors = proxy.stat(&format!("listener.{}.ssl.connection_error", way.name));
            let line = eventually("the log", || proxy.lines(&format!("{}.log", way.name)).pop());
            seen.insert((*what).to_owned(), format!("errors={errors} {line}"));
        }
        seen
    });
}

/// Which sessions are resumed.
pub fn resumption() {
    let pki = Pki::new();
    let keys = |byte: &str| format!("session_ticket_keys: {{keys: [{{inline_string: '{}'}}]}}", byte.repeat(80));
    let way = |name, context: String| Way { name, context, manager: "", clients: Vec::new() };
    let ways = [
        way("usual", common("")),
        way("no_tickets", format!("disable_stateless_session_resumption: true, {}", common(""))),
        way("no_memory", format!("disable_stateful_session_resumption: true, {}", common(""))),
        way(
            "neither",
            format!(
                "disable_stateless_session_resumption: true, disable_stateful_session_resumption: true, {}",
                common("")
            ),
        ),
        way("shared", format!("{}, {}", keys("a"), common(""))),
        way("shared_too", format!("{}, {}", keys("a"), common(""))),
        way("other_keys", format!("{}, {}", keys("b"), common(""))),
        way("other_trust", format!("{}, {}", keys("a"), mutual(CA))),
        way("mutual", mutual(CA)),
    ];
    compare("sessions that are resumed", |kind| {
        let listeners: Vec<String> = ways.iter().map(|way| listener(way, &pki)).collect();
        let proxy = Proxy::start(kind, &bootstrap(&listeners, &[], ""));
        let mut seen = BTreeMap::new();
        for (first, second) in [
            ("usual", "usual"),
            ("no_tickets", "no_tickets"),
            ("no_memory", "no_memory"),
            ("neither", "neither"),
            ("shared", "shared_too"),
            ("shared", "other_keys"),
            ("shared", "other_trust"),
            ("mutual", "mutual"),
        ] {
            for version in [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3] {
                let client = TlsClient {
                    certificate: Some(pki.path("client")),
                    version: Some(version),
                    server_name: Some("srv.test"),
                    ..TlsClient::default()
                };
                let config = client.config();
                let resumed = |name| client.get_by(&config, proxy.listener(name)).session.map(|it| it.resumed);
                let (before, after) = (resumed(first), resumed(second));
                seen.insert(format!("{first} then {second}, {version:?}"), format!("{before:?} {after:?}"));
            }
        }
        std::thread::sleep(Duration::from_millis(500));
        for way in &ways {
            let reused = proxy.stat(&format!("listener.{}.ssl.session_reused", way.name));
            seen.insert(format!("{} reused", way.name), reused.to_string());
            let peers = proxy.lines(&format!("{}.log", way.name));
            let subjects = peers.iter().filter(|line| line.contains("subject=CN=client")).count();
            seen.insert(format!("{} lines with the client's subject", way.name), subjects.to_string());
        }
        seen
    });
}

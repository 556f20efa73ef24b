//! Keys that are fetched before anybody needs them: over time, so no case of the area.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;
use crate::report::compare;
use crate::support::bootstrap::{bootstrap, cluster, http_listener};
use crate::support::client::Client;
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{Upstream, reply};

/// How long something may take that happens within two seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// Both proxies fetch, fetch again, keep what they have where nothing better comes, and take new keys.
pub fn run() {
    compare("keys fetched ahead", |kind| {
        let fast = [("waits", "false"), ("fast", "true")];
        fast.into_iter().flat_map(|(name, fast)| observe(kind, name, fast)).collect::<BTreeMap<_, _>>()
    });
}

fn observe(kind: Kind, name: &str, fast: &str) -> Vec<(String, String)> {
    let answer =
        |status: &str, body: &str| reply(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    let good = set(&[json!({"kty": "oct", "k": encode(keys::SECRET)})]);
    let keys = Upstream::start(answer("200 OK", &good));
    let settings = format!(
        "providers: {{p: {{remote_jwks: {{http_uri: {{uri: 'http://jw.ks/keys', cluster: keys, timeout: 2s}}, \
         cache_duration: 6s, async_fetch: {{fast_listener: {fast}, failed_refetch_duration: 0.2s}}}}}}}}, rules: [{}]",
        rule("/", "provider_name: p")
    );
    let hosts = "{name: all, domains: ['*'], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}";
    let listener = http_listener("in", &chain(&[("jwt", &settings)]), hosts, "");
    let text = bootstrap(&[listener], &[cluster("keys", &[keys.port()], "")], "");
    let proxy = Proxy::start_with(kind, &text, &["--concurrency", "2"]);
    let ask = || {
        let mut client = Client::connect(proxy.listener("in"));
        client.send(&request("GET", "/", &[&bearer(&secret("{}"))]));
        client.read_responses(1);
        client.responses().first().map_or(0, |response| response.status()).to_string()
    };
    let counted = |what: &str, least: i64| {
        let name = format!("http.in.jwt_authn.jwks_fetch_{what}");
        let until = Instant::now() + PATIENCE;
        while proxy.stat(&name) < least && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        proxy.stat(&name) >= least
    };
    let say = |script| {
        // What is asked between the two is answered as before, on a connection that stays.
        keys.hang_up();
        keys.script(script);
    };
    let mut seen = Vec::new();
    let mut saw = |what: &str, text: String| seen.push((format!("{name}: {what}"), text));
    saw("fetched before anybody asks", counted("success", 1).to_string());
    saw("once", keys.received().len().to_string());
    saw("the request", String::from_utf8_lossy(&keys.received()[0]).replace(&keys.port().to_string(), "PORT"));
    saw("a token", [ask(), ask(), ask(), ask()].join(" "));
    saw("fetched again before they are too old", counted("success", 2).to_string());
    say(answer("503 Busy", ""));
    saw("fetched in vain", counted("failed", 3).to_string());
    saw("a token under old keys", ask());
    say(answer("200 OK", &set(&[json!({"kty": "oct", "k": "YWJj"})])));
    let before = proxy.stat("http.in.jwt_authn.jwks_fetch_success");
    saw("fetched at last", counted("success", before + 1).to_string());
    saw("a token under other keys", ask());
    seen
}

//! Keys that are fetched.

use super::*;

/// Keys from a cluster.
pub(super) fn remote() -> Vec<(&'static str, String)> {
    let remote = |cluster: &str, uri: &str, more: &str| {
        format!(
            "remote_jwks: {{http_uri: {{uri: '{uri}', cluster: {cluster}, timeout: 0.5s}}, cache_duration: 0.001s{more}}}, failed_status_in_metadata: failed"
        )
    };
    let kept = remote("keys", "http://jw.ks:81/keys?x=y", "").replace("0.001s", "100s");
    let providers = [
        ("plain", remote("keys", "http://jw.ks:81/keys?x=y", "")),
        ("https", remote("keys", "https://jw.ks", "")),
        ("none", remote("nowhere", "http://jw.ks/", "")),
        ("dead", remote("dead", "http://jw.ks/", "")),
        (
            "retry",
            remote(
                "keys",
                "http://jw.ks/",
                ", retry_policy: {num_retries: 2, retry_back_off: {base_interval: 0.001s}}",
            ),
        ),
        ("retries", remote("keys", "http://jw.ks/", ", retry_policy: {retry_back_off: {base_interval: 0.001s}}")),
        (
            "retried",
            remote(
                "keys",
                "http://jw.ks/",
                ", retry_policy: {num_retries: 1, retry_on: connect-failure, retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}}",
            ),
        ),
        ("kept", kept),
        ("h2", remote("h2", "http://jw.ks/", "")),
    ];
    let list: Vec<String> = providers.iter().map(|(name, text)| format!("{name}: {{{text}}}")).collect();
    let rules: Vec<String> =
        providers.iter().map(|(name, _)| rule(&format!("/{name}"), &format!("provider_name: {name}"))).collect();
    let any = rule("/any", "requires_any: {requirements: [{provider_name: plain}, {provider_name: dead}]}");
    let all = rule("/all", "requires_all: {requirements: [{provider_name: plain}, {provider_name: https}]}");
    let missing =
        rule("/missing", "requires_any: {requirements: [{provider_name: plain}, {allow_missing_or_failed: {}}]}");
    let settings =
        format!("providers: {{{}}}, rules: [{any}, {all}, {missing}, {}]", list.join(", "), rules.join(", "));
    let cached = format!(
        "stat_prefix: own, providers: {{p: {{{}, payload_in_metadata: p, jwt_cache_config: {{jwt_cache_size: 2, jwt_max_token_size: 200}}}}, q: {{issuer: q, {}, jwt_cache_config: {{}}}}}}, rules: [{}, {}]",
        of_secret(),
        of_secret(),
        rule("/q", "provider_name: q"),
        rule("/", "provider_name: p")
    );
    // The filter's own prefix of statistics is not the connection manager's.
    let (name, cached) = listener("cached", &[("jwt", &cached)], "");
    let cached = cached.replacen("delayed_close_timeout", "stat_prefix: cached, delayed_close_timeout", 1);
    vec![listener("remote", &[("jwt", &settings)], ""), (name, cached)]
}

pub(super) fn fetched() -> Vec<Case> {
    let good = set(&[json!({"kty": "oct", "k": encode(keys::SECRET)})]);
    let answers = |status: &str, body: &str| {
        Act::Send(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
    };
    let served = || vec![Act::Request, Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec())];
    let t = secret(r#"{"n":1}"#);
    let mut cases = Vec::new();
    let mut one =
        |n: &'static str, path: &str, script: Vec<Vec<Act>>| cases.push(asks(n, "remote", path, &t).upstream(script));
    let keys = |status: &str, body: &str| vec![vec![Act::Request, answers(status, body)], served()];
    one("fetched", "/plain", keys("200 OK", &good));
    one("fetched by https", "/https", keys("200 OK", &good));
    one("fetched, other keys", "/plain", keys("200 OK", &set(&[json!({"kty": "oct", "k": "YWJj"})])));
    one("fetched, 201", "/plain", keys("201 Created", &good));
    one("fetched, 404", "/plain", keys("404 Not Found", &good));
    one("fetched, 503", "/plain", keys("503 Busy", "no"));
    one("fetched, empty", "/plain", keys("200 OK", ""));
    one("fetched, nonsense", "/plain", keys("200 OK", "nonsense"));
    one("fetched, no keys", "/plain", keys("200 OK", r#"{"keys":[]}"#));
    one("fetched, reset", "/plain", vec![vec![Act::Request, Act::Reset], served()]);
    one("fetched, closed", "/plain", vec![vec![Act::Request, Act::Close], served()]);
    one(
        "fetched, broken off",
        "/plain",
        vec![
            vec![Act::Request, Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec()), Act::Close],
            served(),
        ],
    );
    one("fetched, too slow", "/plain", vec![vec![Act::Request, Act::Hold], served()]);
    one("no cluster", "/none", vec![served()]);
    one("nobody there", "/dead", vec![served()]);
    let again = |first: &str| {
        vec![
            vec![Act::Request, answers(first, ""), Act::Close],
            vec![Act::Request, answers("200 OK", &good), Act::Close],
            served(),
        ]
    };
    one("tried again", "/retry", again("503 Busy"));
    one("tried again, not found", "/retry", again("404 Not Found"));
    one("tried again, no number", "/retries", again("503 Busy"));
    one("tried again, own conditions", "/retried", again("503 Busy"));
    one("tried too often", "/retry", vec![vec![Act::Request, answers("503 Busy", ""), Act::Close]; 5]);
    one("any of far keys", "/any", keys("200 OK", &good));
    one(
        "all of far keys",
        "/all",
        vec![vec![Act::Request, answers("200 OK", &good)], vec![Act::Request, answers("200 OK", &good)], served()],
    );
    one("forgiven", "/missing", keys("404 Not Found", ""));
    for (n, text) in
        [("missing", String::new()), ("malformed", bearer("x.y")), ("expired", bearer(&secret(r#"{"exp":1}"#)))]
    {
        let lines: Vec<&str> = [text.as_str()].into_iter().filter(|it| !it.is_empty()).collect();
        cases.push(get(name(format!("far keys, {n}")), ROW, "remote", "/plain", &lines));
    }
    let two = |path: &str| {
        let ask = || request("GET", path, &[&bearer(&t)]);
        vec![Step::Send(ask()), Step::Responses(1), Step::Send(ask()), Step::Responses(2)]
    };
    cases.push(
        steps("fetched once", ROW, "remote", two("/kept"))
            .upstream(vec![vec![Act::Request, answers("200 OK", &good)], served()]),
    );
    let body = [request("POST", "/plain", &[&bearer(&t), "content-length: 4"]), b"body".to_vec()].concat();
    cases.push(case("a body waits", ROW, "remote", body).upstream(vec![
        vec![Act::Request, Act::Pause(std::time::Duration::from_millis(50)), answers("200 OK", &good)],
        served(),
    ]));
    let tokens = [secret(r#"{"n":1}"#), secret(r#"{"n":2}"#), secret(r#"{"n":3}"#)];
    let long = secret(&format!(r#"{{"n":"{}"}}"#, "x".repeat(200)));
    let expired = secret(r#"{"exp":1}"#);
    for (n, list) in [
        ("cache: twice", vec![&tokens[0], &tokens[0]]),
        ("cache: three", vec![&tokens[0], &tokens[1], &tokens[2], &tokens[2], &tokens[1], &tokens[0]]),
        ("cache: long", vec![&long, &long]),
        ("cache: expired", vec![&expired, &expired]),
    ] {
        let list = list
            .iter()
            .enumerate()
            .flat_map(|(n, token)| [Step::Send(request("GET", "/", &[&bearer(token)])), Step::Responses(n + 1)]);
        cases.push(steps(n, ROW, "cached", list.collect()));
    }
    cases
}

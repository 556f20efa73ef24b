//! Reference 2.7: `envoy.filters.http.jwt_authn`.

mod ahead;
mod keys;
mod places;
mod remote;

use serde_json::{Value, json};

pub use self::ahead::run as keys_ahead;
use self::keys::{ALGORITHMS, Keys, encode, headed, secret};
use self::places::{claims, found, places, told};
use self::remote::{fetched, remote};
use super::{clusters, routed, upstream};
use crate::manifest::{Area, Case, Step, case, get, h2, request, steps};
use crate::support::h2_client::H2Request;
use crate::support::upstream::Act;

const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http";
const ROW: &str = "2.7 jwt";

/// `http_filters` with filters of these settings before the router, by name.
fn chain(filters: &[(&str, &str)]) -> String {
    let filters: String = filters
        .iter()
        .map(|(name, settings)| {
            format!(
                r#"{{name: {name}, typed_config: {{"@type": {TYPE}.jwt_authn.v3.JwtAuthentication, {settings}}}}}, "#
            )
        })
        .collect();
    format!(r#"http_filters: [{filters}{{name: router, typed_config: {{"@type": {TYPE}.router.v3.Router}}}}]"#)
}

/// A listener whose responses tell what metadata say.
fn listener(name: &'static str, filters: &[(&str, &str)], routes: &str) -> (&'static str, String) {
    let metadata = r#"response_headers_to_add: [{header: {key: x-metadata, value: "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn)%"}}]"#;
    let rest = "{match: {prefix: /}, route: {cluster: up}}";
    routed(name, &chain(filters), &format!(r#"{{name: all, domains: ["*"], {metadata}, routes: [{routes}{rest}]}}"#))
}

/// A rule: what requests with this prefix need.
fn rule(prefix: &str, requires: &str) -> String {
    let requires = if requires.is_empty() { String::new() } else { format!(", requires: {{{requires}}}") };
    format!(r#"{{match: {{prefix: "{prefix}"}}{requires}}}"#)
}

fn inline(text: &str) -> String {
    format!("local_jwks: {{inline_string: {}}}", json!(text))
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// The secret key, which most cases need alone.
fn of_secret() -> String {
    inline(&set(&[json!({"kty": "oct", "k": encode(keys::SECRET)})]))
}

fn with(jwk: Value, more: Value) -> Value {
    let (Value::Object(mut jwk), Value::Object(more)) = (jwk, more) else { panic!("no key") };
    jwk.extend(more);
    jwk.into()
}

fn name(text: impl Into<String>) -> &'static str {
    Box::leak(text.into().into_boxed_str())
}

/// The area.
pub fn area() -> Area {
    let keys = Keys::new();
    let mut listeners = vec![signed(&keys), alike(&keys), said(), needs(), of_routes(), bare()];
    listeners.extend(places());
    listeners.extend(claims());
    listeners.extend(remote());
    listeners.extend(by_claims());
    let mut clusters = clusters();
    clusters.push(upstream("keys", "${UP}", ""));
    let mut cases = signatures(&keys);
    cases.extend(sayings());
    cases.extend(needed());
    cases.extend(found());
    cases.extend(told());
    cases.extend(fetched());
    cases.extend(others());
    Area { name: "jwt", listeners, clusters, more: "", cases }
}

fn bearer(text: &str) -> String {
    format!("authorization: Bearer {text}")
}

/// A GET with a token in the usual place.
fn asks(name: &'static str, listener: &'static str, path: &str, token: &str) -> Case {
    get(name, ROW, listener, path, &[&bearer(token)])
}

/// Every kind of key, each alone and all together.
fn signed(keys: &Keys) -> (&'static str, String) {
    let all: Vec<Value> = ALGORITHMS.iter().map(|alg| with(keys.jwk(alg), json!({"kid": alg, "alg": alg}))).collect();
    let mut providers = format!("all: {{{}}}", inline(&set(&all)));
    let mut rules = Vec::new();
    for alg in ALGORITHMS {
        providers.push_str(&format!(", {alg}: {{{}}}", inline(&set(&[keys.jwk(alg)]))));
        rules.push(rule(&format!("/{alg}"), &format!("provider_name: {alg}")));
    }
    let pem = json!({ "k": keys.certificate() }).to_string();
    providers.push_str(&format!(", pem: {{{}}}", inline(&pem)));
    rules.push(rule("/pem", "provider_name: pem"));
    rules.push(rule("/", "provider_name: all"));
    listener("signed", &[("jwt", &format!("providers: {{{providers}}}, rules: [{}]", rules.join(", ")))], "")
}

/// Keys that are told apart by their ids, by their algorithms, or not at all.
fn alike(keys: &Keys) -> (&'static str, String) {
    let key = |secret: &str, more: Value| with(json!({"kty": "oct", "k": encode(secret)}), more);
    let own = json!({"kty": "oct", "k": encode(keys::SECRET)});
    let sets = [
        ("kid", vec![key("x", json!({"kid": "a"})), with(own.clone(), json!({"kid": "b"}))]),
        ("same", vec![key("x", json!({"kid": "a"})), with(own.clone(), json!({"kid": "a"}))]),
        ("alg", vec![key("x", json!({})), with(own.clone(), json!({"alg": "HS512"}))]),
        ("bad", vec![json!({"kty": "?"}), json!(1), with(own.clone(), json!({"kid": 7, "alg": 8}))]),
        ("mixed", vec![keys.jwk("ES256"), keys.jwk("EdDSA"), own, keys.jwk("RS256")]),
        ("nocrv", vec![with(keys.jwk("ES256"), json!({"crv": "P-256", "alg": "ES256"}))]),
    ];
    let providers: Vec<String> =
        sets.iter().map(|(name, set)| format!("{name}: {{{}}}", inline(&self::set(set)))).collect();
    let rules: Vec<String> =
        sets.iter().map(|(name, _)| rule(&format!("/{name}"), &format!("provider_name: {name}"))).collect();
    let settings = format!(
        "providers: {{{}, none: {{local_jwks: {{inline_string: ''}}}}}}, rules: [{}, {}]",
        providers.join(", "),
        rules.join(", "),
        rule("/none", "provider_name: none")
    );
    listener("alike", &[("jwt", &settings)], "")
}

fn signatures(keys: &Keys) -> Vec<Case> {
    let mut cases = Vec::new();
    let claims = r#"{"iss":"i"}"#;
    for alg in ALGORITHMS {
        let token = keys.token(alg, alg, claims);
        cases.push(asks(name(format!("{alg} of all")), "signed", "/", &token));
        cases.push(asks(name(format!("{alg} alone")), "signed", &format!("/{alg}"), &keys.token(alg, "", claims)));
        cases.push(asks(name(format!("{alg} unknown id")), "signed", "/", &keys.token(alg, "nobody", claims)));
        cases.push(asks(name(format!("{alg} no id")), "signed", "/", &keys.token(alg, "", claims)));
        let (message, signature) = token.rsplit_once('.').expect("a signature");
        let cut = &signature[..signature.len() - 4];
        cases.push(asks(name(format!("{alg} cut")), "signed", &format!("/{alg}"), &format!("{message}.{cut}")));
        let turned = format!("{message}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
        cases.push(asks(name(format!("{alg} turned")), "signed", &format!("/{alg}"), &turned));
        cases.push(asks(name(format!("{alg} short")), "signed", &format!("/{alg}"), &format!("{message}.YWJj")));
        for other in ["RS256", "ES256", "HS256", "EdDSA"] {
            cases.push(asks(
                name(format!("{alg} for {other}")),
                "signed",
                &format!("/{other}"),
                &keys.token(alg, "", claims),
            ));
        }
    }
    for (n, path, kid) in [
        ("kid right", "/kid", "b"),
        ("kid wrong", "/kid", "a"),
        ("kid none", "/kid", ""),
        ("kid unknown", "/kid", "c"),
        ("kid same", "/same", "a"),
        ("alg other", "/alg", ""),
        ("bad beside good", "/bad", "c"),
        ("mixed", "/mixed", ""),
        ("no keys", "/none", ""),
    ] {
        cases.push(asks(n, "alike", path, &keys.token("HS256", kid, claims)));
    }
    cases.push(asks("alg right", "alike", "/alg", &keys.token("HS512", "", claims)));
    cases.push(asks("mixed es", "alike", "/mixed", &keys.token("ES256", "", claims)));
    cases.push(asks("mixed rs", "alike", "/mixed", &keys.token("RS384", "", claims)));
    cases.push(asks("mixed eddsa", "alike", "/mixed", &keys.token("EdDSA", "", claims)));
    cases.push(asks("certificate", "signed", "/pem", &keys.token("RS256", "k", claims)));
    cases.push(asks("certificate, pss", "signed", "/pem", &keys.token("PS512", "", claims)));
    cases.push(asks("certificate of another id", "signed", "/pem", &keys.token("RS256", "l", claims)));
    cases
}

/// What claims have to be.
fn said() -> (&'static str, String) {
    let keys = of_secret();
    let fails = "failed_status_in_metadata: failed, payload_in_metadata: payload";
    let one = format!(
        "providers: {{p: {{issuer: i, audiences: [a, 'https://b.test/'], subjects: {{prefix: s}}, max_lifetime: 100000s, clock_skew_seconds: 5, {fails}, {keys}}}}}, rules: [{}]",
        rule("/", "provider_name: p")
    );
    let finite = format!(
        "providers: {{p: {{require_expiration: true, {fails}, {keys}}}}}, rules: [{}]",
        rule("/", "provider_name: p")
    );
    let finite = finite.as_str();
    let both = format!("providers: {{p: {{{fails}, {keys}}}}}, rules: [{}]", rule("/", "provider_name: p"));
    let filters = [("one", one.as_str()), ("finite", finite), ("any", both.as_str())];
    let routes: String = ["one", "finite", "any"]
        .iter()
        .map(|on| {
            let off =
                |filter: &str| format!(r#"{filter}: {{"@type": {TYPE}.jwt_authn.v3.PerRouteConfig, disabled: true}}"#);
            let others: Vec<String> =
                ["one", "finite", "any"].iter().filter(|it| *it != on).map(|it| off(it)).collect();
            format!(
                "{{match: {{prefix: /{on}}}, route: {{cluster: up}}, typed_per_filter_config: {{{}}}}}, ",
                others.join(", ")
            )
        })
        .collect();
    listener("said", &filters, &routes)
}

fn sayings() -> Vec<Case> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let (soon, late) = (now + 5000, now + 200_000);
    let good = |more: &str| format!(r#"{{"iss":"i","aud":"a","sub":"sx","exp":{soon}{more}}}"#);
    let mut cases = Vec::new();
    let mut one = |n: &'static str, claims: &str| cases.push(asks(n, "said", "/one", &secret(claims)));
    one("good", &good(""));
    one("wrong issuer", r#"{"iss":"j","aud":"z","sub":"x","exp":1}"#);
    one("no issuer", r#"{"aud":"a"}"#);
    one("expired", r#"{"iss":"i","aud":"z","sub":"x","exp":1}"#);
    one("not yet", &format!(r#"{{"iss":"i","aud":"a","sub":"s","exp":{soon},"nbf":{soon}}}"#));
    one("just expired", &format!(r#"{{"iss":"i","aud":"a","sub":"s","exp":{}}}"#, now - 3600));
    one("audience", &format!(r#"{{"iss":"i","aud":"z","sub":"x","exp":{late}}}"#));
    one("audiences", &format!(r#"{{"iss":"i","aud":["z","http://b.test"],"sub":"s","exp":{soon}}}"#));
    one("no audience", &format!(r#"{{"iss":"i","sub":"s","exp":{soon}}}"#));
    one("empty audiences", &format!(r#"{{"iss":"i","aud":[],"sub":"s","exp":{soon}}}"#));
    one("subject", &format!(r#"{{"iss":"i","aud":"a","sub":"x","exp":{soon}}}"#));
    one("no subject", &format!(r#"{{"iss":"i","aud":"a","exp":{soon}}}"#));
    one("too long", &format!(r#"{{"iss":"i","aud":"a","sub":"s","exp":{late}}}"#));
    one("no end", r#"{"iss":"i","aud":"a","sub":"s"}"#);
    one("float times", &format!(r#"{{"iss":"i","aud":"a","sub":"s","exp":{soon}.5,"nbf":0.5}}"#));
    for (n, claims) in [
        ("finite", format!(r#"{{"exp":{late}}}"#)),
        ("infinite", "{}".to_owned()),
        ("exp 0", r#"{"exp":0}"#.to_owned()),
        ("exp long ago", r#"{"exp":1.5}"#.to_owned()),
    ] {
        cases.push(asks(n, "said", "/finite", &secret(&claims)));
    }
    for (n, claims) in [
        ("iss number", r#"{"iss":1}"#),
        ("sub null", r#"{"sub":null}"#),
        ("iat text", r#"{"iat":"1"}"#),
        ("iat negative", r#"{"iat":-1}"#),
        ("nbf text", r#"{"nbf":"1"}"#),
        ("nbf huge", r#"{"nbf":18446744073709551616}"#),
        ("nbf big", r#"{"nbf":9223372036854775807}"#),
        ("exp list", r#"{"exp":[]}"#),
        ("exp huge", r#"{"exp":1e30}"#),
        ("exp big", r#"{"exp":18446744073709549568}"#),
        ("jti number", r#"{"jti":1}"#),
        ("aud number", r#"{"aud":1}"#),
        ("aud mixed", r#"{"aud":["a",1]}"#),
        ("empty object", "{}"),
        ("array", "[]"),
        ("null", "null"),
        ("twice", r#"{"a":1,"a":2}"#),
        ("twice below", r#"{"a":{"b":1,"b":2}}"#),
        ("comma", r#"{"a":[1,],}"#),
        ("commas", r#"{"a":1,,}"#),
        ("only comma", "{,}"),
        ("single quotes", "{'a':'b\"'}"),
        ("no quotes", "{a_$1:1}"),
        ("digit first", "{1a:1}"),
        ("name true", "{true:1}"),
        ("name null", "{null:1}"),
        ("dash in name", "{a-b:1}"),
        ("single quote escape", r#"{"a":"\'"}"#),
        ("bad escape", r#"{"a":"\x"}"#),
        ("lone high", r#"{"a":"\ud800"}"#),
        ("lone low", r#"{"a":"\udc00"}"#),
        ("high high", r#"{"a":"\ud800\ud800"}"#),
        ("pair", r#"{"a":"\ud83d\ude00"}"#),
        ("upper hex", r#"{"a":"\u00E9\u00e9"}"#),
        ("bad hex", r#"{"a":"\u00g9"}"#),
        ("control", "{\"a\":\"b\u{1}c\"}"),
        ("newline", "{\"a\":\"b\nc\"}"),
        ("delete", "{\"a\":\"b\u{7f}c\"}"),
        ("line separator", "{\"a\":\"b\u{2028}c\"}"),
        ("zeros", r#"{"a":00}"#),
        ("minus", r#"{"a":-}"#),
        ("minus zero", r#"{"a":-0}"#),
        ("minus zeros", r#"{"a":-01}"#),
        ("minus point", r#"{"a":-.5}"#),
        ("point", r#"{"a":5.}"#),
        ("point e", r#"{"a":5.e1}"#),
        ("e", r#"{"a":5e}"#),
        ("e plus", r#"{"a":5e+}"#),
        ("e plus one", r#"{"a":5e+1}"#),
        ("e zero", r#"{"a":5E01}"#),
        ("two points", r#"{"a":1.2.3}"#),
        ("hex", r#"{"a":0x1}"#),
        ("letters behind", r#"{"a":1b}"#),
        ("huge", r#"{"a":1e400}"#),
        ("tiny", r#"{"a":1e-400}"#),
        ("literal behind", r#"{"a":truefalse}"#),
        ("upper literal", r#"{"a":TRUE}"#),
        ("behind", "{} x"),
        ("spaces", " \t\r\n{} \n"),
        ("form feed", "\u{c}{}"),
        ("mark", "\u{feff}{}"),
        ("comment", "{} // x"),
        ("open", "{\"a\":1"),
        ("open text", "{\"a\":\"b"),
        ("only space", " "),
    ] {
        cases.push(asks(name(format!("claims {n}")), "said", "/any", &secret(claims)));
    }
    for depth in [98, 99, 100, 101] {
        let claims = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        cases.push(asks(name(format!("depth {depth}")), "said", "/any", &secret(&claims)));
    }
    for (n, header) in [
        ("no alg", "{}"),
        ("alg number", r#"{"alg":1}"#),
        ("alg none", r#"{"alg":"none"}"#),
        ("alg lower", r#"{"alg":"hs256"}"#),
        ("kid number", r#"{"alg":"HS256","kid":1}"#),
        ("kid empty", r#"{"alg":"HS256","kid":""}"#),
        ("crit", r#"{"alg":"HS256","crit":["x"]}"#),
        ("typ", r#"{"alg":"HS256","typ":1}"#),
        ("header null", "null"),
        ("header text", "x"),
    ] {
        cases.push(asks(n, "said", "/any", &headed(header, "{}")));
    }
    let good = secret("{}");
    let sections: Vec<&str> = good.split('.').collect();
    let (header, claims, signature) = (sections[0], sections[1], sections[2]);
    for (n, text) in [
        ("no dots", "abc".to_owned()),
        ("one dot", "a.b".to_owned()),
        ("three dots", format!("{good}.x")),
        ("dots around", format!("..{header}...{claims}.{signature}..")),
        ("header base64", format!("*.{claims}.{signature}")),
        ("header length", format!("a.{claims}.{signature}")),
        ("claims base64", format!("{header}.*.{signature}")),
        ("claims slash", format!("{header}.a/b=.{signature}")),
        ("signature base64", format!("{header}.{claims}.*")),
        ("signature padded", format!("{good}=")),
        ("signature padded too much", format!("{good}==")),
        ("signature spaces", format!("{header}.{claims}.{} {}", &signature[..5], &signature[5..])),
        ("header padded", format!("{header}=.{claims}.{signature}")),
        ("bits left", format!("{header}.{claims}.{}", &signature[..signature.len() - 1].to_owned()) + "9"),
        ("comma behind", format!("{good},")),
        ("empty", String::new()),
    ] {
        cases.push(asks(name(format!("text {n}")), "said", "/any", &text));
    }
    cases
}

/// Requirements of every shape.
fn needs() -> (&'static str, String) {
    let provider = |name: &str, more: &str| {
        format!(
            "{name}: {{issuer: {name}, from_headers: [{{name: x-{name}}}, {{name: authorization, value_prefix: 'Bearer '}}], payload_in_metadata: {name}, failed_status_in_metadata: failed_{name}, claim_to_headers: [{{header_name: x-claim, claim_name: c}}], {more}{}}}",
            of_secret()
        )
    };
    let providers = [provider("a", ""), provider("b", "forward: true, "), provider("c", "audiences: [c], ")].join(", ");
    let any = |list: &[&str]| format!("requires_any: {{requirements: [{}]}}", braced(list));
    let all = |list: &[&str]| format!("requires_all: {{requirements: [{}]}}", braced(list));
    let (a, b, c) = ("provider_name: a", "provider_name: b", "provider_name: c");
    let (missing, failed) = ("allow_missing: {}", "allow_missing_or_failed: {}");
    let only = "extract_only_without_validation: {}";
    let rules = [
        rule("/one", a),
        rule("/aud", "provider_and_audiences: {provider_name: c, audiences: [d]}"),
        rule("/noaud", "provider_and_audiences: {provider_name: c}"),
        rule("/any", &any(&[a, b])),
        rule("/all", &all(&[a, b])),
        rule("/missing", missing),
        rule("/failed", failed),
        rule("/only", only),
        rule("/named", "extract_only_without_validation: {verification_status_header: X-Seen}"),
        rule("/or_missing", &any(&[a, missing])),
        rule("/or_failed", &any(&[a, failed])),
        rule("/or_both", &any(&[missing, failed])),
        rule("/or_only", &any(&[a, only])),
        rule("/nested", &all(&[a, &any(&[b, missing])])),
        rule("/nest_any", &any(&[&all(&[a, b]), c])),
        rule("/all_missing", &all(&[a, missing])),
        rule("/all_failed", &all(&[a, failed])),
        rule("/empty", &all(&[a, ""])),
        rule("/free", ""),
        r#"{match: {path: /exact, case_sensitive: false}, requires: {provider_name: a}}"#.to_owned(),
        r#"{match: {path_separated_prefix: /seg}, requires: {provider_name: a}}"#.to_owned(),
        r#"{match: {safe_regex: {regex: "/re[0-9]+"}}, requires: {provider_name: a}}"#.to_owned(),
        r#"{match: {connect_matcher: {}}, requires: {provider_name: a}}"#.to_owned(),
        r#"{match: {prefix: /cond, headers: [{name: x-on, string_match: {exact: 'yes'}}], query_parameters: [{name: q, present_match: true}]}, requires: {provider_name: a}}"#.to_owned(),
        r#"{match: {prefix: /ignored, cookies: [{name: k, string_match: {exact: v}}], grpc: {}, runtime_fraction: {default_value: {numerator: 0}}}, requires: {provider_name: a}}"#.to_owned(),
        r#"{match: {prefix: /name}, requirement_name: one}"#.to_owned(),
    ]
    .join(", ");
    let settings =
        format!("providers: {{{providers}}}, rules: [{rules}], requirement_map: {{one: {{provider_name: b}}}}");
    listener("needs", &[("jwt", &settings)], "")
}

fn braced(list: &[&str]) -> String {
    list.iter().map(|it| format!("{{{it}}}")).collect::<Vec<_>>().join(", ")
}

fn needed() -> Vec<Case> {
    let of = |issuer: &str, more: &str| secret(&format!(r#"{{"iss":"{issuer}"{more},"c":"{issuer}"}}"#));
    let in_header = |header: &str, token: &str| format!("{header}: {token}");
    let a = in_header("x-a", &of("a", ""));
    let b = in_header("x-b", &of("b", ""));
    let c = in_header("x-c", &of("c", r#","aud":"c""#));
    let d = in_header("x-c", &of("c", r#","aud":"d""#));
    let late_a = in_header("x-a", &of("a", r#","exp":1"#));
    let late_b = in_header("x-b", &of("b", r#","exp":1"#));
    let foreign = in_header("x-a", &of("b", ""));
    let bad = "x-b: x.y".to_owned();
    let plain_a = bearer(&of("a", ""));
    let plain_z = bearer(&of("z", ""));
    let paths = [
        "/one",
        "/aud",
        "/noaud",
        "/any",
        "/all",
        "/missing",
        "/failed",
        "/only",
        "/named",
        "/or_missing",
        "/or_failed",
        "/or_both",
        "/or_only",
        "/nested",
        "/nest_any",
        "/all_missing",
        "/all_failed",
        "/empty",
        "/free",
        "/name",
    ];
    let sets: [(&str, Vec<&String>); 16] = [
        ("nothing", vec![]),
        ("a", vec![&a]),
        ("b", vec![&b]),
        ("c", vec![&c]),
        ("c for d", vec![&d]),
        ("a and b", vec![&a, &b]),
        ("late a", vec![&late_a]),
        ("late b", vec![&late_b]),
        ("a and late b", vec![&a, &late_b]),
        ("late a and b", vec![&late_a, &b]),
        ("foreign", vec![&foreign]),
        ("foreign and late b", vec![&foreign, &late_b]),
        ("bad b", vec![&bad]),
        ("a and bad b", vec![&a, &bad]),
        ("usual place", vec![&plain_a]),
        ("somebody's", vec![&plain_z]),
    ];
    let mut cases = Vec::new();
    for path in paths {
        for (what, lines) in &sets {
            let mut lines: Vec<&str> = lines.iter().map(|line| line.as_str()).collect();
            lines.extend(["x-claim: forged", "x-jwt-signature-verified: true"]);
            cases.push(get(name(format!("{path} {what}")), ROW, "needs", path, &lines));
        }
    }
    for path in [
        "/EXACT",
        "/exact?q",
        "/exactly",
        "/seg",
        "/seg/x",
        "/segx",
        "/seg?x",
        "/re12",
        "/re12?x",
        "/re",
        "/RE1",
        "/cond?q=1",
        "/condx?q",
        "/cond",
        "/ignored",
        "/elsewhere",
        "/one#f",
    ] {
        cases.push(get(name(format!("rule {path}")), ROW, "needs", path, &["x-on: yes", "x-claim: forged"]));
    }
    cases.push(case("rule of connect", ROW, "needs", request("CONNECT", "a.test:80", &["host: a.test:80"])));
    let hs = |line: &str| line.split_once(": ").map(|(_, value)| name(value)).expect("a value");
    cases.push(h2(
        "by h2",
        ROW,
        "needs",
        vec![
            H2Request::get("http://test/one"),
            H2Request::get("http://test/one").header("x-a", hs(&a)),
            H2Request::post("http://test/one", "body"),
            H2Request::post("http://test/one", "body").header("x-a", hs(&a)),
        ],
    ));
    cases
}

/// What routes say.
fn of_routes() -> (&'static str, String) {
    let settings = format!(
        "providers: {{p: {{{}}}}}, requirement_map: {{one: {{provider_name: p}}, two: {{allow_missing: {{}}}}}}, rules: [{}]",
        of_secret(),
        rule("/", "provider_name: p")
    );
    let says = |path: &str, what: &str, action: &str| {
        format!(
            r#"{{match: {{prefix: /{path}}}, {action}, typed_per_filter_config: {{jwt: {{"@type": {TYPE}.jwt_authn.v3.PerRouteConfig, {what}}}}}}}, "#
        )
    };
    let up = "route: {cluster: up}";
    let routes = [
        says("off", "disabled: true", up),
        says("one", "requirement_name: one", up),
        says("two", "requirement_name: two", up),
        says("three", "requirement_name: three", up),
        says("direct_one", "requirement_name: one", "direct_response: {status: 204}"),
        says("direct_off", "disabled: true", "direct_response: {status: 204}"),
        "{match: {prefix: /direct}, direct_response: {status: 204}}, ".to_owned(),
        "{match: {prefix: /redirect}, redirect: {path_redirect: /x}}, ".to_owned(),
    ];
    listener("routes", &[("jwt", &settings)], &routes.concat())
}

/// Routes that what a token says decides over, where the filter has them looked for again.
fn by_claims() -> Vec<(&'static str, String)> {
    let settings = |again: bool| {
        format!(
            "providers: {{p: {{{}, payload_in_metadata: p, clear_route_cache: {again}}}}}, rules: [{}]",
            of_secret(),
            rule("/", "requires_any: {requirements: [{provider_name: p}, {allow_missing: {}}]}")
        )
    };
    let of = |path: &str, value: &str| {
        let keys: Vec<String> = path.split('.').map(|key| format!("{{key: {key}}}")).collect();
        format!(
            "{{match: {{prefix: /, dynamic_metadata: [{{filter: envoy.filters.http.jwt_authn, path: [{}], {value}}}]}}, direct_response: {{status: 200, body: {{inline_string: '{path}'}}}}}}, ",
            keys.join(", ")
        )
    };
    let routes = [
        of("p.group", "value: {string_match: {exact: a}}"),
        of("p.list", "value: {list_match: {one_of: {string_match: {prefix: x}}}}"),
        of("p.deep.er", "value: {double_match: {range: {start: 1, end: 3}}}"),
        of("p.not", "value: {present_match: true}, invert: true"),
    ];
    let routes = format!("{}{{match: {{prefix: /nobody}}, direct_response: {{status: 404}}}}, ", routes.concat());
    vec![
        listener("by_claims", &[("jwt", &settings(true))], &routes),
        listener("by_no_claims", &[("jwt", &settings(false))], &routes),
    ]
}

/// Denials that say nothing, and browsers' questions.
fn bare() -> (&'static str, String) {
    let settings = format!(
        "providers: {{p: {{{}, forward_payload_header: x-payload}}}}, bypass_cors_preflight: true, strip_failure_response: true, rules: [{}]",
        of_secret(),
        rule("/", "provider_name: p")
    );
    listener("bare", &[("jwt", &settings)], "")
}

fn others() -> Vec<Case> {
    let t = secret("{}");
    let mut cases = Vec::new();
    for path in ["/off", "/one", "/two", "/three", "/direct", "/direct_one", "/direct_off", "/redirect", "/"] {
        cases.push(get(name(format!("route {path}")), ROW, "routes", path, &[]));
        cases.push(asks(name(format!("route {path} with a token")), "routes", path, &t));
    }
    for on in ["by_claims", "by_no_claims"] {
        for (n, claims) in [
            ("text", r#"{"group":"a","not":1}"#),
            ("other text", r#"{"group":"b","not":1}"#),
            ("list", r#"{"list":[1,"xy"],"not":1}"#),
            ("deep", r#"{"deep":{"er":2},"not":1}"#),
            ("too deep", r#"{"deep":{"er":3},"not":1}"#),
            ("inverted", "{}"),
        ] {
            cases.push(asks(name(format!("{on} {n}")), on, "/", &secret(claims)));
        }
        cases.push(get(name(format!("{on} none")), ROW, on, "/", &[]));
    }
    let asks_of = |n: &'static str, method: &str, lines: &[&str]| case(n, ROW, "bare", request(method, "/", lines));
    cases.extend([
        asks_of("preflight", "OPTIONS", &["origin: o", "access-control-request-method: GET", "x-payload: forged"]),
        asks_of("preflight without origin", "OPTIONS", &["access-control-request-method: GET"]),
        asks_of("preflight without method", "OPTIONS", &["origin: o"]),
        asks_of("preflight with empty origin", "OPTIONS", &["origin:", "access-control-request-method: GET"]),
        asks_of("no preflight", "GET", &["origin: o", "access-control-request-method: GET"]),
        asks_of("bare denial", "GET", &[]),
        asks_of("bare denial of HEAD", "HEAD", &[]).methods(&["HEAD"]),
        asks_of("bare bad token", "GET", &["authorization: Bearer x"]),
        asks_of("bare denial of a gRPC client", "POST", &["content-type: application/grpc", "content-length: 0"]),
        case(
            "denial of a gRPC client",
            ROW,
            "routes",
            request("POST", "/", &["content-type: application/grpc", "content-length: 0"]),
        ),
        case("denial of HEAD", ROW, "routes", request("HEAD", "/", &[])).methods(&["HEAD"]),
        case(
            "denial with a body",
            ROW,
            "routes",
            [request("POST", "/", &["content-length: 3"]), b"abc".to_vec()].concat(),
        ),
        get("long path", ROW, "routes", &format!("/{}?x=y", "p".repeat(300)), &[]),
        get("query in realm", ROW, "routes", "/a?b=c\"d", &[]),
        get("original path", ROW, "routes", "/a", &["x-envoy-original-path: /original", "x-forwarded-proto: https"]),
        case("no host by 1.0", ROW, "routes", &b"GET / HTTP/1.0\r\n\r\n"[..]),
        case("options star", ROW, "routes", &b"OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n"[..]),
    ]);
    cases
}

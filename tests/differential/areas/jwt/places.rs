//! Where tokens are found, and what upstreams are told of their claims.

use super::*;

/// Places of tokens.
pub(super) fn places() -> Vec<(&'static str, String)> {
    let keys = of_secret();
    let provider = |name: &str, more: &str| format!("{name}: {{payload_in_metadata: {name}, {more}, {keys}}}");
    let providers = [
        provider("usual", "forward: false"),
        provider("kept", "forward: true"),
        provider(
            "several",
            "from_headers: [{name: X-T, value_prefix: 'T '}, {name: x-u}, {name: authorization}], from_params: [t, 'u v'], from_cookies: [k, l]",
        ),
        provider("prefix", "from_headers: [{name: authorization, value_prefix: 'b='}]"),
        provider("bare", "from_headers: [{name: authorization}]"),
        provider("host", "from_headers: [{name: host}]"),
        provider("path", "from_headers: [{name: ':path', value_prefix: '/path/'}]"),
        provider("cookie", "from_cookies: [k]"),
        provider("param", "from_params: [t]"),
    ];
    let names = ["usual", "kept", "several", "prefix", "bare", "host", "path", "cookie", "param"];
    let rules: Vec<String> = names.iter().map(|it| rule(&format!("/{it}"), &format!("provider_name: {it}"))).collect();
    let settings = format!("providers: {{{}}}, rules: [{}]", providers.join(", "), rules.join(", "));
    vec![listener("places", &[("jwt", &settings)], "")]
}

pub(super) fn found() -> Vec<Case> {
    let t = secret(r#"{"n":1}"#);
    let other = secret(r#"{"n":2}"#);
    let mut cases = Vec::new();
    let mut one = |n: &'static str, path: String, lines: Vec<String>| {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        cases.push(get(n, ROW, "places", &path, &lines));
    };
    one("usual header", "/usual".into(), vec![bearer(&t)]);
    one("usual header, lower", "/usual".into(), vec![format!("authorization: bearer {t}")]);
    one("usual header, other scheme", "/usual".into(), vec![format!("authorization: Basic {t}")]);
    one("usual header, words before", "/usual".into(), vec![format!("authorization: x, Bearer {t}")]);
    one("usual header, quotes", "/usual".into(), vec![format!("authorization: Bearer \"{t}\"")]);
    one("usual header, spaces", "/usual".into(), vec![format!("authorization: Bearer    {t}")]);
    one("usual header, behind", "/usual".into(), vec![format!("authorization: Bearer {t} x")]);
    one("usual header, empty", "/usual".into(), vec!["authorization: Bearer ".into()]);
    one("usual header, nothing to find", "/usual".into(), vec!["authorization: Bearer !!".into()]);
    one("usual header twice", "/usual".into(), vec![bearer(&t), bearer(&other)]);
    one("usual parameter", format!("/usual?a=1&access_token={t}&b=2"), vec![]);
    one("usual both", format!("/usual?access_token={t}"), vec![bearer(&other)]);
    one("usual both, one bad", "/usual?access_token=x".into(), vec![bearer(&t)]);
    one("usual both, other bad", format!("/usual?access_token={t}"), vec![bearer("x")]);
    one("kept header", "/kept".into(), vec![bearer(&t)]);
    one("kept parameter", format!("/kept?access_token={t}&z=1&a"), vec![]);
    one("several, prefixed", "/several".into(), vec![format!("x-t: T {t}")]);
    one("several, no prefix", "/several".into(), vec![format!("x-t: {t}")]);
    one("several, plain", "/several".into(), vec![format!("x-u: {t}")]);
    one("several, plain twice", "/several".into(), vec![format!("x-u: {t}"), format!("x-u: {other}")]);
    one("several, plain twice, one bad", "/several".into(), vec![format!("x-u: {t}"), "x-u: x".into()]);
    one("several, empty", "/several".into(), vec!["x-u:".into()]);
    one(
        "several, authorization twice",
        "/several".into(),
        vec![format!("authorization: {t}"), format!("authorization: {other}")],
    );
    one(
        "several, all",
        format!("/several?t={t}&u%20v={t}"),
        vec![format!("x-t: T {t}"), format!("x-u: {t}"), format!("cookie: k={t}; l={t}")],
    );
    one("several, spaced name", format!("/several?u%20v={t}"), vec![]);
    one("several, plus name", format!("/several?u+v={t}"), vec![]);
    one("several, cookie", "/several".into(), vec![format!("cookie: a=b; l={t}; c=d")]);
    one("prefix without space", "/prefix".into(), vec![format!("authorization: a, b={t}")]);
    one("bare", "/bare".into(), vec![format!("authorization: {t}")]);
    one("bare with scheme", "/bare".into(), vec![bearer(&t)]);
    one("host", "/host".into(), vec![format!("host: {t}")]);
    one("path", format!("/path/{t}"), vec![]);
    one("cookie", "/cookie".into(), vec![format!("cookie: k={t}")]);
    one("cookie quoted", "/cookie".into(), vec![format!("cookie: k=\"{t}\"")]);
    one("cookie twice", "/cookie".into(), vec![format!("cookie: k={t}; k=x")]);
    one("cookies twice", "/cookie".into(), vec!["cookie: k=x".into(), format!("cookie: k={t}")]);
    one("cookie, other case", "/cookie".into(), vec![format!("cookie: K={t}")]);
    for (n, query) in [
        ("alone", "t=@"),
        ("sorted", "b=1&t=@&a=2&b=0&a"),
        ("decoded", "%74=@&a=%41%26b"),
        ("decoded space", "t=@&a=1%202"),
        ("plus", "t=@&a=1+2"),
        ("twice", "t=@&t=x"),
        ("twice, bad first", "t=x&t=@"),
        ("empty", "t="),
        ("no value", "t"),
        ("other case", "T=@"),
        ("empty pairs", "&&t=@&&a=b&"),
        ("no name", "=x&t=@"),
        ("two signs", "t=@&a=b=c"),
        ("escaped dots", "t=%2E"),
        ("bad escape", "t=@&a=%zz&b=%4"),
        ("utf-8", "t=@&a=%C3%A9"),
        ("question", "t=@&a=b?c"),
    ] {
        let query = query.replace('@', &t);
        cases.push(get(name(format!("parameter {n}")), ROW, "places", &format!("/param/x?{query}"), &[]));
    }
    cases.push(get("parameter with dots escaped", ROW, "places", &format!("/param?t={}", t.replace('.', "%2E")), &[]));
    cases
}

/// What becomes of claims.
pub(super) fn claims() -> Vec<(&'static str, String)> {
    let keys = of_secret();
    let all = format!(
        "providers: {{p: {{{keys}, forward_payload_header: X-Payload, payload_in_metadata: payload, header_in_metadata: header, claim_to_headers: [{{header_name: X-C, claim_name: c}}, {{header_name: x-d, claim_name: d.e.f}}, {{header_name: x-p, claim_path: [{{key: 'd.e'}}, {{key: f}}]}}, {{header_name: x-c2, claim_name: c}}]}}}}, rules: [{}]",
        rule("/", "provider_name: p")
    );
    let padded = format!(
        "providers: {{p: {{{keys}, forward_payload_header: x-payload, pad_forward_payload_header: true, payload_in_metadata: same, header_in_metadata: same, normalize_payload_in_metadata: {{space_delimited_claims: [c, d, none]}}}}}}, rules: [{}]",
        rule("/", "provider_name: p")
    );
    let routed_by = format!(
        "providers: {{p: {{{keys}, claim_to_headers: [{{header_name: x-c, claim_name: c}}], clear_route_cache: true}}}}, rules: [{}]",
        rule("/", "provider_name: p")
    );
    let by_payload = format!(
        "providers: {{p: {{{keys}, forward_payload_header: x-c, clear_route_cache: true}}}}, rules: [{}]",
        rule("/", "provider_name: p")
    );
    let not_routed = routed_by.replace("clear_route_cache: true", "clear_route_cache: false");
    let metadata = format!(
        "providers: {{p: {{{keys}, payload_in_metadata: m, claim_to_headers: [{{header_name: x-c, claim_name: none}}], clear_route_cache: true, forward_payload_header: x-d}}}}, rules: [{}]",
        rule("/", "provider_name: p")
    );
    let two = r#"{match: {prefix: /, headers: [{name: x-c, present_match: true}]}, route: {cluster: up2}}, {match: {prefix: /, headers: [{name: x-d, present_match: true}]}, direct_response: {status: 204}}, "#;
    vec![
        listener("claims", &[("jwt", &all)], ""),
        listener("padded", &[("jwt", &padded)], ""),
        listener("rerouted", &[("jwt", &routed_by)], two),
        listener("rerouted_payload", &[("jwt", &by_payload)], two),
        listener("not_rerouted", &[("jwt", &not_routed)], two),
        listener("rerouted_metadata", &[("jwt", &metadata)], two),
    ]
}

pub(super) fn told() -> Vec<Case> {
    let mut cases = Vec::new();
    for (n, value) in [
        ("text", r#""x""#),
        ("empty text", r#""""#),
        ("spaces", r#"" x ""#),
        ("tab", r#""x\ty""#),
        ("newline", r#""x\ny""#),
        ("return", r#""x\r\ny: z""#),
        ("nul", r#""x\u0000y""#),
        ("control", r#""x\u0001y""#),
        ("delete", r#""x\u007fy""#),
        ("utf-8", r#""é""#),
        ("int", "7"),
        ("zero", "0"),
        ("minus zero", "-0"),
        ("negative", "-3"),
        ("float", "1.5"),
        ("small", "1e-7"),
        ("big", "12345678901234567890"),
        ("bigger", "18446744073709551615"),
        ("huge", "1e20"),
        ("hugest", "1e300"),
        ("true", "true"),
        ("false", "false"),
        ("null", "null"),
        ("list", r#"["a",1,null,{"b":[]}]"#),
        ("empty list", "[]"),
        ("object", r#"{"a":1.25}"#),
        ("empty object", "{}"),
        ("escapes", r#"["<&'>\"\\/\u0001\u007f\u0085\u00ad\u200b\u2028\ufeffé😀\b\f\n\r\t"]"#),
        ("invisible", r#"["\u0600\u06dd\u070f\u17b4\u200c\u200e\u202a\u2060\u206a\ufff9"]"#),
        (
            "numbers",
            "[1e21,1e-7,123456789012345680,0.1,-0.0,3.0,1e15,1e16,1e17,0.0001,0.00001,1.7976931348623157e308,5e-324,100,1234567890123456,12345678901234567]",
        ),
    ] {
        let claims = format!(r#"{{"c":{value},"d":{{"e":{{"f":{value}}}}},"d.e":{{"f":"p"}}}}"#);
        cases.push(get(
            name(format!("claim {n}")),
            ROW,
            "claims",
            "/",
            &[&bearer(&secret(&claims)), "x-c: forged", "x-d: forged", "x-payload: forged"],
        ));
    }
    cases.push(asks("claims of the wrong shape", "claims", "/", &secret(r#"{"d":{"e":1},"d.e":[1]}"#)));
    cases.push(asks("no claims", "claims", "/", &secret("{}")));
    for (n, claims) in [
        ("padded 0", r#"{"a":"123"}"#),
        ("padded 1", r#"{"a":"1234"}"#),
        ("padded 2", r#"{"a":"12345"}"#),
        ("lists", r#"{"c":"a b  c ","d":"","none2":"a b"}"#),
        ("not lists", r#"{"c":" ","d":7}"#),
        ("one in a list", r#"{"c":"a","d":["b"]}"#),
    ] {
        cases.push(asks(n, "padded", "/", &secret(claims)));
    }
    let c = secret(r#"{"c":"x"}"#);
    cases.push(asks("rerouted by a claim", "rerouted", "/", &c));
    cases.push(asks("not rerouted without the claim", "rerouted", "/", &secret("{}")));
    cases.push(get("forged header and route", ROW, "rerouted", "/", &[&bearer(&secret("{}")), "x-c: forged"]));
    cases.push(get("forged header and no route", ROW, "not_rerouted", "/", &[&bearer(&secret("{}")), "x-c: forged"]));
    cases.push(asks("rerouted by the payload", "rerouted_payload", "/", &c));
    cases.push(asks("not rerouted", "not_rerouted", "/", &c));
    cases.push(asks("rerouted for metadata", "rerouted_metadata", "/", &c));
    cases
}

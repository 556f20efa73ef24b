use super::*;

fn fault(text: &str) -> String {
    let error = parse(text).expect_err(text);
    format!("{} {}", error.position.unwrap_or_default(), error.message)
}

#[test]
fn what_is_json() {
    for text in ["{}", "[]", " [1, -0.5e+3, 1E5, true, false, null, \"a\\u0041\\n\"] ", "{\"a\": {\"b\": []}}", "5"] {
        assert!(parse(text).is_ok(), "{text}");
    }
}

#[test]
fn what_is_not() {
    for (text, expected) in [
        ("", "1:1 not JSON: the document is cut short"),
        ("[1,]", "1:4 not JSON: a value is expected here"),
        ("{a: 1}", "1:2 not JSON: a name in double quotes"),
        ("{\"a\" 1}", "1:6 not JSON: ':' is expected"),
        ("[1 2]", "1:4 not JSON: ',' or ']' is expected"),
        ("[01]", "1:3 not JSON"),
        ("[1.]", "1:4 not JSON: a digit"),
        ("[\"a]", "not JSON: a string does not end"),
        ("[\"\\x\"]", "not JSON: an escape"),
        ("[\"\\ud800\"]", "not JSON: half a surrogate pair"),
        ("[\"\\u+123\"]", "not JSON: four hexadecimal digits"),
        ("[\"a\nb\"]", "not JSON: a control character"),
        ("{\"é\": 1,\n \"é\": 2}", "2:2 duplicate key 'é'"),
        ("[1] 2", "1:5 not JSON: text after the end"),
    ] {
        let found = fault(text);
        assert!(found.contains(expected), "{text}: {found}");
    }
    for deep in [101, 100_000] {
        assert!(fault(&"[".repeat(deep)).contains("nested deeper than 100"), "{deep}");
    }
}

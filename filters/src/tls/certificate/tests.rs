//! Expectations are what Envoy prints of the same names.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, OtherNameValue, SanType, SerialNumber};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::*;

const UTF8: u8 = 0x0c;

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("short");
    let long: &[u8] = if length < 0x80 { &[] } else { &[0x81] };
    [&[tag], long, &[length], content].concat()
}

/// The DER of an identifier.
fn oid(text: &str) -> Vec<u8> {
    let numbers: Vec<u32> = text.split('.').map(|number| number.parse().expect("number")).collect();
    let mut content = Vec::new();
    for number in [&[numbers[0] * 40 + numbers[1]], &numbers[2..]].concat() {
        let groups = (0..5).rev().map(|n| (number >> (7 * n)) & 0x7f).skip_while(|group| *group == 0);
        let groups: Vec<_> = groups.map(|group| u8::try_from(group).expect("seven bits")).collect();
        match &groups[..] {
            [] => content.push(0),
            [first @ .., last] => {
                content.extend(first.iter().map(|group| 0x80 | group));
                content.push(*last);
            }
        }
    }
    der(6, &content)
}

fn printed(parts: &[&[(&str, u8, &[u8])]]) -> String {
    let parts = parts.iter().flat_map(|part| {
        let attributes = part.iter().map(|(kind, tag, value)| der(0x30, &[oid(kind), der(*tag, value)].concat()));
        der(0x31, &attributes.collect::<Vec<_>>().concat())
    });
    let bytes = der(0x30, &parts.collect::<Vec<_>>());
    let (_, name) = X509Name::from_der(&bytes).expect("name");
    name::rfc2253(&name)
}

#[test]
fn names_are_written_as_openssl_writes_them() {
    const OU: &str = "2.5.4.11";
    for (value, expected) in [
        ("a'b a=b/c", "a'b a=b/c"),
        ("a,b+c\"d\\e<f>g;h", r#"a\,b\+c\"d\\e\<f\>g\;h"#),
        ("#x", r"\#x"),
        ("x#", "x#"),
        (" x ", r"\ x\ "),
        (" ", r"\ "),
        ("  ", r"\ \ "),
        ("", ""),
        ("é日😀", r"\C3\A9\E6\97\A5\F0\9F\98\80"),
        ("a\tb\0c\u{7f}", r"a\09b\00c\7F"),
    ] {
        assert_eq!(printed(&[&[(OU, UTF8, value.as_bytes())]]), format!("OU={expected}"));
    }
    for (tag, value, expected) in [
        (0x14, &b"a,\xe9"[..], r"OU=a\,\C3\A9"),
        (0x1e, b"\0b\0\xe9\x65\xe5", r"OU=b\C3\A9\E6\97\A5"),
        (0x1c, b"\0\x01\xf6\0", r"OU=\F0\9F\98\80"),
        (0x16, b"i@", "OU=i@"),
        (0x12, b"12 3", "OU=12 3"),
        (0x03, b"\0a", "OU=#03020061"),
        (0x1e, b"\xd8\0", "OU="),
        (UTF8, b"\xff", "OU="),
    ] {
        assert_eq!(printed(&[&[(OU, tag, value)]]), expected, "{tag}");
    }
}

#[test]
fn attributes_have_openssls_names_and_are_written_backwards() {
    let v = |kind| (kind, UTF8, &b"v"[..]);
    for (kind, expected) in [
        ("2.5.4.3", "CN=v"),
        ("2.5.4.4", "SN=v"),
        ("2.5.4.9", "street=v"),
        ("2.5.4.42", "GN=v"),
        ("2.5.4.72", "role=v"),
        ("2.5.4.2", "2.5.4.2=#0C0176"),
        ("1.2.840.113549.1.9.1", "emailAddress=v"),
        ("1.3.6.1.5.5.7.9.4", "id-pda-countryOfCitizenship=v"),
        ("1.2.3.4.5", "1.2.3.4.5=#0C0176"),
    ] {
        assert_eq!(printed(&[&[v(kind)]]), expected);
    }
    let (a, b) = ([("2.5.4.3", UTF8, &b"a"[..]), ("2.5.4.11", UTF8, b"b")], [("2.5.4.10", UTF8, &b"o"[..])]);
    assert_eq!(printed(&[&a, &b]), "O=o,OU=b+CN=a");
    assert_eq!(printed(&[]), "");
}

#[test]
fn other_names_are_text() {
    for (tag, value, expected) in [
        (UTF8, &b"upn@x"[..], "upn@x"),
        (1, b"\xff", "true"),
        (1, b"\0", "false"),
        (2, b"\x01\x00", "256"),
        (2, b"\xff", "-1"),
        (6, b"\x2a\x03\x04", "1.2.3.4"),
        (3, b"\0bits", "bits"),
        (4, b"oct", "oct"),
        (5, b"", ""),
        (0x17, b"260101000000Z", "260101000000Z"),
        (0x1e, b"\0b\0\xe9", "bé"),
        (0x30, b"\x0c\x01q", "0\u{3}\u{c}\u{1}q"),
    ] {
        assert_eq!(alternative::other_name(&der(0xa0, &der(tag, value))), expected, "{tag}");
    }
    assert_eq!(alternative::other_name(b"\xa0\x05\x0c"), "");
}

#[test]
fn serial_numbers_are_hexadecimal() {
    for (bytes, expected) in [
        (&b"\x05"[..], "05"),
        (b"\x0a\x0b", "0a0b"),
        (b"\0\xff", "ff"),
        (b"\0", "0"),
        (b"\xff", "-01"),
        (b"\xff\x01", "-ff"),
    ] {
        assert_eq!(serial(bytes), expected);
    }
}

#[test]
fn a_certificate_tells_its_facts() {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Org");
    params.distinguished_name.push(DnType::CommonName, "client");
    params.serial_number = Some(SerialNumber::from_slice(&[0x0a, 0x0b]));
    let ia5 = |text: &str| text.try_into().expect("ASCII");
    params.subject_alt_names = vec![
        SanType::URI(ia5("spiffe://td/cli")),
        SanType::DnsName(ia5("cli.test")),
        SanType::Rfc822Name(ia5("a@b.c")),
        SanType::IpAddress("2001:db8::1".parse().expect("address")),
        SanType::OtherName((vec![1, 2, 3, 4], OtherNameValue::Utf8String("upn@x".into()))),
    ];
    let key = KeyPair::generate().expect("key");
    let made = params.self_signed(&key).expect("certificate");
    let certificate = Certificate::new(made.der().to_vec());
    let facts = certificate.facts();
    assert_eq!(facts.subject, "CN=client,O=Org");
    assert_eq!(facts.issuer, "CN=client,O=Org");
    assert_eq!(facts.serial, "0a0b");
    assert_eq!(facts.uri_sans, ["spiffe://td/cli"]);
    assert_eq!(facts.dns_sans, ["cli.test"]);
    assert_eq!(facts.email_sans, ["a@b.c"]);
    assert_eq!(facts.ip_sans, ["2001:db8::1".parse::<IpAddr>().expect("address")]);
    assert_eq!(facts.other_sans, [OtherName { oid: "1.2.3.4".into(), value: "upn@x".into() }]);
    assert_eq!((facts.sha256.len(), facts.sha1.len()), (64, 40));
    assert_eq!(facts.extensions, ["2.5.29.17"]);
    assert!(facts.not_before < facts.not_after);
    let pem = certificate.pem();
    assert_eq!(pem.replace('\n', ""), made.pem().replace(['\n', '\r'], ""));
    assert!(pem.lines().all(|line| line.len() <= 64), "{pem}");
    let decoded =
        percent_encoding::percent_decode_str(&certificate.encoded_pem()).decode_utf8().expect("text").into_owned();
    assert_eq!(decoded, pem);
    assert!(certificate.encoded_pem().starts_with("-----BEGIN%20CERTIFICATE-----%0AMII"));
}

#[test]
fn what_is_not_a_certificate_says_nothing() {
    assert_eq!(Certificate::new(b"no".to_vec()).facts(), &CertificateFacts::default());
}

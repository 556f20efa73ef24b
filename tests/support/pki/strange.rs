//! Certificates that are right, and say who somebody is in unusual ways.

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, KeyPair, OtherNameValue,
    PKCS_ECDSA_P384_SHA384, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::{Authority, Kind, Pki, params};

/// Streets, titles and the like, for which there are no words.
const STREET: &[u64] = &[2, 5, 4, 9];
const TITLE: &[u64] = &[2, 5, 4, 12];
const GIVEN_NAME: &[u64] = &[2, 5, 4, 42];
const EMAIL: &[u64] = &[1, 2, 840, 113_549, 1, 9, 1];
const DOMAIN: &[u64] = &[0, 9, 2342, 19_200_300, 100, 1, 25];
const USER: &[u64] = &[0, 9, 2342, 19_200_300, 100, 1, 1];
const UNKNOWN: &[u64] = &[1, 2, 3, 4, 5];
const PRINCIPAL_NAME: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 20, 2, 3];

impl Pki {
    /// The names of what [`Pki::strangers`] makes.
    pub const STRANGERS: [&'static str; 15] = [
        "quoted",
        "foreign",
        "encoded",
        "attributes",
        "subjectless",
        "long",
        "uris",
        "kinds",
        "unwritten",
        "newlines",
        "rsac",
        "p384",
        "highserial",
        "noserial",
        "longlived",
    ];

    /// Makes more certificates of `ca`: a client's, each with a word for what is unusual about it.
    pub fn strangers(&self) {
        let ca = self.signer("ca");
        let make = |name: &str, change: &dyn Fn(&mut CertificateParams)| {
            let key = if name == "p384" { KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384) } else { KeyPair::generate() };
            let key = key.expect("a key");
            let mut params = params(name, &Kind { names: &["URI:spiffe://td/cli"], ..Kind::default() });
            change(&mut params);
            let certificate = params.signed_by(&key, &ca).expect("a certificate");
            self.write(&format!("{name}.pem"), &certificate.pem());
            self.write(&format!("{name}.key"), &key.serialize_pem());
        };
        make("quoted", &|params| {
            params.distinguished_name = subject(&[
                (DnType::CommonName, r#"a,b+c"d"\e<f>;#g=h/i'j"#.into()),
                (DnType::OrganizationName, " led and followed ".into()),
                (DnType::OrganizationalUnitName, "#hash".into()),
                (DnType::LocalityName, " ".into()),
                (DnType::StateOrProvinceName, "".into()),
            ]);
        });
        make("foreign", &|params| {
            params.distinguished_name = subject(&[
                (DnType::CommonName, "Zoë 日本 😀".into()),
                (DnType::OrganizationName, "\u{1}\t\u{7f}\u{80}".into()),
            ]);
        });
        make("encoded", &|params| {
            params.distinguished_name = subject(&[
                (DnType::CommonName, DnValue::BmpString("b\u{e9}\u{65e5},".try_into().expect("text"))),
                (DnType::OrganizationName, DnValue::TeletexString("t,".try_into().expect("text"))),
                (DnType::OrganizationalUnitName, DnValue::UniversalString("u\u{1f600}".try_into().expect("text"))),
                (DnType::LocalityName, DnValue::PrintableString("p, q".try_into().expect("text"))),
                (DnType::StateOrProvinceName, DnValue::Ia5String("i@\u{1}".try_into().expect("text"))),
            ]);
        });
        make("attributes", &|params| {
            let custom = |oid: &[u64]| DnType::CustomDnType(oid.to_vec());
            params.distinguished_name = subject(&[
                (DnType::CountryName, "DE".into()),
                (custom(STREET), "street".into()),
                (custom(TITLE), "title".into()),
                (custom(GIVEN_NAME), "given".into()),
                (custom(EMAIL), DnValue::Ia5String("a@b.c".try_into().expect("text"))),
                (custom(DOMAIN), DnValue::Ia5String("example".try_into().expect("text"))),
                (custom(USER), "user".into()),
                (custom(UNKNOWN), "unknown, and odd".into()),
            ]);
        });
        make("subjectless", &|params| params.distinguished_name = DistinguishedName::new());
        make("long", &|params| {
            params.distinguished_name = subject(&[(DnType::CommonName, "x".repeat(1500).into())]);
            params.subject_alt_names = (0..60).map(|n| dns(&format!("host-{n}.some.where.test"))).collect();
        });
        make("uris", &|params| {
            params.subject_alt_names = [
                "spiffe://td/one",
                "spiffe://td/two,three",
                r#"https://x/?a=b;c="d""#,
                "",
                "urn:%2c%20",
                "spiffe://td/cli",
            ]
            .map(|uri| SanType::URI(uri.try_into().expect("ASCII")))
            .to_vec();
        });
        make("kinds", &|params| {
            params.subject_alt_names = vec![
                SanType::IpAddress([10, 0, 0, 1].into()),
                SanType::IpAddress("2001:db8::1".parse().expect("an address")),
                SanType::Rfc822Name("a@b.c".try_into().expect("ASCII")),
                SanType::OtherName((PRINCIPAL_NAME.to_vec(), OtherNameValue::Utf8String("upn@x,y".to_owned()))),
                SanType::OtherName((UNKNOWN.to_vec(), OtherNameValue::Utf8String("é".to_owned()))),
                dns("CLI.test"),
                dns("*.wild.test"),
            ];
        });
        // Names that rcgen has no words for: other names of several types, a directory name, a registered one, a short address.
        make("unwritten", &|params| {
            let other =
                |value: &[u8]| tagged(0xa0, &[&[0x06, 0x03, 0x2a, 0x03, 0x04][..], &tagged(0xa0, value)].concat());
            let attribute = tagged(0x30, &[&[0x06, 0x03, 0x55, 0x04, 0x03][..], &tagged(0x0c, b"dir")].concat());
            let directory = tagged(0xa4, &tagged(0x30, &tagged(0x31, &attribute)));
            let names = [
                other(&tagged(0x01, &[0xff])),
                other(&tagged(0x02, &[1, 0])),
                other(&tagged(0x02, &[0xff])),
                other(&tagged(0x04, b"octets")),
                other(&tagged(0x05, b"")),
                other(&tagged(0x06, &[0x2a, 3, 4])),
                other(&tagged(0x13, b"printable")),
                other(&tagged(0x16, b"ia5")),
                other(&tagged(0x17, b"260101000000Z")),
                other(&tagged(0x1e, b"\0b\0m")),
                other(&tagged(0x30, &tagged(0x0c, b"q"))),
                directory,
                tagged(0x88, &[0x2a, 3]),
                tagged(0x82, b"after.test"),
            ]
            .concat();
            params.subject_alt_names = Vec::new();
            params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], tagged(0x30, &names))];
        });
        make("newlines", &|params| {
            params.distinguished_name = subject(&[(DnType::CommonName, "a\r\nb: c".into())]);
            params.subject_alt_names = vec![dns("a b"), SanType::URI("spiffe://td/a b".try_into().expect("ASCII"))];
        });
        self.signed("rsac", &ca, &Kind { names: &["DNS:cli.test"], rsa: true, ..Kind::default() });
        make("p384", &|_| {});
        make("highserial", &|params| params.serial_number = Some(SerialNumber::from_slice(&[0x00, 0xff, 0x01, 0x00])));
        make("noserial", &|params| params.serial_number = Some(SerialNumber::from_slice(&[0])));
        make("longlived", &|params| {
            params.not_before = OffsetDateTime::UNIX_EPOCH;
            params.not_after = OffsetDateTime::from_unix_timestamp(4_102_444_801).expect("a time");
        });
    }

    fn signer(&self, name: &str) -> Authority {
        let key = KeyPair::from_pem(&self.text(&format!("{name}.key"))).expect("a key");
        Authority::new(params(name, &Kind { ca: true, ..Kind::default() }), key)
    }
}

fn subject(attributes: &[(DnType, DnValue)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in attributes {
        name.push(kind.clone(), value.clone());
    }
    name
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("ASCII"))
}

/// DER of up to 64 KiB.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a short one").to_be_bytes();
    let length: &[u8] = if content.len() < 0x80 { &length[1..] } else { &[&[0x82], &length[..]].concat() };
    [&[tag], length, content].concat()
}

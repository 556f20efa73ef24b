//! Certificates, validation contexts and keys from protobuf. `testdata` holds one key in every form OpenSSL writes; the
//! password is `secret`.

use base64::Engine as _;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use filters::config::Session;
use filters::matcher::RegexLimits;
use prost::Message as _;
use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

use super::{certificate, named, secret, ticket_keys, validation};
use crate::tls::secret::{SanKind, Secret, SecretKind, TlsCertificate, ValidationContext};
use crate::tls::words;

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!("testdata/", $name))
    };
}

fn inline(bytes: impl Into<Vec<u8>>) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes.into())), watched_directory: None })
}

fn file(path: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::Filename(path.to_owned())), watched_directory: None })
}

fn certificate(proto: proto::TlsCertificate) -> Result<TlsCertificate, String> {
    let session = Session::default();
    certificate::read(&session.root(), proto, None).map_err(|error| error.to_string())
}

fn validation(proto: proto::CertificateValidationContext) -> Result<ValidationContext, String> {
    let session = Session::default();
    validation::read(&session.root(), proto, RegexLimits::default(), None).map_err(|error| error.to_string())
}

fn pair(chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> proto::TlsCertificate {
    proto::TlsCertificate { certificate_chain: inline(chain), private_key: inline(key), ..Default::default() }
}

fn made(algorithm: &'static SignatureAlgorithm) -> (String, String) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate = CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[test]
fn keys_in_every_form() {
    let certificate_pem = data!("certificate.pem");
    const BAD: &str = "error:1e000065:Cipher functions:OPENSSL_internal:BAD_DECRYPT";
    const NONE: &str = "error:09000068:PEM routines:OPENSSL_internal:BAD_PASSWORD_READ";
    const KDF: &str = "error:13000080:PKCS8 routines:OPENSSL_internal:UNSUPPORTED_KEY_DERIVATION_FUNCTION";
    const LINE: &str = "error:0900006e:PEM routines:OPENSSL_internal:NO_START_LINE";
    const END: &str = "error:09000066:PEM routines:OPENSSL_internal:BAD_END_LINE";
    for (name, key, password, problem) in [
        ("pkcs8", &data!("key.pem")[..], "", ""),
        ("a password that is not needed", &data!("key.pem")[..], "secret", ""),
        ("sec1", &data!("sec1.pem")[..], "", ""),
        ("traditional, aes", &data!("traditional-aes256.pem")[..], "secret", ""),
        ("traditional, aes, wrong", &data!("traditional-aes256.pem")[..], "wrong", BAD),
        ("traditional, none", &data!("traditional-aes256.pem")[..], "", NONE),
        ("traditional, 3des", &data!("traditional-3des.pem")[..], "secret", ""),
        ("pkcs8, aes", &data!("pkcs8-aes256.pem")[..], "secret", ""),
        ("pkcs8, 3des", &data!("pkcs8-3des.pem")[..], "secret", ""),
        ("pkcs8, wrong", &data!("pkcs8-aes256.pem")[..], "wrong", BAD),
        ("pkcs8, line break", &data!("pkcs8-aes256.pem")[..], "secret\n", BAD),
        ("pkcs8, none", &data!("pkcs8-aes256.pem")[..], "", NONE),
        ("scrypt, as in Envoy", &data!("pkcs8-scrypt.pem")[..], "secret", KDF),
        ("a certificate is no key", &certificate_pem[..], "", LINE),
        ("garbage", b"garbage", "", LINE),
        ("half a key", &data!("key.pem")[..100], "", END),
    ] {
        let proto = proto::TlsCertificate { password: inline(password), ..pair(certificate_pem, key) };
        let result = certificate(proto);
        let encrypted = name.starts_with("traditional") || key.starts_with(b"-----BEGIN ENCRYPTED");
        match problem {
            _ if encrypted && !words::allowed(false) => {
                assert!(result.unwrap_err().contains("not validated by FIPS 140-3"), "{name}");
            }
            "" => assert_eq!(result.unwrap().origin, "<inline>", "{name}"),
            problem => {
                let expected = format!("private_key: Failed to load private key from <inline>, Cause: {problem}");
                assert_eq!(result.unwrap_err(), expected, "{name}");
            }
        }
    }
}

#[test]
fn kinds_of_keys() {
    for (algorithm, ok) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, true),
        (&rcgen::PKCS_ECDSA_P384_SHA384, true),
        (&rcgen::PKCS_ECDSA_P521_SHA512, true),
        (&rcgen::PKCS_ED25519, true),
        (&rcgen::PKCS_RSA_SHA256, true),
    ] {
        let (chain, key) = made(algorithm);
        assert_eq!(certificate(pair(chain.clone(), key)).is_ok(), ok, "{algorithm:?}");
        let (_, other) = made(algorithm);
        let error = certificate(pair(chain, other)).unwrap_err();
        assert!(error.ends_with("KEY_VALUES_MISMATCH"), "{algorithm:?}: {error}");
    }
    let (_, ed25519) = made(&rcgen::PKCS_ED25519);
    let error = certificate(pair(data!("certificate.pem"), ed25519)).unwrap_err();
    assert!(error.ends_with("KEY_TYPE_MISMATCH"), "{error}");
}

#[test]
fn keys_on_curves_have_to_be_for_signatures() {
    use rcgen::KeyUsagePurpose::{self, DigitalSignature, KeyAgreement};
    let failed = "certificate_chain: Failed to load certificate chain from <inline>";
    let (curve, rsa) = (&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256);
    let tables: [(_, &[KeyUsagePurpose], _); 4] = [
        (curve, &[DigitalSignature, KeyAgreement], Ok(())),
        (curve, &[KeyAgreement], Err(failed)),
        (curve, &[], Ok(())),
        (rsa, &[KeyAgreement], Ok(())),
    ];
    for (algorithm, usages, expected) in tables {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(vec!["a".to_owned()]).unwrap();
        params.key_usages = usages.to_vec();
        let made = certificate(pair(params.self_signed(&key).unwrap().pem(), key.serialize_pem()));
        assert_eq!(made.map(drop), expected.map_err(str::to_owned), "{algorithm:?} {usages:?}");
    }
}

#[test]
fn who_is_asked_for_a_certificate_and_who_has_to_have_one() {
    let none = proto::CertificateValidationContext::default;
    let ca = || trusting(data!("certificate.pem"));
    let hash = || vec!["00".repeat(32)];
    let sans = || {
        let matcher = envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher {
            match_pattern: Some(envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern::Exact(
                "a".to_owned(),
            )),
            ..Default::default()
        };
        vec![proto::SubjectAltNameMatcher { san_type: 2, matcher: Some(matcher), ..Default::default() }]
    };
    let untrusted = |context| proto::CertificateValidationContext { trust_chain_verification: 1, ..context };
    let hashed = |context| proto::CertificateValidationContext { verify_certificate_hash: hash(), ..context };
    let named = |context| proto::CertificateValidationContext { match_typed_subject_alt_names: sans(), ..context };
    // Whether it asks, whether it requires an answer of itself, and with `require_client_certificate`.
    for (name, context, expected) in [
        ("nothing", none(), [false, false, false]),
        ("a CA", ca(), [true, false, true]),
        ("a CA and names", named(ca()), [true, true, true]),
        ("a CA and hashes", hashed(ca()), [true, true, true]),
        ("hashes", hashed(none()), [true, true, true]),
        ("anybody", untrusted(none()), [true, false, false]),
        ("anybody with names", untrusted(named(ca())), [true, false, true]),
        ("anybody with hashes", untrusted(hashed(none())), [true, false, false]),
    ] {
        let context = validation(context).unwrap();
        let found = [context.asks_clients(), context.requires_certificate(false), context.requires_certificate(true)];
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn chains_by_table() {
    let (own, other) = (String::from_utf8_lossy(data!("certificate.pem")), String::from_utf8_lossy(data!("other.pem")));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let failed = "certificate_chain: Failed to load certificate chain from <inline>";
    for (chain, expected) in [
        (own.to_string(), Ok(1)),
        (format!("junk\n{own}junk\n{other}"), Ok(2)),
        (own.replace("CERTIFICATE", "X509 CERTIFICATE"), Ok(1)),
        (format!("{}{own}", String::from_utf8_lossy(data!("key.pem"))), Ok(1)),
        (format!("{own}{broken}"), Err(failed)),
        ("garbage".to_owned(), Err(failed)),
        (
            String::new(),
            Err("certificate_chain: Failed to load incomplete certificate from <inline>: certificate chain not set"),
        ),
    ] {
        let result = certificate(pair(chain.clone(), data!("key.pem")));
        assert_eq!(result.map(|it| it.chain.len()), expected.map_err(str::to_owned), "{chain}");
    }
}

#[test]
fn what_is_not_there_is_named() {
    let missing = file("/nowhere/x.pem");
    let error = certificate(proto::TlsCertificate { certificate_chain: missing.clone(), ..pair("", data!("key.pem")) });
    assert_eq!(
        error.unwrap_err(),
        "certificate_chain: Failed to load incomplete certificate from /nowhere/x.pem: certificate chain not set \
         (Invalid path: /nowhere/x.pem: No such file or directory (os error 2))"
    );
    let proto = proto::TlsCertificate { private_key: missing, ..pair(data!("certificate.pem"), "") };
    let error = certificate(proto).unwrap_err();
    assert!(
        error.starts_with("private_key: Failed to load incomplete private key from path: /nowhere/x.pem"),
        "{error}"
    );
    let proto = proto::TlsCertificate {
        password: Some(DataSource {
            specifier: Some(Specifier::EnvironmentVariable("LEGATE_NO_SUCH_VARIABLE".to_owned())),
            watched_directory: None,
        }),
        ..pair(data!("certificate.pem"), data!("pkcs8-aes256.pem"))
    };
    let error = certificate(proto).unwrap_err();
    assert!(error.ends_with("(Environment variable doesn't exist: LEGATE_NO_SUCH_VARIABLE)"), "{error}");
    let proto = proto::TlsCertificate { pkcs12: inline("x"), ..pair(data!("certificate.pem"), "") };
    assert_eq!(
        certificate(proto).unwrap_err(),
        "Certificate configuration can't have both pkcs12 and certificate_chain"
    );
    let proto = proto::TlsCertificate {
        private_key_provider: Some(proto::PrivateKeyProvider::default()),
        ..pair(data!("certificate.pem"), data!("key.pem"))
    };
    assert!(certificate(proto).unwrap_err().contains("private_key_provider is not supported"));
}

#[test]
#[cfg_attr(feature = "fips", ignore = "such builds decrypt nothing")]
fn pkcs12_by_table() {
    let open = |data: &[u8], password: &str| {
        certificate(proto::TlsCertificate {
            pkcs12: inline(data),
            password: inline(password),
            ..proto::TlsCertificate::default()
        })
    };
    for (name, piece) in [("modern", &data!("modern.p12")[..]), ("legacy", &data!("legacy.p12")[..])] {
        let certificate = open(piece, "secret").unwrap();
        let subjects: Vec<_> = certificate.chain.iter().map(|it| it.facts().subject.as_str()).collect();
        assert_eq!(
            (subjects, certificate.name.as_str()),
            (vec!["CN=fixture", "CN=another"], "unnamed_cert_"),
            "{name}"
        );
        assert_eq!(open(piece, "wrong").unwrap_err(), "pkcs12: Failed to load pkcs12 from <inline>", "{name}");
    }
    assert_eq!(open(data!("key-only.p12"), "secret").unwrap_err(), "pkcs12: Failed to load certificate from <inline>");
    assert_eq!(open(b"garbage", "secret").unwrap_err(), "pkcs12: Failed to load pkcs12 from <inline>");
}

#[test]
fn names_in_statistics() {
    let mut proto = pair(data!("certificate.pem"), data!("key.pem"));
    let name = certificate(proto.clone()).unwrap().name;
    assert!(name.starts_with("unnamed_cert_") && name.len() == 21 && name != "unnamed_cert_e3b0c442", "{name}");
    let text = String::from_utf8_lossy(data!("certificate.pem")).into_owned();
    proto.certificate_chain =
        Some(DataSource { specifier: Some(Specifier::InlineString(text)), watched_directory: None });
    assert_eq!(certificate(proto).unwrap().name, "unnamed_cert_e3b0c442");
}

#[test]
fn staples_by_table() {
    let staple = |chain: &[u8], key: &[u8], ocsp_staple| {
        let proto = proto::TlsCertificate { ocsp_staple, ..pair(chain, key) };
        certificate(proto).map(|it| (it.key.ocsp.is_some(), it.ocsp_expires.is_some()))
    };
    let (chain, key, response) = (data!("other.pem"), data!("other-key.pem"), data!("other-ocsp.der"));
    assert_eq!(staple(chain, key, inline(*response)), Ok((true, true)));
    assert_eq!(staple(chain, key, inline("")), Ok((false, false)));
    let error = staple(data!("certificate.pem"), data!("key.pem"), inline(*response)).unwrap_err();
    assert_eq!(error, "ocsp_staple: <inline>: OCSP response does not match its TLS certificate");
    for cut in 0..response.len() {
        assert!(cut == 0 || staple(chain, key, inline(&response[..cut])).is_err(), "cut at {cut}");
    }
    let text = Some(DataSource { specifier: Some(Specifier::InlineString("x".to_owned())), watched_directory: None });
    let error = staple(chain, key, text).unwrap_err();
    assert_eq!(error, "ocsp_staple: OCSP staple cannot be provided via inline_string");
}

fn trusting(ca: impl Into<Vec<u8>>) -> proto::CertificateValidationContext {
    proto::CertificateValidationContext { trusted_ca: inline(ca), ..Default::default() }
}

/// A revocation list of a made authority, in PEM.
fn revocations() -> String {
    use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyUsagePurpose, SerialNumber, date_time_ymd};
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(&Issuer::new(params, key)).unwrap().pem().unwrap()
}

#[test]
fn bundles_by_table() {
    let (a, b) = (String::from_utf8_lossy(data!("certificate.pem")), String::from_utf8_lossy(data!("other.pem")));
    let crl = revocations();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let failed = "trusted_ca: Failed to load trusted CA certificates from <inline>: ";
    for (bundle, expected) in [
        (a.to_string(), Ok((1, 0))),
        (format!("junk\n{a}junk\n{b}junk -----BEGIN"), Ok((2, 0))),
        (format!("{a}{a}"), Ok((2, 0))),
        (format!("{a}{crl}"), Ok((1, 1))),
        (format!("{}{a}", String::from_utf8_lossy(data!("key.pem"))), Ok((1, 0))),
        (format!("{a}-----BEGIN FOO-----\nAAAA\n-----END FOO-----\n"), Ok((1, 0))),
        (format!("{a}{broken}"), Err("a certificate is malformed")),
        (format!("{a}-----BEGIN CERTIFICATE-----\nAAAA\n"), Err("a PEM block does not end")),
        ("garbage".to_owned(), Err("it holds no certificate")),
        (crl, Err("it holds no certificate")),
    ] {
        let result = validation(trusting(bundle.clone())).map(|context| {
            assert_eq!(context.check_crls, !context.crls.is_empty());
            (context.roots.unwrap().certificates.len(), context.crls.len())
        });
        assert_eq!(result, expected.map_err(|why| format!("{failed}{why}")), "{bundle}");
    }
    assert_eq!(validation(trusting("")).unwrap_err(), "trusted_ca: DataSource cannot be empty");
    let proto = proto::CertificateValidationContext { trusted_ca: file("/nowhere/ca.pem"), ..Default::default() };
    assert!(validation(proto).unwrap_err().starts_with("trusted_ca: Invalid path: /nowhere/ca.pem"));
}

#[test]
fn revocation_lists_by_table() {
    let crl = revocations();
    let broken = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    for (lists, expected) in [
        (crl.clone(), Ok((1, true))),
        (format!("{crl}{crl}"), Ok((2, true))),
        (String::new(), Ok((0, false))),
        // Envoy looks for a list all the same, and finds none for any certificate.
        ("garbage".to_owned(), Ok((0, true))),
        (format!("{crl}{broken}"), Err("crl: Failed to load CRL from <inline>")),
    ] {
        let proto = proto::CertificateValidationContext { crl: inline(lists.clone()), ..trusting(data!("other.pem")) };
        match (validation(proto).map(|context| (context.crls.len(), context.check_crls)), expected) {
            (Err(error), Err(expected)) => assert!(error.starts_with(expected), "{error}"),
            (result, expected) => assert_eq!(result, expected.map_err(str::to_owned), "{lists}"),
        }
    }
    let alone = proto::CertificateValidationContext { crl: inline(crl), ..Default::default() };
    assert_eq!(validation(alone).unwrap_err(), "crl: Failed to load CRL from <inline> without trusted CA");
}

fn exact(text: &str) -> envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher {
    use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
    StringMatcher { match_pattern: Some(MatchPattern::Exact(text.to_owned())), ignore_case: false }
}

fn san(san_type: i32, oid: &str) -> proto::SubjectAltNameMatcher {
    proto::SubjectAltNameMatcher { san_type, matcher: Some(exact("a")), oid: oid.to_owned() }
}

#[test]
fn names_by_table() {
    const OTHER: i32 = 5;
    let failed = |oid: &str| Err(format!("Failed to create SAN matcher for OTHER_NAME with OID: {oid}"));
    for (matcher, expected) in [
        (san(1, ""), Ok(SanKind::Email)),
        (san(2, ""), Ok(SanKind::Dns)),
        (san(3, ""), Ok(SanKind::Uri)),
        (san(4, ""), Ok(SanKind::IpAddress)),
        (san(0, ""), Err("value must not be in list [SAN_TYPE_UNSPECIFIED]".to_owned())),
        (san(OTHER, "1.3.6.1.4.1.311.20.2.3"), Ok(SanKind::OtherName("1.3.6.1.4.1.311.20.2.3".to_owned()))),
        (san(OTHER, "2.999"), Ok(SanKind::OtherName("2.999".to_owned()))),
        (san(OTHER, "commonName"), Ok(SanKind::OtherName("2.5.4.3".to_owned()))),
        (san(OTHER, ""), failed("")),
        (san(OTHER, "1"), failed("1")),
        (san(OTHER, "9.9"), failed("9.9")),
        (san(OTHER, "01.2"), failed("01.2")),
        (san(OTHER, "1.2."), failed("1.2.")),
        (san(OTHER, "1.999999999999999999999"), failed("1.999999999999999999999")),
        (san(OTHER, "nobody knows"), failed("nobody knows")),
    ] {
        let proto = proto::CertificateValidationContext {
            match_typed_subject_alt_names: vec![matcher.clone()],
            ..trusting(data!("other.pem"))
        };
        match (validation(proto), expected) {
            (Ok(mut context), expected) => assert_eq!(Ok(context.sans.remove(0).kind), expected),
            (Err(error), Err(expected)) => assert!(error.ends_with(&expected), "{error}"),
            (Err(error), Ok(_)) => panic!("{matcher:?}: {error}"),
        }
    }
}

#[test]
#[expect(deprecated, reason = "the deprecated list is there")]
fn the_deprecated_list_of_names_counts_alone() {
    let mut proto = trusting(data!("other.pem"));
    proto.match_subject_alt_names = vec![exact("a"), exact("b")];
    let kinds = |context: ValidationContext| context.sans.into_iter().map(|san| san.kind).collect::<Vec<_>>();
    assert_eq!(kinds(validation(proto.clone()).unwrap()), [SanKind::Any, SanKind::Any]);
    proto.match_typed_subject_alt_names = vec![san(2, "")];
    assert_eq!(kinds(validation(proto.clone()).unwrap()), [SanKind::Dns]);
    proto.trusted_ca = None;
    let error = validation(proto).unwrap_err();
    assert_eq!(error, "SAN-based verification of peer certificates without trusted CA is insecure and not allowed");
}

#[test]
fn hashes_and_limits_by_table() {
    type P = proto::CertificateValidationContext;
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let (hex, colons) = ("aB".repeat(32), vec!["ab"; 32].join(":"));
    let hash = |text: &str| P { verify_certificate_hash: vec![text.to_owned()], ..P::default() };
    let spki = |text: &str| P { verify_certificate_spki: vec![text.to_owned()], ..P::default() };
    for (proto, problem) in [
        (hash(&hex), ""),
        (hash(&colons), ""),
        (hash("ab"), "verify_certificate_hash[0]: value length must be at least 64 characters"),
        (hash(&"z".repeat(64)), "verify_certificate_hash[0]: Invalid hex-encoded SHA-256 zzzz"),
        (hash(&format!("{hex}a")), "verify_certificate_hash[0]: Invalid hex-encoded SHA-256 aB"),
        (spki(&base64(&[1; 32])), ""),
        (spki(&base64(&[1; 31])), "verify_certificate_spki[0]: Invalid base64-encoded SHA-256 AQEB"),
        (spki("x"), "verify_certificate_spki[0]: value length must be 44 bytes"),
        (P { max_verify_depth: Some(UInt32Value { value: 100 }), ..P::default() }, ""),
        (
            P { max_verify_depth: Some(UInt32Value { value: 101 }), ..P::default() },
            "max_verify_depth: value must be less than or equal to 100",
        ),
        (
            P { allow_expired_certificate: true, ..P::default() },
            "Certificate validity period is always ignored without trusted CA",
        ),
        (
            P { ca_certificate_provider_instance: Some(Default::default()), ..P::default() },
            "ca_certificate_provider_instance: envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext.\
             ca_certificate_provider_instance is not supported",
        ),
    ] {
        match validation(proto.clone()) {
            Ok(_) => assert_eq!(problem, "", "{proto:?}"),
            Err(error) => assert!(!problem.is_empty() && error.starts_with(problem), "{error}"),
        }
    }
    assert_eq!(validation(hash(&hex)).unwrap().certificate_hashes, [[0xab; 32]]);
    assert_eq!(validation(spki(&base64(&[1; 32]))).unwrap().spki_hashes, [[1; 32]]);
}

fn spiffe(config: proto::SpiffeCertValidatorConfig) -> Result<ValidationContext, String> {
    let type_url = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig".to_owned();
    let custom_validator_config = Some(TypedExtensionConfig {
        name: "envoy.tls.cert_validator.spiffe".to_owned(),
        typed_config: Some(Any { type_url, value: config.encode_to_vec() }),
    });
    validation(proto::CertificateValidationContext { custom_validator_config, ..Default::default() })
}

#[test]
fn trust_domains_by_table() {
    let domain = |name: &str, trust_bundle| proto::spiffe_cert_validator_config::TrustDomain {
        name: name.to_owned(),
        trust_bundle,
        workload_trust_domain: String::new(),
    };
    let good = || inline(*data!("other.pem"));
    for (domains, expected) in [
        (vec![domain("td", good()), domain("b", good())], Ok(vec!["td", "b"])),
        (vec![], Ok(vec![])),
        (
            vec![domain("td", good()), domain("td", good())],
            Err("Multiple trust bundles are given for one trust domain for td, workload: "),
        ),
        (vec![domain("td", None)], Err("Failed to load trusted CA certificate for td")),
        (vec![domain("td", inline("garbage"))], Err("Failed to load trusted CA certificate for td")),
        (vec![domain("", good())], Err("value length must be at least 1 characters")),
    ] {
        let result = spiffe(proto::SpiffeCertValidatorConfig { trust_domains: domains, trust_bundles: None });
        let names =
            result.map(|context| context.trust_domains.unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>());
        match (names, expected) {
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
            (names, expected) => assert_eq!(
                names,
                expected.map(|names| names.into_iter().map(str::to_owned).collect()).map_err(str::to_owned)
            ),
        }
    }
}

#[test]
fn bundle_maps_by_table() {
    let pem = String::from_utf8_lossy(data!("other.pem"));
    let x: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let key = |x5c: &str| format!(r#"{{"trust_domains":{{"td":{{"keys":[{{"use":"x509-svid","x5c":{x5c}}}]}}}}}}"#);
    for (json, expected) in [
        (key(&format!(r#"["{x}"]"#)), ""),
        (key(&format!(r#"["{x}","{x}"]"#)), ""),
        ("x".to_owned(), "Invalid JSON found in SPIFFE bundle"),
        ("{}".to_owned(), "No trust domains found in SPIFFE bundle"),
        (r#"{"trust_domains":{"td":{}}}"#.to_owned(), "No keys found in SPIFFE bundle for domain 'td'"),
        (
            r#"{"trust_domains":{"td":{"keys":[{"use":"jwt-svid"}]}}}"#.to_owned(),
            "missing or invalid 'use' field found in cert for domain 'td'",
        ),
        (key("[]"), "missing or empty 'x5c' field found in keys for domain: 'td'"),
        (key(r#"["AAAA"]"#), "Invalid x509 object in certs for domain 'td'"),
        (key(r#"["!!"]"#), "Failed to create x509 object while loading certs in domain 'td'"),
    ] {
        match spiffe(proto::SpiffeCertValidatorConfig { trust_domains: vec![], trust_bundles: inline(json.clone()) }) {
            Ok(context) => {
                assert_eq!(expected, "", "{json}");
                assert_eq!(context.trust_domains.unwrap()[0].0, "td");
            }
            Err(error) => assert!(!expected.is_empty() && error.ends_with(expected), "{json}: {error}"),
        }
    }
}

#[test]
fn merging_is_that_of_messages() {
    let default = proto::CertificateValidationContext {
        match_typed_subject_alt_names: vec![san(2, "")],
        only_verify_leaf_cert_crl: true,
        ..trusting("of the default")
    };
    let dynamic = proto::CertificateValidationContext {
        match_typed_subject_alt_names: vec![san(3, "")],
        allow_expired_certificate: true,
        ..trusting("of the secret")
    };
    let merged = validation::merge(&default, &dynamic);
    assert_eq!(merged.trusted_ca, inline("of the secret"));
    assert_eq!(merged.match_typed_subject_alt_names, [san(2, ""), san(3, "")]);
    assert!(merged.only_verify_leaf_cert_crl && merged.allow_expired_certificate);
}

#[test]
fn a_default_may_leave_it_to_the_secret_whom_to_trust() {
    let session = Session::default();
    let check = |proto| validation::check_default(&session.root(), proto, RegexLimits::default());
    let names = || proto::CertificateValidationContext {
        match_typed_subject_alt_names: vec![san(2, "")],
        allow_expired_certificate: true,
        crl: inline(revocations()),
        ..Default::default()
    };
    assert_eq!(check(names()), Ok(()));
    assert!(validation(names()).is_err());
    let error = check(proto::CertificateValidationContext { trusted_ca: inline("garbage"), ..names() }).unwrap_err();
    assert_eq!(error.path, "trusted_ca");
}

#[test]
fn other_secrets() {
    let session = Session::default();
    let keys = |lengths: &[usize]| {
        let keys = lengths.iter().filter_map(|length| inline(vec![7; *length])).collect();
        let parsed = ticket_keys::parse(&session.root(), proto::TlsSessionTicketKeys { keys });
        parsed.map(|keys| keys.0.len()).map_err(|error| error.to_string())
    };
    assert_eq!(keys(&[80, 80]), Ok(2));
    assert_eq!(keys(&[]), Err("keys: value must contain at least 1 item(s)".to_owned()));
    let error = "keys[1]: Incorrect TLS session ticket key length. Length 79, expected length 80.";
    assert_eq!(keys(&[80, 79]), Err(error.to_owned()));

    let secret = |r#type| {
        let proto = proto::Secret { name: "s".to_owned(), r#type };
        let kind = secret::kind(&proto);
        secret::parse(&session.root(), proto, RegexLimits::default()).map(|secret| (kind, secret))
    };
    let certificate = pair(data!("certificate.pem"), data!("key.pem"));
    let Ok((kind, Secret::Certificate(certificate))) = secret(Some(proto::secret::Type::TlsCertificate(certificate)))
    else {
        panic!("no certificate");
    };
    assert_eq!((kind, certificate.name.as_str()), (Some(SecretKind::Certificate), "s"));
    let generic =
        proto::GenericSecret { secret: inline("x"), secrets: [("k".to_owned(), inline("v").unwrap())].into() };
    let Ok((_, Secret::Generic(generic))) = secret(Some(proto::secret::Type::GenericSecret(generic))) else {
        panic!("no generic secret");
    };
    assert_eq!((generic.secret.as_slice(), generic.named["k"].as_slice()), (&b"x"[..], &b"v"[..]));
    assert_eq!(secret(None).unwrap_err().message, "Secret type not implemented");
    assert_eq!(secret::kind(&proto::Secret::default()), None);

    let named = named::parse(&session.root(), proto::SdsSecretConfig::default(), SecretKind::Generic);
    assert_eq!(named.unwrap_err().to_string(), "name: value length must be at least 1 characters");
}

#[test]
fn nothing_that_is_printed_shows_a_key() {
    let certificate = certificate(pair(data!("certificate.pem"), data!("key.pem"))).unwrap();
    let shown = format!("{certificate:?}");
    let pem = String::from_utf8_lossy(data!("key.pem"));
    let key = base64::engine::general_purpose::STANDARD
        .decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>())
        .unwrap();
    let secret = &key[36..68];
    assert!(!shown.contains(&format!("{secret:?}")[1..40]), "{shown}");
}

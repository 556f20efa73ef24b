//! Certificates for tests: right ones, and every kind of wrong one. Files, so that proxies can read them.

mod strange;

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RevokedCertParams, RsaKeySize, SanType,
    SerialNumber,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// A directory of certificates (`NAME.pem`) and keys (`NAME.key`).
pub struct Pki {
    directory: TempDir,
}

/// How a certificate differs from the usual.
#[derive(Default)]
struct Kind<'a> {
    /// Names: `DNS:`, `URI:`, `IP:` and `EMAIL:`.
    names: &'a [&'a str],
    /// Days from now on which it begins and ends; -1 and 365 if both are 0.
    days: (i64, i64),
    rsa: bool,
    ca: bool,
    serial: Option<u64>,
    usages: &'a [ExtendedKeyUsagePurpose],
}

type Authority = Issuer<'static, KeyPair>;

impl Pki {
    /// Makes them all:
    ///
    /// * `ca` with `server` (`srv.test`, `*.wild.test`, `spiffe://td/srv`, 127.0.0.1), `rsa` (the same names), `client`
    ///   (`cli.test`, `spiffe://td/cli`, `a@b.c`), `expired`, `future`, `nosan`, `revoked` (on the list `crl.pem`),
    ///   `leafca`, `serveronly` (by its extended key usage) and `between`, an authority that signed `chained`
    ///   (`chained-full.pem` has both);
    /// * `other-ca` with `other`;
    /// * `self`, signed by itself.
    pub fn new() -> Self {
        let this = Self { directory: TempDir::new().expect("a directory") };
        let ca = this.authority("ca", None);
        let server = ["DNS:srv.test", "DNS:*.wild.test", "URI:spiffe://td/srv", "IP:127.0.0.1"];
        let client = ["DNS:cli.test", "URI:spiffe://td/cli", "EMAIL:a@b.c"];
        this.signed("server", &ca, &Kind { names: &server, ..Kind::default() });
        this.signed("rsa", &ca, &Kind { names: &server, rsa: true, ..Kind::default() });
        this.signed("client", &ca, &Kind { names: &client, ..Kind::default() });
        this.signed("expired", &ca, &Kind { names: &client, days: (-9, -1), ..Kind::default() });
        this.signed("future", &ca, &Kind { names: &client, days: (1, 9), ..Kind::default() });
        this.signed("nosan", &ca, &Kind::default());
        this.signed("revoked", &ca, &Kind { names: &client, serial: Some(77), ..Kind::default() });
        this.signed("leafca", &ca, &Kind { names: &client, ca: true, ..Kind::default() });
        let server_only = [ExtendedKeyUsagePurpose::ServerAuth];
        this.signed("serveronly", &ca, &Kind { names: &client, usages: &server_only, ..Kind::default() });
        let between = this.authority("between", Some(&ca));
        this.signed("chained", &between, &Kind { names: &client, ..Kind::default() });
        let full = [this.text("chained.pem"), this.text("between.pem")].concat();
        this.write("chained-full.pem", &full);
        this.write("chained-full.key", &this.text("chained.key"));
        let other = this.authority("other-ca", None);
        this.signed("other", &other, &Kind { names: &client, ..Kind::default() });
        this.write("both-cas.pem", &[this.text("other-ca.pem"), this.text("ca.pem")].concat());
        let key = KeyPair::generate().expect("a key");
        let alone = params("self", &Kind { names: &client, ..Kind::default() });
        this.write("self.pem", &alone.self_signed(&key).expect("a certificate").pem());
        this.write("self.key", &key.serialize_pem());
        this.write("crl.pem", &revocations(&ca, &[77]));
        this
    }

    /// The file of this name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The content of a file.
    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a file")
    }

    /// SHA-256 of a certificate, hexadecimal.
    pub fn fingerprint(&self, name: &str) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.der(name));
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// SHA-256 of a certificate's public key information, by base64.
    pub fn key_print(&self, name: &str) -> String {
        use base64::Engine as _;
        let key = KeyPair::from_pem(&self.text(&format!("{name}.key"))).expect("a key");
        let info = rcgen::PublicKeyData::subject_public_key_info(&key);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &info);
        base64::engine::general_purpose::STANDARD.encode(digest.as_ref())
    }

    /// The name of the certificate with this DER.
    pub fn name_of(&self, der: &[u8]) -> &'static str {
        ["server", "rsa", "client", "self", "other"].into_iter().find(|name| self.der(name) == der).unwrap_or("?")
    }

    fn der(&self, name: &str) -> Vec<u8> {
        use rustls::pki_types::pem::PemObject as _;
        let file = self.path(&format!("{name}.pem"));
        rustls::pki_types::CertificateDer::from_pem_file(file).expect("a certificate").to_vec()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    fn authority(&self, name: &str, by: Option<&Authority>) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let params = params(name, &Kind { ca: true, ..Kind::default() });
        let certificate = match by {
            Some(by) => params.signed_by(&key, by),
            None => params.self_signed(&key),
        };
        self.write(&format!("{name}.pem"), &certificate.expect("a certificate").pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
        Issuer::new(params, key)
    }

    fn signed(&self, name: &str, by: &Authority, kind: &Kind<'_>) {
        let key =
            if kind.rsa { KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048) } else { KeyPair::generate() };
        let key = key.expect("a key");
        let certificate = params(name, kind).signed_by(&key, by).expect("a certificate");
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }
}

fn params(name: &str, kind: &Kind<'_>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Org");
    params.distinguished_name.push(DnType::CommonName, name);
    let (from, until) = if kind.days == (0, 0) { (-1, 365) } else { kind.days };
    let now = OffsetDateTime::now_utc();
    params.not_before = now + Duration::days(from);
    params.not_after = now + Duration::days(until);
    params.serial_number = kind.serial.map(SerialNumber::from);
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = kind.usages.to_vec();
    if kind.ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    }
    params.subject_alt_names = kind
        .names
        .iter()
        .map(|name| match name.split_once(':') {
            Some(("DNS", name)) => SanType::DnsName(name.try_into().expect("a name")),
            Some(("URI", name)) => SanType::URI(name.try_into().expect("a name")),
            Some(("EMAIL", name)) => SanType::Rfc822Name(name.try_into().expect("a name")),
            Some(("IP", name)) => SanType::IpAddress(name.parse().expect("an address")),
            _ => panic!("{name} is of no kind"),
        })
        .collect();
    params
}

fn revocations(by: &Authority, serials: &[u64]) -> String {
    let now = OffsetDateTime::now_utc();
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: now - Duration::days(1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: now - Duration::days(1),
        next_update: now + Duration::days(9),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(by).expect("a list").pem().expect("text")
}

//! One key, and the signatures it makes.

use std::fmt;
use std::sync::OnceLock;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, EcdsaVerificationAlgorithm, ParsedPublicKey,
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA384, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::failure::Failure;

/// How a token is signed (RFC 7518 section 3, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA with PKCS #1 version 1.5 padding.
    Rs(Hash),
    /// RSA with PSS padding.
    Ps(Hash),
    /// ECDSA.
    Es(Hash),
    /// HMAC.
    Hs(Hash),
    /// Ed25519.
    EdDsa,
}

/// The hash function of an algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

impl Algorithm {
    const ALL: [(&'static str, Self); 13] = [
        ("RS256", Self::Rs(Hash::Sha256)),
        ("RS384", Self::Rs(Hash::Sha384)),
        ("RS512", Self::Rs(Hash::Sha512)),
        ("PS256", Self::Ps(Hash::Sha256)),
        ("PS384", Self::Ps(Hash::Sha384)),
        ("PS512", Self::Ps(Hash::Sha512)),
        ("ES256", Self::Es(Hash::Sha256)),
        ("ES384", Self::Es(Hash::Sha384)),
        ("ES512", Self::Es(Hash::Sha512)),
        ("HS256", Self::Hs(Hash::Sha256)),
        ("HS384", Self::Hs(Hash::Sha384)),
        ("HS512", Self::Hs(Hash::Sha512)),
        ("EdDSA", Self::EdDsa),
    ];

    /// The algorithm of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(name, _)| name)
    }
}

/// The curve of an elliptic key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// The length of a coordinate, in bytes.
    const fn field(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    const fn with(self, hash: Hash) -> &'static EcdsaVerificationAlgorithm {
        match (self, hash) {
            (Self::P256, Hash::Sha256) => &ECDSA_P256_SHA256_ASN1,
            (Self::P256, Hash::Sha384) => &ECDSA_P256_SHA384_ASN1,
            (Self::P256, Hash::Sha512) => &ECDSA_P256_SHA512_ASN1,
            (Self::P384, Hash::Sha256) => &ECDSA_P384_SHA256_ASN1,
            (Self::P384, Hash::Sha384) => &ECDSA_P384_SHA384_ASN1,
            (Self::P384, Hash::Sha512) => &ECDSA_P384_SHA512_ASN1,
            (Self::P521, Hash::Sha256) => &ECDSA_P521_SHA256_ASN1,
            (Self::P521, Hash::Sha384) => &ECDSA_P521_SHA384_ASN1,
            (Self::P521, Hash::Sha512) => &ECDSA_P521_SHA512_ASN1,
        }
    }
}

/// A key that verifies signatures.
pub(super) enum Key {
    Rsa(Box<RsaKey>),
    Elliptic(Curve, Box<EllipticKey>),
    Secret(Box<[hmac::Key; 3]>),
    Ed25519([u8; 32]),
}

/// The numbers of a key without leading zeros, and the key made ready for each algorithm it was used with.
pub(super) struct RsaKey {
    n: Box<[u8]>,
    e: Box<[u8]>,
    ready: [OnceLock<Option<ParsedPublicKey>>; 6],
}

/// A point as X9.62 writes it, and the key made ready for each hash it was used with.
pub(super) struct EllipticKey {
    point: Box<[u8]>,
    ready: [OnceLock<Option<ParsedPublicKey>>; 3],
}

impl Key {
    /// A key of these numbers, if it is one.
    pub(super) fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        // No other exponents are in use, and odd ones are a trap.
        if !matches!(e, [3] | [1, 0, 1]) || n.len() < 64 || n.last().is_none_or(|low| low % 2 == 0) {
            return None;
        }
        RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA384).ok()?;
        Some(Self::Rsa(Box::new(RsaKey { n: n.into(), e: e.into(), ready: Default::default() })))
    }

    /// A key of this point, if it lies on the curve.
    pub(super) fn elliptic(curve: Curve, x: &[u8], y: &[u8]) -> Option<Self> {
        let mut point = vec![4];
        for coordinate in [x, y] {
            let coordinate = without_zeros(coordinate);
            point.resize(point.len() + curve.field().checked_sub(coordinate.len())?, 0);
            point.extend_from_slice(coordinate);
        }
        let key = ParsedPublicKey::new(curve.with(Hash::Sha256), &point).ok()?;
        let ready = [OnceLock::from(Some(key)), OnceLock::new(), OnceLock::new()];
        Some(Self::Elliptic(curve, Box::new(EllipticKey { point: point.into(), ready })))
    }

    /// A secret that both sides know.
    pub(super) fn secret(secret: &[u8]) -> Self {
        let hashes = [hmac::HMAC_SHA256, hmac::HMAC_SHA384, hmac::HMAC_SHA512];
        Self::Secret(Box::new(hashes.map(|hash| hmac::Key::new(hash, secret))))
    }

    /// Whether it made `signature` over `message`. What the algorithm does not say about the hash, or says of another kind of
    /// key, is SHA-256.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), Failure> {
        let made = match self {
            Self::Rsa(key) => key.verify(algorithm, message, signature),
            Self::Elliptic(curve, key) => {
                let hash = if let Algorithm::Es(hash) = algorithm { hash } else { Hash::Sha256 };
                key.verify(*curve, hash, message, signature)
            }
            Self::Secret(keys) => {
                let hash = if let Algorithm::Hs(hash) = algorithm { hash } else { Hash::Sha256 };
                hmac::verify(&keys[hash as usize], message, signature).is_ok()
            }
            Self::Ed25519(key) => {
                if signature.len() != 64 {
                    return Err(Failure::Ed25519WrongLength);
                }
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
            }
        };
        if made { Ok(()) } else { Err(Failure::VerificationFails) }
    }
}

impl RsaKey {
    fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let (slot, parameters): (usize, &'static RsaParameters) = match algorithm {
            Algorithm::Rs(Hash::Sha256) => (0, &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
            Algorithm::Rs(Hash::Sha384) => (1, &RSA_PKCS1_2048_8192_SHA384),
            Algorithm::Rs(Hash::Sha512) => (2, &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY),
            Algorithm::Ps(Hash::Sha256) => (3, &RSA_PSS_2048_8192_SHA256),
            Algorithm::Ps(Hash::Sha384) => (4, &RSA_PSS_2048_8192_SHA384),
            Algorithm::Ps(Hash::Sha512) => (5, &RSA_PSS_2048_8192_SHA512),
            Algorithm::Es(_) | Algorithm::Hs(_) | Algorithm::EdDsa => return false,
        };
        let ready = self.ready[slot]
            .get_or_init(|| RsaPublicKeyComponents { n: &self.n, e: &self.e }.to_parsed_public_key(parameters).ok());
        ready.as_ref().is_some_and(|key| key.verify_sig(message, signature).is_ok())
    }
}

impl EllipticKey {
    /// The signature's halves are its numbers, however long they are (RFC 7518 section 3.4 wants them as long as the curve's).
    fn verify(&self, curve: Curve, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
        let half = signature.len() / 2;
        let (Some(r), Some(s)) = (signature.get(..half), signature.get(half..2 * half)) else { return false };
        let Some(signature) = asn1(without_zeros(r), without_zeros(s), curve.field()) else { return false };
        let ready = self.ready[hash as usize].get_or_init(|| ParsedPublicKey::new(curve.with(hash), &self.point).ok());
        ready.as_ref().is_some_and(|key| key.verify_sig(message, &signature).is_ok())
    }
}

/// `SEQUENCE { r INTEGER, s INTEGER }` of two numbers without leading zeros; `None` for numbers that no signature has.
fn asn1(r: &[u8], s: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut numbers = Vec::with_capacity(2 * max + 8);
    for number in [r, s] {
        let first = *number.first().filter(|_| number.len() <= max)?;
        let sign = first >= 0x80;
        numbers.extend([2, u8::try_from(number.len() + usize::from(sign)).ok()?]);
        numbers.extend(sign.then_some(0));
        numbers.extend_from_slice(number);
    }
    let mut out = vec![0x30];
    if numbers.len() >= 0x80 {
        out.push(0x81);
    }
    out.push(u8::try_from(numbers.len()).ok()?);
    out.append(&mut numbers);
    Some(out)
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa(_) => "RSA",
            Self::Elliptic(..) => "EC",
            Self::Secret(_) => "oct",
            Self::Ed25519(_) => "OKP",
        })
    }
}

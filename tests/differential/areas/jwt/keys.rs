//! Keys and tokens, of every algorithm.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// What a secret key is made of.
pub const SECRET: &[u8] = b"a secret of thirty-two bytes ...";

/// A key of each kind.
pub struct Keys {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    p521: EcdsaKeyPair,
    edwards: Ed25519KeyPair,
}

/// All algorithms.
pub const ALGORITHMS: [&str; 13] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "EdDSA",
];

impl Keys {
    pub fn new() -> Self {
        let elliptic = |algorithm: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::generate(algorithm).expect("a key");
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
            p256: elliptic(&ECDSA_P256_SHA256_FIXED_SIGNING),
            p384: elliptic(&ECDSA_P384_SHA384_FIXED_SIGNING),
            p521: elliptic(&ECDSA_P521_SHA512_FIXED_SIGNING),
            edwards: Ed25519KeyPair::generate().expect("a key"),
        }
    }

    /// The key that `alg` is used with, without anything that says so.
    pub fn jwk(&self, alg: &str) -> Value {
        let elliptic = |pair: &EcdsaKeyPair, crv: &str| {
            let point = pair.public_key().as_ref();
            let (x, y) = point[1..].split_at(point.len() / 2);
            json!({"kty": "EC", "crv": crv, "x": encode(x), "y": encode(y)})
        };
        match alg {
            "ES256" => elliptic(&self.p256, "P-256"),
            "ES384" => elliptic(&self.p384, "P-384"),
            "ES512" => elliptic(&self.p521, "P-521"),
            "EdDSA" => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(self.edwards.public_key().as_ref())}),
            _ if alg.starts_with("HS") => json!({"kty": "oct", "k": encode(SECRET)}),
            _ => {
                let public = self.rsa.public_key();
                let n = encode(public.modulus().big_endian_without_leading_zero());
                json!({"kty": "RSA", "n": n, "e": encode(public.exponent().big_endian_without_leading_zero())})
            }
        }
    }

    /// A certificate of the RSA key.
    pub fn certificate(&self) -> String {
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&self.rsa).expect("a key");
        let key = rcgen::KeyPair::try_from(der.as_ref()).expect("a key");
        let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
        certificate.pem().replace("\r\n", "\n")
    }

    /// A signature by `alg`.
    fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        let rsa = |encoding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(encoding, &rng, message, &mut signature).expect("a signature");
            signature
        };
        let elliptic = |pair: &EcdsaKeyPair| pair.sign(&rng, message).expect("a signature").as_ref().to_vec();
        let secret = |algorithm| hmac::sign(&hmac::Key::new(algorithm, SECRET), message).as_ref().to_vec();
        match alg {
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "RS384" => rsa(&RSA_PKCS1_SHA384),
            "RS512" => rsa(&RSA_PKCS1_SHA512),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "PS384" => rsa(&RSA_PSS_SHA384),
            "PS512" => rsa(&RSA_PSS_SHA512),
            "ES256" => elliptic(&self.p256),
            "ES384" => elliptic(&self.p384),
            "ES512" => elliptic(&self.p521),
            "HS256" => secret(hmac::HMAC_SHA256),
            "HS384" => secret(hmac::HMAC_SHA384),
            "HS512" => secret(hmac::HMAC_SHA512),
            "EdDSA" => self.edwards.sign(message).as_ref().to_vec(),
            other => panic!("no algorithm {other}"),
        }
    }

    /// A token of these claims, whose header says `kid`, too, if that is not empty.
    pub fn token(&self, alg: &str, kid: &str, claims: &str) -> String {
        let header = if kid.is_empty() { json!({"alg": alg}) } else { json!({"alg": alg, "kid": kid}) };
        let message = format!("{}.{}", encode(header.to_string()), encode(claims));
        format!("{message}.{}", encode(self.sign(alg, message.as_bytes())))
    }
}

/// A token of these claims by the secret key.
pub fn secret(claims: &str) -> String {
    headed(r#"{"alg":"HS256"}"#, claims)
}

/// The same, with this header.
pub fn headed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", encode(signature.as_ref()))
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

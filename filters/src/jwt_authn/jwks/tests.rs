use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use aws_lc_rs::{encoding::AsDer, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What is signed in a token of this header.
fn unsigned(header: &Value) -> String {
    format!("{}.{}", encode(header.to_string()), encode("{}"))
}

fn token(header: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Token {
    let signed = unsigned(header);
    let signature = sign(signed.as_bytes());
    Token::parse(format!("{signed}.{}", encode(signature)).as_bytes()).unwrap()
}

fn jwks(keys: &[Value]) -> Result<Jwks, Failure> {
    Jwks::parse(json!({ "keys": keys }).to_string().as_bytes())
}

fn rsa_key() -> (RsaKeyPair, Value) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = pair.public_key();
    let modulus = public.modulus().big_endian_without_leading_zero().to_vec();
    let exponent = public.exponent().big_endian_without_leading_zero().to_vec();
    (pair, json!({"kty": "RSA", "n": encode(modulus), "e": encode(exponent)}))
}

fn rsa_sign(pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

fn ec_key(algorithm: &'static EcdsaSigningAlgorithm) -> (EcdsaKeyPair, Value) {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = point[1..].split_at(point.len() / 2);
    let jwk = json!({"kty": "EC", "x": encode(x), "y": encode(y)});
    (pair, jwk)
}

fn with(jwk: &Value, more: Value) -> Value {
    let mut jwk = jwk.clone();
    jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    jwk
}

#[test]
fn rsa_signatures() {
    let (pair, jwk) = rsa_key();
    let keys = jwks(std::slice::from_ref(&jwk)).unwrap();
    let all: [(&str, &'static dyn RsaEncoding); 6] = [
        ("RS256", &RSA_PKCS1_SHA256),
        ("RS384", &RSA_PKCS1_SHA384),
        ("RS512", &RSA_PKCS1_SHA512),
        ("PS256", &RSA_PSS_SHA256),
        ("PS384", &RSA_PSS_SHA384),
        ("PS512", &RSA_PSS_SHA512),
    ];
    for (alg, encoding) in all {
        let sign = |message: &[u8]| rsa_sign(&pair, encoding, message);
        assert_eq!(keys.verify(&token(&json!({"alg": alg}), sign)), Ok(()), "{alg}");
        let wrong = if alg == "RS256" { "PS256" } else { "RS256" };
        let wrong = token(&json!({"alg": wrong}), sign);
        assert_eq!(keys.verify(&wrong), Err(Failure::VerificationFails), "{alg}");
    }
    let secret = token(&json!({"alg": "HS256"}), |message| {
        let n = jwk["n"].as_str().unwrap();
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, n.as_bytes()), message).as_ref().to_vec()
    });
    assert_eq!(keys.verify(&secret), Err(Failure::VerificationFails), "a public key is no secret");
}

#[test]
fn elliptic_signatures() {
    let rng = SystemRandom::new();
    for (alg, crv, algorithm) in [
        ("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        ("ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        ("ES512", "P-521", &ECDSA_P521_SHA512_FIXED_SIGNING),
    ] {
        let (pair, jwk) = ec_key(algorithm);
        let sign = |message: &[u8]| pair.sign(&rng, message).unwrap().as_ref().to_vec();
        for more in [json!({"crv": crv}), json!({"alg": alg}), json!({"alg": alg, "crv": crv})] {
            let keys = jwks(&[with(&jwk, more)]).unwrap();
            assert_eq!(keys.verify(&token(&json!({"alg": alg}), sign)), Ok(()), "{alg}");
            let longer = token(&json!({"alg": alg}), |message| {
                let signature = sign(message);
                let (r, s) = signature.split_at(signature.len() / 2);
                [&[0], r, &[0], s].concat()
            });
            assert_eq!(keys.verify(&longer), Ok(()), "{alg}");
            for bad in [vec![1], vec![0; 64], vec![0xff; 200]] {
                let bad = token(&json!({"alg": alg}), |_| bad);
                assert_eq!(keys.verify(&bad), Err(Failure::VerificationFails), "{alg}");
            }
        }
    }
}

#[test]
fn secrets_and_edwards_curves() {
    let secret = b"secret";
    let keys = jwks(&[json!({"kty": "oct", "k": encode(secret)})]).unwrap();
    for (alg, algorithm) in [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)] {
        let sign = |message: &[u8]| hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec();
        assert_eq!(keys.verify(&token(&json!({"alg": alg}), sign)), Ok(()), "{alg}");
        let short = token(&json!({"alg": alg}), |message| sign(message)[1..].to_vec());
        assert_eq!(keys.verify(&short), Err(Failure::VerificationFails));
    }
    let pair = Ed25519KeyPair::generate().unwrap();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())});
    let keys = jwks(&[jwk]).unwrap();
    let header = json!({"alg": "EdDSA"});
    assert_eq!(keys.verify(&token(&header, |message| pair.sign(message).as_ref().to_vec())), Ok(()));
    assert_eq!(keys.verify(&token(&header, |_| vec![0; 64])), Err(Failure::VerificationFails));
    assert_eq!(keys.verify(&token(&header, |_| vec![0; 63])), Err(Failure::Ed25519WrongLength));
}

#[test]
fn keys_are_chosen_by_id_and_algorithm() {
    let key = |secret: &str, more: Value| with(&json!({"kty": "oct", "k": encode(secret)}), more);
    let keys = jwks(&[
        key("1", json!({"kid": "a"})),
        key("2", json!({"kid": "a", "alg": "HS512"})),
        key("3", json!({"kid": "b", "alg": "HS256"})),
    ])
    .unwrap();
    let with_any = jwks(&[key("1", json!({"kid": "a"})), key("4", json!({}))]).unwrap();
    let signed = |secret: &str, header: Value| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        token(&header, |message| hmac::sign(&key, message).as_ref().to_vec())
    };
    for (secret, header, expected) in [
        ("1", json!({"alg": "HS256"}), Ok(())),
        ("3", json!({"alg": "HS256"}), Ok(())),
        ("1", json!({"alg": "HS256", "kid": "a"}), Ok(())),
        ("2", json!({"alg": "HS256", "kid": "a"}), Err(Failure::VerificationFails)),
        ("3", json!({"alg": "HS256", "kid": "a"}), Err(Failure::VerificationFails)),
        ("1", json!({"alg": "HS256", "kid": "c"}), Err(Failure::JwksNoMatch)),
        ("3", json!({"alg": "HS384", "kid": "b"}), Err(Failure::JwksNoMatch)),
    ] {
        assert_eq!(keys.verify(&signed(secret, header.clone())), expected, "{secret} {header}");
    }
    assert_eq!(with_any.verify(&signed("4", json!({"alg": "HS256", "kid": "c"}))), Ok(()));
}

#[test]
fn documents_without_keys() {
    for (text, why) in [
        ("", Failure::JwksBadJson),
        ("[]", Failure::JwksBadJson),
        ("{}", Failure::JwksNoKeys),
        (r#"{"a": "b"}"#, Failure::JwksNoKeys),
        (r#"{"keys": {}}"#, Failure::JwksBadKeys),
        (r#"{"keys": []}"#, Failure::JwksNoValidKeys),
        (r#"{"keys": [1]}"#, Failure::JwksNoValidKeys),
        (r#"{"keys": [{}, {"kty": 1}]}"#, Failure::MissingKty),
        (r#"{"keys": [{"kty": 1}, {}]}"#, Failure::BadKty),
        ("{\"k\": \"-----BEGIN CERTIFICATE-----\\nYWJj\\n-----END CERTIFICATE-----\\n\"}", Failure::X509Unreadable),
    ] {
        assert_eq!(Jwks::parse(text.as_bytes()).err(), Some(why), "{text}");
    }
}

#[test]
fn bad_keys() {
    let (_, ec) = ec_key(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let rsa = json!({"kty": "RSA", "n": encode([0xff; 256]), "e": "AQAB"});
    for (jwk, why) in [
        (json!({"kty": "x"}), Failure::UnknownKty),
        (json!({"kty": "RSA", "alg": "ES256"}), Failure::RsaBadAlg),
        (json!({"kty": "RSA"}), Failure::RsaMissingN),
        (json!({"kty": "RSA", "n": 1}), Failure::RsaBadN),
        (json!({"kty": "RSA", "n": "YQ"}), Failure::RsaMissingE),
        (json!({"kty": "RSA", "n": "YQ", "e": 1}), Failure::RsaBadE),
        (with(&rsa, json!({"n": "*"})), Failure::JwksBadRsa),
        (with(&rsa, json!({"e": "AQ"})), Failure::JwksBadRsa),
        (with(&rsa, json!({"n": encode([0xfe; 256])})), Failure::JwksBadRsa),
        (with(&rsa, json!({"n": encode([0xff; 8])})), Failure::JwksBadRsa),
        (json!({"kty": "EC", "alg": "RS256"}), Failure::EcBadAlg),
        (json!({"kty": "EC", "crv": 1}), Failure::EcBadCrv),
        (json!({"kty": "EC", "crv": "P-384", "alg": "ES256"}), Failure::EcIncompatible),
        (json!({"kty": "EC", "crv": "P-1"}), Failure::EcUnknown),
        (json!({"kty": "EC", "alg": "ES1"}), Failure::EcUnknown),
        (json!({"kty": "EC"}), Failure::EcMissingX),
        (json!({"kty": "EC", "x": 1}), Failure::EcBadX),
        (json!({"kty": "EC", "x": "YQ"}), Failure::EcMissingY),
        (json!({"kty": "EC", "x": "YQ", "y": 1}), Failure::EcBadY),
        (with(&ec, json!({"x": "*"})), Failure::JwksEcBadBase64),
        (with(&ec, json!({"x": "YQ"})), Failure::JwksBadEc),
        (with(&ec, json!({"x": encode([1; 33])})), Failure::JwksBadEc),
        (json!({"kty": "oct", "alg": "RS256"}), Failure::OctBadAlg),
        (json!({"kty": "oct"}), Failure::OctMissingK),
        (json!({"kty": "oct", "k": 1}), Failure::OctBadK),
        (json!({"kty": "oct", "k": ""}), Failure::JwksOctBadBase64),
        (json!({"kty": "oct", "k": "*"}), Failure::JwksOctBadBase64),
        (json!({"kty": "OKP", "alg": "ES256"}), Failure::OkpBadAlg),
        (json!({"kty": "OKP"}), Failure::OkpMissingCrv),
        (json!({"kty": "OKP", "crv": 1}), Failure::OkpBadCrv),
        (json!({"kty": "OKP", "crv": "X25519"}), Failure::OkpUnknownCrv),
        (json!({"kty": "OKP", "crv": "Ed25519"}), Failure::OkpMissingX),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": 1}), Failure::OkpBadX),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": "*"}), Failure::JwksOkpBadBase64),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": "YQ"}), Failure::JwksOkpWrongLength),
    ] {
        assert_eq!(jwks(std::slice::from_ref(&jwk)).err(), Some(why), "{jwk}");
        let good = json!({"kty": "oct", "k": "YQ"});
        assert_eq!(jwks(&[jwk, good]).unwrap().keys.len(), 1, "the others serve");
    }
}

#[test]
fn certificates_by_key_id() {
    let (pair, _) = rsa_key();
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let key = rcgen::KeyPair::try_from(der.as_ref()).unwrap();
    let pem = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem().replace("\r\n", "\n");
    let keys = Jwks::parse(json!({ "k": pem }).to_string().as_bytes()).unwrap();
    let sign = |message: &[u8]| rsa_sign(&pair, &RSA_PKCS1_SHA256, message);
    assert_eq!(keys.verify(&token(&json!({"alg": "RS256", "kid": "k"}), sign)), Ok(()));
    assert_eq!(keys.verify(&token(&json!({"alg": "RS256", "kid": "l"}), sign)), Err(Failure::JwksNoMatch));

    let elliptic = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap().cert.pem().replace("\r\n", "\n");
    assert_eq!(Jwks::parse(json!({ "k": elliptic }).to_string().as_bytes()).err(), Some(Failure::X509NoKey));
    for bad in
        [json!({"k": pem, "l": 1}), json!({"": pem}), json!({"k": format!(" {pem}")}), json!({"k": pem.trim_end()})]
    {
        assert_eq!(Jwks::parse(bad.to_string().as_bytes()).err(), Some(Failure::JwksNoKeys));
    }
}

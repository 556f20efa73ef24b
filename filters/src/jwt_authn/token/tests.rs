use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::*;

/// The claims of a token that expires a hundred seconds after 1970 began.
pub(in crate::jwt_authn) const TEXT_EXPIRES_100: &str = r#"{"exp": 100}"#;

/// A token of these claims that nobody signed.
pub(in crate::jwt_authn) fn unsigned(claims: &str) -> Token {
    Token::parse(compact(r#"{"alg": "HS256"}"#, claims).as_bytes()).unwrap()
}

fn compact(header: &str, claims: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", encode(header), encode(claims), encode("signature"))
}

fn failure(header: &str, claims: &str) -> Option<Failure> {
    Token::parse(compact(header, claims).as_bytes()).err()
}

#[test]
fn a_token_says_what_it_says() {
    let claims = r#"{"iss": "i", "sub": "s", "aud": ["a", "b"], "exp": 3.9, "nbf": 1, "iat": 2, "jti": "j"}"#;
    let text = compact(r#"{"alg": "ES384", "kid": "k"}"#, claims);
    let token = Token::parse(text.as_bytes()).unwrap();
    assert_eq!((&*token.issuer, &*token.subject, &*token.kid), ("i", "s", "k"));
    assert_eq!(token.audiences, ["a", "b"]);
    assert_eq!(token.algorithm.name(), "ES384");
    assert_eq!((token.not_before, token.expires), (1, 3));
    assert_eq!(token.signature, b"signature");
    assert_eq!(token.encoded_payload(), URL_SAFE_NO_PAD.encode(claims));
    assert_eq!([token.signed(), b".", URL_SAFE_NO_PAD.encode("signature").as_bytes()].concat(), text.as_bytes());
}

#[test]
fn sections() {
    for (text, why) in [
        ("", Failure::BadFormat),
        ("a.b", Failure::BadFormat),
        ("a.b.c.d", Failure::BadFormat),
        ("..", Failure::BadFormat),
        ("*.b.c", Failure::HeaderBadBase64),
        ("e30.b.c", Failure::HeaderBadAlg),
        ("YWJj.b.c", Failure::HeaderBadJson),
    ] {
        assert_eq!(Token::parse(text.as_bytes()).err(), Some(why), "{text}");
    }
    let text = compact(r#"{"alg": "HS256"}"#, "{}");
    let (signed, _) = text.rsplit_once('.').unwrap();
    assert_eq!(Token::parse(format!("{signed}.*").as_bytes()).err(), Some(Failure::SignatureBadBase64));
    let (header, _) = text.split_once('.').unwrap();
    assert_eq!(Token::parse(format!("{header}.*.YWJj").as_bytes()).err(), Some(Failure::PayloadBadBase64));
    assert!(Token::parse(format!("..{text}.").as_bytes()).is_ok(), "empty sections do not count");
}

#[test]
fn members_of_the_wrong_kind() {
    let good = r#"{"alg": "HS256"}"#;
    for (header, claims, why) in [
        (r#"{"alg": 1}"#, "{}", Failure::HeaderBadAlg),
        (r#"{"alg": "none"}"#, "{}", Failure::HeaderUnknownAlg),
        (r#"{"alg": "HS256", "kid": 1}"#, "{}", Failure::HeaderBadKid),
        (good, "[]", Failure::PayloadBadJson),
        (good, r#"{"iss": 1}"#, Failure::IssNotString),
        (good, r#"{"sub": null}"#, Failure::SubNotString),
        (good, r#"{"iat": "1"}"#, Failure::IatNotInteger),
        (good, r#"{"iat": -1}"#, Failure::IatOutOfRange),
        (good, r#"{"nbf": "1"}"#, Failure::NbfNotInteger),
        (good, r#"{"nbf": 18446744073709551616}"#, Failure::NbfOutOfRange),
        (good, r#"{"exp": true}"#, Failure::ExpNotInteger),
        (good, r#"{"exp": 1e99}"#, Failure::ExpOutOfRange),
        (good, r#"{"jti": 1}"#, Failure::JtiNotString),
        (good, r#"{"aud": 1}"#, Failure::AudNotString),
        (good, r#"{"aud": ["a", 1]}"#, Failure::AudNotString),
        (good, r#"{"exp": "1", "iss": 1}"#, Failure::IssNotString),
    ] {
        assert_eq!(failure(header, claims), Some(why), "{header} {claims}");
    }
}

#[test]
fn times() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let token = unsigned(r#"{"nbf": 100, "exp": 200}"#);
    for (now, skew, expected) in [
        (100, 0, Ok(())),
        (99, 0, Err(Failure::NotYetValid)),
        (40, 60, Ok(())),
        (39, 60, Err(Failure::NotYetValid)),
        (200, 0, Ok(())),
        (201, 0, Err(Failure::Expired)),
        (260, 60, Ok(())),
        (261, 60, Err(Failure::Expired)),
    ] {
        assert_eq!(token.check_time(at(now), skew), expected, "{now} {skew}");
    }
    assert_eq!(token.remaining(at(150)), Some(Duration::from_secs(50)));
    assert_eq!(token.remaining(at(250)), Some(Duration::ZERO));
    for forever in ["{}", r#"{"exp": 0}"#] {
        assert_eq!(unsigned(forever).check_time(at(u64::from(u32::MAX)), 0), Ok(()));
        assert_eq!(unsigned(forever).remaining(at(0)), None);
    }
}

proptest! {
    #[test]
    fn takes_any_bytes(bytes: Vec<u8>) {
        drop(Token::parse(&bytes));
    }

    #[test]
    fn takes_any_claims(header in "\\PC*", claims in "\\PC*") {
        drop(Token::parse(compact(&header, &claims).as_bytes()));
    }
}

//! Why a token, or a set of keys, is not accepted: Envoy's words, and its numbers for dynamic metadata.

macro_rules! failures {
    ($($(#[$meta:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a token, or a set of keys, is not accepted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Failure {
            $($(#[$meta])* #[doc = concat!("`", $text, "`")] $name = $code,)*
        }

        impl Failure {
            /// What the client, the log and metadata are told.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

failures! {
    Missing = 1, "Jwt is missing";
    NotYetValid = 2, "Jwt not yet valid";
    Expired = 3, "Jwt is expired";
    BadFormat = 4, "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";
    HeaderBadBase64 = 5, "Jwt header is an invalid Base64url encoded";
    HeaderBadJson = 6, "Jwt header is an invalid JSON";
    HeaderBadAlg = 7, "Jwt header [alg] field is required and must be a string";
    HeaderUnknownAlg = 8, "Jwt header [alg] is not supported";
    HeaderBadKid = 9, "Jwt header [kid] field is not a string";
    PayloadBadBase64 = 10, "Jwt payload is an invalid Base64url encoded";
    PayloadBadJson = 11, "Jwt payload is an invalid JSON";
    IssNotString = 12, "Jwt payload [iss] field is not a string";
    SubNotString = 13, "Jwt payload [sub] field is not a string";
    IatNotInteger = 14, "Jwt payload [iat] field is not an integer";
    IatOutOfRange = 15, "Jwt payload [iat] field is not a positive 64 bit integer";
    NbfNotInteger = 16, "Jwt payload [nbf] field is not an integer";
    NbfOutOfRange = 17, "Jwt payload [nbf] field is not a positive 64 bit integer";
    ExpNotInteger = 18, "Jwt payload [exp] field is not an integer";
    ExpOutOfRange = 19, "Jwt payload [exp] field is not a positive 64 bit integer";
    JtiNotString = 20, "Jwt payload [jti] field is not a string";
    AudNotString = 21, "Jwt payload [aud] field is not a string or string list";
    SignatureBadBase64 = 22, "Jwt signature is an invalid Base64url encoded";
    Ed25519WrongLength = 23, "Jwt ED25519 signature is wrong length";
    UnknownIssuer = 24, "Jwt issuer is not configured";
    AudienceNotAllowed = 25, "Audiences in Jwt are not allowed";
    VerificationFails = 26, "Jwt verification fails";
    JwksBadJson = 28, "Jwks is an invalid JSON";
    JwksNoKeys = 29, "Jwks does not have [keys] field";
    JwksBadKeys = 30, "[keys] in Jwks is not an array";
    JwksNoValidKeys = 31, "Jwks doesn't have any valid public key";
    JwksNoMatch = 32, "Jwks doesn't have key to match kid or alg from Jwt";
    JwksBadRsa = 33, "Jwks RSA [n] or [e] field is missing or has a parse error";
    JwksEcBadBase64 = 35, "Jwks EC [x] or [y] field is an invalid Base64.";
    JwksBadEc = 36, "Jwks EC [x] and [y] fields have a parse error.";
    JwksOctBadBase64 = 37, "Jwks Oct key is an invalid Base64";
    JwksOkpBadBase64 = 38, "Jwks OKP [x] field is an invalid Base64.";
    JwksOkpWrongLength = 39, "Jwks OKP [x] field is wrong length.";
    JwksFetchFails = 40, "Jwks remote fetch is failed";
    MissingKty = 41, "[kty] is missing in [keys]";
    BadKty = 42, "[kty] is bad in [keys]";
    UnknownKty = 43, "[kty] is not supported in [keys]";
    RsaBadAlg = 44, "[alg] is not started with [RS] or [PS] for an RSA key";
    RsaMissingN = 45, "[n] field is missing for a RSA key";
    RsaBadN = 46, "[n] field is not string for a RSA key";
    RsaMissingE = 47, "[e] field is missing for a RSA key";
    RsaBadE = 48, "[e] field is not string for a RSA key";
    EcBadAlg = 49, "[alg] is not started with [ES] for an EC key";
    EcBadCrv = 50, "[crv] field is not string for an EC key";
    EcUnknown = 51, "[crv] or [alg] field is not supported for an EC key";
    EcIncompatible = 52, "[crv] field specified is not compatible with [alg] for an EC key";
    EcMissingX = 53, "[x] field is missing for an EC key";
    EcBadX = 54, "[x] field is not string for an EC key";
    EcMissingY = 55, "[y] field is missing for an EC key";
    EcBadY = 56, "[y] field is not string for an EC key";
    OctBadAlg = 57, "[alg] does not start with [HS] for an HMAC key";
    OctMissingK = 58, "[k] field is missing for an HMAC key";
    OctBadK = 59, "[k] field is not string for an HMAC key";
    OkpBadAlg = 60, "[alg] is not [EdDSA] for an OKP key";
    OkpMissingCrv = 61, "[crv] field is missing for an OKP key";
    OkpBadCrv = 62, "[crv] field is not string for an OKP key";
    OkpUnknownCrv = 63, "[crv] field is not supported for an OKP key";
    OkpMissingX = 64, "[x] field is missing for an OKP key";
    OkpBadX = 65, "[x] field is not string for an OKP key";
    X509Unreadable = 67, "X509 parse pubkey fails";
    X509NoKey = 68, "X509 parse pubkey internal fails: get pubkey";
}

impl Failure {
    /// The number by which metadata know it.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The status of a request that is denied for it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::AudienceNotAllowed => 403,
            _ => 401,
        }
    }
}

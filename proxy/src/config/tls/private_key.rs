//! Private keys in PEM: PKCS#8, PKCS#1 and SEC 1, encrypted ones in PKCS#8 (PBES2) or the traditional way (RFC 1421 headers,
//! OpenSSL's derivation).
//!
//! What decrypts keys is not part of the module that FIPS 140-3 validated, so builds that promise it refuse encrypted ones.

use std::sync::Arc;

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, KeyIvInit, KeySizeUser};
use md5::{Digest, Md5};
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::pbes2::Kdf;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;

use super::pem::{self, Block, Broken};
use crate::tls::words;

/// Derivations are counted; a key that would take longer than about a second is no key anybody made.
const MAX_ITERATIONS: u32 = 10_000_000;

/// Why there is no key, in the words of Envoy's TLS library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    #[error("error:0900006e:PEM routines:OPENSSL_internal:NO_START_LINE")]
    NoKey,
    #[error("error:09000064:PEM routines:OPENSSL_internal:BAD_BASE64_DECODE")]
    BrokenPem,
    #[error("error:09000066:PEM routines:OPENSSL_internal:BAD_END_LINE")]
    Unended,
    #[error("error:09000068:PEM routines:OPENSSL_internal:BAD_PASSWORD_READ")]
    NoPassword,
    #[error("error:1e000065:Cipher functions:OPENSSL_internal:BAD_DECRYPT")]
    BadPassword,
    #[error("error:09000072:PEM routines:OPENSSL_internal:UNSUPPORTED_ENCRYPTION")]
    UnknownEncryption,
    #[error("error:13000080:PKCS8 routines:OPENSSL_internal:UNSUPPORTED_KEY_DERIVATION_FUNCTION")]
    UnknownDerivation,
    #[error(
        "it is encrypted, and what decrypts it is not validated by FIPS 140-3; this build takes keys in plain text"
    )]
    NotApproved,
    #[error("error:06000066:public key routines:OPENSSL_internal:DECODE_ERROR")]
    NotAKey,
}

/// The first private key of `data`.
pub(super) fn read(data: &[u8], password: &[u8]) -> Result<Arc<dyn SigningKey>, KeyError> {
    for block in pem::blocks(data) {
        let block = block.map_err(|broken| match broken {
            Broken::End => KeyError::Unended,
            Broken::Data => KeyError::BrokenPem,
        })?;
        let key = match block.label {
            "PRIVATE KEY" => PrivateKeyDer::Pkcs8(decrypt_traditional(block, password)?.into()),
            "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(decrypt_traditional(block, password)?.into()),
            "EC PRIVATE KEY" => PrivateKeyDer::Sec1(decrypt_traditional(block, password)?.into()),
            "ENCRYPTED PRIVATE KEY" => PrivateKeyDer::Pkcs8(decrypt_pkcs8(&block.der, password)?.into()),
            // Parameters of curves and certificates may stand in front.
            _ => continue,
        };
        return signing(&key);
    }
    Err(KeyError::NoKey)
}

/// The key as it is used.
pub(super) fn signing(key: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, KeyError> {
    rustls::crypto::aws_lc_rs::sign::any_supported_type(key).map_err(|_| KeyError::NotAKey)
}

fn decrypt_pkcs8(der: &[u8], password: &[u8]) -> Result<Vec<u8>, KeyError> {
    unlocking(password)?;
    let key = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|_| KeyError::UnknownEncryption)?;
    match key.encryption_algorithm.pbes2().map(|parameters| &parameters.kdf) {
        Some(Kdf::Pbkdf2(parameters)) if parameters.iteration_count <= MAX_ITERATIONS => {}
        Some(_) => return Err(KeyError::UnknownDerivation),
        None => return Err(KeyError::UnknownEncryption),
    }
    let plain = key.decrypt(password).map_err(|_| KeyError::BadPassword)?;
    Ok(plain.as_bytes().to_vec())
}

/// Whether a key may be decrypted by this.
fn unlocking(password: &[u8]) -> Result<(), KeyError> {
    match password {
        _ if !words::allowed(false) => Err(KeyError::NotApproved),
        [] => Err(KeyError::NoPassword),
        _ => Ok(()),
    }
}

/// The data of a block, which headers may say is encrypted.
fn decrypt_traditional(block: Block<'_>, password: &[u8]) -> Result<Vec<u8>, KeyError> {
    let header = |name: &str| block.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
    if header("Proc-Type").is_none_or(|value| !value.ends_with("ENCRYPTED")) {
        return Ok(block.der);
    }
    let (cipher, iv) = header("DEK-Info").and_then(|info| info.split_once(',')).ok_or(KeyError::BrokenPem)?;
    let iv = unhex(iv.trim()).ok_or(KeyError::BrokenPem)?;
    unlocking(password)?;
    let decrypt = match cipher {
        "AES-128-CBC" => cbc::<aes::Aes128>,
        "AES-192-CBC" => cbc::<aes::Aes192>,
        "AES-256-CBC" => cbc::<aes::Aes256>,
        "DES-EDE3-CBC" => cbc::<des::TdesEde3>,
        _ => return Err(KeyError::UnknownEncryption),
    };
    decrypt(&iv, password, &block.der)
}

fn cbc<C>(iv: &[u8], password: &[u8], data: &[u8]) -> Result<Vec<u8>, KeyError>
where
    ::cbc::Decryptor<C>: KeyIvInit + BlockModeDecrypt,
    C: aes::cipher::BlockCipherDecrypt,
{
    let key = derive(password, iv.get(..8).ok_or(KeyError::BrokenPem)?, ::cbc::Decryptor::<C>::key_size());
    ::cbc::Decryptor::<C>::new_from_slices(&key, iv)
        .map_err(|_| KeyError::BrokenPem)?
        .decrypt_padded_vec::<Pkcs7>(data)
        .map_err(|_| KeyError::BadPassword)
}

/// OpenSSL's derivation of keys for PEM: rounds of MD5, each over the one before, the password and the salt.
fn derive(password: &[u8], salt: &[u8], length: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(length + 16);
    let mut round: Vec<u8> = Vec::new();
    while key.len() < length {
        round = Md5::new().chain_update(&round).chain_update(password).chain_update(salt).finalize().to_vec();
        key.extend(&round);
    }
    key.truncate(length);
    key
}

/// The bytes that hexadecimal digits stand for.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let (pairs, rest) = digits.as_ref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

//! What a client's hello says that rustls keeps to itself.

/// What a ClientHello asks for (RFC 8446 section 4.1.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// It speaks TLS 1.3 (`supported_versions`).
    pub speaks_13: bool,
    /// It wants an OCSP response with the certificate (`status_request`).
    pub staple: bool,
    /// Whom it asks for (`server_name`), as it wrote it; empty for nobody.
    pub server_name: String,
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const STATUS_REQUEST: u16 = 5;
const SUPPORTED_VERSIONS: u16 = 43;
const TLS_13: [u8; 2] = [3, 4];

impl Wishes {
    /// What the records say that a client began with. What cannot be read asks for nothing.
    #[must_use]
    pub fn of(records: &[u8]) -> Self {
        let mut message = Vec::with_capacity(records.len());
        let mut rest = records;
        while let Some((&[HANDSHAKE, _, _, high, low], after)) = rest.split_first_chunk() {
            let length = usize::from(u16::from_be_bytes([high, low]));
            let Some((fragment, next)) = after.split_at_checked(length) else { break };
            message.extend_from_slice(fragment);
            rest = next;
        }
        Self::of_message(&message).unwrap_or_default()
    }

    fn of_message(message: &[u8]) -> Option<Self> {
        let (&[CLIENT_HELLO, _, _, _], body) = message.split_first_chunk()? else { return None };
        // Version and random.
        let rest = body.get(34..)?;
        let (_session, rest) = vector::<1>(rest)?;
        let (_suites, rest) = vector::<2>(rest)?;
        let (_compressions, rest) = vector::<1>(rest)?;
        let (mut extensions, _) = vector::<2>(rest)?;
        let mut wishes = Self::default();
        while let Some((kind, rest)) = extensions.split_first_chunk() {
            let (content, next) = vector::<2>(rest)?;
            match u16::from_be_bytes(*kind) {
                SERVER_NAME => {
                    let (names, _) = vector::<2>(content)?;
                    // The first is a host's, and there is never another (RFC 6066 section 3).
                    let (name, _) = vector::<2>(names.get(1..)?)?;
                    wishes.server_name = String::from_utf8_lossy(name).into_owned();
                }
                STATUS_REQUEST => wishes.staple = true,
                SUPPORTED_VERSIONS => {
                    let (versions, _) = vector::<1>(content)?;
                    wishes.speaks_13 = versions.chunks_exact(2).any(|version| version == TLS_13);
                }
                _ => {}
            }
            extensions = next;
        }
        Some(wishes)
    }
}

/// A vector whose length is in `N` bytes before it, and what follows.
fn vector<const N: usize>(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<N>()?;
    rest.split_at_checked(length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// What rustls says as a client.
    fn hello(versions: &[&'static rustls::SupportedProtocolVersion]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let mut client = ClientConnection::new(config.into(), "a.test".try_into().expect("a name")).expect("a client");
        let mut said = Vec::new();
        client.write_tls(&mut said).expect("a hello");
        said
    }

    #[test]
    fn a_hello_says_its_versions_and_whether_it_wants_a_staple() {
        let new = hello(&[&rustls::version::TLS13, &rustls::version::TLS12]);
        let asked = Wishes { speaks_13: true, staple: true, server_name: "a.test".to_owned() };
        assert_eq!(Wishes::of(&new), asked);
        assert_eq!(Wishes::of(&hello(&[&rustls::version::TLS12])), Wishes { speaks_13: false, ..asked.clone() });
        // In records of one byte each, too.
        let split: Vec<u8> = new[5..].iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
        assert_eq!(Wishes::of(&split), asked);
        for cut in 0..new.len() {
            assert_eq!(Wishes::of(&new[..cut]), Wishes::default(), "{cut}");
        }
    }
}

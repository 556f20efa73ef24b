//! The context of a cluster: how its hosts are spoken to.

use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NoKeyLog};
use xxhash_rust::xxh64::xxh64;

use super::SecretUser;
use super::context::{CommonTls, Ingredients, LastAgreed};
use super::secret::NamedSecret;
use super::signing::limited;
use super::verify::{Peer, Verifier};

/// `UpstreamTlsContext`
#[derive(Debug)]
pub struct UpstreamTls {
    /// `common_tls_context`
    pub common: CommonTls,
    /// `sni`; empty for none.
    pub sni: String,
    /// `auto_host_sni`: the host's name is asked for, where it has one.
    pub auto_host_sni: bool,
    /// `auto_sni_san_validation`: the certificate has to be for the name that was asked for.
    pub auto_sni_san_validation: bool,
    /// `max_session_keys` (1); 0 for no resumption.
    pub max_session_keys: usize,
}

/// An upstream context, and what it was made of last.
pub struct ClientContext {
    config: UpstreamTls,
    made: ArcSwapOption<Made>,
}

/// Two are the same only if they are one.
impl PartialEq for ClientContext {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

#[derive(Debug)]
struct Made {
    config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
    agreed: Arc<LastAgreed>,
    certificate: Option<Arc<filters::tls::Certificate>>,
}

/// What a connection to a host begins with.
#[derive(Debug)]
pub struct Hello {
    /// rustls's configuration.
    pub config: Arc<ClientConfig>,
    /// Whom the context trusts.
    pub verifier: Arc<Verifier>,
    /// What was agreed on last.
    pub agreed: Arc<LastAgreed>,
    /// The certificate the server gets if it asks for one.
    pub certificate: Option<Arc<filters::tls::Certificate>>,
    /// Whom to ask for.
    pub server: ServerName<'static>,
    /// What to offer to speak, instead of what the context says.
    pub alpn: Option<Vec<Vec<u8>>>,
    /// A name or address that the server's certificate has to have.
    pub expected: Option<Rc<str>>,
}

impl std::fmt::Debug for ClientContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientContext({:?})", self.config.common)
    }
}

/// What a connection is to be like, beside what the context says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Whom to ask for (`auto_sni`).
    pub server_name: Option<&'a str>,
    /// A name or address that the server's certificate has to have (`auto_san_validation`).
    pub expected: Option<&'a Rc<str>>,
    /// What to offer to speak, whatever the context offers.
    pub alpn: &'a [Vec<u8>],
    /// What to offer to speak if the context offers nothing.
    pub alpn_fallback: &'a [&'a [u8]],
}

impl ClientContext {
    /// A context of this configuration. It is made at once if all it needs is here.
    ///
    /// # Errors
    /// When what is here does not make a context.
    pub fn new(config: UpstreamTls) -> Result<Arc<Self>, String> {
        let context = Self { config, made: ArcSwapOption::empty() };
        context.renew()?;
        Ok(Arc::new(context))
    }

    /// What it is made by.
    #[must_use]
    pub const fn config(&self) -> &UpstreamTls {
        &self.config
    }

    /// Whether all its secrets have come.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.made.load().is_some()
    }

    /// How a connection begins to a host of this name. `None` while secrets are missing.
    #[must_use]
    pub fn hello(&self, host_name: &str, wanted: &Wanted<'_>) -> Option<Hello> {
        let made = self.made.load_full()?;
        let by_host = Some(host_name).filter(|name| self.config.auto_host_sni && !name.is_empty());
        let name = wanted.server_name.or(by_host).unwrap_or(&self.config.sni);
        let server = ServerName::try_from(name.to_owned()).ok();
        let server = server.unwrap_or_else(|| nameless(wanted.expected.map_or("", |name| &**name)));
        let offered = if !wanted.alpn.is_empty() || !self.config.common.alpn.is_empty() {
            wanted.alpn.to_vec()
        } else {
            wanted.alpn_fallback.iter().map(|it| it.to_vec()).collect()
        };
        Some(Hello {
            config: Arc::clone(&made.config),
            verifier: Arc::clone(&made.verifier),
            agreed: Arc::clone(&made.agreed),
            certificate: made.certificate.clone(),
            server,
            alpn: Some(offered).filter(|alpn| !alpn.is_empty()),
            expected: wanted.expected.cloned(),
        })
    }

    fn make(&self, ingredients: &Ingredients) -> Result<Made, String> {
        let common = &self.config.common;
        let provider = common.provider();
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Verifier::new(ingredients.validation.clone(), Peer::Server, algorithms)
            .by_server_name(self.config.auto_sni_san_validation)
            .by_schemes(common.schemes.as_ref());
        let verifier = Arc::new(verifier);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&common.versions)
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _);
        let certificate = ingredients.certificates.first();
        let mut config = match certificate {
            Some(certificate) => builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                limited(&certificate.key, common.schemes.as_ref()),
            ))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = common.alpn.clone();
        config.check_selected_alpn = false;
        config.key_log = common.key_log.clone().unwrap_or_else(|| Arc::new(NoKeyLog));
        config.resumption = match self.config.max_session_keys {
            0 => Resumption::disabled(),
            // rustls keeps at least one session for each of so many servers.
            keys => Resumption::in_memory_sessions(keys.max(8)),
        };
        Ok(Made {
            config: Arc::new(config),
            verifier,
            agreed: Arc::default(),
            certificate: certificate.and_then(|it| it.chain.first().cloned()),
        })
    }
}

/// A server that is asked for by no name, as rustls does where it is an address. Sessions are remembered by it, and one that was
/// made for another expected name is not to be resumed.
fn nameless(expected: &str) -> ServerName<'static> {
    let half = |seed| u128::from(xxh64(expected.as_bytes(), seed));
    ServerName::IpAddress(IpAddr::V6(Ipv6Addr::from_bits(half(0) << 64 | half(1))).into())
}

impl SecretUser for ClientContext {
    fn named_secrets(&self) -> Vec<&NamedSecret> {
        self.config.common.named().collect()
    }

    fn renew(&self) -> Result<(), String> {
        let Some(ingredients) = self.config.common.ingredients()? else { return Ok(()) };
        self.made.store(Some(Arc::new(self.make(&ingredients)?)));
        Ok(())
    }

    fn made_of(&self) -> Option<Ingredients> {
        // What could not be made was taken out of the slots again.
        if self.is_ready() { self.config.common.ingredients().ok().flatten() } else { None }
    }
}

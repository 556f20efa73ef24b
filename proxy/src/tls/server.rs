//! The context of a filter chain: what clients are answered with.

mod certificates;
mod tickets;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::OcspStaplePolicy;
use rustls::server::{ClientHello, NoServerSessionStorage, ServerSessionMemoryCache};
use rustls::version::TLS13;
use rustls::{CipherSuite, NoKeyLog, ServerConfig};

use self::certificates::Certificates;
pub use self::certificates::Staple;
use self::tickets::Ticketer;
use super::SecretUser;
use super::context::{CommonTls, Ingredients, LastAgreed};
use super::hello::Wishes;
use super::secret::{NamedSecret, Secret, TicketKeys};
use super::verify::{Peer, Verifier};

/// Sessions remembered for clients that resume them by their id.
const REMEMBERED: usize = 20_480;

/// `DownstreamTlsContext`
#[derive(Debug)]
pub struct DownstreamTls {
    /// `common_tls_context`
    pub common: CommonTls,
    /// `require_client_certificate`
    pub require_client_certificate: bool,
    /// `session_ticket_keys_type`
    pub tickets: Tickets,
    /// `disable_stateful_session_resumption`
    pub forget_sessions: bool,
    /// `session_timeout` (7200 s)
    pub session_timeout: Duration,
    /// `full_scan_certs_on_sni_mismatch`
    pub full_scan: bool,
    /// `prefer_client_ciphers`
    pub prefer_client_ciphers: bool,
    /// `ocsp_staple_policy`
    pub ocsp_policy: OcspStaplePolicy,
}

/// How sessions are put into tickets.
#[derive(Debug)]
pub enum Tickets {
    /// By keys of this process.
    Own,
    /// `disable_stateless_session_resumption`
    Disabled,
    /// `session_ticket_keys`
    Here(Arc<TicketKeys>),
    /// `session_ticket_keys_sds_secret_config`
    Named(Box<NamedSecret>),
}

/// A downstream context, and what it was made of last.
pub struct ServerContext {
    config: DownstreamTls,
    made: ArcSwapOption<Made>,
}

/// rustls's configuration, in the variants a handshake needs: it chooses by the client's hello.
#[derive(Debug)]
struct Made {
    /// Suites in our order.
    ours: Arc<ServerConfig>,
    /// Suites in the client's order.
    theirs: Arc<ServerConfig>,
    /// The same without ALPN: rustls turns clients away with whom it has no protocol in common, Envoy does not.
    without_alpn: [Arc<ServerConfig>; 2],
    certificates: Arc<Certificates>,
    agreed: Arc<LastAgreed>,
}

impl ServerContext {
    /// A context of this configuration. It is made at once if all it needs is here.
    ///
    /// # Errors
    /// When what is here does not make a context.
    pub fn new(config: DownstreamTls) -> Result<Arc<Self>, String> {
        let context = Self { config, made: ArcSwapOption::empty() };
        context.renew()?;
        Ok(Arc::new(context))
    }

    /// What it is made by.
    #[must_use]
    pub const fn config(&self) -> &DownstreamTls {
        &self.config
    }

    /// Whether all its secrets have come.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.made.load().is_some()
    }

    /// The certificate of whoever gets no other.
    #[must_use]
    pub fn first_certificate(&self) -> Option<Arc<filters::tls::Certificate>> {
        self.made.load().as_ref()?.certificates.first()
    }

    /// What answers a client that said hello, and wishes so much beside it; `None` while secrets are missing.
    #[must_use]
    pub fn answer(&self, hello: &ClientHello<'_>, wishes: &Wishes) -> Option<Answer> {
        let made = self.made.load_full()?;
        // BoringSSL takes the client's order for TLS 1.3, and its own before.
        let in_13 = wishes.speaks_13 && self.config.common.versions.contains(&&TLS13);
        let theirs = self.config.prefer_client_ciphers || in_13;
        let alpn = &made.ours.alpn_protocols;
        let has_common = hello.alpn().is_none_or(|offered| {
            alpn.is_empty() || offered.into_iter().any(|offer| alpn.iter().any(|ours| ours == offer))
        });
        let config = match (has_common, theirs) {
            (true, true) => &made.theirs,
            (true, false) => &made.ours,
            (false, theirs) => &made.without_alpn[usize::from(theirs)],
        };
        let chosen = made.certificates.choose(hello);
        let suites = hello.cipher_suites();
        let first_13 = suites.iter().find(|suite| in_13 && u16::from(**suite) >> 8 == 0x13).copied();
        Some(Answer {
            config: Arc::clone(config),
            agreed: Arc::clone(&made.agreed),
            staple: chosen.map_or(Staple::None, |it| it.staple(self.config.ocsp_policy)),
            certificate: chosen.and_then(|it| it.leaf.clone()),
            first_13,
        })
    }

    fn make(&self, ingredients: &Ingredients, keys: Option<Arc<TicketKeys>>) -> Result<Made, String> {
        let common = &self.config.common;
        let provider = common.provider();
        let validation = ingredients.validation.clone().filter(|context| context.asks_clients());
        let algorithms = provider.signature_verification_algorithms;
        let require = self.config.require_client_certificate;
        let required = validation.as_ref().is_some_and(|context| context.requires_certificate(require));
        let tell = !validation.as_ref().is_some_and(|context| context.suppress_client_ca_list);
        let verifier = Verifier::new(validation, Peer::Client, algorithms)
            .of_clients(required, tell)
            .by_schemes(common.schemes.as_ref());
        let certificates =
            Arc::new(Certificates::new(&ingredients.certificates, self.config.full_scan, common.schemes.as_ref()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&common.versions)
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::clone(&certificates) as _);
        config.ignore_client_order = true;
        config.alpn_protocols = common.alpn.clone();
        config.key_log = common.key_log.clone().unwrap_or_else(|| Arc::new(NoKeyLog));
        config.session_storage = if self.config.forget_sessions {
            Arc::new(NoServerSessionStorage {})
        } else {
            ServerSessionMemoryCache::new(REMEMBERED)
        };
        config.ticketer = match (&self.config.tickets, keys) {
            (Tickets::Disabled, _) => config.ticketer,
            (_, Some(keys)) => Arc::new(Ticketer::new(&keys, ingredients, self.config.session_timeout)),
            (_, None) => rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?,
        };
        if matches!(self.config.tickets, Tickets::Disabled) {
            // In TLS 1.3 BoringSSL remembers nothing either.
            config.send_tls13_tickets = 0;
        }
        let variant = |ignore_client_order, alpn: bool| {
            let mut config = config.clone();
            config.ignore_client_order = ignore_client_order;
            if !alpn {
                config.alpn_protocols.clear();
            }
            Arc::new(config)
        };
        Ok(Made {
            ours: variant(true, true),
            theirs: variant(false, true),
            without_alpn: [variant(true, false), variant(false, false)],
            certificates,
            agreed: Arc::default(),
        })
    }
}

impl std::fmt::Debug for ServerContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerContext({:?})", self.config.common)
    }
}

/// What answers a client.
#[derive(Debug)]
pub struct Answer {
    /// rustls's configuration.
    pub config: Arc<ServerConfig>,
    /// What was agreed on last.
    pub agreed: Arc<LastAgreed>,
    /// The certificate it gets; `None` if there is none.
    pub certificate: Option<Arc<filters::tls::Certificate>>,
    /// What becomes of its wish for an OCSP response.
    pub staple: Staple,
    /// The suite if TLS 1.3 is spoken.
    pub first_13: Option<CipherSuite>,
}

impl SecretUser for ServerContext {
    fn named_secrets(&self) -> Vec<&NamedSecret> {
        let tickets = match &self.config.tickets {
            Tickets::Named(name) => Some(&**name),
            _ => None,
        };
        self.config.common.named().chain(tickets).collect()
    }

    fn renew(&self) -> Result<(), String> {
        let Some(ingredients) = self.config.common.ingredients()? else { return Ok(()) };
        let keys = match &self.config.tickets {
            Tickets::Own | Tickets::Disabled => None,
            Tickets::Here(keys) => Some(Arc::clone(keys)),
            Tickets::Named(name) => match name.current().as_deref() {
                Some(Secret::TicketKeys(keys)) => Some(Arc::clone(keys)),
                _ => return Ok(()),
            },
        };
        self.made.store(Some(Arc::new(self.make(&ingredients, keys)?)));
        Ok(())
    }

    fn made_of(&self) -> Option<Ingredients> {
        // What could not be made was taken out of the slots again.
        if self.is_ready() { self.config.common.ingredients().ok().flatten() } else { None }
    }
}

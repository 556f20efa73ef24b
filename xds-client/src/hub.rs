//! One place to subscribe at: finds or starts the client for a source and runs its driver.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;

use crate::channel::Channels;
use crate::client::{Client, Consumer, Subscription};
use crate::connect::Network;
use crate::mux::{Mode, MuxConfig};
use crate::observer::{SourceObserver, Unobserved};
use crate::rest::RestCodec;
use crate::source::{FileSource, GrpcSource, RestSource, SourceConfig};
use crate::subscription::Interest;
use crate::types::{ADS_DELTA_METHOD, ADS_SOTW_METHOD, resource_type};
use crate::{file, grpc, rest};

/// Turns the content of a file into a response; an error is what is wrong with it. The path tells the format.
pub type FileDecoder = dyn Fn(&Path, &[u8]) -> Result<DiscoveryResponse, String>;

/// What all sources of a process share.
pub struct Environment {
    /// Who we are.
    pub node: Node,
    /// Opens connections to control planes.
    pub network: Rc<dyn Network>,
    /// Reads files.
    pub file_decoder: Rc<FileDecoder>,
    /// Reads and writes REST bodies.
    pub rest_codec: Rc<dyn RestCodec>,
    /// Receives the events of every source.
    pub consumer: Rc<dyn Consumer>,
    /// Seed of all jitter.
    pub seed: u64,
}

/// Why a subscription is refused at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// A source says `ads` and there is none (`dynamic_resources.ads_config`).
    #[error("the source is ADS, but no ads_config is set")]
    NoAds,
    /// The type has no service of this kind.
    #[error("{type_url} is not served by {kind}")]
    NotServed {
        /// The type.
        type_url: Arc<str>,
        /// The kind of service.
        kind: &'static str,
    },
}

/// The sources of one thread.
///
/// Drivers are spawned as local tasks: methods must be called on a [`tokio::runtime::LocalRuntime`] or within a
/// [`tokio::task::LocalSet`].
pub struct Hub {
    environment: Environment,
    channels: Rc<Channels>,
    ads: RefCell<Option<Ads>>,
    seeds: RefCell<fastrand::Rng>,
}

struct Ads {
    client: Client,
    driver: tokio::task::AbortHandle,
}

impl Hub {
    /// A hub without an aggregated stream.
    pub fn new(environment: Environment) -> Self {
        Self {
            channels: Rc::new(Channels::new(Rc::clone(&environment.network))),
            seeds: RefCell::new(fastrand::Rng::with_seed(environment.seed)),
            environment,
            ads: RefCell::new(None),
        }
    }

    /// Configures the aggregated stream (`dynamic_resources.ads_config`); `observer` is the scope `control_plane.`. The
    /// stream opens with the first subscription.
    pub fn set_ads(&self, source: GrpcSource, observer: Rc<dyn SourceObserver>) -> Client {
        let method = match source.mode {
            Mode::StateOfTheWorld => ADS_SOTW_METHOD,
            Mode::Delta => ADS_DELTA_METHOD,
        };
        let client = self.client(grpc_mux(&source), observer);
        let driver = grpc::drive(client.clone(), source, method, Rc::clone(&self.channels));
        let driver = tokio::task::spawn_local(driver).abort_handle();
        let ads = Ads { client: client.clone(), driver };
        if let Some(old) = self.ads.replace(Some(ads)) {
            old.driver.abort();
        }
        client
    }

    /// The client of the aggregated stream.
    pub fn ads(&self) -> Option<Client> {
        self.ads.borrow().as_ref().map(|ads| ads.client.clone())
    }

    /// Subscribes at a source until the returned guard is dropped. Any source but ADS gets a client, and a stream,
    /// poller or watch, of its own.
    pub fn subscribe(&self, source: &SourceConfig, interest: Interest) -> Result<Subscription, SubscribeError> {
        match source {
            SourceConfig::Ads => Ok(self.ads().ok_or(SubscribeError::NoAds)?.subscribe(interest)),
            SourceConfig::Grpc(source) => self.subscribe_grpc(source, interest),
            SourceConfig::Rest(source) => self.subscribe_rest(source, interest),
            SourceConfig::File(source) => Ok(self.subscribe_file(source, interest)),
        }
    }

    fn subscribe_grpc(&self, source: &GrpcSource, interest: Interest) -> Result<Subscription, SubscribeError> {
        let row = resource_type(&interest.type_url);
        let method = match (source.aggregated, source.mode) {
            (true, Mode::StateOfTheWorld) => Some(ADS_SOTW_METHOD),
            (true, Mode::Delta) => Some(ADS_DELTA_METHOD),
            (false, Mode::StateOfTheWorld) => row.and_then(|row| row.sotw_method),
            (false, Mode::Delta) => row.map(|row| row.delta_method),
        };
        let method = method.ok_or_else(|| SubscribeError::NotServed {
            type_url: Arc::clone(&interest.type_url),
            kind: "a gRPC service of its own",
        })?;
        let client = self.client(grpc_mux(source), interest.observer.source());
        let driver = grpc::drive(client.clone(), source.clone(), method, Rc::clone(&self.channels));
        Ok(start(&client, interest, driver))
    }

    fn subscribe_rest(&self, source: &RestSource, interest: Interest) -> Result<Subscription, SubscribeError> {
        let path = resource_type(&interest.type_url).and_then(|row| row.rest_path);
        let path =
            path.ok_or_else(|| SubscribeError::NotServed { type_url: Arc::clone(&interest.type_url), kind: "REST" })?;
        let client = self.client(document_mux(), Rc::new(Unobserved));
        let poller = rest::Poller {
            client: client.clone(),
            source: source.clone(),
            path,
            type_url: Arc::clone(&interest.type_url),
            network: Rc::clone(&self.environment.network),
            codec: Rc::clone(&self.environment.rest_codec),
            rng: fastrand::Rng::with_seed(self.seed()),
        };
        Ok(start(&client, interest, poller.drive()))
    }

    fn subscribe_file(&self, source: &FileSource, interest: Interest) -> Subscription {
        let client = self.client(document_mux(), Rc::new(Unobserved));
        let watcher = file::Watcher {
            client: client.clone(),
            source: source.clone(),
            type_url: Arc::clone(&interest.type_url),
            decoder: Rc::clone(&self.environment.file_decoder),
        };
        start(&client, interest, watcher.drive())
    }

    fn client(&self, config: MuxConfig, observer: Rc<dyn SourceObserver>) -> Client {
        let config = MuxConfig { node: self.environment.node.clone(), seed: self.seed(), ..config };
        Client::new(config, observer, Rc::clone(&self.environment.consumer))
    }

    fn seed(&self) -> u64 {
        self.seeds.borrow_mut().u64(..)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(ads) = self.ads.take() {
            ads.driver.abort();
        }
    }
}

fn grpc_mux(source: &GrpcSource) -> MuxConfig {
    MuxConfig {
        mode: source.mode,
        node_on_first_message_only: source.node_on_first_message_only,
        backoff: source.backoff,
        rate_limit: source.rate_limit,
        ..MuxConfig::default()
    }
}

fn document_mux() -> MuxConfig {
    MuxConfig { whole_documents: true, ..MuxConfig::default() }
}

fn start(client: &Client, interest: Interest, driver: impl Future<Output = ()> + 'static) -> Subscription {
    let subscription = client.subscribe(interest);
    subscription.owning(tokio::task::spawn_local(driver).abort_handle())
}

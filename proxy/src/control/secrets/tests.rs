//! Secrets and their users, with sources that are played and directories nobody watches.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, WatchedDirectory};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use filters::config::Session;
use filters::format::FormatOptions;
use filters::matcher::RegexLimits;
use xds_client::proto::UnknownFields;
use xds_client::{FileSource, Interest, MuxConfig, SourceConfig, SubscribeError, Unobserved};

use super::*;
use crate::control::parse::OnceLockLocal;
use crate::observe::access_log::LogFiles;
use crate::observe::catalogue::{RuntimeStats, ServerStats};
use crate::tls::secret::{NamedSecret, Secret};
use crate::upstream::host::Locality;

/// A source per subscription, but one for all of ADS.
#[derive(Default)]
struct Sources {
    ads: RefCell<Option<Client>>,
    made: RefCell<Vec<(String, Client)>>,
}

fn client(documents: bool) -> Client {
    let config = MuxConfig { whole_documents: documents, ..MuxConfig::default() };
    Client::new(config, Rc::new(Unobserved), Rc::new(|_: &Client, _| {}))
}

impl Subscriber for Sources {
    fn subscribe(&self, source: &SourceConfig, interest: Interest) -> Result<Subscription, SubscribeError> {
        let client = match source {
            SourceConfig::Ads => self.ads.borrow_mut().get_or_insert_with(|| client(false)).clone(),
            _ => client(true),
        };
        self.made.borrow_mut().push((format!("{source:?}"), client.clone()));
        Ok(client.subscribe(interest))
    }
}

/// Remembers what is to be watched.
#[derive(Default)]
struct Watched(RefCell<Vec<(WatchNumber, std::path::PathBuf)>>);

struct Nothing;

impl WatchGuard for Nothing {}

impl Directories for Watched {
    fn watch(&self, number: WatchNumber, directory: &std::path::Path, _: bool) -> std::io::Result<Box<dyn WatchGuard>> {
        std::fs::metadata(directory)?;
        self.0.borrow_mut().push((number, directory.to_owned()));
        Ok(Box::new(Nothing))
    }
}

struct World {
    sources: Rc<Sources>,
    watched: Rc<Watched>,
    store: Arc<Store>,
    secrets: Secrets,
}

impl World {
    fn new() -> Self {
        let store = Store::new(2, stats::StoreOptions::default());
        let shard = store.control_shard();
        let env = Rc::new(ParseEnv {
            allowed: Vec::new(),
            unknown_fields: UnknownFields::Warn,
            regex: Cell::new(RegexLimits::default()),
            formats: FormatOptions { omit_empty_values: false, hostname: "h".into() },
            files: Arc::new(LogFiles::new(Duration::from_secs(1))),
            node_id: "n".to_owned(),
            node_cluster: "c".to_owned(),
            node_locality: Locality::default(),
            node_metadata: Default::default(),
            local_address: None,
            strip_fragment: false,
            skip_deprecated_logs: false,
            server_stats: store.group::<ServerStats>("server.").shard(shard),
            runtime_stats: store.group::<RuntimeStats>("runtime.").shard(shard),
            cluster_exists: OnceLockLocal::new(),
            backs_sources: OnceLockLocal::new(),
            warned: ParseEnv::warned(),
        });
        let (sources, watched): (Rc<Sources>, Rc<Watched>) = Default::default();
        let secrets = Secrets::new(Arc::clone(&store), env, Rc::clone(&sources) as _, Rc::clone(&watched) as _);
        Self { sources, watched, store, secrets }
    }

    fn use_of(&self, context: &Arc<Context>) -> Result<SecretsUse, String> {
        let session = Session::default();
        let context = Arc::clone(context) as Arc<dyn SecretUser>;
        let held = self.secrets.require(&session.root(), &context, "cluster.c.", Side::Client);
        held.inspect(SecretsUse::subscribe).map_err(|error| error.to_string())
    }

    fn newest(&self) -> Client {
        self.sources.made.borrow().last().unwrap().1.clone()
    }

    fn tell(&self, client: &Client, secrets: Vec<proto::Secret>) -> Result<(), String> {
        let resources: Vec<_> = secrets
            .into_iter()
            .map(|secret| (Resource::new(secret.name.clone(), "", secret.encode_to_vec()), Ok(secret)))
            .collect();
        self.secrets.apply(client, "v", &resources, &[]).map_err(|error| error.detail(xds_client::SECRET))
    }

    fn counter(&self, name: &str) -> u64 {
        let text = stats::render_text(&self.store, &stats::Query::default());
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
        line.and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}

/// A user that cannot be made of secrets that say `bad`.
struct Context {
    named: Vec<NamedSecret>,
    made: AtomicUsize,
    last: Mutex<String>,
}

impl Context {
    fn new(names: &[(&str, SecretKind, Option<SourceConfig>)]) -> Arc<Self> {
        let named = |(name, kind, source): &(&str, SecretKind, Option<SourceConfig>)| NamedSecret {
            name: (*name).into(),
            kind: *kind,
            source: source.clone().map(|source| ConfigSource { source, initial_fetch_timeout: None }),
            slot: OnceLock::new(),
        };
        let (made, last) = (AtomicUsize::new(0), Mutex::default());
        Arc::new(Self { named: names.iter().map(named).collect(), made, last })
    }

    fn generic(source: SourceConfig) -> Arc<Self> {
        Self::new(&[("s", SecretKind::Generic, Some(source))])
    }

    fn last(&self) -> String {
        self.last.lock().unwrap().clone()
    }
}

impl SecretUser for Context {
    fn named_secrets(&self) -> Vec<&NamedSecret> {
        self.named.iter().collect()
    }

    fn renew(&self) -> Result<(), String> {
        for named in &self.named {
            match named.current().as_deref() {
                Some(Secret::Generic(secret)) if secret.secret == b"bad" => return Err("of no use".to_owned()),
                Some(Secret::Generic(secret)) => {
                    *self.last.lock().unwrap() = String::from_utf8_lossy(&secret.secret).into_owned();
                }
                Some(_) => {}
                None => return Ok(()),
            }
        }
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn made_of(&self) -> Option<crate::tls::context::Ingredients> {
        let certificates = self.named.iter().filter_map(|named| match named.current().as_deref() {
            Some(Secret::Certificate(certificate)) => Some(Arc::clone(certificate)),
            _ => None,
        });
        Some(crate::tls::context::Ingredients { certificates: certificates.collect(), validation: None })
    }
}

fn file(path: &str) -> SourceConfig {
    SourceConfig::File(FileSource::new(path))
}

fn source(specifier: Specifier) -> Option<DataSource> {
    Some(DataSource { specifier: Some(specifier), watched_directory: None })
}

fn generic(name: &str, text: &str) -> proto::Secret {
    let secret =
        proto::GenericSecret { secret: source(Specifier::InlineString(text.to_owned())), ..Default::default() };
    proto::Secret { name: name.to_owned(), r#type: Some(Type::GenericSecret(secret)) }
}

#[test]
fn one_subscription_serves_all_users_of_a_name_at_a_source() {
    let world = World::new();
    let contexts = [SourceConfig::Ads, SourceConfig::Ads, file("/f")].map(Context::generic);
    let held: Vec<_> = contexts.iter().map(|context| world.use_of(context).unwrap()).collect();
    assert_eq!(world.sources.made.borrow().len(), 2);
    assert!(held.iter().all(|held| !held.is_ready()));
    assert_eq!(held.iter().flat_map(SecretsUse::awaited).count(), 3);

    let ads = world.sources.ads.borrow().clone().unwrap();
    world.tell(&ads, vec![generic("s", "one"), generic("other", "x")]).unwrap();
    assert_eq!(contexts.each_ref().map(|context| context.last()), ["one", "one", ""]);
    assert_eq!(held.iter().map(SecretsUse::is_ready).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(world.counter("cluster.c.client_ssl_socket_factory.ssl_context_update_by_sds"), 2);

    // A user that comes later is made of what there is.
    let late = Context::generic(SourceConfig::Ads);
    let late_held = world.use_of(&late).unwrap();
    assert_eq!((late.last().as_str(), late_held.is_ready()), ("one", true));
    assert_eq!(world.sources.made.borrow().len(), 2);

    drop(held);
    assert_eq!(world.secrets.views().len(), 1, "the late one still uses it");
    drop(late_held);
    assert_eq!(world.secrets.views().len(), 0);
}

#[test]
fn what_no_user_can_be_made_of_is_refused_and_the_last_good_one_stays() {
    let world = World::new();
    let contexts = [0, 1].map(|_| Context::generic(SourceConfig::Ads));
    let _held = contexts.each_ref().map(|context| world.use_of(context).unwrap());
    let ads = world.newest();
    world.tell(&ads, vec![generic("s", "good")]).unwrap();
    assert_eq!(world.tell(&ads, vec![generic("s", "bad")]).unwrap_err(), "s: of no use");
    assert!(contexts.iter().all(|context| context.last() == "good"));
    let current = contexts[0].named[0].current().unwrap();
    assert!(matches!(&*current, Secret::Generic(secret) if secret.secret == b"good"));
    // Nothing is no news, and neither is the same again.
    let made = contexts[0].made.load(Ordering::Relaxed);
    world.tell(&ads, vec![]).unwrap();
    world.tell(&ads, vec![generic("s", "good")]).unwrap();
    assert_eq!(contexts[0].made.load(Ordering::Relaxed), made);
    world.tell(&ads, vec![generic("s", "better")]).unwrap();
    assert!(contexts.iter().all(|context| context.last() == "better"));
}

#[test]
fn documents_hold_what_they_were_written_for() {
    let world = World::new();
    let context = Context::generic(file("/f"));
    let held = world.use_of(&context).unwrap();
    let source = world.newest();
    let ticket_keys = proto::Secret {
        name: "s".to_owned(),
        r#type: Some(Type::SessionTicketKeys(proto::TlsSessionTicketKeys::default())),
    };
    let untyped = proto::Secret { name: "s".to_owned(), r#type: None };
    for (secrets, expected) in [
        (vec![], "Missing SDS resources for s in onConfigUpdate()"),
        (vec![generic("t", "x")], "Unexpected SDS secret (expecting s): t"),
        (
            vec![generic("s", "x"), generic("t", "x")],
            "Unexpected SDS secrets length for s, number of added resources 2, number of removed resources 0. \
             Expected sum is 1",
        ),
        (vec![ticket_keys], "s: Unexpected SDS secret type (expecting generic_secret): session_ticket_keys"),
        (vec![untyped], "s: Unexpected SDS secret type (expecting generic_secret): nothing"),
    ] {
        assert_eq!(world.tell(&source, secrets).unwrap_err(), expected);
    }
    assert!(!held.is_ready());
    // Whoever hears of the refusal tells that there is nothing to wait for.
    world.secrets.give_up_waiting(&source, None);
    assert!(held.is_ready() && context.last().is_empty());
    world.tell(&source, vec![generic("s", "x")]).unwrap();
    assert_eq!(context.last(), "x");
}

#[test]
fn what_is_no_news_keeps_its_version_and_new_users_are_told_of_it() {
    let world = World::new();
    let context = Context::generic(SourceConfig::Ads);
    let _held = world.use_of(&context).unwrap();
    let ads = world.newest();
    let tell = |version: &str, text: &str| {
        let secret = generic("s", text);
        let resource = (Resource::new("s", "", secret.encode_to_vec()), Ok(secret));
        world.secrets.apply(&ads, version, &[resource], &[]).unwrap();
        world.secrets.views().remove(0).version
    };
    assert_eq!([tell("1", "x"), tell("2", "x"), tell("3", "y")], ["1", "1", "3"]);
    assert_eq!(context.made.load(Ordering::Relaxed), 2, "for each news");

    let updates = || world.counter("cluster.c.client_ssl_socket_factory.ssl_context_update_by_sds");
    assert_eq!(updates(), 2);
    let _second = world.use_of(&Context::generic(SourceConfig::Ads)).unwrap();
    assert_eq!(updates(), 3);
}

#[test]
fn a_directory_that_cannot_be_watched_is_a_reason_to_refuse() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nowhere").to_str().unwrap().to_owned();
    let ca = directory.path().join("ca.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(&ca, authority.pem()).unwrap();
    let validation = proto::CertificateValidationContext {
        trusted_ca: source(Specifier::Filename(ca.to_str().unwrap().to_owned())),
        watched_directory: Some(WatchedDirectory { path: path.clone(), watch_modify: false }),
        ..Default::default()
    };
    let secret = proto::Secret { name: "s".to_owned(), r#type: Some(Type::ValidationContext(validation)) };
    let world = World::new();
    let context = Context::new(&[("s", SecretKind::Validation, Some(SourceConfig::Ads))]);
    let _held = world.use_of(&context).unwrap();
    let error = world.tell(&world.newest(), vec![secret]).unwrap_err();
    assert!(error.starts_with(&format!("s: unable to add filesystem watch for file {path}/: ")), "{error}");
    assert!(context.named[0].current().is_none());
}

#[test]
fn static_secrets_are_read_when_they_are_used() {
    let world = World::new();
    let bad = proto::Secret {
        name: "keys".to_owned(),
        r#type: Some(Type::SessionTicketKeys(proto::TlsSessionTicketKeys {
            keys: source(Specifier::InlineString("short".to_owned())).into_iter().collect(),
        })),
    };
    let add = |secret: &proto::Secret| world.secrets.add_static(secret.encode_to_vec().into());
    assert_eq!(add(&generic("s", "x")), Ok(()));
    assert_eq!(add(&bad), Ok(()));
    assert_eq!(add(&generic("s", "y")), Err("Duplicate static GenericSecret secret name s".to_owned()));
    let nothing = proto::Secret::default();
    assert_eq!(add(&nothing), Err("Secret type not implemented".to_owned()));

    let of = |name, kind| Context::new(&[(name, kind, None)]);
    let good = of("s", SecretKind::Generic);
    assert!(world.use_of(&good).unwrap().is_ready());
    assert_eq!(good.last(), "x");
    for (context, expected) in [
        (of("zz", SecretKind::Certificate), "Unknown static secret: zz"),
        (of("s", SecretKind::Validation), "Unknown static certificate validation context: s"),
        (of("zz", SecretKind::TicketKeys), "Unknown tls session ticket keys: zz"),
        (
            of("keys", SecretKind::TicketKeys),
            "secret keys: session_ticket_keys.keys[0]: Incorrect TLS session ticket key length. Length 5, expected \
             length 80.",
        ),
    ] {
        assert_eq!(world.use_of(&context).unwrap_err(), expected);
    }
    let states: Vec<_> = world.secrets.views().into_iter().map(|view| (view.name, view.state)).collect();
    assert_eq!(states, [("keys".into(), SecretState::Static), ("s".into(), SecretState::Static)]);
}

#[test]
fn files_are_read_again_when_something_comes_into_their_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let made = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let write = |name: &str, content: &str| std::fs::write(path(name), content).unwrap();
    let named = |name: &str| source(Specifier::Filename(path(name)));
    let secret = || {
        let certificate = proto::TlsCertificate {
            certificate_chain: named("c.pem"),
            private_key: named("k.pem"),
            ..Default::default()
        };
        proto::Secret { name: "s".to_owned(), r#type: Some(Type::TlsCertificate(certificate)) }
    };
    let world = World::new();
    let context = Context::new(&[("s", SecretKind::Certificate, Some(SourceConfig::Ads))]);
    let _held = world.use_of(&context).unwrap();
    let ads = world.newest();
    let error = world.tell(&ads, vec![secret()]).unwrap_err();
    assert!(error.contains("Invalid path") && error.contains("c.pem"), "{error}");

    let (first, second) = (made(), made());
    write("c.pem", &first.0);
    write("k.pem", &second.1);
    let error = world.tell(&ads, vec![secret()]).unwrap_err();
    assert!(error.contains(&path("k.pem")) && error.ends_with("KEY_VALUES_MISMATCH"), "{error}");
    assert!(!error.contains("inline"), "{error}");

    write("k.pem", &first.1);
    world.tell(&ads, vec![secret()]).unwrap();
    let mut watched = world.watched.0.borrow().clone();
    assert_eq!(watched.len(), 4, "the chain's directory and the key's, of the one refused and of the good one");
    watched.drain(..2);
    let change = || watched.iter().for_each(|(number, _)| world.secrets.on_directory(*number));
    let users = || context.made.load(Ordering::Relaxed);
    let serial = || match context.named[0].current().as_deref() {
        Some(Secret::Certificate(it)) => it.chain[0].facts().serial.clone(),
        _ => panic!("no certificate"),
    };
    let (made_before, serial_before) = (users(), serial());

    change();
    assert_eq!(users(), made_before, "nothing new");
    write("c.pem", &second.0);
    change();
    assert_eq!((users(), serial()), (made_before, serial_before.clone()), "a pair that does not fit");
    assert_eq!(world.counter("sds.s.key_rotation_failed"), 2);
    write("k.pem", &second.1);
    change();
    assert_eq!(users(), made_before + 1);
    assert_ne!(serial(), serial_before);
    assert_eq!(world.counter("sds.s.key_rotation_failed"), 2);
    // What is shown holds what the files held.
    let shown = proto::Secret::decode(world.secrets.views().remove(0).raw).unwrap();
    let Some(Type::TlsCertificate(shown)) = shown.r#type else { panic!("no certificate") };
    assert_eq!(shown.certificate_chain, source(Specifier::InlineBytes(second.0.into_bytes())));
}

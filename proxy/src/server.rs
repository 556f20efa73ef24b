//! The process: from a checked bootstrap to workers, control thread, admin server and signals, and to the end.
//!
//! Start order: log, admin socket (a second process fails here), managers, static resources, workers, discovery. Workers
//! accept nothing until all that was configured is there. The end: SIGTERM and SIGINT exit at once; with
//! `--drain-on-sigterm` connections are asked to leave first.

mod signals;
mod ticks;
mod watchdog;

use std::io::Write as _;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::config::core::v3 as core;
use filters::config::{ConfigError, Session};
use filters::format::FormatOptions;
use stats::Store;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use xds_client::proto::UnknownFields;
use xds_client::{Environment, Hub, PlainNetwork, Target};

use crate::admin::{Admin, AdminServer, ServerInfo, SharedState, bind};
use crate::cli::{DrainStrategy as DrainFlag, Mode, Options};
use crate::config::bootstrap::Bootstrap;
use crate::config::bootstrap::load::{Loaded, load};
use crate::config::bootstrap::runtime::LayerSource;
use crate::config::endpoint::struct_fields;
use crate::config::{access_log, config_source};
use crate::control::calls::Calls;
use crate::control::clusters::ClusterResource;
use crate::control::listeners::Options as ListenerOptions;
use crate::control::observer::ControlPlaneScope;
use crate::control::parse::{OnceLockLocal, ParseEnv, hostname};
use crate::control::{Control, Dynamic, Happening, Happenings, Parts};
use crate::downstream::accept::ConnectionBudget;
use crate::downstream::drain::{Drain, DrainStrategy};
use crate::observe::access_log::LogFiles;
use crate::observe::catalogue::{RuntimeStats, ServerStats};
use crate::observe::threads::Pulse;
use crate::overload::Shared as Overload;
use crate::runtime::Loader;
use crate::upstream::host::Locality;
use crate::worker::Shared;
use crate::worker::mailbox::{Mailbox, Publisher};

/// Serves, or validates, as the command line says, until the process is to end.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    let session = Session::new(options.allow_unsupported.iter().cloned());
    let mut loaded = match load(options, &session) {
        Ok(loaded) => loaded,
        Err(error) => return fail(options, &error.to_string()),
    };
    let log = match crate::logging::start(options, loaded.bootstrap.log_format.as_deref()) {
        Ok(log) => log,
        Err(error) => return fail(options, &error),
    };
    for (flag, meaning) in &options.without_meaning {
        tracing::info!(target: "main", "{flag} has no meaning here: {meaning}");
    }
    for unknown in &loaded.unknown_fields {
        tracing::warn!(target: "config", "{unknown}");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
        Ok(runtime) => runtime,
        Err(error) => return fail(options, &error.to_string()),
    };
    let done = runtime.block_on(async {
        let (happenings, inbox) = unbounded_channel();
        let server = Server::new(options, &mut loaded, &session, happenings)?;
        match options.mode {
            Mode::Validate => server.validate(&loaded.bootstrap),
            Mode::Serve => server.serve(loaded, log, inbox).await,
        }
    });
    match (done, options.mode) {
        (Err(error), _) => fail(options, &error),
        (Ok(()), Mode::Serve) => ExitCode::SUCCESS,
        (Ok(()), _) => {
            let _ = writeln!(std::io::stdout(), "configuration '{}' OK", options.config_path);
            ExitCode::SUCCESS
        }
    }
}

/// One clear error where Envoy puts it, and a status other than 0.
fn fail(options: &Options, error: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error initializing configuration '{}': {error}", options.config_path);
    ExitCode::FAILURE
}

/// The process being put together.
struct Server<'a> {
    options: &'a Options,
    store: Arc<Store>,
    stats: ServerStats,
    state: Arc<SharedState>,
    shared: Shared,
    mailboxes: Vec<Arc<Mailbox>>,
    publisher: Publisher,
    control: Rc<Control>,
    happenings: Happenings,
    reports: tokio::sync::mpsc::UnboundedReceiver<crate::worker::Report>,
    retired: tokio::sync::mpsc::UnboundedReceiver<crate::worker::mailbox::Retired>,
}

/// The cluster the proxy belongs to, if the bootstrap names one, and where it stands in it.
fn local_cluster(bootstrap: &Bootstrap) -> Option<(Arc<str>, Arc<Locality>)> {
    if bootstrap.local_cluster_name.is_empty() {
        return None;
    }
    let place = bootstrap.node.locality.clone().unwrap_or_default();
    let locality = Locality { region: place.region, zone: place.zone, sub_zone: place.sub_zone };
    Some((bootstrap.local_cluster_name.as_str().into(), Arc::new(locality)))
}

impl<'a> Server<'a> {
    fn new(
        options: &'a Options,
        loaded: &mut Loaded,
        session: &Session,
        happenings: UnboundedSender<Happening>,
    ) -> Result<Self, String> {
        let stat_options = std::mem::take(&mut loaded.bootstrap.stats);
        let bootstrap = &loaded.bootstrap;
        let workers = options.concurrency.max(1);
        let store = Store::new(workers + 2, stat_options);
        let server_group = store.group::<ServerStats>("server.");
        let runtime_group = store.group::<RuntimeStats>("runtime.");
        let stats = server_group.shard(store.control_shard());
        let files = Arc::new(LogFiles::new(options.file_flush_interval));
        files.publish(&store);
        let runtime_stats = runtime_group.shard(store.control_shard());
        let env = Rc::new(parse_env(options, bootstrap, &store, &files, &stats, &runtime_stats));
        // Statistics of the process live as long as it does.
        let resets = store.counter("envoy.overload_actions.reset_high_memory_stream.count");
        let generation = (!options.disable_hot_restart).then(|| store.gauge("server.hot_restart_generation"));
        if let Some(generation) = &generation {
            generation.set(1);
        }
        std::mem::forget((server_group, runtime_group, resets, generation));
        env.say("bootstrap", session);

        let (reports, report_inbox) = unbounded_channel();
        let (retired, retired_inbox) = unbounded_channel();
        let mailboxes: Vec<_> = (0..workers).map(|_| Mailbox::new(retired.clone())).collect();
        let publisher = Publisher::new(mailboxes.clone());
        let connections = ConnectionBudget::unlimited();
        if let Some(limit) = bootstrap.overload.max_downstream_connections {
            connections.set_limit(limit);
        }
        let shared = Shared {
            store: Arc::clone(&store),
            connections,
            overload: Arc::new(Overload::default()),
            reports,
            zone: bootstrap.node.locality.as_ref().map_or("", |locality| &locality.zone).into(),
            drain: Arc::new(Drain::default()),
            local: local_cluster(bootstrap),
        };
        let runtime = Loader::new(bootstrap.layers.clone(), &bootstrap.node.cluster, &store);
        let state = Arc::new(SharedState::default());
        let discovered = |source: &Option<config_source::ConfigSource>| {
            source.as_ref().map(|source| (source.source.clone(), source.initial_fetch_timeout))
        };
        let control = Control::new(Parts {
            env,
            store: Arc::clone(&store),
            publisher: publisher.clone(),
            dynamic: Dynamic {
                clusters: discovered(&bootstrap.dynamic.clusters),
                listeners: discovered(&bootstrap.dynamic.listeners),
                runtime: bootstrap.layers.clone(),
            },
            listeners: ListenerOptions {
                workers,
                drain_time: options.drain_time,
                drain_strategy: drain_strategy(options),
            },
            happenings: happenings.clone(),
            on_live: Box::new(|| tracing::info!(target: "main", "starting main dispatch loop")),
            runtime,
            shared_state: Arc::clone(&state),
        });
        *control.bootstrap.borrow_mut() = Some((loaded.bytes.clone(), SystemTime::now()));
        stats.concurrency().set(workers as u64);
        stats.live().set(1);
        stats.version().set(crate::cli::revision());
        stats.static_unknown_fields().add(loaded.unknown_fields.len() as u64);
        stats.days_until_first_cert_expiring().set(u64::from(u32::MAX));
        Ok(Self {
            options,
            store,
            stats,
            state,
            shared,
            mailboxes,
            publisher,
            control,
            happenings,
            reports: report_inbox,
            retired: retired_inbox,
        })
    }

    /// Loads everything a start would, binds nothing.
    fn validate(&self, bootstrap: &Bootstrap) -> Result<(), String> {
        self.static_clusters(bootstrap)?;
        // Subscriptions are made, so that sources are checked; nothing runs them.
        self.set_sources(bootstrap);
        self.control.validate_listeners(&bootstrap.listeners)
    }

    fn static_clusters(&self, bootstrap: &Bootstrap) -> Result<(), String> {
        for (_, raw) in &bootstrap.secrets {
            self.control.secrets.add_static(raw.clone())?;
        }
        for (name, raw) in &bootstrap.clusters {
            let session = self.control.env.session();
            let resource = ClusterResource::parse(session.root(), raw.clone());
            self.control.env.say(&format!("cluster {name:?}"), &session);
            self.control.add_static_cluster(resource).map_err(|error| format!("cluster {name:?}: {error}"))?;
        }
        self.control.check_static_clusters()?;
        self.check_sources(bootstrap).map_err(|error| error.to_string())
    }

    /// What the bootstrap asks for by the name of a cluster has to be there.
    fn check_sources(&self, bootstrap: &Bootstrap) -> Result<(), ConfigError> {
        let (env, session) = (&self.control.env, self.control.env.session());
        let root = session.root();
        let dynamic = root.field("dynamic_resources");
        let ads = bootstrap.dynamic.ads.as_ref().map(|source| &source.service.target);
        if let Some(Target::Cluster(cluster)) = ads
            && !self.control.clusters.borrow().exists(cluster)
        {
            let at = dynamic.field("ads_config");
            return Err(at.field("cluster_name").error(format_args!("Unknown gRPC client cluster '{cluster}'")));
        }
        if let Some(clusters) = &bootstrap.dynamic.clusters {
            env.check_backing_cluster(&dynamic.field("cds_config"), &clusters.source)?;
        }
        let layers = root.field("layered_runtime");
        let layers = layers.field("layers");
        for (index, layer) in bootstrap.layers.iter().enumerate() {
            if let LayerSource::Rtds { source: Some(source), .. } = &layer.source {
                let at = layers.index(index);
                env.check_source(&at.field("rtds_layer").field("rtds_config"), &source.source, xds_client::RUNTIME)?;
            }
        }
        let local = &bootstrap.local_cluster_name;
        if !local.is_empty() && !self.control.clusters.borrow().exists(local) {
            let at = root.field("cluster_manager");
            return Err(at.field("local_cluster_name").error(format_args!("local cluster '{local}' must be defined")));
        }
        Ok(())
    }

    async fn serve(
        mut self,
        loaded: Loaded,
        log: crate::logging::LogControl,
        inbox: tokio::sync::mpsc::UnboundedReceiver<Happening>,
    ) -> Result<(), String> {
        let Loaded { mut bootstrap, .. } = loaded;
        let listening = bootstrap.admin.as_ref().map(bind).transpose()?;
        if let Some(target) = &bootstrap.outlier_log {
            let file = self.control.env.files.open(target)?;
            self.control.clusters.borrow_mut().outside().log_outliers(file);
        }
        self.static_clusters(&bootstrap)?;
        self.set_sources(&bootstrap);
        for (name, raw) in &bootstrap.listeners {
            self.control.add_static_listener(name, raw).map_err(|error| format!("listener {name:?}: {error}"))?;
        }
        let _admin = match (listening, bootstrap.admin.take()) {
            (Some(listening), Some(config)) => Some(self.start_admin(listening, config, &bootstrap, log)?),
            _ => None,
        };
        let threads = self.start_workers()?;
        self.forward_reports();
        self.spawn_signals()?;
        ticks::spawn(&self.control, &self.shared, &bootstrap, &self.stats);
        self.control.start();
        drop(bootstrap);
        crate::sys::give_back_memory();
        self.control.run(inbox).await;
        self.stop(threads);
        Ok(())
    }

    /// Makes the xDS client, which asks for nothing yet.
    fn set_sources(&self, bootstrap: &Bootstrap) {
        let control = Rc::downgrade(&self.control);
        let network = PlainNetwork::new(move |cluster: &str| control.upgrade()?.addresses_of(cluster));
        let control = Rc::downgrade(&self.control);
        let published =
            move |cluster: &str| control.upgrade()?.clusters.try_borrow_mut().ok()?.outside().published(cluster);
        let happenings = self.happenings.clone();
        let consumer = move |client: &xds_client::Client, event: xds_client::Event| {
            // Handled by control's own task, never inside the client.
            let _ = happenings.send(Happening::Source(client.clone(), event));
        };
        let hub = Rc::new(Hub::new(Environment {
            node: bootstrap.node.clone(),
            network: Rc::new(Calls::new(network, published, &self.store)),
            file_decoder: Rc::new(crate::control::source::decode_file),
            rest_codec: Rc::new(crate::control::source::Rest),
            consumer: Rc::new(consumer),
            seed: fastrand::u64(..),
        }));
        if let Some(ads) = &bootstrap.dynamic.ads {
            hub.set_ads(ads.clone(), ControlPlaneScope::new(&self.store, ""));
        }
        self.control.set_hub(hub);
    }

    fn start_admin(
        &self,
        listening: crate::admin::Listening,
        mut config: crate::config::bootstrap::AdminConfig,
        bootstrap: &Bootstrap,
        log: crate::logging::LogControl,
    ) -> Result<AdminServer, String> {
        tracing::info!(target: "main", "admin address: {}", listening.address);
        let (backend, mut requests) = crate::admin::AdminBackend::channel();
        let happenings = self.happenings.clone();
        tokio::task::spawn_local(async move {
            while let Some(request) = requests.recv().await {
                let call = Box::new(move |control: &Control| control.answer(request));
                if happenings.send(Happening::Call(call)).is_err() {
                    return;
                }
            }
        });
        let session = self.control.env.session();
        let root = session.root();
        let at = root.field("admin");
        let protos = std::mem::take(&mut config.access_log);
        let logs = access_log::parse_all(&at.field("access_log"), protos, &self.control.env.log());
        let logs = logs.map_err(|error| error.to_string())?;
        self.control.env.say("bootstrap", &session);
        let admin = Admin {
            logs,
            backend,
            store: Arc::clone(&self.store),
            flush: bootstrap.stats_flush,
            state: Arc::clone(&self.state),
            info: ServerInfo::new(self.options, &bootstrap.node),
            log: Some(log),
            config,
        };
        AdminServer::start(listening, admin, &self.options.admin_address_path).map_err(|error| error.to_string())
    }

    fn start_workers(&self) -> Result<Vec<std::thread::JoinHandle<()>>, String> {
        let workers = self.mailboxes.len();
        let pulses: Vec<Pulse> = (0..workers).map(|_| Pulse::default()).collect();
        let failed = |error| format!("a thread cannot be started: {error}");
        let start = |(index, (mailbox, pulse)): (usize, (&Arc<Mailbox>, &Pulse))| {
            crate::worker::start(index, workers, Arc::clone(mailbox), self.shared.clone(), pulse.clone())
        };
        let threads: Result<_, _> = self.mailboxes.iter().zip(&pulses).enumerate().map(start).collect();
        let main = Pulse::default();
        watchdog::start(&self.store, main.clone(), &pulses).map_err(failed)?;
        main.begin();
        threads.map_err(failed)
    }

    /// Workers speak to control through channels of their own; what they say becomes a happening.
    fn forward_reports(&mut self) {
        let (_, empty_reports) = unbounded_channel();
        let (_, empty_retired) = unbounded_channel();
        let mut reports = std::mem::replace(&mut self.reports, empty_reports);
        let mut retired = std::mem::replace(&mut self.retired, empty_retired);
        let happenings = self.happenings.clone();
        tokio::task::spawn_local(async move {
            loop {
                let happening = tokio::select! {
                    Some(report) = reports.recv() => Happening::Report(report),
                    Some(what) = retired.recv() => Happening::Retired(what),
                    else => return,
                };
                if happenings.send(happening).is_err() {
                    return;
                }
            }
        });
    }

    /// The end: workers stop, logs are written out.
    fn stop(&self, threads: Vec<std::thread::JoinHandle<()>>) {
        tracing::info!(target: "main", "exiting");
        self.publisher.each(Mailbox::exit);
        for thread in threads {
            // A worker that panicked has said so; the process ends either way.
            let _ = thread.join();
        }
        self.control.env.files.shutdown(Duration::from_secs(2));
    }
}

const fn drain_strategy(options: &Options) -> DrainStrategy {
    match options.drain_strategy {
        DrainFlag::Gradual => DrainStrategy::Gradual,
        DrainFlag::Immediate => DrainStrategy::Immediate,
    }
}

fn parse_env(
    options: &Options,
    bootstrap: &Bootstrap,
    store: &Arc<Store>,
    files: &Arc<LogFiles>,
    server_stats: &ServerStats,
    runtime_stats: &RuntimeStats,
) -> ParseEnv {
    let unknown_fields = match (options.reject_unknown_dynamic_fields, options.ignore_unknown_dynamic_fields) {
        (true, _) => UnknownFields::Reject,
        (false, true) => UnknownFields::Ignore,
        (false, false) => UnknownFields::Warn,
    };
    let runtime = Loader::new(bootstrap.layers.clone(), &bootstrap.node.cluster, store).snapshot();
    let core::Locality { region, zone, sub_zone } = bootstrap.node.locality.clone().unwrap_or_default();
    ParseEnv {
        allowed: options.allow_unsupported.clone(),
        unknown_fields,
        regex: bootstrap.regex_limits.into(),
        formats: FormatOptions { omit_empty_values: false, hostname: hostname() },
        files: Arc::clone(files),
        node_id: bootstrap.node.id.clone(),
        node_cluster: bootstrap.node.cluster.clone(),
        node_metadata: bootstrap.node.metadata.clone().map(struct_fields).unwrap_or_default(),
        node_locality: Locality { region, zone, sub_zone },
        local_address: crate::sys::local_address(options.local_address_v6),
        strip_fragment: !runtime.flag("envoy.reloadable_features.http_reject_path_with_fragment", true),
        skip_deprecated_logs: options.skip_deprecated_logs,
        server_stats: server_stats.clone(),
        runtime_stats: runtime_stats.clone(),
        cluster_exists: OnceLockLocal::new(),
        backs_sources: OnceLockLocal::new(),
        warned: ParseEnv::warned(),
    }
}

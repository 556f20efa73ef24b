//! The process: workers, the control thread, signals, the end.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use filters::format::FormatOptions;
use prost::Message;
use stats::{Store, StoreOptions};
use tokio::sync::mpsc::unbounded_channel;

use crate::control::clusters::ClusterResource;
use crate::control::listeners::Options;
use crate::control::parse::{OnceLockLocal, ParseEnv, hostname};
use crate::control::{Control, Dynamic, Happening, Parts};
use crate::downstream::accept::ConnectionBudget;
use crate::downstream::drain::{Drain, DrainStrategy};
use crate::observe::access_log::LogFiles;
use crate::observe::catalogue::{RuntimeStats, ServerStats};
use crate::worker::Shared;
use crate::worker::mailbox::{Mailbox, Publisher};

/// Runs a static bootstrap until the process is told to end.
///
/// # Errors
/// What is wrong with the bootstrap, or what the operating system refuses.
pub fn run(bootstrap: &Bootstrap, concurrency: usize) -> Result<(), String> {
    let store = Store::new(concurrency + 2, StoreOptions::default());
    let (happenings, inbox) = unbounded_channel();
    let (retired, mut retired_inbox) = unbounded_channel();
    let (reports, mut report_inbox) = unbounded_channel();
    let mailboxes: Vec<_> = (0..concurrency).map(|_| Mailbox::new(retired.clone())).collect();
    let shared = Shared {
        store: Arc::clone(&store),
        connections: ConnectionBudget::unlimited(),
        reports,
        drain: Arc::new(Drain::default()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let server_group = store.group::<ServerStats>("server.");
        let runtime_group = store.group::<RuntimeStats>("runtime.");
        let env = Rc::new(ParseEnv {
            allowed: Vec::new(),
            unknown_fields: xds_client::proto::UnknownFields::Warn,
            regex: Default::default(),
            formats: FormatOptions { omit_empty_values: false, hostname: hostname() },
            files: LogFiles::new(Duration::from_secs(10)),
            node_id: String::new(),
            node_cluster: String::new(),
            local_address: None,
            strip_fragment: false,
            skip_deprecated_logs: false,
            source: |at, _| Err(at.error("no sources yet")),
            server_stats: server_group.shard(store.control_shard()),
            runtime_stats: runtime_group.shard(store.control_shard()),
            cluster_exists: OnceLockLocal::new(),
            warned: ParseEnv::warned(),
        });
        let control = Control::new(Parts {
            env,
            store: Arc::clone(&store),
            publisher: Publisher::new(mailboxes.clone()),
            dynamic: Dynamic::default(),
            listeners: Options {
                workers: concurrency,
                drain_time: Duration::from_secs(600),
                drain_strategy: DrainStrategy::Gradual,
            },
            happenings: happenings.clone(),
            on_live: Box::new(|| {}),
        });
        let resources = bootstrap.static_resources.clone().unwrap_or_default();
        for cluster in resources.clusters {
            let session = control.env.session();
            let raw = Bytes::from(cluster.encode_to_vec());
            control.add_static_cluster(ClusterResource::parse(session.root(), raw))?;
        }
        for listener in resources.listeners {
            control.add_static_listener(&listener.name, &Bytes::from(listener.encode_to_vec()))?;
        }
        for (index, mailbox) in mailboxes.iter().enumerate() {
            crate::worker::start(index, concurrency, Arc::clone(mailbox), shared.clone())
                .map_err(|error: io::Error| error.to_string())?;
        }
        let forward = happenings.clone();
        tokio::task::spawn_local(async move {
            loop {
                let happening = tokio::select! {
                    Some(report) = report_inbox.recv() => Happening::Report(report),
                    Some(what) = retired_inbox.recv() => Happening::Retired(what),
                    else => return,
                };
                if forward.send(happening).is_err() {
                    return;
                }
            }
        });
        control.start();
        control.run(inbox).await;
        Ok(())
    })
}

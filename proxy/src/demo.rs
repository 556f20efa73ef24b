//! `legate demo`: a mesh on one machine, to see what a data-plane proxy does.
//!
//! It replays the canary of the App Mesh guide. `serviceA` calls `serviceb.apps.local` by HTTP/2 through its sidecar;
//! the control plane splits the requests between `serviceB` and `serviceBv2`, first 75 to 25, then all to the new
//! version; a gateway does the same for callers from outside.
//!
//! ```text
//!                        control plane (xDS over ADS)
//!                      ┌───────┴──────────┐
//! client ─ HTTP/1 ▶ gateway ─ HTTP/2 ▶ sidecar ─ HTTP/2 ▶ serviceA
//!                      │                  ▲│ ◀─ HTTP/2 ──────┘
//!                      └─── HTTP/2 ──▶ serviceB, serviceBv2
//! ```
//!
//! Gateway and sidecar are processes of this executable, or of the one given by `--proxy`; everything else lives in
//! this process, on one thread. All ports are free ones of the loopback interface.

mod check;
mod client;
mod load;
mod mesh;
mod resources;
mod services;
mod view;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use self::load::{Load, Recent};
use self::mesh::Mesh;
use self::resources::Weights;
use self::view::{Moment, View};
use crate::stage::admin::Statistics;
use crate::stage::http1::Http1;
use crate::stage::process;

/// Shows a canary through a sidecar and a gateway on this machine, until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "legate demo", bin_name = "legate demo", no_binary_name = true)]
struct Options {
    /// Play the canary once, print a report, and exit with 1 if a share is off or a request failed.
    #[arg(long)]
    check: bool,

    /// Requests per phase and way through the mesh, with --check.
    #[arg(long, value_name = "N", default_value_t = 800, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    requests: u64,

    /// Seconds between changes of the weights, without --check.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=86_400))]
    interval: u64,

    /// The proxy to run instead of this executable: an Envoy, to see it do the same.
    #[arg(long, value_name = "PATH", env = "LEGATE_DEMO_PROXY")]
    proxy: Option<PathBuf>,
}

/// Runs the demo with the arguments after `demo`. What the process should exit with.
pub fn run(args: &[String]) -> ExitCode {
    if let Some((process::GUARD, command)) = args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return process::guard(command);
    }
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    match runtime.block_on(until_interrupted(options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("legate demo: {error}");
    ExitCode::FAILURE
}

/// Plays until it is over or a signal ends it: the proxies are stopped on the way out of here.
async fn until_interrupted(options: Options) -> Result<bool, String> {
    let text = |error: io::Error| error.to_string();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(text)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(text)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(text)?;
    // A check that was interrupted has not passed.
    let interrupted = Ok(!options.check);
    tokio::select! {
        outcome = play(options) => outcome,
        _ = interrupt.recv() => interrupted,
        _ = terminate.recv() => interrupted,
        _ = hangup.recv() => interrupted,
    }
}

async fn play(options: Options) -> Result<bool, String> {
    let Options { check, requests, interval, proxy } = options;
    let executable = match proxy {
        Some(path) => path,
        None => std::env::current_exe().map_err(|error| error.to_string())?,
    };
    if check {
        println!("legate demo --check: the canary of the App Mesh guide");
    }
    let mesh = Mesh::start(&executable, Weights::CANARY).await?;
    if check {
        check::play(&mesh, requests, &mut io::stdout()).await
    } else {
        watch(&mesh, Duration::from_secs(interval)).await
    }
}

/// Pause of a client between two requests in the live view: a few hundred requests per second are enough to see.
const PAUSE: Duration = Duration::from_millis(50);
/// Events that stay in view.
const EVENTS: usize = 4;

/// Both phases in turn, for ever.
async fn watch(mesh: &Mesh, interval: Duration) -> Result<bool, String> {
    let view = View::new();
    view.begin(mesh);
    let started = Instant::now();
    let load = Load::new(&mesh.ports);
    let _ongoing = load.keep_sending(PAUSE);
    let mut admins = [Http1::new(mesh.sidecar.admin_port), Http1::new(mesh.gateway.admin_port)];
    let mut recent: [Recent; 3] = Default::default();
    let mut failed = 0;
    let mut weights = Weights::CANARY;
    let mut changed = started;
    let mut events =
        vec![format!("   0 s  both proxies served {} after their start", check::milliseconds(mesh.start_time))];
    let mut ticks = tokio::time::interval(view.interval());
    loop {
        ticks.tick().await;
        if changed.elapsed() >= interval {
            weights = if weights == Weights::CANARY { Weights::DONE } else { Weights::CANARY };
            let accepted = mesh.shift(weights).await?;
            changed = Instant::now();
            let event = format!(
                "{:4} s  {weights}: accepted by the sidecar after {}, by the gateway after {}",
                started.elapsed().as_secs(),
                check::milliseconds(accepted.sidecar),
                check::milliseconds(accepted.gateway)
            );
            view.event(&event);
            events.push(event);
            events.drain(..events.len().saturating_sub(EVENTS));
            for (recent, counts) in recent.iter_mut().zip(load.take()) {
                failed += counts.failed;
                recent.clear();
            }
        }
        for (recent, counts) in recent.iter_mut().zip(load.take()) {
            failed += counts.failed;
            recent.push(counts);
        }
        let [sidecar, gateway] = &mut admins;
        let (sidecar, gateway) = tokio::join!(Statistics::fetch(sidecar), Statistics::fetch(gateway));
        view.show(Moment {
            mesh,
            since_start: started.elapsed(),
            weights,
            next_change: interval.saturating_sub(changed.elapsed()),
            flows: recent.each_ref().map(Recent::sum),
            span: changed.elapsed().min(Recent::SPAN),
            failed,
            statistics: [sidecar, gateway],
            events: &events,
        });
    }
}

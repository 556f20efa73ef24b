//! `legate drill`: what a proxy loses when the hosts behind it fail.
//!
//! Twenty hosts of this process, each at a loopback address of its own, are behind the proxy under constant load; they are
//! killed, restarted, made to stall, to reset, to answer 503, to refuse connections, to fill their backlog, and whatever
//! else their protocol allows, one after another and several at once, while the control plane takes endpoints out and
//! puts them in. The proxy has what App Mesh gives a route without a retry policy: two retries at other hosts.
//!
//! ```text
//!                  control plane (ADS): endpoints come and go
//!                          │
//! open-loop load ──▶ proxy under test ──▶ host 1 … host 20, each with a fault now and then
//!        │                 │                 │
//!        └─ outcomes ──────┴─ access log ────┴─ diary ──▶ judge
//! ```
//!
//! Every request has a number. The hosts write down which tries reached them and what they did to them, and the judge
//! (`judge`) decides for each failed request whether the proxy could have saved it. Memory, descriptors and gauges must
//! come back to what they were. With `--against` another proxy has the same faults at the same times, in turn, and the
//! failure rates are compared (`compare`).

mod client;
mod compare;
mod diary;
mod fault;
mod hosts;
mod judge;
mod load;
mod message;
mod plan;
mod report;
mod resources;
mod run;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use self::compare::Comparison;
use self::fault::Protocol;
use self::run::{Run, Setting};

/// Runs a proxy in front of hosts that fail, and says which requests it lost that it could have saved.
#[derive(Debug, Parser)]
#[command(name = "legate drill", bin_name = "legate drill", no_binary_name = true)]
struct Options {
    /// Length of the load of one run, of one protocol.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=86_400))]
    seconds: u64,

    /// Requests a second, whatever becomes of them.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    /// Hosts behind the proxy.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(6..=1000))]
    hosts: u16,

    /// What clients and hosts speak; all of them, one after the other, if it is not given.
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<Protocol>,

    /// The proxy to drill instead of this executable: an Envoy, to see how it does.
    #[arg(long, value_name = "PATH")]
    proxy: Option<PathBuf>,

    /// Another proxy that has the same faults in turn, to compare failure rates.
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,

    /// Runs, each with other faults; five with --against, otherwise one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: Option<u32>,

    /// Decides which host has which fault when; the next round takes the next one.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Worker threads of the proxy.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    concurrency: u32,

    /// Give the cluster outlier detection.
    #[arg(long)]
    outlier_detection: bool,

    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Runs the drill with the arguments after `drill`. What the process should exit with: 1 if a request was lost that need
/// not have been, something did not come back to what it was, or the failure rate is higher than that of `--against`.
pub fn run(args: &[String]) -> ExitCode {
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
    match runtime.block_on(LocalSet::new().run_until(until_interrupted(options))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("legate drill: {error}");
    ExitCode::FAILURE
}

/// Runs until it is over or a signal ends it, which is no success: the proxies are stopped on the way out of here.
async fn until_interrupted(options: Options) -> Result<bool, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(text)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(text)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(text)?;
    tokio::select! {
        outcome = Box::pin(drill(options)) => outcome,
        _ = interrupt.recv() => Ok(false),
        _ = terminate.recv() => Ok(false),
        _ = hangup.recv() => Ok(false),
    }
}

async fn drill(options: Options) -> Result<bool, String> {
    let proxy = match &options.proxy {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(|error| error.to_string())?,
    };
    let mut report = Report { json: options.json.then(Vec::new), passed: true };
    match &options.against {
        None => {
            for setting in options.settings(1) {
                let run = run::run(&proxy, setting).await?;
                report.run(&name(&proxy), &run, true);
            }
            report.end(json!({}));
        }
        Some(other) => compare(&options, [&proxy, other], &mut report).await?,
    }
    Ok(report.passed)
}

/// How often a pair of runs is made until the machine is quiet enough to compare them.
const ATTEMPTS: usize = 3;

/// Runs both proxies in turn; who begins changes from round to round.
async fn compare(options: &Options, proxies: [&Path; 2], report: &mut Report) -> Result<(), String> {
    let names = proxies.map(name);
    let [first, second] = names.each_ref().map(String::as_str);
    let mut pairs: Vec<[Run; 2]> = Vec::new();
    for (index, setting) in options.settings(5).into_iter().enumerate() {
        let mut pair = one_after_the_other(proxies, setting, index.is_multiple_of(2)).await?;
        for _ in 1..ATTEMPTS {
            if !pair.iter().any(Run::is_spoilt) {
                break;
            }
            report.note("this machine was busy with something else: once more");
            pair = one_after_the_other(proxies, setting, index.is_multiple_of(2)).await?;
        }
        let [run, run_of_other] = &pair;
        report.run(first, run, true);
        // What is wrong with the other one is told, and no failure of this one.
        report.run(second, run_of_other, false);
        pairs.push(pair);
    }
    // In a disturbed run requests fail for want of a processor, which says nothing about the proxy.
    let made = pairs.len();
    pairs.retain(|pair| !pair.iter().any(Run::is_spoilt));
    let spoilt = made - pairs.len();
    let comparison = Comparison::of(&pairs);
    report.passed &= !comparison.is_worse();
    if report.json.is_none() {
        println!("{}", report::comparison([first, second], &pairs, spoilt, &comparison));
    }
    report.end(json!({
        "pairs": comparison.pairs,
        "spoilt": spoilt,
        "difference": comparison.difference,
        "lower": comparison.lower.is_finite().then_some(comparison.lower),
        "upper": comparison.upper.is_finite().then_some(comparison.upper),
    }));
    Ok(())
}

/// A pair of runs with the same faults.
async fn one_after_the_other([proxy, other]: [&Path; 2], setting: Setting, in_order: bool) -> Result<[Run; 2], String> {
    if in_order {
        let run = run::run(proxy, setting).await?;
        Ok([run, run::run(other, setting).await?])
    } else {
        let run = run::run(other, setting).await?;
        Ok([run::run(proxy, setting).await?, run])
    }
}

impl Options {
    /// The runs, round by round.
    fn settings(&self, rounds: u32) -> Vec<Setting> {
        let protocols = self.protocol.map_or_else(|| Protocol::ALL.to_vec(), |protocol| vec![protocol]);
        let rounds = u64::from(self.rounds.unwrap_or(rounds));
        let seeds = (0..rounds).map(|round| self.seed.wrapping_add(round));
        let setting = |protocol, seed| Setting {
            protocol,
            hosts: usize::from(self.hosts),
            rate: self.rate,
            length: Duration::from_secs(self.seconds),
            seed,
            concurrency: self.concurrency,
            outliers: self.outlier_detection,
        };
        seeds.flat_map(|seed| protocols.iter().map(move |protocol| setting(*protocol, seed))).collect()
    }
}

/// What is told, as it becomes known or as JSON at the end.
struct Report {
    json: Option<Vec<serde_json::Value>>,
    passed: bool,
}

impl Report {
    fn run(&mut self, name: &str, run: &Run, judged: bool) {
        self.passed &= !judged || report::failings(run).is_empty();
        match &mut self.json {
            Some(runs) => runs.push(report::json(name, run)),
            None => print!("{}", report::text(name, run)),
        }
    }

    /// For whoever waits, and not in the way of programs.
    fn note(&self, text: &str) {
        if self.json.is_none() {
            println!("{text}");
        }
    }

    fn end(&mut self, comparison: serde_json::Value) {
        let passed = self.passed;
        match self.json.take() {
            Some(runs) => println!("{}", json!({ "passed": passed, "runs": runs, "comparison": comparison })),
            None => println!("{}", if passed { "passed" } else { "FAILED" }),
        }
    }
}

/// What to call a proxy: its file.
fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

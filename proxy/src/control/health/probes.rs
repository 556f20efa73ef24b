//! The tasks that ask hosts: one per host that is checked, on the control thread's runtime.

mod http;
mod tcp;

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use stats::Store;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::session::Report;
use crate::config::cluster::{Checker, ClusterConfig, TransportSocket};
use crate::control::clusters::{Answer, Probe};
use crate::control::{Happening, Happenings};
use crate::tls::client::Wanted;
use crate::tls::failure::Failure;
use crate::tls::handshake;
use crate::tls::statistics::TlsCounters;
use crate::transport::{Io, proxy_protocol};
use crate::upstream::connect::connect;

/// All hosts that are being asked.
pub struct Probes {
    happenings: Happenings,
    store: Arc<Store>,
    running: HashMap<u64, Running>,
    /// By the name of the cluster in statistics.
    counters: HashMap<Arc<str>, Rc<TlsCounters>>,
}

#[derive(Debug)]
struct Running {
    questions: UnboundedSender<Probe>,
    task: JoinHandle<()>,
}

/// What a checker does with the connection between questions.
trait Prober {
    /// Asks once, within the caller's timeout.
    async fn ask(&mut self, probe: &Probe) -> Answer;

    /// Nobody waits for the answer any more.
    fn give_up(&mut self, probe: &Probe);

    /// Waits for something the host says unasked.
    async fn listen(&mut self, probe: &Probe) -> Answer;
}

/// A connection to where a host is checked. It is the proxy's own, which is what a PROXY header says of it, if there is one.
async fn dial(probe: &Probe) -> io::Result<Io> {
    let config = &probe.config.connection;
    let mut io = connect(config, &probe.address, || {}).await?;
    let of_host = || probe.host.attributes().metadata.as_deref();
    let socket = config.socket_for(probe.check.socket_criteria.as_ref().or_else(of_host));
    if let TransportSocket::ProxyProtocol(header) = socket {
        io.write_all(&proxy_protocol::own(header.version, io.local_addr(), &probe.address)).await?;
    }
    let (Some(context), Some(counters)) = (socket.tls(), &probe.tls_counters) else { return Ok(io) };
    let alpn_fallback: &[&[u8]] = if config_speaks_http2(probe) { &[b"h2"] } else { &[] };
    let hello =
        context.hello(probe.host.hostname(), &Wanted { alpn: &probe.check.alpn, alpn_fallback, ..Wanted::default() });
    let Some(hello) = hello else {
        counters.upstream_not_ready();
        return Err(io::Error::other(Failure::secret_missing().text));
    };
    let session = handshake::connect(&mut io, hello, counters).await;
    session.map(|session| session.over(io)).map_err(|failed| io::Error::other(failed.failure.text))
}

/// Whether the checker speaks HTTP/2.
fn config_speaks_http2(probe: &Probe) -> bool {
    match &probe.check.checker {
        Checker::Http(check) => check.http2,
        Checker::Grpc(_) => true,
        Checker::Tcp(_) => false,
    }
}

impl Probes {
    /// Answers go to `happenings`; handshakes are counted in `store`.
    #[must_use]
    pub fn new(happenings: Happenings, store: Arc<Store>) -> Self {
        Self { happenings, store, running: HashMap::new(), counters: HashMap::new() }
    }

    /// What is counted of the handshakes of a cluster's checks.
    fn counters(&mut self, config: &ClusterConfig) -> Option<Rc<TlsCounters>> {
        config.connection.tls_contexts().next()?;
        let counters = self.counters.entry(Arc::clone(&config.stat_name)).or_insert_with(|| {
            Rc::new(TlsCounters::of_cluster(&self.store, &config.stat_name, self.store.control_shard()))
        });
        Some(Rc::clone(counters))
    }

    /// Asks a host, by the connection of the question before if it may serve again.
    pub fn ask(&mut self, mut probe: Probe) {
        probe.tls_counters = self.counters(&probe.config);
        let running = self.running.entry(probe.id).or_insert_with(|| {
            let (questions, asked) = unbounded_channel();
            let happenings = self.happenings.clone();
            let task = match &probe.check.checker {
                Checker::Http(_) | Checker::Grpc(_) => {
                    tokio::task::spawn_local(run(http::HttpProber::default(), asked, happenings))
                }
                Checker::Tcp(_) => tokio::task::spawn_local(run(tcp::TcpProber::default(), asked, happenings)),
            };
            Running { questions, task }
        });
        // The task ends with this end of the channel only.
        let _ = running.questions.send(probe);
    }

    /// Closes the connection to a host.
    pub fn end(&mut self, id: u64) {
        if let Some(running) = self.running.remove(&id) {
            running.task.abort();
        }
    }
}

/// Asks whenever there is a question, and reports.
async fn run(mut prober: impl Prober, mut questions: UnboundedReceiver<Probe>, happenings: Happenings) {
    let Some(mut probe) = questions.recv().await else { return };
    let report = |probe: &Probe, answer| {
        // Nobody listens any more when the process ends.
        let _ = happenings.send(Happening::Checked(probe.config.name.clone(), probe.id, answer));
    };
    loop {
        let answer = match tokio::time::timeout(probe.check.timeout, prober.ask(&probe)).await {
            Ok(answer) => answer,
            Err(_) => {
                prober.give_up(&probe);
                plain(Report::TimedOut)
            }
        };
        report(&probe, answer);
        probe = loop {
            tokio::select! {
                biased;
                question = questions.recv() => match question {
                    Some(question) => break question,
                    None => return,
                },
                answer = prober.listen(&probe) => report(&probe, answer),
            }
        };
    }
}

/// An answer that is nothing but its outcome.
const fn plain(report: Report) -> Answer {
    Answer { report, verified: false, status: 0 }
}

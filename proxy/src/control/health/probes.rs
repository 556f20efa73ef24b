//! The tasks that ask hosts: one per host that is checked, on the control thread's runtime.

mod http;
mod tcp;

use std::collections::HashMap;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::session::Report;
use crate::config::cluster::Checker;
use crate::control::clusters::{Answer, Probe};
use crate::control::{Happening, Happenings};

/// All hosts that are being asked.
#[derive(Debug)]
pub struct Probes {
    happenings: Happenings,
    running: HashMap<u64, Running>,
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
    fn give_up(&mut self);

    /// Waits for something the host says unasked.
    async fn listen(&mut self, probe: &Probe) -> Answer;
}

impl Probes {
    /// Answers go to `happenings`.
    #[must_use]
    pub fn new(happenings: Happenings) -> Self {
        Self { happenings, running: HashMap::new() }
    }

    /// Asks a host, by the connection of the question before if it may serve again.
    pub fn ask(&mut self, probe: Probe) {
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
                prober.give_up();
                Answer { report: Report::TimedOut, verified: false }
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
    Answer { report, verified: false }
}

//! What is to be said of each failed request: whether it could have been saved.
//!
//! A failure is excused if the proxy did all it was allowed to: made every try, each at a host that was not well or with
//! all the time a try has; or used up the request's time; or had begun to answer, after which nobody can take it back; or
//! could not send the request again because it is longer than what is kept. Everything else was lost by the proxy. The
//! evidence is what the hosts wrote down, what the proxy's access log says, and when this machine was too busy for either;
//! not what was planned.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use super::client::Outcome;
use super::diary::{Biography, Did, RequestId, Try};
use super::fault::{Fault, Protocol};
use super::load::Sent;
use super::message::is_too_long;
use super::plan::HostId;
use super::resources::{Evidence, ROUTE_TIMEOUT, TRIES, TRY_TIMEOUT};
use super::watch::Watch;

/// Clocks of the proxy's timers and ours may differ by so much.
const TOLERANCE: Duration = Duration::from_millis(20);
/// A fault excuses a try that came so long after it ended: it may have been on its way.
const BEFORE: Duration = Duration::from_millis(100);
/// A fault excuses a try that came so long before it began: its answer may have been on its way.
const AFTER: Duration = Duration::from_secs(1);
/// So much time that this machine lost while a request was under way explains a try that came to nothing.
const BUSY: Duration = Duration::from_millis(100);
/// How soon a host that is no endpoint any more must be left alone.
const UPDATE: Duration = Duration::from_secs(2);

/// Why a failure is excused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Excuse {
    /// Every try was made, and none could have succeeded.
    Exhausted,
    /// The request's time was used up.
    TimeUp,
    /// The answer had begun.
    Begun,
    /// The request is longer than what is kept of it.
    TooLong,
    /// A try failed at a host that was well, and this machine had no time for host or proxy.
    Busy,
}

impl Excuse {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [Self::Exhausted, Self::TimeUp, Self::Begun, Self::TooLong, Self::Busy];

    /// For people.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Exhausted => "all tries met faults",
            Self::TimeUp => "its time was used up",
            Self::Begun => "the answer had begun",
            Self::TooLong => "too long to be sent again",
            Self::Busy => "this machine was too busy",
        }
    }
}

/// What is said of a run.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Failures that are excused.
    pub(super) excused: HashMap<Excuse, u64>,
    /// What the proxy did wrong: requests it could have saved, bodies it changed, tries of hosts that are no endpoints.
    pub(super) wrongs: Vec<String>,
    /// Tries that reached a host.
    pub(super) tries: u64,
    /// Tries of a host that the same request had tried before, though there were others.
    pub(super) repeated: u64,
    /// Requests that succeeded after a try had come to nothing at a host that was well.
    pub(super) wasted: u64,
    pub(super) notes: Vec<String>,
    /// Tries beyond the first of each request, whether or not they reached a host.
    pub(super) retries: u64,
}

/// Everything that is known about a run.
pub(super) struct Case {
    protocol: Protocol,
    evidence: HashMap<RequestId, Evidence>,
    tries: HashMap<RequestId, Vec<Try>>,
    hosts: Vec<Biography>,
    watch: Rc<Watch>,
}

impl Case {
    /// From the hosts' diary, the proxy's access log, and when there was no time for them.
    pub(super) fn new(
        protocol: Protocol,
        tries: Vec<Try>,
        hosts: Vec<Biography>,
        access_log: &str,
        watch: Rc<Watch>,
    ) -> Self {
        let evidence = access_log.lines().filter_map(Evidence::parse).map(|line| (line.id, line)).collect();
        let mut by_request: HashMap<_, Vec<Try>> = HashMap::new();
        for one in tries {
            by_request.entry(one.request).or_default().push(one);
        }
        Self { protocol, evidence, tries: by_request, hosts, watch }
    }

    /// Judges the requests of a run.
    pub(super) fn judge(&self, sent: &[Sent]) -> Verdict {
        let mut verdict = Verdict::default();
        for one in sent {
            let tries = self.tries(one.id);
            verdict.tries += tries.len() as u64;
            verdict.repeated += repeated(tries);
            let made = self.evidence.get(&one.id).map_or(0, |evidence| evidence.tries);
            verdict.retries += u64::from(made.saturating_sub(1));
            for tried in tries {
                if tried.did == Did::Mangled {
                    verdict.wrongs.push(format!("request {}: host {} got another body", one.id, tried.host));
                }
                if self
                    .host(tried)
                    .is_some_and(|host| !host.assigned_between(tried.at.saturating_sub(UPDATE), tried.at))
                {
                    verdict.wrongs.push(format!("request {}: sent to host {}, no endpoint", one.id, tried.host));
                }
            }
            match self.excuse(one) {
                None => {
                    let [before @ .., _] = tries else { continue };
                    let wasted = one.outcome == Outcome::Answered && self.wasted(one, before).is_some();
                    if wasted && self.busy(one).is_none() {
                        verdict.wasted += 1;
                        verdict.notes.push(self.story(one));
                    }
                }
                Some(Ok(excuse)) => *verdict.excused.entry(excuse).or_default() += 1,
                Some(Err(wrong)) => verdict.wrongs.push(format!("request {}: {wrong}; {}", one.id, self.story(one))),
            }
        }
        verdict
    }

    /// Nothing if it did not fail.
    fn excuse(&self, sent: &Sent) -> Option<Result<Excuse, String>> {
        let evidence = self.evidence.get(&sent.id);
        // A client may hear of the reset and not of the head before it.
        let begun = evidence.is_some_and(|evidence| {
            evidence.details == "via_upstream" || evidence.details.starts_with("upstream_reset_after_response_started")
        });
        Some(match (&sent.outcome, evidence) {
            (Outcome::Answered | Outcome::Abandoned, _) => return None,
            (Outcome::Wrong(what), _) => Err(what.clone()),
            (_, None) => Err("the proxy did not log it".to_owned()),
            (Outcome::BrokenOff(_), _) => self.broken_off(sent),
            (Outcome::None(_), Some(_)) if begun => self.broken_off(sent),
            (Outcome::None(_), Some(_)) => self.busy(sent).ok_or_else(|| "the client was not answered".to_owned()),
            (Outcome::Status(_) | Outcome::GrpcStatus(_), Some(evidence)) => self.failed(sent, evidence),
        })
    }

    /// The answer had begun: whoever gave it must not have been well.
    fn broken_off(&self, sent: &Sent) -> Result<Excuse, String> {
        let breaks = |fault: Fault| {
            matches!(fault, Fault::BreakingOff | Fault::Killed | Fault::Restarted | Fault::Clogged | Fault::Resetting)
        };
        let tries = self.tries(sent.id);
        let excused = tries.last().is_some_and(|last| self.faults(last).any(breaks));
        if excused {
            return Ok(Excuse::Begun);
        }
        self.busy(sent).ok_or_else(|| "the answer of a host that is well was broken off".to_owned())
    }

    fn failed(&self, sent: &Sent, evidence: &Evidence) -> Result<Excuse, String> {
        if evidence.duration + TOLERANCE >= ROUTE_TIMEOUT {
            return Ok(Excuse::TimeUp);
        }
        if evidence.tries < TRIES {
            if is_too_long(sent.id, self.protocol) {
                return Ok(Excuse::TooLong);
            }
            return Err(format!("given up after {} of {TRIES} tries", evidence.tries));
        }
        let tries = self.tries(sent.id);
        if let Some(host) = self.wasted(sent, tries) {
            let wrong = format!("a try came to nothing at host {host}, which was well");
            return self.busy(sent).ok_or(wrong);
        }
        let unseen = u64::from(evidence.tries).saturating_sub(tries.len() as u64);
        if unseen > 0 && !self.some_turn_away(sent) {
            let wrong = format!("{unseen} tries reached no host, though all of them listened");
            return self.busy(sent).ok_or(wrong);
        }
        if let Some(host) = self.last_and_well(sent, evidence) {
            let wrong = format!("the last try did not even reach host {host}, which was well");
            return self.busy(sent).ok_or(wrong);
        }
        Ok(Excuse::Exhausted)
    }

    /// The host of the first of these tries of a request that came to nothing without a reason.
    fn wasted(&self, sent: &Sent, tries: &[Try]) -> Option<HostId> {
        let ends = self.tries(sent.id).iter().skip(1).map(|next| next.at).chain([sent.ended]);
        let had_its_time = |tried: &Try, end: Duration| end.saturating_sub(tried.at) + TOLERANCE >= TRY_TIMEOUT;
        let mut wasted = tries
            .iter()
            .zip(ends)
            .filter(|(tried, end)| !had_its_time(tried, *end) && !self.faults(tried).any(Fault::fails_tries));
        wasted.next().map(|(tried, _)| tried.host)
    }

    /// The host of the last try, if the try did not reach it though it was well.
    fn last_and_well(&self, sent: &Sent, evidence: &Evidence) -> Option<HostId> {
        let number = self.hosts.iter().position(|host| host.address.is_some() && host.address == evidence.host)?;
        let reached = self.tries(sent.id).iter().any(|tried| tried.host == number);
        let from = sent.ended.saturating_sub(TRY_TIMEOUT);
        let mut faults = self.hosts.get(number)?.faults_between(from, sent.ended + AFTER);
        (!reached && !faults.any(Fault::fails_tries)).then_some(number)
    }

    /// Whether some host refused connections, or reset them, while the request was under way.
    fn some_turn_away(&self, sent: &Sent) -> bool {
        let from = sent.left.saturating_sub(BEFORE);
        let may = |fault: Fault| {
            fault.turns_away()
                || matches!(fault, Fault::Resetting | Fault::BreakingOff | Fault::HangingUp | Fault::Leaving)
        };
        self.hosts.iter().any(|host| host.faults_between(from, sent.ended).any(may))
    }

    /// Whether there was no time for a request.
    fn busy(&self, sent: &Sent) -> Option<Excuse> {
        (self.watch.lost_between(sent.left, sent.ended) >= BUSY).then_some(Excuse::Busy)
    }

    /// What was wrong with the host of a try.
    fn faults(&self, tried: &Try) -> impl Iterator<Item = Fault> {
        let (from, until) = (tried.at.saturating_sub(BEFORE), tried.at + AFTER);
        self.host(tried).into_iter().flat_map(move |host| host.faults_between(from, until))
    }

    fn host(&self, tried: &Try) -> Option<&Biography> {
        self.hosts.get(tried.host)
    }

    fn tries(&self, id: RequestId) -> &[Try] {
        self.tries.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Everything about a request, to look for the cause.
    fn story(&self, sent: &Sent) -> String {
        let seconds = |time: Duration| format!("{:.3}", time.as_secs_f64());
        let tries = self.tries(sent.id).iter().map(|tried| {
            let faults: Vec<_> = self.faults(tried).collect();
            format!("host {} at {} did {:?} {faults:?}", tried.host, seconds(tried.at), tried.did)
        });
        let log = self.evidence.get(&sent.id).map_or_else(String::new, |evidence| {
            let Evidence { status, flags, details, tries, duration, host, .. } = evidence;
            format!("logged {status} {flags} {details} after {tries} tries in {duration:?}, last at {host:?}")
        });
        let tries = tries.collect::<Vec<_>>().join(", ");
        format!("left {} ended {}: {:?}; {log}; [{tries}]", seconds(sent.left), seconds(sent.ended), sent.outcome)
    }
}

fn repeated(tries: &[Try]) -> u64 {
    let again = |(index, tried): &(usize, &Try)| tries.iter().take(*index).any(|before| before.host == tried.host);
    tries.iter().enumerate().filter(again).count() as u64
}

#[cfg(test)]
mod tests;

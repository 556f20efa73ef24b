//! What happens when: the faults of the hosts and the changes of the endpoints, decided before anything starts. The same
//! seed gives the same plan, so that two proxies can be compared.
//!
//! First each kind of fault has a host to itself, then as many crowds follow in which two hosts of five have faults at
//! once. In the middle of each of these phases the control plane takes other hosts out of the endpoints (half of them, as a
//! deployment does, or one of eight while there is a crowd), and at its end puts them in again. Most of the hosts that are
//! left are always well, and at the end all of them are.

use std::time::Duration;

use super::fault::{Fault, Protocol};

/// A host, by its number.
pub(super) type HostId = usize;

/// Everything that is to happen, in order.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// How long there is load.
    pub(super) length: Duration,
}

/// Something that happens.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    /// From the beginning of the load.
    pub(super) at: Duration,
    pub(super) action: Action,
}

/// What happens.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// A host is no longer well.
    Break(HostId, Fault),
    /// It is well again.
    Heal(HostId),
    /// The endpoints are these.
    Assign(Vec<HostId>),
}

impl Plan {
    /// The plan for so many hosts.
    pub(super) fn new(protocol: Protocol, hosts: usize, length: Duration, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut kinds = Fault::of(protocol).to_vec();
        random.shuffle(&mut kinds);
        let mut phases: Vec<Vec<(HostId, Fault)>> =
            kinds.iter().map(|fault| vec![(random.usize(..hosts), *fault)]).collect();
        let crowd = hosts * 2 / 5;
        // Dealt like cards, so that every kind has its turn.
        let mut deck = Vec::new();
        for _ in 0..kinds.len() {
            let members = random.choose_multiple(0..hosts, crowd);
            let mut deal = || {
                if deck.is_empty() {
                    deck.extend_from_slice(&kinds);
                    random.shuffle(&mut deck);
                }
                deck.pop()
            };
            phases.push(members.into_iter().filter_map(|host| Some((host, deal()?))).collect());
        }

        // At the beginning and at the end all are well.
        let unit = length / u32::try_from(phases.len() + 2).unwrap_or(u32::MAX);
        let mut steps = Vec::new();
        let mut at = unit;
        for phase in phases {
            steps.extend(phase.iter().map(|(host, fault)| Step { at, action: Action::Break(*host, *fault) }));
            let away = if phase.len() > 1 { (hosts / 8).max(1) } else { hosts / 2 };
            let away = random.choose_multiple(0..hosts, away);
            let left = (0..hosts).filter(|host| !away.contains(host)).collect();
            steps.push(Step { at: at + unit / 2, action: Action::Assign(left) });
            at += unit;
            steps.extend(phase.iter().map(|(host, _)| Step { at, action: Action::Heal(*host) }));
            steps.push(Step { at, action: Action::Assign((0..hosts).collect()) });
        }
        Self { steps, length }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn plans() -> impl Iterator<Item = (Protocol, usize, Plan)> {
        let cases = Protocol::ALL.into_iter().flat_map(|protocol| [6, 20, 64].map(|hosts| (protocol, hosts)));
        cases.flat_map(|(protocol, hosts)| {
            (0..20).map(move |seed| (protocol, hosts, Plan::new(protocol, hosts, Duration::from_secs(20), seed)))
        })
    }

    #[test]
    fn most_of_the_endpoints_are_always_well_and_in_the_end_all_are() {
        for (_, hosts, plan) in plans() {
            let mut broken = HashMap::new();
            let mut assigned: HashSet<HostId> = (0..hosts).collect();
            for Step { action, .. } in &plan.steps {
                match action {
                    Action::Break(host, fault) => assert_eq!(broken.insert(*host, *fault), None),
                    Action::Heal(host) => assert!(broken.remove(host).is_some()),
                    Action::Assign(set) => assigned = set.iter().copied().collect(),
                }
                let well = assigned.iter().filter(|host| !broken.contains_key(host)).count();
                assert!(well * 2 >= assigned.len(), "{well} of {}", assigned.len());
            }
            assert!(broken.is_empty());
            assert_eq!(assigned.len(), hosts);
        }
    }

    #[test]
    fn every_fault_comes_alone_and_in_a_crowd_and_endpoints_change_between() {
        for (protocol, _, plan) in plans() {
            let breaks = |fault: Fault| {
                let is = |step: &&Step| matches!(step.action, Action::Break(_, kind) if kind == fault);
                plan.steps.iter().filter(is).count()
            };
            for fault in Fault::of(protocol) {
                assert!(breaks(*fault) >= 2, "{protocol} {fault:?}");
            }
            let changes = plan.steps.iter().filter(|step| matches!(step.action, Action::Assign(_))).count();
            assert_eq!(changes, 4 * Fault::of(protocol).len());
            assert!(plan.steps.is_sorted_by_key(|step| step.at));
            assert!(plan.steps.iter().all(|step| step.at < plan.length));
        }
    }

    #[test]
    fn a_seed_is_a_plan() {
        let plan = |seed| Plan::new(Protocol::Http2, 20, Duration::from_secs(5), seed);
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }
}

//! Earliest deadline first: weighted turns with the smoothest spread.
//!
//! Each entry is due again `1 / weight` after its last turn; the one due first goes first, of equals the one that
//! waits longest. Weights 1, 2, 3 give the repeating turns `323123`, exactly as Envoy's scheduler does.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A schedule over the entries `0..n`.
#[derive(Debug, Default)]
pub struct Edf {
    queue: BinaryHeap<Turn>,
    now: f64,
    next_order: u64,
}

/// An entry's next turn. Deadlines are computed from the number of turns taken, not summed up: sums of `1 / weight`
/// drift, and entries that should be due together would not be.
#[derive(Debug, Clone, Copy)]
struct Turn {
    deadline: f64,
    order: u64,
    index: usize,
    weight: f64,
    /// Since when it has this weight.
    since: f64,
    /// Turns taken since then.
    taken: f64,
}

/// Virtual time is moved back by whole units here: far along, `1 / weight` of a great weight would vanish in rounding.
const EPOCH: f64 = 4096.0;

impl Edf {
    /// A schedule over entries of these weights, as it stands after `phase` (0 to 1) of a round. Entries without
    /// weight get no turn.
    #[must_use]
    pub fn new(weights: &[f64], phase: f64) -> Self {
        let weights = weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
        let mut turns: Vec<Turn> = weights
            .map(|(index, &weight)| {
                let taken = (phase * weight).floor();
                Turn { deadline: (taken + 1.0) / weight, order: 0, index, weight, since: 0.0, taken }
            })
            .collect();
        // Whoever had its last turn earlier waits longer; the sort keeps the order of entries among equals.
        turns.sort_by(|a, b| (a.taken / a.weight).total_cmp(&(b.taken / b.weight)));
        let next_order = turns.len() as u64;
        let queue = (0..).zip(turns).map(|(order, turn)| Turn { order, ..turn }).collect();
        Self { queue, now: phase, next_order }
    }

    /// Whose turn it is. `reweigh` gives the entry's weight for its next turn from its index and present weight.
    pub fn pick(&mut self, reweigh: impl FnOnce(usize, f64) -> f64) -> Option<usize> {
        if self.now > EPOCH {
            self.rebase();
        }
        let mut turn = self.queue.peek_mut()?;
        self.now = turn.deadline;
        let weight = reweigh(turn.index, turn.weight);
        if weight > 0.0 && weight.total_cmp(&turn.weight).is_ne() {
            (turn.weight, turn.since, turn.taken) = (weight, self.now, 0.0);
        } else {
            turn.taken += 1.0;
        }
        turn.deadline = turn.since + (turn.taken + 1.0) / turn.weight;
        turn.order = self.next_order;
        self.next_order += 1;
        Some(turn.index)
    }

    fn rebase(&mut self) {
        let whole = self.now.floor();
        let turns = std::mem::take(&mut self.queue).into_vec();
        let rebased = turns.into_iter().map(|turn| {
            let taken = turn.taken - whole * turn.weight;
            Turn { deadline: turn.since + (taken + 1.0) / turn.weight, taken, ..turn }
        });
        self.queue = rebased.collect();
        self.now -= whole;
    }
}

impl Ord for Turn {
    /// The greatest is due first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then_with(|| other.order.cmp(&self.order))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Turn {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(weights: &[f64], phase: f64, count: usize) -> String {
        let mut edf = Edf::new(weights, phase);
        (0..count).filter_map(|_| edf.pick(|_, weight| weight)).map(|index| (index + 1).to_string()).collect()
    }

    #[test]
    fn one_two_three_is_envoys_323123() {
        assert_eq!(turns(&[1.0, 2.0, 3.0], 0.0, 18), "323123323123323123");
    }

    #[test]
    fn any_phase_is_a_rotation_of_the_same_round() {
        for step in 0..100 {
            let round = turns(&[1.0, 2.0, 3.0], f64::from(step) / 100.0, 12);
            assert!("323123323123323123".contains(&round), "phase {step} %: {round}");
        }
    }

    #[test]
    fn who_has_no_weight_gets_no_turn() {
        assert_eq!(turns(&[0.0, 1.0, 0.0], 0.3, 3), "222");
        assert_eq!(turns(&[0.0], 0.0, 1), "");
        assert_eq!(turns(&[], 0.0, 1), "");
    }

    #[test]
    fn great_weights_still_share_after_many_rounds() {
        let mut edf = Edf::new(&[1.0, f64::from(u32::MAX)], 0.5);
        for _ in 0..3 {
            edf.now = EPOCH * 2.0;
            let first = (0..1000).filter(|_| edf.pick(|_, weight| weight) == Some(0)).count();
            assert!(first <= 1, "{first} turns for a weight of 1 against 2^32 - 1");
        }
    }

    #[test]
    fn moving_time_back_changes_nobodys_turn() {
        let weights = [1.0, 2.0, 3.0];
        let mut edf = Edf::new(&weights, 0.0);
        let turns: String = (0..6 * 5000)
            .filter_map(|_| edf.pick(|_, weight| weight))
            .map(|index| char::from(b'1' + u8::try_from(index).unwrap()))
            .collect();
        assert!(edf.now <= EPOCH, "time was moved back");
        assert_eq!(turns, "323123".repeat(5000));
    }

    proptest! {
        #[test]
        fn every_round_gives_each_its_weight(weights in prop::collection::vec(1_u32..40, 1..12), phase in 0.0..1.0) {
            let total: u32 = weights.iter().sum();
            let mut edf = Edf::new(&weights.iter().map(|&w| f64::from(w)).collect::<Vec<_>>(), phase);
            let mut counts = vec![0_i64; weights.len()];
            for _ in 0..total * 10 {
                counts[edf.pick(|_, weight| weight).unwrap()] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert!((count - i64::from(weight * 10)).abs() <= 1, "{counts:?} for {weights:?}");
            }
        }
    }
}

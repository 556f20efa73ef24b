//! Consistent hashing with bounded loads: a host with more than its part of the requests in flight is passed over.
//!
//! The other hosts are looked at in an order that the hash decides, as in Envoy, so that what overflows from one host spreads
//! over all of them and still finds the same one again.

use std::sync::Arc;

use crate::upstream::host::Host;

/// The host to take instead of `chosen` where that has too much to do; the one furthest below its bound if all have.
/// `factor` is the bound in percent of the average. Looks at hosts one by one: `O(hosts)` at worst.
pub(super) fn choose(hosts: &[(Arc<Host>, f64)], chosen: usize, hash: u64, factor: u32, overall_active: u32) -> usize {
    let total_slots = (u64::from(overall_active) + 1).saturating_mul(factor.into()).div_ceil(100);
    let load = |index: usize| hosts.get(index).map_or(f64::MAX, |(host, share)| load(host, *share, total_slots));
    let mut best = (chosen, load(chosen));
    if best.1 <= 1.0 {
        return chosen;
    }
    let mut order: Vec<usize> = (0..hosts.len()).collect();
    let mut random = Twister::new(hash);
    for place in 0..order.len() {
        let other = place + random.below(order.len() - place);
        order.swap(place, other);
        let Some(&index) = order.get(place) else { continue };
        if index == chosen {
            continue;
        }
        let load = load(index);
        if load <= 1.0 {
            return index;
        }
        if load < best.1 {
            best = (index, load);
        }
    }
    best.0
}

/// A host's requests in flight over how many it may have, which is at least one.
fn load(host: &Host, share: f64, total_slots: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "requests in flight are far below 2^53")]
    let slots = (total_slots as f64 * share).ceil().max(1.0);
    f64::from(host.state().active_requests()) / slots
}

/// MT19937: the one generator of random numbers of which all implementations agree what follows from a seed.
struct Twister {
    state: [u32; Self::SIZE],
    next: usize,
}

impl Twister {
    const SIZE: usize = 624;
    const SHIFT: usize = 397;

    fn new(seed: u64) -> Self {
        let mut state = [0; Self::SIZE];
        // The generator is one of 32 bits: it takes that much of a seed.
        #[expect(clippy::cast_possible_truncation, reason = "meant")]
        let mut last = seed as u32;
        for (place, index) in state.iter_mut().zip(0_u32..) {
            if index > 0 {
                last = 1_812_433_253_u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(index);
            }
            *place = last;
        }
        Self { state, next: Self::SIZE }
    }

    fn draw(&mut self) -> u32 {
        if self.next == Self::SIZE {
            self.twist();
            self.next = 0;
        }
        let mut value = self.state[self.next];
        self.next += 1;
        value ^= value >> 11;
        value ^= (value << 7) & 0x9d2c_5680;
        value ^= (value << 15) & 0xefc6_0000;
        value ^ (value >> 18)
    }

    fn twist(&mut self) {
        for index in 0..Self::SIZE {
            let low = self.state[(index + 1) % Self::SIZE];
            let joined = (self.state[index] & 0x8000_0000) | (low & 0x7fff_ffff);
            let shifted = self.state[(index + Self::SHIFT) % Self::SIZE] ^ (joined >> 1);
            self.state[index] = if joined & 1 == 0 { shifted } else { shifted ^ 0x9908_b0df };
        }
    }

    /// A number below `bound`, each with the same probability; 0 when there is none.
    fn below(&mut self, bound: usize) -> usize {
        let Some(width) = (1_u64 << 32).checked_div(bound as u64).filter(|width| *width > 0) else { return 0 };
        loop {
            let drawn = u64::from(self.draw()) / width;
            if drawn < bound as u64 {
                return usize::try_from(drawn).unwrap_or(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::host::tests::host;

    /// `std::mt19937` of libstdc++, seeded with 64 bits.
    #[test]
    fn the_generator_is_the_standard_one() {
        let mut random = Twister::new(0x1234_5678_9abc_def0);
        assert_eq!([random.draw(), random.draw(), random.draw()], [2_526_297_512, 470_220_814, 637_102_349]);
        for _ in 0..1000 {
            random.draw();
        }
        assert_eq!(random.draw(), 2_405_620_256);
    }

    #[test]
    fn an_overloaded_host_is_passed_over_and_the_least_loaded_taken_when_all_are() {
        let hosts: Vec<_> = (1..=4).map(|n| (host(n, 1, 0, &Arc::default()), 0.25)).collect();
        let busy: Vec<_> = (0..3).map(|_| hosts[2].0.state().begin_request()).collect();
        // Three in flight, the fourth comes: 4 * 1.2 / 4 rounded up are two each.
        assert_eq!(choose(&hosts, 0, 77, 120, 3), 0, "not overloaded");
        let other = choose(&hosts, 2, 77, 120, 3);
        assert_ne!(other, 2);
        assert_eq!(choose(&hosts, 2, 77, 120, 3), other, "the same every time");
        let spread: std::collections::BTreeSet<usize> = (0..50).map(|hash| choose(&hosts, 2, hash, 120, 3)).collect();
        assert_eq!(spread, [0, 1, 3].into(), "by hash, to all others");

        let all: Vec<_> = [0, 0, 1, 1, 3, 3].map(|index: usize| hosts[index].0.state().begin_request()).into();
        assert!(
            [0, 1, 3].contains(&choose(&hosts, 2, 5, 100, 0)),
            "all have more than their one: those with the fewest"
        );
        drop((busy, all));
        assert_eq!(choose(&hosts, 2, 5, 100, 0), 2);
    }
}

use proptest::prelude::*;

use super::*;

fn bins(values: impl IntoIterator<Item = u64>) -> Bins {
    let cells = HistogramCells::default();
    values.into_iter().for_each(|value| cells.record(value));
    let mut bins = Bins::default();
    cells.add_to(&mut bins);
    bins
}

#[test]
fn bins_have_two_leading_digits() {
    let cases = [
        (0, 0.0, 0.0),
        (1, 1.0, 0.1),
        (9, 9.0, 0.1),
        (10, 10.0, 1.0),
        (99, 99.0, 1.0),
        (100, 100.0, 10.0),
        (777, 770.0, 10.0),
        (999, 990.0, 10.0),
        (1234, 1200.0, 100.0),
        (u64::MAX, 1.8e19, 1e18),
    ];
    for (value, lower, width) in cases {
        assert_eq!((Bin::of(value).lower_bound(), Bin::of(value).width()), (lower, width), "{value}");
    }
}

/// Envoy 1.40 printed these for these values.
#[test]
fn quantiles_and_sums_are_those_of_envoy() {
    let values = bins([0, 0, 1, 1, 1, 2, 2, 2, 4]);
    assert_eq!(values.quantiles(&QUANTILES), [0.0, 1.025, 1.075, 2.05, 4.05, 4.05, 4.05, 4.05, 4.05, 4.05]);
    let codes = bins([200, 200, 200, 99, 600, 777, 999]);
    assert_eq!(codes.quantiles(&[0.0, 0.25, 0.5, 0.75, 1.0]), [99.5, 202.5, 207.5, 775.0, 995.0]);
    assert_eq!(codes.sum(), 3_089.032_927_771_943);
    assert_eq!(bins([0, 0, 1]).sum(), 1.047_619_047_619_047_7);
    assert!(bins([]).quantiles(&QUANTILES).iter().all(|value| value.is_nan()));
}

#[test]
fn buckets_take_in_the_bin_of_their_bound() {
    let values = bins([0, 0, 1, 1, 1, 2, 2, 2, 4, 1_800_000, 1_899_999, 1_900_000]);
    let cases =
        [(0.0, 2), (0.1, 2), (0.5, 2), (1.0, 5), (1.9, 5), (2.0, 8), (5.0, 9), (1.7e6, 9), (1.8e6, 11), (3.6e6, 12)];
    for (bound, count) in cases {
        assert_eq!(values.count_up_to(bound), count, "{bound}");
    }
    for bound in [-1.0, f64::NAN] {
        assert_eq!(values.count_up_to(bound), 0, "{bound}");
    }
}

#[test]
fn an_unused_power_of_ten_costs_nothing() {
    let cells = HistogramCells::default();
    cells.record(0);
    assert!(cells.decades.iter().all(|decade| decade.get().is_none()));
    cells.record(5);
    cells.record(7);
    assert_eq!(cells.decades.iter().filter(|decade| decade.get().is_some()).count(), 1);
}

fn values() -> impl Strategy<Value = Vec<u64>> {
    let value = prop_oneof![0..20u64, 0..3000u64, any::<u32>().prop_map(u64::from), any::<u64>()];
    prop::collection::vec(value, 1..200)
}

proptest! {
    #[test]
    fn a_value_is_inside_its_bin(value in prop_oneof![0..2000u64, any::<u64>()]) {
        let bin = Bin::of(value);
        let (lower, width) = (bin.lower_bound(), bin.width());
        // circllhist rounds: the bin of 110 begins at 110.00000000000001, and so does ours.
        let rounding = 1e-15 * value as f64;
        prop_assert!(lower <= value as f64 + rounding);
        prop_assert!(value as f64 - lower <= width + rounding);
        prop_assert!(width <= lower / 10.0 * 1.000_001);
        prop_assert!(bin.is_up_to(value as f64) || value > 1 << 53);
    }

    #[test]
    fn bins_are_ordered_like_values(a in any::<u64>(), b in any::<u64>()) {
        prop_assert!((Bin::of(a) <= Bin::of(b)) == (Bin::of(a) == Bin::of(b) || a < b));
    }

    /// A quantile is in the bin of the value that has that rank, and no quantile is below one before it.
    #[test]
    fn quantiles_are_within_a_bin_of_the_truth(mut values in values()) {
        let quantiles = bins(values.iter().copied()).quantiles(&QUANTILES);
        values.sort_unstable();
        prop_assert!(quantiles.is_sorted());
        for (quantile, found) in QUANTILES.into_iter().zip(quantiles) {
            let rank = (values.len() as f64 * quantile).ceil().max(1.0) as usize;
            let bin = Bin::of(values[rank - 1]);
            prop_assert!(bin.lower_bound() <= found && found <= bin.lower_bound() + bin.width(), "{quantile} {found} {bin:?}");
        }
    }

    #[test]
    fn a_sum_is_within_five_percent(values in prop::collection::vec(any::<u32>(), 1..200)) {
        let exact: f64 = values.iter().map(|&value| f64::from(value)).sum();
        let estimate = bins(values.into_iter().map(u64::from)).sum();
        prop_assert!((estimate - exact).abs() <= exact * 0.05, "{estimate} {exact}");
    }

    #[test]
    fn intervals_add_up(first in values(), second in values()) {
        let before = bins(first.iter().copied());
        let after = bins(first.iter().chain(&second).copied());
        prop_assert_eq!(after.since(&before), bins(second));
        prop_assert!(after.since(&after).is_empty());
        prop_assert_eq!(after.since(&Bins::default()), after);
    }

    #[test]
    fn shards_add_up(first in values(), second in values()) {
        let mut sum = bins(first.iter().copied());
        let cells = HistogramCells::default();
        second.iter().for_each(|&value| cells.record(value));
        cells.add_to(&mut sum);
        prop_assert_eq!(sum, bins(first.into_iter().chain(second)));
    }
}

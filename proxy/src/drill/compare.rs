//! Whether one proxy loses more than another: failure rates of alternated runs, of which each pair had the same faults at
//! the same times.
//!
//! What is tested is the mean of the pairs' differences, by Student's distribution (a paired test, one-sided, at 95 %).
//! "Not worse" means that the runs do not show the first proxy to fail more often; the bound that is printed beside it
//! says how much more often it might, at most, with the same confidence.

use super::report::rate;
use super::run::Run;

/// What the runs say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Comparison {
    pub(super) pairs: usize,
    /// How much higher the first one's failure rate is, on average.
    pub(super) difference: f64,
    /// It is higher than this, with 95 % confidence.
    pub(super) lower: f64,
    /// It is lower than this, with 95 % confidence.
    pub(super) upper: f64,
}

impl Comparison {
    /// Of pairs of runs.
    pub(super) fn of(pairs: &[[Run; 2]]) -> Self {
        let of = |run: &Run| rate(run.failed, run.sent);
        let differences: Vec<f64> = pairs.iter().map(|[run, other]| of(run) - of(other)).collect();
        Self::of_differences(&differences)
    }

    #[expect(clippy::cast_precision_loss, reason = "runs are few")]
    fn of_differences(differences: &[f64]) -> Self {
        let pairs = differences.len();
        let number = pairs.max(1) as f64;
        let mean = differences.iter().sum::<f64>() / number;
        let squares: f64 = differences.iter().map(|difference| (difference - mean).powi(2)).sum();
        // One pair says nothing about how pairs differ.
        let margin = match pairs {
            0 | 1 => f64::INFINITY,
            _ => quantile(pairs - 1) * (squares / (number - 1.0) / number).sqrt(),
        };
        Self { pairs, difference: mean, lower: mean - margin, upper: mean + margin }
    }

    /// Whether the first one is shown to fail more often.
    pub(super) fn is_worse(&self) -> bool {
        self.lower > 0.0
    }

    /// In words.
    pub(super) fn text(&self, [name, other]: [&str; 2]) -> String {
        if self.pairs < 2 {
            return format!("{name} and {other} cannot be compared: that takes two undisturbed pairs of runs at least");
        }
        let verdict = match () {
            () if self.is_worse() => format!("{name} fails more often than {other}"),
            () if self.upper < 0.0 => format!("{name} fails less often than {other}"),
            () => format!("{name} does not fail more often than {other}"),
        };
        let points = |value: f64| format!("{:+.3}", 100.0 * value);
        format!(
            "{verdict}: {} percentage points on average over {} alternated runs, between {} and {} with 95 % confidence to \
             either side (paired t-test)",
            points(self.difference),
            self.pairs,
            points(self.lower),
            points(self.upper),
        )
    }
}

/// What a variable of Student's distribution exceeds in one case of twenty, by its degrees of freedom.
fn quantile(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753, 1.746,
        1.740, 1.734, 1.729, 1.725, 1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697,
    ];
    // Beyond the table the last value is a little too careful.
    *freedom.checked_sub(1).and_then(|index| TABLE.get(index)).unwrap_or(&1.697)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_difference_is_certain() {
        let worse = Comparison::of_differences(&[0.01; 5]);
        assert!(worse.is_worse(), "{worse:?}");
        let same = Comparison::of_differences(&[0.0; 5]);
        assert!(!same.is_worse());
        assert!(same.text(["a", "b"]).starts_with("a does not fail more often than b"));
        let better = Comparison::of_differences(&[-0.01; 5]);
        assert!(better.text(["a", "b"]).starts_with("a fails less often than b"));
    }

    #[test]
    fn bounds_are_those_of_the_textbook() {
        // Mean 2, standard deviation 1.5811, t(4) = 2.132: 2 ± 2.132 * 1.5811 / sqrt(5).
        let comparison = Comparison::of_differences(&[0.0, 1.0, 2.0, 3.0, 4.0]);
        assert!((comparison.difference - 2.0).abs() < 1e-9);
        assert!((comparison.lower - 0.4925).abs() < 1e-3, "{comparison:?}");
        assert!((comparison.upper - 3.5075).abs() < 1e-3, "{comparison:?}");
        // Differences about nothing show nothing.
        assert!(!Comparison::of_differences(&[0.01, -0.01, 0.005, -0.004, 0.001]).is_worse());
        // And one pair never does, nor none.
        for few in [&[0.5][..], &[]] {
            let comparison = Comparison::of_differences(few);
            assert!(!comparison.is_worse());
            assert!(comparison.text(["a", "b"]).contains("cannot be compared"), "{comparison:?}");
        }
    }
}

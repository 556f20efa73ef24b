//! Which statistics exist at all (`stats_config.stats_matcher`), and which buckets a histogram has.

use std::fmt;
use std::sync::Arc;

/// A predicate over full statistic names: a string matcher of the configuration, compiled.
#[derive(Clone)]
pub struct NameMatcher(Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl NameMatcher {
    /// Wraps a predicate.
    pub fn new(matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(matches))
    }

    /// Whether the name matches.
    pub fn matches(&self, name: &str) -> bool {
        (self.0)(name)
    }
}

impl fmt::Debug for NameMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameMatcher")
    }
}

/// `stats_config.stats_matcher`: a rejected statistic is neither shown nor sent to sinks.
#[derive(Clone, Debug, Default)]
pub enum StatsMatcher {
    /// Not set, or `reject_all: false`.
    #[default]
    AcceptAll,
    /// `reject_all: true`.
    RejectAll,
    /// `inclusion_list`: only names that match one of them.
    Inclusion(Vec<NameMatcher>),
    /// `exclusion_list`: only names that match none of them.
    Exclusion(Vec<NameMatcher>),
}

impl StatsMatcher {
    /// Whether a statistic of that name must not exist.
    pub fn rejects(&self, name: &str) -> bool {
        match self {
            Self::AcceptAll => false,
            Self::RejectAll => true,
            Self::Inclusion(matchers) => !matchers.iter().any(|matcher| matcher.matches(name)),
            Self::Exclusion(matchers) => matchers.iter().any(|matcher| matcher.matches(name)),
        }
    }
}

/// One of `stats_config.histogram_bucket_settings`: the buckets of the histograms whose names match. The first match wins.
#[derive(Clone, Debug)]
pub struct HistogramBuckets {
    /// Which histograms.
    pub matcher: NameMatcher,
    /// Upper bounds, ascending; in fractions for percent histograms.
    pub buckets: Vec<f64>,
}

//! What the levels of a table (weighted cluster, route, virtual host, table) add up to for one route.

use std::collections::BTreeMap;
use std::sync::Arc;

use filters::http_filter::FilterSettings;
use filters::mutation::HeaderMutations;

/// Header changes of several levels, in the order they apply.
#[derive(Debug, Clone, Default)]
pub struct MutationChain(Box<[Arc<HeaderMutations>]>);

impl MutationChain {
    /// The chain of a weighted cluster's changes, if one was chosen, and those of route, virtual host and table.
    ///
    /// The cluster's always apply first; then route, virtual host, table, so that the table's win, or the other way round
    /// when `most_specific_wins`. Levels without changes are left out.
    #[must_use]
    pub fn new(
        weight: Option<&Arc<HeaderMutations>>,
        mut levels: [&Arc<HeaderMutations>; 3],
        most_specific_wins: bool,
    ) -> Self {
        if most_specific_wins {
            levels.reverse();
        }
        Self(weight.into_iter().chain(levels).filter(|level| !level.is_empty()).cloned().collect())
    }

    /// Whether nothing is changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for &'a MutationChain {
    type Item = &'a HeaderMutations;
    type IntoIter =
        std::iter::Map<std::slice::Iter<'a, Arc<HeaderMutations>>, fn(&'a Arc<HeaderMutations>) -> &'a HeaderMutations>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|level| level)
    }
}

/// One entry of `typed_per_filter_config`, out of its `FilterConfig` wrapper.
#[derive(Debug, Clone)]
pub struct FilterOverride {
    /// The settings; `None` when only [`Self::disabled`] was given.
    pub settings: Option<FilterSettings>,
    /// Whether the filter is off for these requests.
    pub disabled: bool,
}

/// The entries of one level, by filter name.
pub(crate) type FilterLevel = Arc<BTreeMap<String, FilterOverride>>;

/// The entries of several levels, the most specific first.
#[derive(Debug, Clone, Default)]
pub(crate) struct FilterConfigs(Box<[FilterLevel]>);

impl FilterConfigs {
    /// Levels from the most specific one; empty ones are left out.
    pub(crate) fn new<'a>(levels: impl IntoIterator<Item = &'a FilterLevel>) -> Self {
        Self(levels.into_iter().filter(|level| !level.is_empty()).cloned().collect())
    }

    /// The entries for this filter, the most specific first.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a FilterOverride> {
        self.0.iter().filter_map(move |level| level.get(name))
    }
}

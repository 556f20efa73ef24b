//! `stats_config`: tags, which statistics exist, buckets.

use envoy_types::pb::envoy::config::metrics::v3::{
    HistogramBucketSettings, StatsConfig, StatsMatcher as MatcherProto, TagSpecifier as TagProto, stats_matcher,
    tag_specifier,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{ListStringMatcher, StringMatcher as StringMatcherProto};
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::matcher::{RegexLimits, StringMatcher};
use stats::{
    HistogramBuckets, NameMatcher, StatsMatcher, StoreOptions, TagOptions, TagProducer, TagSpecifier, TagValue,
};

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.config.metrics.v3.HistogramBucketSettings" {
    bins => Warn, "histograms have as many bins as they need";
} }

pub(super) fn parse(
    at: At<'_>,
    proto: StatsConfig,
    universal: &[(String, String)],
    limits: RegexLimits,
) -> Result<StoreOptions, ConfigError> {
    let StatsConfig {
        stats_tags,
        use_all_default_tags,
        stats_matcher,
        histogram_bucket_settings,
        allow_default_tag_overrides,
    } = proto;
    let universal = universal
        .iter()
        .map(|(name, value)| TagSpecifier { name: name.clone(), value: TagValue::Fixed(value.clone()) });
    let configured = stats_tags.into_iter().map(|TagProto { tag_name, tag_value }| TagSpecifier {
        name: tag_name,
        value: match tag_value {
            None => TagValue::Default,
            Some(tag_specifier::TagValue::Regex(regex)) => TagValue::Regex(regex),
            Some(tag_specifier::TagValue::FixedValue(value)) => TagValue::Fixed(value),
        },
    });
    let options = TagOptions {
        use_all_default_tags: use_all_default_tags.is_none_or(|flag| flag.value),
        allow_default_tag_overrides: allow_default_tag_overrides.is_some_and(|flag| flag.value),
        tags: universal.chain(configured).collect(),
    };
    let tags = TagProducer::new(&options).map_err(|error| at.field("stats_tags").error(error))?;
    let settings = at.field("histogram_bucket_settings");
    let histogram_buckets = histogram_bucket_settings
        .into_iter()
        .enumerate()
        .map(|(index, proto)| buckets(settings.index(index), proto, limits))
        .collect::<Result<_, _>>()?;
    let matcher = match stats_matcher {
        Some(proto) => matcher(at.field("stats_matcher"), proto, limits)?,
        None => StatsMatcher::AcceptAll,
    };
    Ok(StoreOptions { tags, matcher, histogram_buckets })
}

fn matcher(at: At<'_>, proto: MatcherProto, limits: RegexLimits) -> Result<StatsMatcher, ConfigError> {
    let list = |name: &'static str, ListStringMatcher { patterns }: ListStringMatcher| {
        let at = at.field(name);
        let list = at.field("patterns");
        patterns
            .into_iter()
            .enumerate()
            .map(|(index, pattern)| name_matcher(list.index(index), pattern, limits))
            .collect::<Result<Vec<_>, _>>()
    };
    let MatcherProto { stats_matcher } = proto;
    Ok(match at.required("stats_matcher", stats_matcher)? {
        stats_matcher::StatsMatcher::RejectAll(true) => StatsMatcher::RejectAll,
        stats_matcher::StatsMatcher::RejectAll(false) => StatsMatcher::AcceptAll,
        stats_matcher::StatsMatcher::InclusionList(patterns) => {
            StatsMatcher::Inclusion(list("inclusion_list", patterns)?)
        }
        stats_matcher::StatsMatcher::ExclusionList(patterns) => {
            StatsMatcher::Exclusion(list("exclusion_list", patterns)?)
        }
    })
}

fn name_matcher(at: At<'_>, proto: StringMatcherProto, limits: RegexLimits) -> Result<NameMatcher, ConfigError> {
    let matcher = StringMatcher::parse(proto, at, limits)?;
    Ok(NameMatcher::new(move |name| matcher.matches(name.as_bytes())))
}

fn buckets(at: At<'_>, proto: HistogramBucketSettings, limits: RegexLimits) -> Result<HistogramBuckets, ConfigError> {
    let HistogramBucketSettings { r#match, mut buckets, bins } = proto;
    at.unsupported(&unsupported::bins, &bins)?;
    let matcher = at.required("match", r#match)?;
    if buckets.iter().any(|bound| bound.is_nan() || *bound <= 0.0) {
        return Err(at.field("buckets").error("value must be greater than 0"));
    }
    buckets.sort_by(f64::total_cmp);
    buckets.dedup();
    Ok(HistogramBuckets { matcher: name_matcher(at.field("match"), matcher, limits)?, buckets })
}

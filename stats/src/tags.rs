//! Tags: parts of a statistic's name that are labels rather than name, such as the cluster's.
//!
//! Extractors run once per name, when it is first scraped with tags, never where statistics are counted. Their order is
//! the order of the labels, and is Envoy's: those that may apply to any name first, then those for names with a certain
//! first token; within both, defaults before configured ones, each in order of definition. Of several extractors for one
//! tag, the first that matches wins. What an extractor removes from the name does not hide it from the next one.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use regex::Regex;

mod defaults;

use defaults::{DEFAULTS, Find};

/// A label of a statistic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Such as `envoy.cluster_name`.
    pub name: Arc<str>,
    /// Such as the cluster's name.
    pub value: String,
}

/// The tags of a statistic, and what they leave of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagSet {
    tags: Vec<Tag>,
    /// What is not part of the name without tags: ascending and disjoint.
    removed: Vec<Range<usize>>,
    /// As Prometheus writes them.
    labels: String,
}

impl TagSet {
    /// The tags, in the order of their extractors.
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }

    /// The name without its tags, and without dots that this leaves at its end; `name` is the statistic's full name.
    pub fn extracted_name(&self, name: &str) -> String {
        let mut extracted = String::with_capacity(name.len());
        self.append_extracted_name(name, &mut extracted);
        extracted
    }

    pub(crate) fn append_extracted_name(&self, name: &str, to: &mut String) {
        let mut start = 0;
        for range in &self.removed {
            to.push_str(name.get(start..range.start).unwrap_or_default());
            start = range.end;
        }
        to.push_str(name.get(start..).unwrap_or_default());
        while to.ends_with('.') {
            to.pop();
        }
    }

    /// `name="value",...` with the names made fit and the values escaped.
    pub(crate) fn labels(&self) -> &str {
        &self.labels
    }
}

/// `stats_config.stats_tags`: one `TagSpecifier`.
#[derive(Clone, Debug)]
pub struct TagSpecifier {
    /// `tag_name`.
    pub name: String,
    /// `tag_value`.
    pub value: TagValue,
}

/// Where a configured tag's value comes from.
#[derive(Clone, Debug)]
pub enum TagValue {
    /// Neither `regex` nor `fixed_value`: the default extractors of that name, for `use_all_default_tags: false`.
    Default,
    /// `regex`: the first group is removed from the name; the second one, or the first if it is the only one, is the value,
    /// empty if it took no part in the match.
    Regex(String),
    /// `fixed_value`, for all statistics. Also `--stats-tag`.
    Fixed(String),
}

/// `stats_config`, as far as it is about tags.
#[derive(Clone, Debug)]
pub struct TagOptions {
    /// `use_all_default_tags`, true unless set.
    pub use_all_default_tags: bool,
    /// `allow_default_tag_overrides`: a configured tag takes the place of the default ones of its name.
    pub allow_default_tag_overrides: bool,
    /// `--stats-tag` options, then `stats_tags`.
    pub tags: Vec<TagSpecifier>,
}

impl Default for TagOptions {
    fn default() -> Self {
        Self { use_all_default_tags: true, allow_default_tag_overrides: false, tags: Vec::new() }
    }
}

/// Why tags cannot be configured so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// `tag_name` is empty.
    #[error("tag_name cannot be empty")]
    EmptyName,
    /// Without a regular expression, the tag must be one of the defaults.
    #[error("No regex specified for tag specifier and no default regex for name: '{0}'")]
    NoDefault(String),
    /// The regular expression cannot be compiled. Look-around and back-references, which Envoy takes here, are not supported.
    #[error("Invalid regex '{regex}': {reason} (tag '{name}')")]
    InvalidRegex {
        /// The tag.
        name: String,
        /// Its regular expression.
        regex: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Takes tags out of names.
#[derive(Debug)]
pub struct TagProducer {
    /// For any name.
    general: Vec<Extractor>,
    /// For names whose first token is a certain one.
    by_first_token: Vec<(String, Vec<Extractor>)>,
    /// Tags with several extractors.
    ambiguous: HashSet<Arc<str>>,
}

impl TagProducer {
    /// Compiles the configuration.
    pub fn new(options: &TagOptions) -> Result<Self, TagError> {
        let mut producer = Self { general: Vec::new(), by_first_token: Vec::new(), ambiguous: HashSet::new() };
        let overridden =
            |name: &str| options.allow_default_tag_overrides && options.tags.iter().any(|tag| tag.name == name);
        if options.use_all_default_tags {
            DEFAULTS
                .iter()
                .filter(|default| !overridden(default.tag))
                .for_each(|default| producer.add_default(default));
        }
        for TagSpecifier { name, value } in &options.tags {
            if name.is_empty() {
                return Err(TagError::EmptyName);
            }
            match value {
                TagValue::Fixed(value) => producer.add("", name, Find::Fixed(value.clone())),
                TagValue::Regex(regex) if !regex.is_empty() => {
                    producer.add(first_token_of_regex(regex), name, Find::Regex(compile(name, regex)?));
                }
                TagValue::Regex(_) | TagValue::Default => {
                    let mut defaults = DEFAULTS.iter().filter(|default| default.tag == name).peekable();
                    if defaults.peek().is_none() {
                        return Err(TagError::NoDefault(name.clone()));
                    }
                    defaults.for_each(|default| producer.add_default(default));
                }
            }
        }
        Ok(producer)
    }

    /// The tags of the statistic of that name.
    pub fn produce(&self, name: &str) -> TagSet {
        let first = name.split_once('.').map(|(first, _)| first);
        let special = self.by_first_token.iter().find(|(token, _)| Some(token.as_str()) == first);
        let special = special.map(|(_, extractors)| extractors.as_slice()).unwrap_or_default();
        let mut set = TagSet::default();
        for extractor in self.general.iter().chain(special) {
            if self.ambiguous.contains(&extractor.tag) && set.tags.iter().any(|tag| tag.name == extractor.tag) {
                continue;
            }
            if let Some(found) = extractor.find.find(name) {
                set.tags.push(Tag { name: Arc::clone(&extractor.tag), value: found.value.to_owned() });
                set.removed.push(found.removed);
            }
        }
        set.removed = merged(set.removed);
        set.labels = labels(&set.tags);
        set
    }

    /// What a snapshot without tags shows.
    pub(crate) fn no_tags() -> &'static TagSet {
        static NONE: LazyLock<TagSet> = LazyLock::new(TagSet::default);
        &NONE
    }

    fn add_default(&mut self, default: &defaults::Default) {
        self.add(default.first_token, default.tag, default.find.clone());
    }

    fn add(&mut self, first_token: &str, tag: &str, find: Find) {
        let tag: Arc<str> = tag.into();
        let all = self.by_first_token.iter().flat_map(|(_, extractors)| extractors).chain(&self.general);
        if all.into_iter().any(|other| other.tag == tag) {
            self.ambiguous.insert(Arc::clone(&tag));
        }
        let extractor = Extractor { tag, find };
        if first_token.is_empty() {
            self.general.push(extractor);
        } else if let Some((_, list)) = self.by_first_token.iter_mut().find(|(token, _)| token == first_token) {
            list.push(extractor);
        } else {
            self.by_first_token.push((first_token.to_owned(), vec![extractor]));
        }
    }
}

impl Default for TagProducer {
    /// All of Envoy's default tags.
    fn default() -> Self {
        let mut producer = Self { general: Vec::new(), by_first_token: Vec::new(), ambiguous: HashSet::new() };
        DEFAULTS.iter().for_each(|default| producer.add_default(default));
        producer
    }
}

#[derive(Debug)]
struct Extractor {
    tag: Arc<str>,
    find: Find,
}

/// What an extractor finds in a name.
#[derive(Debug, PartialEq)]
struct Found<'a> {
    removed: Range<usize>,
    value: &'a str,
}

fn compile(name: &str, regex: &str) -> Result<Regex, TagError> {
    Regex::new(regex).map_err(|error| TagError::InvalidRegex {
        name: name.to_owned(),
        regex: regex.to_owned(),
        reason: error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
    })
}

/// The first token of all names that a regular expression can match, if it begins with `^token\.`; else nothing.
fn first_token_of_regex(regex: &str) -> &str {
    let Some(rest) = regex.strip_prefix('^') else {
        return "";
    };
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
    match rest.split_at_checked(end) {
        Some((token, after)) if after.starts_with("\\.") => token,
        _ => "",
    }
}

/// Sorts ranges and joins those that touch.
fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|later, kept| {
        let touch = later.start <= kept.end;
        if touch {
            kept.end = kept.end.max(later.end);
        }
        touch
    });
    ranges
}

fn labels(tags: &[Tag]) -> String {
    let mut text = String::new();
    for tag in tags {
        if !text.is_empty() {
            text.push(',');
        }
        append_metric_name(&tag.name, &mut text);
        text.push_str("=\"");
        append_label_value(&tag.value, &mut text);
        text.push('"');
    }
    text
}

/// Appends a name as Prometheus allows it: every other character becomes `_`, by byte as Envoy does it.
pub(crate) fn append_metric_name(name: &str, to: &mut String) {
    to.extend(name.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte) } else { '_' }));
}

/// Appends a label's value with backslash, quote and newline escaped.
pub(crate) fn append_label_value(value: &str, to: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => to.push_str("\\\\"),
            '"' => to.push_str("\\\""),
            '\n' => to.push_str("\\n"),
            c => to.push(c),
        }
    }
}

#[cfg(test)]
mod tests;

//! The validation rules the protos carry (`validate.rules`), compiled to what has to be compared, and the sentences
//! Envoy uses when a value breaks them.
//!
//! [`Rules::parse`] takes the option apart exhaustively: a rule this file does not implement is an error, and a test
//! parses every rule of the descriptor set.

mod compile;
mod formats;
mod number;

use std::fmt::{Display, Write as _};

use regex::{Regex, bytes};

use formats::Format;
pub(crate) use number::{Number, NumberRules, RangeRules, Span};

/// The rules of one field.
#[derive(Debug)]
pub(crate) struct Rules {
    /// A message (of any kind) must be there.
    pub(crate) required: bool,
    /// Do not look into the message.
    pub(crate) skip: bool,
    pub(crate) kind: RuleKind,
}

/// By kind of field.
#[derive(Debug)]
pub(crate) enum RuleKind {
    None,
    Number(Box<NumberRules>),
    Bool(bool),
    String(Box<StringRules>),
    Bytes(Box<BytesRules>),
    Enum(EnumRules),
    Repeated(Box<RepeatedRules>),
    Map(Box<MapRules>),
    Any(AnyRules),
    Duration(Box<RangeRules<Span>>),
    Timestamp(Box<RangeRules<Span>>),
}

/// Rules for strings. Lengths are in characters, sizes in bytes.
#[derive(Debug)]
pub(crate) struct StringRules {
    pub(crate) ignore_empty: bool,
    constant: Option<String>,
    length: Bounds,
    size: Bounds,
    pattern: Option<Regex>,
    prefix: Option<String>,
    suffix: Option<String>,
    contains: Option<String>,
    not_contains: Option<String>,
    within: Vec<String>,
    not_within: Vec<String>,
    format: Option<Format>,
}

/// Rules for bytes.
#[derive(Debug)]
pub(crate) struct BytesRules {
    pub(crate) ignore_empty: bool,
    constant: Option<Vec<u8>>,
    size: Bounds,
    pattern: Option<bytes::Regex>,
    prefix: Option<Vec<u8>>,
    suffix: Option<Vec<u8>>,
    contains: Option<Vec<u8>>,
    within: Vec<Vec<u8>>,
    not_within: Vec<Vec<u8>>,
    address: Option<Format>,
}

/// Rules for enumerations.
#[derive(Debug)]
pub(crate) struct EnumRules {
    constant: Option<i32>,
    pub(crate) defined_only: bool,
    within: Vec<i32>,
    not_within: Vec<i32>,
}

/// Rules for repeated fields.
#[derive(Debug)]
pub(crate) struct RepeatedRules {
    pub(crate) ignore_empty: bool,
    items_count: Bounds,
    pub(crate) unique: bool,
    pub(crate) items: Option<Rules>,
}

/// Rules for maps.
#[derive(Debug)]
pub(crate) struct MapRules {
    pub(crate) ignore_empty: bool,
    pairs: Bounds,
    pub(crate) keys: Option<Rules>,
    pub(crate) values: Option<Rules>,
}

/// Rules for the type of an `Any`.
#[derive(Debug)]
pub(crate) struct AnyRules {
    within: Vec<String>,
    not_within: Vec<String>,
}

/// A lower and an upper bound, both allowed.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    min: Option<u64>,
    max: Option<u64>,
}

impl StringRules {
    /// What is wrong with a string.
    pub(crate) fn check(&self, value: &str) -> Option<String> {
        if self.ignore_empty && value.is_empty() {
            return None;
        }
        if let Some(constant) = self.constant.as_deref().filter(|constant| *constant != value) {
            return Some(format!("value must equal {constant}"));
        }
        let length = || value.chars().count() as u64;
        if let Some(fault) = self.length.check("value length must be", "characters", length) {
            return Some(fault);
        }
        if let Some(fault) = self.size.check("value length must be", "bytes", || value.len() as u64) {
            return Some(fault);
        }
        if let Some(prefix) = self.prefix.as_deref().filter(|prefix| !value.starts_with(prefix)) {
            return Some(format!("value does not have prefix \"{prefix}\""));
        }
        if let Some(suffix) = self.suffix.as_deref().filter(|suffix| !value.ends_with(suffix)) {
            return Some(format!("value does not have suffix \"{suffix}\""));
        }
        if let Some(part) = self.contains.as_deref().filter(|part| !value.contains(part)) {
            return Some(format!("value does not contain substring \"{part}\""));
        }
        if let Some(part) = self.not_contains.as_deref().filter(|part| value.contains(part)) {
            return Some(format!("value contains substring \"{part}\""));
        }
        if let Some(fault) = listed_text(value, &self.within, &self.not_within) {
            return Some(fault);
        }
        if let Some(format) = self.format.filter(|format| !format.matches(value)) {
            return Some(format.fault().to_owned());
        }
        let pattern = self.pattern.as_ref().filter(|pattern| !pattern.is_match(value))?;
        Some(format!("value does not match regex pattern \"{pattern}\""))
    }
}

impl BytesRules {
    /// What is wrong with bytes.
    pub(crate) fn check(&self, value: &[u8]) -> Option<String> {
        if self.ignore_empty && value.is_empty() {
            return None;
        }
        if self.constant.as_deref().is_some_and(|constant| constant != value) {
            return Some("value must equal a constant".to_owned());
        }
        if let Some(fault) = self.size.check("value length must be", "bytes", || value.len() as u64) {
            return Some(fault);
        }
        if self.prefix.as_deref().is_some_and(|prefix| !value.starts_with(prefix)) {
            return Some("value does not have the required prefix".to_owned());
        }
        if self.suffix.as_deref().is_some_and(|suffix| !value.ends_with(suffix)) {
            return Some("value does not have the required suffix".to_owned());
        }
        if self.contains.as_deref().is_some_and(|part| !contains(value, part)) {
            return Some("value does not contain the required bytes".to_owned());
        }
        if !self.within.is_empty() && !self.within.iter().any(|one| one == value) {
            return Some("value must be in list".to_owned());
        }
        if self.not_within.iter().any(|one| one == value) {
            return Some("value must not be in list".to_owned());
        }
        if let Some(format) = self.address.filter(|format| !format.matches_bytes(value)) {
            return Some(format.fault().to_owned());
        }
        let pattern = self.pattern.as_ref().filter(|pattern| !pattern.is_match(value))?;
        Some(format!("value does not match regex pattern \"{pattern}\""))
    }
}

impl EnumRules {
    /// What is wrong with an enum's number; `defined` says whether the enum has it.
    pub(crate) fn check(&self, value: i32, defined: impl FnOnce() -> bool) -> Option<String> {
        if let Some(constant) = self.constant.filter(|constant| *constant != value) {
            return Some(format!("value must equal {constant}"));
        }
        if self.defined_only && !defined() {
            return Some("value must be one of the defined enum values".to_owned());
        }
        listed(&value, &self.within, &self.not_within)
    }
}

impl RepeatedRules {
    /// What is wrong with the number of items.
    pub(crate) fn check(&self, items: usize) -> Option<String> {
        if self.ignore_empty && items == 0 {
            return None;
        }
        self.items_count.check_count(items as u64, "item(s)")
    }
}

impl MapRules {
    /// What is wrong with the number of pairs.
    pub(crate) fn check(&self, pairs: usize) -> Option<String> {
        if self.ignore_empty && pairs == 0 {
            return None;
        }
        self.pairs.check_count(pairs as u64, "pair(s)")
    }
}

impl AnyRules {
    /// What is wrong with the type of an `Any`.
    pub(crate) fn check(&self, type_url: &str) -> Option<String> {
        if !self.within.is_empty() && !self.within.iter().any(|one| one == type_url) {
            return Some("type URL must be in list".to_owned());
        }
        let refused = self.not_within.iter().any(|one| one == type_url);
        refused.then(|| "type URL must not be in list".to_owned())
    }
}

impl Bounds {
    fn check(self, subject: &str, unit: &str, measure: impl FnOnce() -> u64) -> Option<String> {
        if self.min.is_none() && self.max.is_none() {
            return None;
        }
        let measured = measure();
        let fits = self.min.is_none_or(|min| measured >= min) && self.max.is_none_or(|max| measured <= max);
        if fits {
            return None;
        }
        Some(match (self.min, self.max) {
            (Some(min), Some(max)) if min == max => format!("{subject} {min} {unit}"),
            (Some(min), Some(max)) => {
                format!("{subject} between {min} and {max} {unit}, inclusive")
            }
            (Some(min), None) => format!("{subject} at least {min} {unit}"),
            (None, max) => format!("{subject} at most {} {unit}", max.unwrap_or_default()),
        })
    }

    fn check_count(self, count: u64, unit: &str) -> Option<String> {
        let plural = unit.replace("(s)", "s");
        match (self.min, self.max) {
            (Some(min), Some(max)) if min == max => {
                (count != min).then(|| format!("value must contain exactly {min} {unit}"))
            }
            (Some(min), Some(max)) => (count < min || count > max)
                .then(|| format!("value must contain between {min} and {max} {plural}, inclusive")),
            (Some(min), None) => (count < min).then(|| format!("value must contain at least {min} {unit}")),
            (None, Some(max)) => (count > max).then(|| format!("value must contain no more than {max} {unit}")),
            (None, None) => None,
        }
    }
}

fn listed<T: PartialEq + Display>(value: &T, within: &[T], not_within: &[T]) -> Option<String> {
    if !within.is_empty() && !within.contains(value) {
        return Some(format!("value must be in list [{}]", join(within)));
    }
    not_within.contains(value).then(|| format!("value must not be in list [{}]", join(not_within)))
}

fn listed_text(value: &str, within: &[String], not_within: &[String]) -> Option<String> {
    if !within.is_empty() && !within.iter().any(|one| one == value) {
        return Some(format!("value must be in list [{}]", join(within)));
    }
    let refused = not_within.iter().any(|one| one == value);
    refused.then(|| format!("value must not be in list [{}]", join(not_within)))
}

fn join<T: Display>(values: &[T]) -> String {
    let mut output = String::new();
    for (index, value) in values.iter().enumerate() {
        let separator = if index == 0 { "" } else { " " };
        // Writing to a string cannot fail.
        let _ = write!(output, "{separator}{value}");
    }
    output
}

fn contains(value: &[u8], part: &[u8]) -> bool {
    part.is_empty() || value.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests;

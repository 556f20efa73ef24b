//! Rules for what has an order: numbers of every kind, durations, points in time.

use std::fmt::{self, Display};

use super::super::schema::Scalar;
use super::listed;

/// Rules for anything that is ordered.
#[derive(Debug)]
pub(crate) struct RangeRules<T> {
    pub(super) constant: Option<T>,
    pub(super) lt: Option<T>,
    pub(super) lte: Option<T>,
    pub(super) gt: Option<T>,
    pub(super) gte: Option<T>,
    pub(super) within: Vec<T>,
    pub(super) not_within: Vec<T>,
}

/// Rules for every kind of number.
#[derive(Debug)]
pub(crate) struct NumberRules {
    pub(crate) ignore_empty: bool,
    pub(crate) range: RangeRules<Number>,
}

/// A number, comparable with others of its own field.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) enum Number {
    Signed(i64),
    Unsigned(u64),
    Float(f64),
}

/// A duration or a point in time: seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) seconds: i64,
    pub(crate) nanos: i32,
}

impl NumberRules {
    /// What is wrong with a number.
    pub(crate) fn check(&self, value: Number) -> Option<String> {
        let empty = match value {
            Number::Signed(value) => value == 0,
            Number::Unsigned(value) => value == 0,
            Number::Float(value) => value == 0.0,
        };
        if self.ignore_empty && empty {
            return None;
        }
        self.range.check(value)
    }
}

impl<T: PartialOrd + Display + Copy> RangeRules<T> {
    /// What is wrong with a value.
    pub(crate) fn check(&self, value: T) -> Option<String> {
        if let Some(constant) = self.constant.filter(|constant| *constant != value) {
            return Some(format!("value must equal {constant}"));
        }
        if let Some(fault) = self.interval(value) {
            return Some(fault);
        }
        listed(&value, &self.within, &self.not_within)
    }

    /// Two bounds whose order is turned around exclude what is between them.
    fn interval(&self, value: T) -> Option<String> {
        let above = |value: T| match (self.gt, self.gte) {
            (Some(bound), _) => value > bound,
            (None, Some(bound)) => value >= bound,
            (None, None) => true,
        };
        let below = |value: T| match (self.lt, self.lte) {
            (Some(bound), _) => value < bound,
            (None, Some(bound)) => value <= bound,
            (None, None) => true,
        };
        match (self.gt.or(self.gte), self.lt.or(self.lte)) {
            (Some(low), Some(high)) => {
                let (open, close) =
                    (if self.gt.is_some() { '(' } else { '[' }, if self.lt.is_some() { ')' } else { ']' });
                if low > high {
                    return (!above(value) && !below(value))
                        .then(|| format!("value must be outside range {open}{high}, {low}{close}"));
                }
                (!above(value) || !below(value))
                    .then(|| format!("value must be inside range {open}{low}, {high}{close}"))
            }
            (Some(low), None) => (!above(value)).then(|| match self.gt {
                Some(_) => format!("value must be greater than {low}"),
                None => format!("value must be greater than or equal to {low}"),
            }),
            (None, Some(high)) => (!below(value)).then(|| match self.lt {
                Some(_) => format!("value must be less than {high}"),
                None => format!("value must be less than or equal to {high}"),
            }),
            (None, None) => None,
        }
    }
}

impl Number {
    /// A scalar as a number.
    pub(crate) fn of(scalar: Scalar) -> Option<Self> {
        Some(match scalar {
            Scalar::Signed(value) => Self::Signed(value),
            Scalar::Unsigned(value) => Self::Unsigned(value),
            Scalar::Float(value) => Self::Float(value.into()),
            Scalar::Double(value) => Self::Float(value),
            Scalar::Bool(_) | Scalar::Enum(_) => return None,
        })
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
        }
    }
}

impl Display for Span {
    /// In the largest unit below a second that leaves no fraction: `5s`, `1ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.seconds, self.nanos) {
            (seconds, 0) => write!(f, "{seconds}s"),
            (0, nanos) if nanos % 1_000_000 == 0 => write!(f, "{}ms", nanos / 1_000_000),
            (0, nanos) if nanos % 1000 == 0 => write!(f, "{}us", nanos / 1000),
            (0, nanos) => write!(f, "{nanos}ns"),
            (seconds, nanos) => {
                let fraction = format!("{:09}", nanos.unsigned_abs());
                write!(f, "{seconds}.{}s", fraction.trim_end_matches('0'))
            }
        }
    }
}

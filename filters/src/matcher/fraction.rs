//! Fractions of requests, fixed or from the runtime.

use std::fmt;

use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::r#type::v3::FractionalPercent as Proto;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;

use crate::config::{At, ConfigError};

/// `numerator` out of 100, 10,000 or 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FractionalPercent {
    /// How many.
    pub numerator: u32,
    /// Out of how many; never 0.
    pub denominator: u32,
}

impl FractionalPercent {
    /// Checks a fraction.
    ///
    /// # Errors
    /// When the denominator is none of the three.
    pub fn parse(proto: Proto, at: At<'_>) -> Result<Self, ConfigError> {
        let Proto { numerator, denominator } = proto;
        let denominator = match DenominatorType::try_from(denominator) {
            Ok(DenominatorType::Hundred) => 100,
            Ok(DenominatorType::TenThousand) => 10_000,
            Ok(DenominatorType::Million) => 1_000_000,
            Err(_) => {
                return Err(at.field("denominator").error("value must be one of the defined enum values"));
            }
        };
        Ok(Self { numerator, denominator })
    }

    /// Whether a stream with this random value is inside the fraction. The same value always gives the same answer.
    #[must_use]
    pub fn contains(self, random: u64) -> bool {
        random % u64::from(self.denominator) < u64::from(self.numerator)
    }
}

/// What the data path asks of the runtime layers (Envoy's runtime, reference section 6.5).
pub trait Runtime: fmt::Debug {
    /// The value of `key` as a fraction: a `FractionalPercent` as it is, an integer as that many percent.
    fn fraction(&self, key: &str) -> Option<FractionalPercent>;

    /// The value of `key` as an unsigned integer.
    fn integer(&self, key: &str) -> Option<u64>;

    /// The value of `key` as a switch.
    fn boolean(&self, _key: &str) -> Option<bool> {
        None
    }
}

/// A runtime without any value.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRuntime;

impl Runtime for NoRuntime {
    fn fraction(&self, _key: &str) -> Option<FractionalPercent> {
        None
    }

    fn integer(&self, _key: &str) -> Option<u64> {
        None
    }
}

/// A fraction with a runtime key that may change it.
#[derive(Debug, Clone)]
pub struct RuntimeFraction {
    default: FractionalPercent,
    key: Box<str>,
}

impl RuntimeFraction {
    /// Checks a fraction with its key.
    ///
    /// # Errors
    /// When the default is missing or no fraction.
    pub fn parse(proto: RuntimeFractionalPercent, at: At<'_>) -> Result<Self, ConfigError> {
        let RuntimeFractionalPercent { default_value, runtime_key } = proto;
        let default =
            FractionalPercent::parse(at.required("default_value", default_value)?, at.field("default_value"))?;
        Ok(Self { default, key: runtime_key.into() })
    }

    /// Whether a stream with this random value is inside the fraction now.
    #[must_use]
    pub fn contains(&self, random: u64, runtime: &dyn Runtime) -> bool {
        let now = if self.key.is_empty() { None } else { runtime.fraction(&self.key) };
        now.unwrap_or(self.default).contains(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Half;

    impl Runtime for Half {
        fn fraction(&self, key: &str) -> Option<FractionalPercent> {
            (key == "half").then_some(FractionalPercent { numerator: 50, denominator: 100 })
        }

        fn integer(&self, _key: &str) -> Option<u64> {
            None
        }
    }

    #[test]
    fn the_runtime_wins_over_the_default() {
        let default = FractionalPercent { numerator: 0, denominator: 100 };
        for (key, random, expected) in [("half", 149, true), ("half", 150, false), ("other", 0, false), ("", 0, false)]
        {
            let fraction = RuntimeFraction { default, key: key.into() };
            assert_eq!(fraction.contains(random, &Half), expected, "{key} {random}");
        }
    }
}

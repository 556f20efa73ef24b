//! String, header, query-parameter, cookie and address matchers, compiled once.
//!
//! Everything works on bytes: header values and paths need not be UTF-8, and no matcher may fail open or shut because
//! of one that is not. Regular expressions follow RE2's syntax in Latin-1 mode, as Envoy's do, and match in linear time.

mod cidr;
mod cookie;
mod fraction;
mod header;
mod query;
mod re2;
mod regex;
mod string;

pub use cidr::{CidrRange, CidrSet};
pub use cookie::{CookieMatcher, cookie};
pub use fraction::{FractionalPercent, NoRuntime, Runtime, RuntimeFraction};
pub use header::HeaderMatcher;
pub use query::{QueryParameterMatcher, query_parameter};
pub use regex::{Regex, RegexLimits, Substitution};
pub use string::StringMatcher;

/// The rows of the support ledger about matchers.
pub static LEDGER: &[&[&crate::config::Entry]] = &[string::unsupported::ALL];

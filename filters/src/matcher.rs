//! String, header, query-parameter, cookie and address matchers, compiled once.
//!
//! Everything works on bytes: header values and paths need not be UTF-8, and no matcher may fail open or shut because
//! of one that is not. Regular expressions follow RE2's syntax in Latin-1 mode, as Envoy's do, and match in linear time.

mod cidr;
mod cookie;
mod fraction;
mod header;
mod metadata;
mod path_template;
mod predicate;
mod query;
mod re2;
mod regex;
mod string;
mod tree;

pub use cidr::{CidrRange, CidrSet};
pub use cookie::{CookieMatcher, cookie};
pub use fraction::{FractionalPercent, NoRuntime, Runtime, RuntimeFraction};
pub use header::HeaderMatcher;
pub use metadata::{MetadataMatcher, ValueMatcher};
pub use path_template::{PathTemplate, PathTemplateRewrite};
pub use predicate::ResponsePredicate;
pub use query::{QueryParameterMatcher, query_parameter};
pub use regex::{Regex, RegexLimits, Substitution};
pub use string::StringMatcher;
pub use tree::{Looked, MatchTree, Outcome, Words, decode, type_name};

/// The rows of the support ledger about matchers.
pub static LEDGER: &[&[&crate::config::Entry]] =
    &[string::unsupported::ALL, tree::unsupported::ALL, tree::tree_unsupported::ALL];

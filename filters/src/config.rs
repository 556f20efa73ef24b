//! How configuration is parsed: protobuf in, runtime types out, every field accounted for.
//!
//! * [`At`] is where we are: a path that costs nothing until it is printed (`filter_chains[0].filters[1].name`).
//! * Every field of every message is destructured and *used*, or handed to [`At::unsupported`] with its [`Entry`] of the
//!   support ledger, which refuses it or warns once. Nothing that is set is silently ignored.
//! * A [`ConfigError`] names the path, what was found and what is allowed; the resource and file are added by whoever
//!   loads the document.

pub mod duration;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// Why a piece of configuration was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{message}", path, if path.is_empty() { "" } else { ": " })]
pub struct ConfigError {
    /// Field path from the resource's root, `filter_chains[0].name`; empty for the resource itself.
    pub path: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// What happens when an unimplemented field is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The resource is rejected: ignoring the field could change routing, security or limits.
    Refuse,
    /// Loaded, with one warning per field and process, and counted.
    Warn,
}

/// One row of the support ledger: a field (or extension) Legate does not implement.
#[derive(Debug)]
pub struct Entry {
    /// Full message type, `envoy.config.listener.v3.Listener`.
    pub message: &'static str,
    /// Field name; empty when the row is about the whole type (an extension).
    pub field: &'static str,
    /// Refuse or warn.
    pub verdict: Verdict,
    /// What it would do and why it is not here.
    pub reason: &'static str,
}

impl Entry {
    /// A row about a whole type (an extension) that is refused.
    #[must_use]
    pub const fn refused(message: &'static str, reason: &'static str) -> Self {
        Self { message, field: "", verdict: Verdict::Refuse, reason }
    }
}

/// Declares ledger rows of one message as statics plus a list of them all:
/// `ledger! { pub mod unsupported for "pkg.Message" { field => Refuse, "what it would do"; } }`.
#[macro_export]
macro_rules! ledger {
    ($(#[$meta:meta])* $vis:vis mod $module:ident for $message:literal { $($field:ident => $verdict:ident, $reason:literal;)* }) => {
        $(#[$meta])*
        #[allow(
            non_upper_case_globals,
            unreachable_pub,
            reason = "a row is named exactly like the protobuf field it is about; visibility is the module's"
        )]
        $vis mod $module {
            #[doc = concat!("Rows of `", $message, "`.")]
            #[allow(dead_code, reason = "the list is for the compatibility table")]
            pub static ALL: &[&$crate::config::Entry] = &[$(&$field,)*];
            $(
                #[doc = $reason]
                pub static $field: $crate::config::Entry = $crate::config::Entry {
                    message: $message,
                    field: stringify!($field),
                    verdict: $crate::config::Verdict::$verdict,
                    reason: $reason,
                };
            )*
        }
    };
}

/// What one load of configuration shares: what the operator allows, and what was warned about.
#[derive(Debug, Default)]
pub struct Session {
    allowed: BTreeSet<String>,
    warnings: RefCell<Vec<Warning>>,
}

/// Something that was set, is not implemented, and was let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where it stands.
    pub path: String,
    /// `envoy.….Message.field`, the key by which a process warns once.
    pub key: String,
    /// What it would do and why it is not here.
    pub reason: String,
}

impl Session {
    /// A session in which `--allow-unsupported` names these types (`envoy.….Message.field`) or paths.
    #[must_use]
    pub fn new(allowed: impl IntoIterator<Item = String>) -> Self {
        Self { allowed: allowed.into_iter().collect(), warnings: RefCell::default() }
    }

    /// The root of a resource in this session.
    #[must_use]
    pub const fn root(&self) -> At<'_> {
        At { session: self, parent: None, segment: Segment::Root }
    }

    /// The warnings collected so far, leaving none.
    pub fn take_warnings(&self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings.borrow_mut())
    }
}

/// A position in a resource. Copy it, extend it with [`Self::field`] and [`Self::index`], pass it down.
#[derive(Clone, Copy)]
pub struct At<'a> {
    session: &'a Session,
    parent: Option<&'a Self>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    /// The field `name` of this message.
    #[must_use]
    pub const fn field<'b>(&'b self, name: &'b str) -> At<'b>
    where
        'a: 'b,
    {
        At { session: self.session, parent: Some(self), segment: Segment::Field(name) }
    }

    /// Element `index` of this list.
    #[must_use]
    pub const fn index<'b>(&'b self, index: usize) -> At<'b>
    where
        'a: 'b,
    {
        At { session: self.session, parent: Some(self), segment: Segment::Index(index) }
    }

    /// Entry `key` of this map.
    #[must_use]
    pub const fn key<'b>(&'b self, key: &'b str) -> At<'b>
    where
        'a: 'b,
    {
        At { session: self.session, parent: Some(self), segment: Segment::Key(key) }
    }

    /// The path as text.
    #[must_use]
    pub fn path(&self) -> String {
        self.to_string()
    }

    /// An error at this position.
    pub fn error(&self, message: impl fmt::Display) -> ConfigError {
        ConfigError { path: self.path(), message: message.to_string() }
    }

    /// Accounts for a field that is not implemented: nothing if it is unset, else refusal or warning by its row.
    ///
    /// # Errors
    /// When the row says refuse and the operator did not allow it.
    pub fn unsupported(&self, entry: &Entry, value: &impl IsSet) -> Result<(), ConfigError> {
        if value.is_set() { self.field(entry.field).refuse_or_warn(entry) } else { Ok(()) }
    }

    /// Accounts for something unimplemented that stands exactly here (an enum value, an extension).
    ///
    /// # Errors
    /// When the row says refuse and the operator did not allow it.
    pub fn refuse_or_warn(&self, entry: &Entry) -> Result<(), ConfigError> {
        let key = if entry.field.is_empty() {
            entry.message.to_owned()
        } else {
            format!("{}.{}", entry.message, entry.field)
        };
        let path = self.path();
        let allowed = &self.session.allowed;
        if entry.verdict == Verdict::Refuse && !allowed.contains(&key) && !allowed.contains(&path) {
            return Err(self.error(format_args!(
                "{key} is not supported by Legate: {} (--allow-unsupported={key} loads it without)",
                entry.reason
            )));
        }
        self.session.warnings.borrow_mut().push(Warning { path, key, reason: entry.reason.to_owned() });
        Ok(())
    }

    /// A warning at this position that is not about an unimplemented field (a deprecated one, an odd combination).
    pub fn warn(&self, key: impl Into<String>, reason: impl Into<String>) {
        self.session.warnings.borrow_mut().push(Warning { path: self.path(), key: key.into(), reason: reason.into() });
    }

    /// The extension at this position is not known to Legate at all: Envoy's words, and the way out.
    #[must_use]
    pub fn unknown_extension(&self, name: &str, type_url: &str) -> ConfigError {
        self.error(format_args!("Didn't find a registered implementation for '{name}' with type URL: '{type_url}'"))
    }

    /// A required field is missing.
    ///
    /// # Errors
    /// When `value` is `None`.
    pub fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, ConfigError> {
        value.ok_or_else(|| self.field(name).error("value is required"))
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.segment {
            Segment::Root => Ok(()),
            Segment::Field(name) => {
                let top = self.parent.is_none_or(|p| matches!(p.segment, Segment::Root));
                write!(f, "{}{name}", if top { "" } else { "." })
            }
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key:?}]"),
        }
    }
}

impl fmt::Debug for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a protobuf field was set, as far as proto3 can tell: present, or not the default value.
pub trait IsSet {
    /// True when the field carries something.
    fn is_set(&self) -> bool;
}

impl<T> IsSet for Option<T> {
    fn is_set(&self) -> bool {
        self.is_some()
    }
}

impl<T> IsSet for Vec<T> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl<K, V> IsSet for HashMap<K, V> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl<K, V> IsSet for BTreeMap<K, V> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl IsSet for String {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

macro_rules! is_set_by_default {
    ($($ty:ty),*) => {$(
        impl IsSet for $ty {
            fn is_set(&self) -> bool {
                *self != <$ty>::default()
            }
        }
    )*};
}

is_set_by_default!(bool, i32, u32, i64, u64, f32, f64);

#[cfg(test)]
mod tests {
    use super::*;

    ledger! { mod rows for "pkg.Message" {
        refused => Refuse, "it limits something";
        warned => Warn, "it only observes";
    } }

    #[test]
    fn paths_print_as_people_write_them() {
        let session = Session::default();
        let root = session.root();
        let (a, b, c) = (root.field("filter_chains"), (), ());
        let _ = (b, c);
        let at = a.index(2);
        let at = at.field("filters");
        assert_eq!(at.path(), "filter_chains[2].filters");
        assert_eq!(at.key("a.b").path(), r#"filter_chains[2].filters["a.b"]"#);
        assert_eq!(root.error("bad").to_string(), "bad");
        assert_eq!(at.error("bad").to_string(), "filter_chains[2].filters: bad");
    }

    #[test]
    fn unset_fields_pass_and_set_ones_follow_their_row() {
        let session = Session::default();
        let root = session.root();
        assert_eq!(root.unsupported(&rows::refused, &false), Ok(()));
        let error = root.unsupported(&rows::refused, &true).expect_err("set and refused");
        assert!(error.to_string().starts_with("refused: pkg.Message.refused is not supported"), "{error}");
        assert_eq!(root.unsupported(&rows::warned, &vec![1]), Ok(()));
        assert_eq!(session.take_warnings().len(), 1);
        assert_eq!(rows::ALL.len(), 2);
    }

    #[test]
    fn the_operator_may_allow_by_type_or_by_path() {
        for allowed in ["pkg.Message.refused", "refused"] {
            let session = Session::new([allowed.to_owned()]);
            assert_eq!(session.root().unsupported(&rows::refused, &1_u32), Ok(()), "{allowed}");
            assert_eq!(session.take_warnings().len(), 1, "allowed, but said");
        }
    }
}

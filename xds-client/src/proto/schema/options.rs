//! The options that descriptors carry: what Envoy reads into them about validation, deprecation, secrets and maturity.

use super::super::reader::{Malformed, Raw};
use super::super::rules::Rules;
use super::each;

/// Extension numbers of the options this module reads.
pub(super) const VALIDATE: u32 = 1071;
const VALIDATE_IGNORED: u32 = 1072;
const SENSITIVE: u32 = 76_569_463;
const DISALLOWED: u32 = 189_503_207;
pub(super) const DISALLOWED_ENUM: u32 = 70_100_853;
const XDS_STATUS: u32 = 226_829_418;
const UDPA_FILE_STATUS: u32 = 222_707_719;

#[derive(Default)]
pub(super) struct MessageOptions {
    pub(super) map_entry: bool,
    /// `validate.disabled` or `validate.ignored`.
    pub(super) unvalidated: bool,
    pub(super) work_in_progress: bool,
}

impl MessageOptions {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(Self {
            map_entry: flag(bytes, 7)?,
            unvalidated: flag(bytes, VALIDATE)? || flag(bytes, VALIDATE_IGNORED)?,
            work_in_progress: status(bytes, XDS_STATUS)?,
        })
    }
}

#[derive(Default)]
pub(super) struct FieldOptions {
    pub(super) packed: Option<bool>,
    pub(super) deprecated: bool,
    pub(super) disallowed: bool,
    pub(super) sensitive: bool,
    pub(super) work_in_progress: bool,
    pub(super) rules: Option<Box<Rules>>,
}

impl FieldOptions {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut options = Self { work_in_progress: status(bytes, XDS_STATUS)?, ..Self::default() };
        let mut rules = Vec::new();
        each(bytes, |tag, raw| {
            match (tag, raw) {
                (2, Raw::Varint(value)) => options.packed = Some(value != 0),
                (3, Raw::Varint(value)) => options.deprecated = value != 0,
                (DISALLOWED, Raw::Varint(value)) => options.disallowed = value != 0,
                (SENSITIVE, Raw::Varint(value)) => options.sensitive = value != 0,
                // An option set part by part is several occurrences; concatenated they are one message.
                (VALIDATE, Raw::Bytes(part)) => rules.extend_from_slice(part),
                _ => {}
            }
            Ok(())
        })?;
        if !rules.is_empty() {
            options.rules = Rules::parse(&rules).ok().flatten().map(Box::new);
        }
        Ok(options)
    }
}

/// Whether a file's options say that everything in it is work in progress.
pub(crate) fn file_is_work_in_progress(options: &[u8]) -> Result<bool, Malformed> {
    Ok(status(options, XDS_STATUS)? || status(options, UDPA_FILE_STATUS)?)
}

/// A boolean field.
pub(super) fn flag(bytes: &[u8], number: u32) -> Result<bool, Malformed> {
    let mut set = false;
    each(bytes, |tag, raw| {
        if let (true, Raw::Varint(value)) = (tag == number, raw) {
            set = value != 0;
        }
        Ok(())
    })?;
    Ok(set)
}

/// `work_in_progress` (field 1) of a status annotation.
pub(super) fn status(bytes: &[u8], number: u32) -> Result<bool, Malformed> {
    let mut set = false;
    each(bytes, |tag, raw| {
        if let (true, Raw::Bytes(annotation)) = (tag == number, raw) {
            set |= flag(annotation, 1)?;
        }
        Ok(())
    })?;
    Ok(set)
}

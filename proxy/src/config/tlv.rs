//! `TlvEntry`: what a PROXY header says besides addresses.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::TlvEntry;
use filters::config::{At, ConfigError};
use filters::format::{FormatContext, FormatOptions};
use filters::stream_info::{StreamInfo, Tlv};

use super::access_log;
use crate::observe::access_log::LogFormat;

/// A list of entries. Those with a fixed value come first, as in Envoy.
#[derive(Debug, Default)]
pub struct Tlvs {
    fixed: Box<[Tlv]>,
    formatted: Box<[(u8, LogFormat)]>,
}

impl Tlvs {
    /// Parses a list.
    ///
    /// # Errors
    /// An entry whose type is no byte, or with not exactly one value.
    pub fn parse(at: At<'_>, protos: Vec<TlvEntry>) -> Result<Self, ConfigError> {
        let (mut fixed, mut formatted) = (Vec::new(), Vec::new());
        for (index, TlvEntry { r#type, value, format_string }) in protos.into_iter().enumerate() {
            let at = at.index(index);
            let kind = kind(at.field("type"), r#type)?;
            match format_string {
                Some(_) if !value.is_empty() => {
                    return Err(
                        at.error("Invalid TLV configuration: only one of 'value' or 'format_string' may be set.")
                    );
                }
                None if value.is_empty() => {
                    return Err(at.error("Invalid TLV configuration: one of 'value' or 'format_string' must be set."));
                }
                None => fixed.push(Tlv { kind, value: value.into() }),
                Some(format) => {
                    let options = FormatOptions::of_this_host();
                    let (format, _) = access_log::format_and_type(&at.field("format_string"), format, &options)?;
                    formatted.push((kind, format));
                }
            }
        }
        Ok(Self { fixed: fixed.into(), formatted: formatted.into() })
    }

    /// Parses a list of which only fixed values count.
    ///
    /// # Errors
    /// An entry whose type is no byte.
    pub fn parse_fixed(at: At<'_>, protos: Vec<TlvEntry>) -> Result<Vec<Tlv>, ConfigError> {
        let tlv = |(index, TlvEntry { r#type, value, format_string: _ })| {
            let at = at.index(index);
            Ok(Tlv { kind: kind(at.field("type"), r#type)?, value: Bytes::from(value) })
        };
        protos.into_iter().enumerate().map(tlv).collect()
    }

    /// Whether there are any that are made for a stream.
    #[must_use]
    pub const fn has_formats(&self) -> bool {
        !self.formatted.is_empty()
    }

    /// Those with a fixed value.
    #[must_use]
    pub const fn fixed(&self) -> &[Tlv] {
        &self.fixed
    }

    /// Those that are made for a stream.
    pub fn formatted(&self, info: &StreamInfo) -> impl Iterator<Item = Tlv> {
        let context = FormatContext::new(info);
        self.formatted.iter().map(move |(kind, format)| {
            let mut value = Vec::new();
            format.append_to(&mut value, &context);
            Tlv { kind: *kind, value: value.into() }
        })
    }
}

fn kind(at: At<'_>, number: u32) -> Result<u8, ConfigError> {
    u8::try_from(number).map_err(|_| at.error("value must be less than 256"))
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::SubstitutionFormatString;
    use filters::config::Session;

    use super::*;

    #[test]
    fn an_entry_has_one_value() {
        let entry = |r#type, value: &str, formatted: bool| TlvEntry {
            r#type,
            value: value.into(),
            format_string: formatted.then(SubstitutionFormatString::default),
        };
        for (entry, expected) in [
            (entry(256, "a", false), "tlvs[0].type: value must be less than 256"),
            (entry(1, "", false), "tlvs[0]: Invalid TLV configuration: one of"),
            (entry(1, "a", true), "tlvs[0]: Invalid TLV configuration: only one of"),
        ] {
            let error = Tlvs::parse(Session::default().root().field("tlvs"), vec![entry]).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let parsed = Tlvs::parse(Session::default().root(), vec![entry(255, "a", false)]).unwrap();
        assert_eq!(parsed.fixed(), [Tlv { kind: 255, value: "a".into() }]);
    }
}

//! The policy `override_host`: requests say which host they go to, and another policy chooses for those that do not.

use envoy_types::pb::envoy::extensions::load_balancing_policies::override_host::v3::override_host::OverrideHostSource;
use envoy_types::pb::envoy::r#type::metadata::v3::MetadataKey;
use envoy_types::pb::envoy::r#type::metadata::v3::metadata_key::PathSegment;
use envoy_types::pb::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;
use filters::config::{At, ConfigError};
use filters::http::HeaderKey;

/// Where a request says which hosts it goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideHost {
    /// Asked in this order; the first address is for the first try, the following for those after it.
    pub sources: Box<[HostSource]>,
    /// Where the address of the chosen host is noted in the request's dynamic metadata.
    pub selected_host_key: Option<MetadataPath>,
}

/// One of `override_host_sources`: it holds addresses, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostSource {
    /// The first value of a request header.
    Header(HeaderKey),
    /// A text in the request's dynamic metadata.
    Metadata(MetadataPath),
}

/// A value within metadata: `MetadataKey`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataPath {
    /// The name space.
    pub key: Box<str>,
    /// The way to it; at least one step.
    pub path: Box<[MetadataStep]>,
}

/// A step on the way to a value in metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataStep {
    /// Into a field of a structure.
    Field(Box<str>),
    /// To an item of a list.
    Item(usize),
}

impl OverrideHost {
    pub(super) fn parse(
        at: At<'_>,
        sources: Vec<OverrideHostSource>,
        selected_host_key: Option<MetadataKey>,
    ) -> Result<Self, ConfigError> {
        let list = at.field("override_host_sources");
        if sources.is_empty() {
            return Err(list.error("value must contain at least 1 item(s)"));
        }
        let sources = sources.into_iter().enumerate().map(|(n, source)| HostSource::parse(list.index(n), source));
        let sources = sources.collect::<Result<_, _>>()?;
        let at = at.field("selected_host_key");
        let selected_host_key = selected_host_key.map(|key| MetadataPath::parse(at, key)).transpose()?;
        if selected_host_key.iter().flat_map(|key| &key.path).any(|step| matches!(step, MetadataStep::Item(_))) {
            return Err(at.field("path").error("an item of a list cannot be written"));
        }
        Ok(Self { sources, selected_host_key })
    }
}

impl HostSource {
    fn parse(at: At<'_>, proto: OverrideHostSource) -> Result<Self, ConfigError> {
        let OverrideHostSource { header, metadata } = proto;
        match (&header[..], metadata) {
            ("", None) => Err(at.error("Empty override source")),
            ("", Some(key)) => MetadataPath::parse(at.field("metadata"), key).map(Self::Metadata),
            (name, None) => HeaderKey::parse(name)
                .map(Self::Header)
                .ok_or_else(|| at.field("header").error(format_args!("'{name}' is not a header name"))),
            (_, Some(_)) => Err(at.error("Only one override source must be set")),
        }
    }
}

impl MetadataPath {
    fn parse(at: At<'_>, proto: MetadataKey) -> Result<Self, ConfigError> {
        const TOO_SHORT: &str = "value length must be at least 1 characters";
        let MetadataKey { key, path } = proto;
        if key.is_empty() {
            return Err(at.field("key").error(TOO_SHORT));
        }
        let list = at.field("path");
        if path.is_empty() {
            return Err(list.error("value must contain at least 1 item(s)"));
        }
        let segment = |(n, PathSegment { segment })| {
            let at = list.index(n);
            match at.required("segment", segment)? {
                Segment::Key(name) if name.is_empty() => Err(at.field("key").error(TOO_SHORT)),
                Segment::Key(name) => Ok(MetadataStep::Field(name.into())),
                Segment::Index(index) => Ok(MetadataStep::Item(index as usize)),
            }
        };
        Ok(Self { key: key.into(), path: path.into_iter().enumerate().map(segment).collect::<Result<_, _>>()? })
    }
}

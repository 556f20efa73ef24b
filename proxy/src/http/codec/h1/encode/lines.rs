//! The lines of a head or of trailers: measured first, then written into a region of just that size.

use filters::http::{Headers, Known};

use super::super::case::HeaderFormat;
use super::super::chars::is_token_text;
use super::super::fields::parse_length;
use super::EncodeError;

/// The length a head declares; two that agree are one.
pub(super) fn content_length(headers: &Headers) -> Result<Option<u64>, EncodeError> {
    let mut found = None;
    for value in headers.values(&Known::ContentLength) {
        let length = parse_length(value).ok_or(EncodeError::InvalidLength)?;
        if found.is_some() {
            return Err(EncodeError::InvalidLength);
        }
        found = Some(length);
    }
    Ok(found)
}

/// The framing header an encoder adds itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum FramingLine {
    Nothing,
    LengthZero,
    Chunked,
}

impl FramingLine {
    pub(super) const fn text(self) -> &'static [u8] {
        match self {
            Self::Nothing => b"",
            Self::LengthZero => b"content-length: 0\r\n",
            Self::Chunked => b"transfer-encoding: chunked\r\n",
        }
    }
}

/// Which headers of a head are not written because the encoder decides them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skip {
    pub(super) connection: bool,
    pub(super) length: bool,
}

impl Skip {
    fn keeps(self, name: Option<Known>) -> bool {
        match name {
            Some(Known::TransferEncoding | Known::KeepAlive | Known::ProxyConnection) => false,
            Some(Known::Connection | Known::Upgrade) => !self.connection,
            Some(Known::ContentLength) => !self.length,
            _ => true,
        }
    }

    /// The size of the lines [`Self::write`] writes. Names that are none are refused here.
    pub(super) fn size(self, headers: &Headers) -> Result<usize, EncodeError> {
        let mut size = 0;
        for header in headers {
            let known = header.name.known();
            if !self.keeps(known) {
                continue;
            }
            let name = header.name.as_bytes();
            if known.is_none() && !is_token_text(name) {
                return Err(EncodeError::InvalidHead);
            }
            size += field_len(name.len(), header.value.len());
        }
        Ok(size)
    }

    /// Writes the lines of the headers that are kept.
    pub(super) fn write(self, headers: &Headers, lines: &mut Lines<'_>) {
        for header in headers {
            if self.keeps(header.name.known()) {
                lines.field(header.name.as_bytes(), &header.value);
            }
        }
    }
}

/// The size of a header's line.
pub(super) const fn field_len(name: usize, value: usize) -> usize {
    name + value + 4
}

/// Fills a region measured before, line by line.
pub(super) struct Lines<'a> {
    region: &'a mut [u8],
    at: usize,
    format: HeaderFormat<'a>,
    /// Lines written that are headers.
    pub(super) fields: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(region: &'a mut [u8], format: HeaderFormat<'a>) -> Self {
        Self { region, at: 0, format, fields: 0 }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        if let Some(slot) = self.region.get_mut(self.at..self.at + bytes.len()) {
            slot.copy_from_slice(bytes);
            self.at += bytes.len();
        }
    }

    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        let start = self.at;
        self.put(name);
        if !matches!(self.format, HeaderFormat::Lower)
            && let Some(written) = self.region.get_mut(start..self.at)
        {
            self.format.apply(written);
        }
        self.put(b": ");
        self.put(value);
        self.put(b"\r\n");
        self.fields += 1;
    }

    pub(super) fn framing(&mut self, line: FramingLine) {
        let text = line.text();
        if text.is_empty() {
            return;
        }
        let start = self.at;
        self.put(text);
        self.fields += 1;
        let name = memchr::memchr(b':', text).unwrap_or_default();
        if let Some(written) = self.region.get_mut(start..start + name) {
            self.format.apply(written);
        }
    }
}

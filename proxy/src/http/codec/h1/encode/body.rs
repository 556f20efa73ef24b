//! Bodies, chunks and trailers.

use bytes::Bytes;
use filters::http::Headers;

use super::super::case::HeaderFormat;
use super::super::chars::is_token_text;
use super::super::fields::is_forbidden_trailer;
use super::super::write::WriteBuf;
use super::lines::{Lines, field_len};
use super::{EncodeError, Framing};

/// Delimits the body of one message.
#[derive(Debug, Default)]
pub(super) struct BodyEncoder {
    pub(super) framing: Framing,
}

impl BodyEncoder {
    /// Writes a piece.
    pub(super) fn data(&mut self, data: Bytes, out: &mut WriteBuf) -> Result<(), EncodeError> {
        match &mut self.framing {
            _ if data.is_empty() => {}
            Framing::Empty => return Err(EncodeError::LengthMismatch),
            Framing::Raw => out.push(data),
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(EncodeError::LengthMismatch)?;
                out.push(data);
            }
            Framing::Chunked => {
                put_chunk_size(data.len(), out);
                out.push(data);
                out.put(b"\r\n");
            }
        }
        Ok(())
    }

    /// Writes what comes behind the last piece.
    pub(super) fn finish(
        &mut self,
        trailers: Option<&Headers>,
        format: HeaderFormat<'_>,
        out: &mut WriteBuf,
    ) -> Result<(), EncodeError> {
        match self.framing {
            Framing::Length(left) if left > 0 => return Err(EncodeError::LengthMismatch),
            Framing::Chunked => match trailers.filter(|trailers| !trailers.is_empty()) {
                None => out.put(b"0\r\n\r\n"),
                Some(trailers) => write_trailers(trailers, format, out)?,
            },
            Framing::Empty | Framing::Length(_) | Framing::Raw => {}
        }
        self.framing = Framing::Empty;
        Ok(())
    }
}

fn write_trailers(trailers: &Headers, format: HeaderFormat<'_>, out: &mut WriteBuf) -> Result<(), EncodeError> {
    let mut size = b"0\r\n\r\n".len();
    for trailer in trailers.iter().filter(|t| !is_forbidden_trailer(&t.name)) {
        if !is_token_text(trailer.name.as_bytes()) {
            return Err(EncodeError::InvalidHead);
        }
        size += field_len(trailer.name.as_bytes().len(), trailer.value.len());
    }
    let mut lines = Lines::new(out.grow(size), format);
    lines.put(b"0\r\n");
    for trailer in trailers.iter().filter(|t| !is_forbidden_trailer(&t.name)) {
        lines.field(trailer.name.as_bytes(), &trailer.value);
    }
    lines.put(b"\r\n");
    let fields = lines.fields;
    out.seal(size, fields + 2)
}

/// A chunk's size line.
fn put_chunk_size(size: usize, out: &mut WriteBuf) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    let mut line = [b'\n'; 18];
    let mut left = size;
    for slot in line.iter_mut().take(digits as usize).rev() {
        *slot = b"0123456789abcdef"[left & 15];
        left >>= 4;
    }
    let end = digits as usize;
    line[end] = b'\r';
    out.put(&line[..end + 2]);
}

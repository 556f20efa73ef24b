//! Reads header blocks (RFC 7541) for what their fields are, without keeping the bytes of any.
//!
//! The codec behind reads the same blocks for their contents. The dynamic table here holds judgements and sizes, so that
//! it evicts what the codec's evicts.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::LazyLock;

use super::field::Field;
use super::huffman;

/// A decoder of one direction of a connection.
pub(super) struct Decoder {
    table: VecDeque<Field>,
    /// Bytes the table holds and may hold.
    size: u32,
    max: u32,
    /// What `max` may be raised to: `SETTINGS_HEADER_TABLE_SIZE`.
    limit: u32,
    /// Bytes a name or a value may have.
    field_limit: usize,
    /// The beginning of a field whose rest has not come.
    partial: Vec<u8>,
    /// Decoded strings.
    scratch: Vec<u8>,
    /// A field of this block was seen: the table's size may not change any more.
    began: bool,
}

/// The block is not HPACK, or says too much: the tables of the two sides cannot be trusted to agree any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CompressionError;

/// The default of `SETTINGS_HEADER_TABLE_SIZE`, until ours is known.
const DEFAULT_TABLE: u32 = 4096;
/// Decoded strings are kept in a buffer of at most this size between blocks.
const KEPT: usize = 1024;

impl Decoder {
    pub(super) fn new(table_size: u32, field_limit: usize) -> Self {
        Self {
            table: VecDeque::new(),
            size: 0,
            max: DEFAULT_TABLE,
            limit: table_size.max(DEFAULT_TABLE),
            field_limit,
            partial: Vec::new(),
            scratch: Vec::new(),
            began: false,
        }
    }

    /// Reads a piece of a block, its last one if `last`. Each field goes to `each`, with its bytes unless all came from
    /// tables.
    pub(super) fn read(
        &mut self,
        piece: &[u8],
        last: bool,
        mut each: impl FnMut(Field, Option<Literal<'_>>),
    ) -> Result<(), CompressionError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let read = if self.partial.is_empty() {
            self.read_all(piece, Some(0), &mut scratch, &mut each)
        } else {
            let mut joined = std::mem::take(&mut self.partial);
            joined.extend_from_slice(piece);
            self.read_all(&joined, None, &mut scratch, &mut each)
        };
        if scratch.capacity() <= KEPT {
            scratch.clear();
            self.scratch = scratch;
        }
        read?;
        if last {
            self.began = false;
            if !self.partial.is_empty() {
                return Err(CompressionError);
            }
        }
        Ok(())
    }

    fn read_all(
        &mut self,
        mut bytes: &[u8],
        mut at: Option<usize>,
        scratch: &mut Vec<u8>,
        each: &mut impl FnMut(Field, Option<Literal<'_>>),
    ) -> Result<(), CompressionError> {
        while let Some(first) = bytes.first() {
            scratch.clear();
            let Some(taken) = self.read_one(*first, bytes, at, scratch, each)? else {
                if bytes.len() > 2 * self.field_limit + 64 {
                    return Err(CompressionError);
                }
                self.partial = bytes.to_vec();
                return Ok(());
            };
            bytes = bytes.get(taken..).unwrap_or_default();
            at = at.map(|at| at + taken);
        }
        Ok(())
    }

    /// One representation (RFC 7541 section 6): bytes it takes, or `None` when it is not all there.
    fn read_one(
        &mut self,
        first: u8,
        bytes: &[u8],
        place: Option<usize>,
        scratch: &mut Vec<u8>,
        each: &mut impl FnMut(Field, Option<Literal<'_>>),
    ) -> Result<Option<usize>, CompressionError> {
        let (prefix, literal, indexed) = match first {
            0x80.. => (7, false, false),
            0x40.. => (6, true, true),
            0x20.. => {
                let Some((max, taken)) = integer(bytes, 5)? else { return Ok(None) };
                if self.began || max > self.limit {
                    return Err(CompressionError);
                }
                self.max = max;
                self.evict(0);
                return Ok(Some(taken));
            }
            _ => (4, true, false),
        };
        let Some((index, mut at)) = integer(bytes, prefix)? else { return Ok(None) };
        if !literal {
            each(self.entry(index)?, None);
            self.began = true;
            return Ok(Some(at));
        }
        let mut name_at = None;
        let named = if index == 0 {
            let Some((name, taken)) = self.string(bytes.get(at..).unwrap_or_default())? else { return Ok(None) };
            at += taken;
            name_at = name.place(place, at);
            Some(name)
        } else {
            None
        };
        let Some((value, taken)) = self.string(bytes.get(at..).unwrap_or_default())? else { return Ok(None) };
        let value_at = value.place(place, at + taken);
        let value_starts = match &named {
            Some(name) => {
                name.append_to(scratch)?;
                scratch.len()
            }
            None => 0,
        };
        let value = if value.coded {
            value.append_to(scratch)?;
            scratch.get(value_starts..).unwrap_or_default()
        } else {
            value.bytes
        };
        let field = match &named {
            Some(_) => Field::new(scratch.get(..value_starts).unwrap_or_default(), value),
            None => self.entry(index)?.with_value(value),
        };
        if indexed {
            self.insert(field);
        }
        each(field, Some(Literal { value, name_at, value_at }));
        self.began = true;
        Ok(Some(at + taken))
    }

    /// A string literal (RFC 7541 section 5.2) and the bytes it takes.
    fn string<'b>(&self, bytes: &'b [u8]) -> Result<Option<(Text<'b>, usize)>, CompressionError> {
        let Some(first) = bytes.first() else { return Ok(None) };
        let Some((length, at)) = integer(bytes, 7)? else { return Ok(None) };
        let length = length as usize;
        if length > self.field_limit {
            return Err(CompressionError);
        }
        let Some(text) = bytes.get(at..at + length) else { return Ok(None) };
        Ok(Some((Text { coded: first & 0x80 != 0, bytes: text }, at + length)))
    }

    fn entry(&self, index: u32) -> Result<Field, CompressionError> {
        let index = (index as usize).checked_sub(1).ok_or(CompressionError)?;
        let found = match index.checked_sub(STATIC.len()) {
            None => STATIC.get(index),
            Some(index) => self.table.get(index),
        };
        found.copied().ok_or(CompressionError)
    }

    fn insert(&mut self, field: Field) {
        let size = field.table_size();
        self.evict(size);
        if size <= self.max {
            self.size += size;
            self.table.push_front(field);
        }
    }

    /// Makes room for `wanted` more bytes; for what is larger than the table nothing stays.
    fn evict(&mut self, wanted: u32) {
        while self.size.saturating_add(wanted) > self.max {
            let Some(oldest) = self.table.pop_back() else { break };
            self.size -= oldest.table_size();
        }
    }
}

/// A field whose bytes are at hand.
pub(super) struct Literal<'b> {
    /// Its value.
    pub(super) value: &'b [u8],
    /// Where in the piece its name and its value lie as they are, if they do.
    pub(super) name_at: Option<Range<usize>>,
    pub(super) value_at: Option<Range<usize>>,
}

struct Text<'b> {
    coded: bool,
    bytes: &'b [u8],
}

impl Text<'_> {
    /// Where it lies when it ends `end` behind `begin`.
    fn place(&self, begin: Option<usize>, end: usize) -> Option<Range<usize>> {
        let end = begin? + end;
        (!self.coded).then(|| end - self.bytes.len()..end)
    }

    fn append_to(&self, out: &mut Vec<u8>) -> Result<(), CompressionError> {
        if self.coded {
            return huffman::decode(self.bytes, out).map_err(|huffman::NotACode| CompressionError);
        }
        out.extend_from_slice(self.bytes);
        Ok(())
    }
}

/// An integer with an `prefix`-bit prefix (RFC 7541 section 5.1) and the bytes it takes; `None` when it is not all there.
pub(super) fn integer(bytes: &[u8], prefix: u32) -> Result<Option<(u32, usize)>, CompressionError> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
    let mask = (1_u32 << prefix) - 1;
    let mut value = u32::from(*first) & mask;
    if value < mask {
        return Ok(Some((value, 1)));
    }
    for (index, byte) in rest.iter().enumerate() {
        let bits = u32::from(byte & 0x7f);
        if index >= 5 || bits.leading_zeros() < 7 * index as u32 {
            return Err(CompressionError);
        }
        value = value.checked_add(bits << (7 * index)).ok_or(CompressionError)?;
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 2)));
        }
    }
    Ok(None)
}

/// RFC 7541 appendix A.
const STATIC_FIELDS: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

static STATIC: LazyLock<[Field; 61]> =
    LazyLock::new(|| STATIC_FIELDS.map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes())));

#[cfg(test)]
mod tests {
    use super::super::field::{Name, Value};
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    fn names(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(Name, u32, u32)>, CompressionError> {
        let mut seen = Vec::new();
        decoder.read(block, true, |field, _| seen.push((field.name, field.name_len, field.value_len)))?;
        Ok(seen)
    }

    /// RFC 7541 appendix C.6: responses with Huffman coding and a table of 256 bytes that evicts.
    #[test]
    fn the_table_evicts_as_in_the_rfc() {
        let mut decoder = Decoder::new(4096, 65_536);
        decoder.max = 256;
        let first = "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3";
        let seen = names(&mut decoder, &hex(first)).unwrap();
        assert_eq!(seen.len(), 4);
        assert_eq!(seen[0], (Name::Status, 7, 3));
        assert_eq!((seen[3].1, seen[3].2), (8, 23), "location: https://www.example.com");
        assert_eq!((decoder.table.len(), decoder.size), (4, 222));
        names(&mut decoder, &hex("4883640effc1c0bf")).unwrap();
        assert_eq!((decoder.table.len(), decoder.size), (4, 222));
        assert_eq!(decoder.table[0].value, Value::Number(307));
        let third = "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007";
        assert_eq!(names(&mut decoder, &hex(third)).unwrap().len(), 6);
        assert_eq!((decoder.table.len(), decoder.size), (3, 215));
    }

    /// However a block is cut, it says the same.
    #[test]
    fn blocks_may_come_in_pieces() {
        let block = hex("828684418cf1e3c2e5f23a6ba0ab90f4ff408825a849e95ba97d7f8925a849e95bb8e8b4bf");
        let whole = names(&mut Decoder::new(4096, 65_536), &block).unwrap();
        assert_eq!(whole.len(), 5);
        for cut in 0..block.len() {
            let (mut decoder, mut seen) = (Decoder::new(4096, 65_536), Vec::new());
            let mut each =
                |field: Field, _: Option<Literal<'_>>| seen.push((field.name, field.name_len, field.value_len));
            decoder.read(&block[..cut], false, &mut each).unwrap();
            decoder.read(&block[cut..], true, &mut each).unwrap();
            assert_eq!(seen, whole, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_hpack_is_an_error() {
        for (block, why) in [
            ("80", "index 0"),
            ("be", "an entry that is not there"),
            ("ffffffffffff", "an integer too large"),
            ("8220", "a size update behind a field"),
            ("3fe2ff03", "a table larger than allowed"),
            ("0001", "cut off"),
            ("00017f81", "a value cut off"),
            ("000161820fff", "bad Huffman padding"),
        ] {
            assert_eq!(names(&mut Decoder::new(4096, 65_536), &hex(block)), Err(CompressionError), "{why}");
        }
        let long = [&[0, 1, b'a', 0x7f, 0x82, 0x01][..], &[b'b'; 257]].concat();
        assert_eq!(names(&mut Decoder::new(4096, 256), &long), Err(CompressionError), "a field too long");
        assert!(names(&mut Decoder::new(4096, 257), &long).is_ok());
    }

    #[test]
    fn a_field_too_large_for_the_table_empties_it() {
        let mut decoder = Decoder::new(4096, 65_536);
        decoder.max = 64;
        names(&mut decoder, b"\x40\x01a\x01b").unwrap();
        assert_eq!(decoder.table.len(), 1);
        let large = [&b"\x40\x01a\x40"[..], &[b'c'; 64]].concat();
        names(&mut decoder, &large).unwrap();
        assert_eq!((decoder.table.len(), decoder.size), (0, 0));
    }
}

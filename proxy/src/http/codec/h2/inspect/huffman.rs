//! The string code of HPACK (RFC 7541 appendix B). It is canonical, so the lengths of its codes say all there is to know.

/// Bits of each byte's code, and of the end-of-string symbol, which never appears in a string.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

/// The longest code.
const LONGEST: usize = 30;
/// Codes up to this length are found by one look.
const SHORT: u32 = 8;

static CODE: Code = Code::new();

struct Code {
    /// The symbol and code length that the next eight bits begin with; length 0 where the code is longer.
    short: [(u8, u8); 1 << SHORT],
    /// All symbols in the order of their codes.
    symbols: [u16; 257],
    /// By length: the first code, and where its symbol stands in `symbols`, and how many there are.
    ranges: [(u32, u16, u16); LONGEST + 1],
}

impl Code {
    const fn new() -> Self {
        let mut code = Self { short: [(0, 0); 1 << SHORT], symbols: [0; 257], ranges: [(0, 0, 0); LONGEST + 1] };
        let (mut next, mut at, mut length) = (0_u32, 0_usize, 1_usize);
        while length <= LONGEST {
            next <<= 1;
            let first = at;
            let first_code = next;
            let mut symbol = 0;
            while symbol < LENGTHS.len() {
                if LENGTHS[symbol] as usize == length {
                    code.symbols[at] = symbol as u16;
                    if length <= SHORT as usize {
                        let room = SHORT as usize - length;
                        let mut tail = 0;
                        while tail < 1 << room {
                            code.short[((next as usize) << room) + tail] = (symbol as u8, length as u8);
                            tail += 1;
                        }
                    }
                    at += 1;
                    next += 1;
                }
                symbol += 1;
            }
            code.ranges[length] = (first_code, first as u16, (at - first) as u16);
            length += 1;
        }
        code
    }
}

/// The string is not a sequence of codes, or is padded with something else than up to seven one-bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotACode;

/// Appends what `coded` stands for to `out`.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), NotACode> {
    let mut input = coded.iter();
    // The low `count` bits of `bits` wait to be decoded.
    let (mut bits, mut count) = (0_u64, 0_u32);
    loop {
        while count <= 56 {
            let Some(byte) = input.next() else { break };
            bits = bits << 8 | u64::from(*byte);
            count += 8;
        }
        if count == 0 {
            return Ok(());
        }
        let look = if count >= SHORT { bits >> (count - SHORT) } else { (bits << (SHORT - count)) | (0xff >> count) }
            as usize
            & 0xff;
        let (symbol, length) = CODE.short[look];
        let length = u32::from(length);
        if length > 0 && length <= count {
            out.push(symbol);
            count -= length;
            continue;
        }
        match if length == 0 { long(bits, count) } else { None } {
            Some((symbol, length)) => {
                out.push(symbol);
                count -= length;
            }
            // Nothing fits any more: what is left must be padding.
            None => {
                let ones = (1_u64 << count.min(8)) - 1;
                return if count < 8 && bits & ones == ones { Ok(()) } else { Err(NotACode) };
            }
        }
    }
}

/// The symbol of a long code at the front of the `count` low bits.
fn long(bits: u64, count: u32) -> Option<(u8, u32)> {
    for (length, (first, at, many)) in (0_u32..).zip(CODE.ranges).skip(SHORT as usize + 1) {
        if length > count {
            return None;
        }
        let prefix = ((bits >> (count - length)) & ((1 << length) - 1)) as u32;
        if let Some(offset) = prefix.checked_sub(first)
            && offset < u32::from(many)
        {
            let symbol = CODE.symbols[at as usize + offset as usize];
            return u8::try_from(symbol).ok().map(|symbol| (symbol, length));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, NotACode> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    /// Codes a string by walking the code's own ranges: independent of the table that decoding looks at first.
    fn coded(text: &[u8]) -> Vec<u8> {
        let (mut bits, mut count, mut out) = (0_u64, 0, Vec::new());
        for byte in text {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let (first, at, many) = CODE.ranges[length];
            let at = usize::from(at);
            let offset = CODE.symbols[at..at + usize::from(many)].iter().position(|s| *s == u16::from(*byte)).unwrap();
            bits = bits << length | u64::from(first + u32::try_from(offset).unwrap());
            count += length;
            while count >= 8 {
                count -= 8;
                out.push((bits >> count) as u8);
            }
        }
        if count > 0 {
            out.push((bits << (8 - count)) as u8 | 0xff >> count);
        }
        out
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let host = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&host).unwrap(), b"www.example.com");
        assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
        let date = "d07abe941054d444a8200595040b8166e082a62d1bff";
        let date: Vec<u8> =
            (0..date.len()).step_by(2).map(|i| u8::from_str_radix(&date[i..i + 2], 16).unwrap()).collect();
        assert_eq!(decoded(&date).unwrap(), b"Mon, 21 Oct 2013 20:13:21 GMT");
    }

    #[test]
    fn every_byte_is_read_back() {
        let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        assert_eq!(decoded(&coded(&all)).unwrap(), all);
        for byte in 0..=255 {
            for run in 1..5 {
                let text = vec![byte; run];
                assert_eq!(decoded(&coded(&text)).unwrap(), text, "{byte} times {run}");
            }
        }
    }

    #[test]
    fn padding_is_fewer_than_eight_ones() {
        assert_eq!(decoded(&[0x1f]).unwrap(), b"a", "00011 and three ones");
        assert_eq!(decoded(&[0x18]), Err(NotACode), "padded with zeros");
        assert_eq!(decoded(&[0x1f, 0xff]), Err(NotACode), "a whole byte of padding");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(NotACode), "the end-of-string symbol");
    }
}

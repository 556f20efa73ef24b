//! Byte classes and whole-buffer checks, written so that the compiler turns them into vector code.

/// Lower case of a token byte; 0 for bytes that may not stand in a header name or method.
const TOKEN_LOWER: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        if filters::http::is_token_byte(byte as u8) {
            table[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

/// Lower-cases a run of token bytes in place; its length, that is, the position of the first byte that is none.
#[inline]
pub(super) fn lower_token(bytes: &mut [u8]) -> usize {
    let mut length = 0;
    for byte in bytes {
        let lower = TOKEN_LOWER[*byte as usize];
        if lower == 0 {
            break;
        }
        *byte = lower;
        length += 1;
    }
    length
}

/// Whether a byte may stand in a token.
pub(super) const fn is_token(byte: u8) -> bool {
    TOKEN_LOWER[byte as usize] != 0
}

/// Whether every byte is a token byte and there is one.
pub(super) fn is_token_text(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| is_token(*b))
}

/// Whether a head holds a control character other than tab, CR and LF.
pub(super) fn has_controls(head: &[u8]) -> bool {
    let control = |b: u8| u8::from((b < 0x20) & (b != b'\t') & (b != b'\r') & (b != b'\n')) | u8::from(b == 0x7f);
    let any = |block: &Block| block.iter().fold(0, |seen, b| seen | control(*b));
    let (blocks, rest) = head.as_chunks();
    blocks.iter().fold(any(&padded(rest)), |seen, block| seen | any(block)) != 0
}

/// How many bytes are NUL, CR or LF.
pub(super) fn count_line_breakers(bytes: &[u8]) -> usize {
    let breaks = |b: u8| u8::from((b == b'\n') | (b == b'\r') | (b == 0));
    // A sum over one block fits a byte, which keeps it in vector registers.
    let count = |block: &Block| usize::from(block.iter().map(|b| breaks(*b)).sum::<u8>());
    let (blocks, rest) = bytes.as_chunks();
    blocks.iter().fold(count(&padded(rest)), |sum, block| sum + count(block))
}

/// Bytes looked at without a branch in between: of this size the compiler vectorizes, of 16 it does not.
type Block = [u8; 64];

/// The end of a text as a block of its own, filled up with what no check minds.
fn padded(rest: &[u8]) -> Block {
    let mut block = [b' '; 64];
    if let Some(slot) = block.get_mut(..rest.len()) {
        slot.copy_from_slice(rest);
    }
    block
}

/// `bytes` without spaces and tabs around it.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The members of a comma-separated list, trimmed; empty ones included.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_found_wherever_they_stand() {
        for len in [1, 15, 63, 64, 65, 200] {
            for at in 0..len {
                let mut text = vec![b'a'; len];
                for (byte, bad) in [(0, true), (0x0b, true), (0x1f, true), (0x7f, true), (b'\t', false), (0x80, false)]
                {
                    text[at] = byte;
                    assert_eq!(has_controls(&text), bad, "{byte} at {at} of {len}");
                    assert_eq!(count_line_breakers(&text), usize::from(byte == 0));
                }
            }
        }
        assert_eq!(count_line_breakers(&[b'\n'; 1000]), 1000);
    }
}

//! Finds where a head or a trailer section ends, looking at every byte once.

use bytes::BytesMut;
use memchr::{memchr, memchr2};

use super::DecodeError;
use super::fields::is_framing_name;

/// A line of a head, without its terminator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Line {
    pub(super) const fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Keeps the scan position and the lines found so far between reads.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    at: usize,
    line_start: usize,
    lines: Vec<Line>,
    irregular: bool,
}

/// Line tables above this are not kept from head to head.
const KEEP_LINES: usize = 512;

impl HeadScanner {
    /// The length of the head in `buf` including its empty line; `None` until that has arrived. `buf` must start where
    /// it started in the last call.
    pub(super) fn scan(&mut self, buf: &[u8]) -> Option<usize> {
        loop {
            let rest = buf.get(self.at..)?;
            let Some(offset) = memchr2(b'\r', b'\n', rest) else {
                self.at = buf.len();
                return None;
            };
            let at = self.at + offset;
            let lf = if buf[at] == b'\n' {
                at
            } else {
                match buf.get(at + 1) {
                    Some(b'\n') => at + 1,
                    Some(_) => {
                        self.irregular = true;
                        self.at = at + 1;
                        continue;
                    }
                    None => {
                        self.at = at;
                        return None;
                    }
                }
            };
            self.at = lf + 1;
            if at == self.line_start {
                return Some(self.at);
            }
            self.irregular |= matches!(buf[self.line_start], b' ' | b'\t');
            self.lines.push(Line { start: offset_u32(self.line_start), end: offset_u32(at) });
            self.line_start = lf + 1;
        }
    }

    /// Whether nothing has been looked at yet.
    pub(super) const fn is_fresh(&self) -> bool {
        self.at == 0
    }

    /// The lines found; valid until the next head.
    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Rewrites a complete head that has folded lines or bare CRs so that it has neither, as Envoy reads them: folds
    /// are joined keeping their white space, a bare CR in a value vanishes. `first_field` is the index of the first
    /// header line.
    pub(super) fn regularize(&mut self, head: &mut BytesMut, first_field: usize) -> Result<(), DecodeError> {
        if !self.irregular {
            return Ok(());
        }
        let mut out = BytesMut::with_capacity(head.len());
        let mut lines: Vec<Line> = Vec::with_capacity(self.lines.len());
        for (index, line) in self.lines.iter().enumerate() {
            let text = head.get(line.range()).ok_or_else(DecodeError::codec)?;
            let start = offset_u32(out.len());
            if index < first_field {
                let text = trim_cr(text);
                if memchr(b'\r', text).is_some() {
                    return Err(DecodeError::codec());
                }
                out.extend_from_slice(text);
            } else if matches!(text.first(), Some(b' ' | b'\t')) {
                let Some(previous) = lines.last_mut().filter(|_| index > first_field) else {
                    return Err(DecodeError::codec());
                };
                out.extend(text.iter().filter(|b| **b != b'\r'));
                previous.end = offset_u32(out.len());
                continue;
            } else {
                let colon = memchr(b':', text).ok_or_else(DecodeError::codec)?;
                let (name, value) = text.split_at(colon);
                // Envoy takes such a value apart twice, with and without the CR: a length two parsers disagree on.
                if memchr(b'\r', name).is_some() || (is_framing_name(name) && memchr(b'\r', trim_cr(value)).is_some()) {
                    return Err(DecodeError::codec());
                }
                out.extend_from_slice(name);
                out.extend(value.iter().filter(|b| **b != b'\r'));
            }
            lines.push(Line { start, end: offset_u32(out.len()) });
        }
        *head = out;
        self.lines = lines;
        Ok(())
    }

    /// Forgets this head.
    pub(super) fn reset(&mut self) {
        self.at = 0;
        self.line_start = 0;
        self.irregular = false;
        if self.lines.capacity() > KEEP_LINES {
            self.lines = Vec::new();
        } else {
            self.lines.clear();
        }
    }
}

fn trim_cr(mut text: &[u8]) -> &[u8] {
    while let [head @ .., b'\r'] = text {
        text = head;
    }
    text
}

/// Heads are limited to 8192 KiB by configuration, so an offset always fits.
fn offset_u32(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_the_same_at_every_split() {
        for (text, end) in [
            (&b"GET / HTTP/1.1\r\na: b\r\n\r\nrest"[..], Some(24)),
            (b"GET / HTTP/1.1\na: b\n\nrest", Some(21)),
            (b"GET / HTTP/1.1\r\na: b\n\r\nrest", Some(23)),
            (b"GET / HTTP/1.1\r\na: b\r\n\rrest", None),
            (b"\r\nrest", Some(2)),
            (b"x\r", None),
        ] {
            for split in 0..text.len() {
                let mut scanner = HeadScanner::default();
                let early = scanner.scan(&text[..split]);
                assert_eq!(early.or_else(|| scanner.scan(text)), end, "{text:?} at {split}");
            }
        }
    }

    #[test]
    fn folds_are_joined_and_bare_crs_vanish_from_values_only() {
        let regular = |text: &[u8]| {
            let mut scanner = HeadScanner::default();
            let mut head = BytesMut::from(text);
            scanner.scan(&head);
            scanner.regularize(&mut head, 1).map(|()| {
                scanner.lines()[1..]
                    .iter()
                    .map(|l| String::from_utf8_lossy(&head[l.range()]).into_owned())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(
            regular(b"X\r\na: b\r\n \r\n\tc\r\nd: e\r\n\r\n"),
            Ok(vec!["a: b \tc".to_owned(), "d: e".to_owned()])
        );
        assert_eq!(regular(b"X\r\na: b\rc\r\r\n\r\n"), Ok(vec!["a: bc".to_owned()]));
        for bad in
            [&b"X\r\n a: b\r\n\r\n"[..], b"X\rY\r\na: b\r\n\r\n", b"X\r\na\rb: c\r\n\r\n", b"X\r\na: b\r\n\r\r\n\r\n"]
        {
            assert_eq!(regular(bad), Err(DecodeError::codec()), "{bad:?}");
        }
        assert!(regular(b"X\r\nTransfer-Encoding: chun\rked\r\n\r\n").is_err());
        assert!(regular(b"X\r\nTransfer-Encoding: chunked\r\r\n\r\n").is_ok());
    }
}

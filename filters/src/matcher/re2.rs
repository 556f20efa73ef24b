//! RE2's syntax in Latin-1 mode, translated for the `regex` crate.
//!
//! The two engines agree on what an expression means but not on every spelling: RE2 takes a brace that is no repetition
//! literally, knows `\Q…\E`, octal escapes and `\C`, and has no nested classes; it refuses `a**`, `\y`, flags such as `x`
//! and large repetitions. Here RE2's grammar is read, its errors are given in its words, and what it accepts is written
//! down again in a spelling without doubt. Bytes above 127 are characters of their own, as in Latin-1.

mod class;
mod size;

/// An expression in the `regex` crate's spelling.
#[derive(Debug)]
pub(super) struct Translated {
    /// To be compiled with Unicode off; its groups keep their numbers and lose their names.
    pub(super) pattern: String,
    /// Bytes every match begins with.
    pub(super) literal_prefix: Vec<u8>,
    /// About how many instructions RE2 compiles it to.
    pub(super) program_size: u32,
}

/// Reads an RE2 expression.
///
/// # Errors
/// RE2's text.
pub(super) fn translate(pattern: &[u8]) -> Result<Translated, String> {
    let mut reader = Reader {
        pattern,
        at: 0,
        out: String::with_capacity(pattern.len() + 8),
        prefix: Vec::new(),
        in_prefix: true,
        depth: 0,
        repeats: vec![Repeats::default()],
    };
    reader.read()?;
    let program_size = size::program_size(&reader.out);
    Ok(Translated { pattern: reader.out, literal_prefix: reader.prefix, program_size })
}

/// RE2's bound on a repetition, nested ones multiplied.
const MAX_REPEAT: u32 = 1000;

struct Reader<'p> {
    pattern: &'p [u8],
    at: usize,
    out: String,
    prefix: Vec<u8>,
    /// Whether only literals were read so far.
    in_prefix: bool,
    depth: usize,
    /// One for each open group and one for the whole.
    repeats: Vec<Repeats>,
}

/// How often the pieces of a group are repeated, at most.
#[derive(Default, Clone, Copy)]
struct Repeats {
    most: u32,
    last: Last,
}

/// What a repetition operator would apply to.
#[derive(Default, Clone, Copy, PartialEq)]
enum Last {
    #[default]
    Nothing,
    /// Something whose inner repetitions multiply to this.
    Piece(u32),
    /// A repetition whose operator began here; another must not follow.
    Repeated(usize),
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), String> {
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\\' => self.escape()?,
                b'[' => self.class()?,
                b'(' => self.open()?,
                b')' => self.close()?,
                b'|' => {
                    self.end_prefix();
                    if self.depth == 0 {
                        self.prefix.clear();
                    }
                    self.take("|");
                    self.set_last(Last::Nothing);
                }
                b'*' | b'+' | b'?' => {
                    let start = self.at;
                    self.at += 1;
                    self.repeat(start, 1, byte != b'+')?;
                }
                b'{' => self.brace()?,
                b'.' => self.piece("."),
                b'^' => {
                    // The match is anchored anyway.
                    let keep = self.in_prefix && self.prefix.is_empty() && self.out.is_empty();
                    self.piece("^");
                    self.in_prefix = keep;
                }
                b'$' => self.piece("$"),
                _ => {
                    self.at += 1;
                    self.literal(byte);
                }
            }
        }
        if self.depth > 0 { Err(format!("missing ): {}", text(self.pattern))) } else { Ok(()) }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.pattern.get(self.at + ahead).copied()
    }

    fn rest(&self) -> &[u8] {
        self.pattern.get(self.at..).unwrap_or_default()
    }

    fn end_prefix(&mut self) {
        self.in_prefix = false;
    }

    /// Reads one byte and writes `spelling` for it.
    fn take(&mut self, spelling: &str) {
        self.at += 1;
        self.out.push_str(spelling);
    }

    /// Reads one byte that stands for a piece other than a literal.
    fn piece(&mut self, spelling: &str) {
        self.end_prefix();
        self.take(spelling);
        self.set_last(Last::Piece(1));
    }

    fn literal(&mut self, byte: u8) {
        push_byte(&mut self.out, byte);
        if self.in_prefix {
            self.prefix.push(byte);
        }
        self.set_last(Last::Piece(1));
    }

    fn set_last(&mut self, last: Last) {
        if let Some(group) = self.repeats.last_mut() {
            group.last = last;
            if let Last::Piece(n) = last {
                group.most = group.most.max(n);
            }
        }
    }

    /// A repetition operator that was read from `start` and repeats up to `times`.
    fn repeat(&mut self, start: usize, times: u32, optional: bool) -> Result<(), String> {
        let operator = |end: usize, from: usize| text(self.pattern.get(from..end).unwrap_or_default());
        let last = self.repeats.last().map_or(Last::Nothing, |group| group.last);
        let inner = match last {
            Last::Nothing => return Err(format!("no argument for repetition operator: {}", operator(self.at, start))),
            Last::Repeated(first) => return Err(format!("bad repetition operator: {}", operator(self.at, first))),
            Last::Piece(inner) => inner,
        };
        let product = inner.saturating_mul(times.max(1));
        if product > MAX_REPEAT {
            return Err(format!("invalid repetition size: {}", operator(self.at, start)));
        }
        if self.in_prefix {
            if optional {
                self.prefix.pop();
            }
            self.end_prefix();
        }
        if self.peek(0) == Some(b'?') {
            self.at += 1;
        }
        let spelling = self.pattern.get(start..self.at).unwrap_or_default();
        self.out.push_str(&text(spelling));
        if let Some(group) = self.repeats.last_mut() {
            group.most = group.most.max(product);
            group.last = Last::Repeated(start);
        }
        Ok(())
    }

    /// `{n}`, `{n,}`, `{n,m}`; anything else that begins with a brace is literal.
    fn brace(&mut self) -> Result<(), String> {
        let start = self.at;
        let Some((length, least, most)) = counted(self.rest()) else {
            self.at += 1;
            self.literal(b'{');
            return Ok(());
        };
        self.at += length;
        let top = most.unwrap_or(least);
        if least > MAX_REPEAT || top > MAX_REPEAT || top < least {
            let bad = text(self.pattern.get(start..self.at).unwrap_or_default());
            return Err(format!("invalid repetition size: {bad}"));
        }
        self.repeat(start, top, least == 0)
    }

    fn open(&mut self) -> Result<(), String> {
        self.end_prefix();
        if self.peek(1) == Some(b'?') {
            return self.open_special();
        }
        self.take("(");
        self.enter();
        Ok(())
    }

    fn enter(&mut self) {
        self.depth += 1;
        self.repeats.push(Repeats { most: 1, last: Last::Nothing });
    }

    /// `(?P<name>`, `(?<name>`, `(?flags)`, `(?flags:`.
    fn open_special(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let named = [&b"(?P<"[..], b"(?<"].into_iter().find(|start| rest.starts_with(start));
        if let Some(start) = named.filter(|_| !rest.starts_with(b"(?<=") && !rest.starts_with(b"(?<!")) {
            let Some(end) = memchr::memchr(b'>', rest) else {
                return Err(format!("invalid named capture group: {}", text(rest)));
            };
            let name = rest.get(start.len()..end).unwrap_or_default();
            if name.is_empty() || !name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
                return Err(format!("invalid named capture group: {}", text(rest.get(..=end).unwrap_or_default())));
            }
            self.at += end + 1;
            self.out.push('(');
            self.enter();
            return Ok(());
        }
        let bad = |length: usize| {
            Err(format!("invalid perl operator: {}", text(rest.get(..length.min(rest.len())).unwrap_or_default())))
        };
        let mut length = 2;
        let mut negated = false;
        let mut flags = String::new();
        loop {
            let Some(&byte) = rest.get(length) else { return bad(length) };
            length += 1;
            match byte {
                b'i' | b'm' | b's' | b'U' => flags.push(char::from(byte)),
                b'-' if !negated => {
                    negated = true;
                    flags.push('-');
                }
                b':' | b')' if !flags.ends_with('-') => {
                    self.at += length;
                    if byte == b':' {
                        self.out.push_str(&format!("(?{flags}:"));
                        self.enter();
                    } else if !flags.is_empty() {
                        self.out.push_str(&format!("(?{flags})"));
                    }
                    return Ok(());
                }
                _ => return bad(length),
            }
        }
    }

    fn close(&mut self) -> Result<(), String> {
        let Some(depth) = self.depth.checked_sub(1) else {
            return Err(format!("unexpected ): {}", text(self.pattern)));
        };
        self.depth = depth;
        let most = self.repeats.pop().map_or(1, |group| group.most.max(1));
        self.take(")");
        self.set_last(Last::Piece(most));
        Ok(())
    }
}

/// The length and bounds of a counted repetition at the start of `rest`.
fn counted(rest: &[u8]) -> Option<(usize, u32, Option<u32>)> {
    let end = memchr::memchr(b'}', rest)?;
    let inside = std::str::from_utf8(rest.get(1..end)?).ok()?;
    let number = |digits: &str| {
        let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        all_digits.then(|| digits.parse().unwrap_or(u32::MAX))
    };
    let (least, most) = match inside.split_once(',') {
        None => (number(inside)?, Some(number(inside)?)),
        Some((least, "")) => (number(least)?, None),
        Some((least, most)) => (number(least)?, Some(number(most)?)),
    };
    Some((end + 1, least, most))
}

/// Writes a byte so that it can only mean itself, in a class or outside.
fn push_byte(out: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || byte == b'/' || byte == b'_' {
        out.push(char::from(byte));
    } else {
        out.push_str(&format!("\\x{byte:02X}"));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;

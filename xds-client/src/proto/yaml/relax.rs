//! Indentation inside brackets and quotes.
//!
//! YAML wants every line of a flow collection or a quoted scalar to be indented more than the block around it. Envoy's
//! parser does not mind, and closing brackets under their keys are common. So a document that is refused for its
//! indentation gets a second chance: lines inside brackets and quotes are moved to the right, which changes nothing in
//! what they mean. Documents that need no second chance never come here.

/// A document moved to the right where it had to be.
pub(super) struct Relaxed {
    pub(super) text: String,
    /// By how many columns each line was moved.
    pub(super) moved: Vec<u32>,
}

/// Moves the lines inside brackets and quotes to the right of where those open.
pub(super) fn relax(text: &str) -> Relaxed {
    let mut relaxed = Relaxed { text: String::with_capacity(text.len() + text.len() / 8), moved: Vec::new() };
    let mut scanner = Scanner { fresh: true, ..Scanner::default() };
    for line in text.split_inclusive('\n') {
        let content = line.trim_start_matches(' ');
        let column = line.len() - content.len();
        let moved = scanner.line(content.as_bytes(), column);
        relaxed.text.extend(std::iter::repeat_n(' ', moved));
        relaxed.text.push_str(line);
        relaxed.moved.push(u32::try_from(moved).unwrap_or(u32::MAX));
    }
    relaxed
}

/// Knows, line by line, whether it is inside brackets or quotes.
#[derive(Default)]
struct Scanner {
    /// How many brackets are open.
    depth: usize,
    /// The quote that is open.
    quote: Option<u8>,
    /// Where the outermost of them opened.
    opened: usize,
    /// A node may begin here.
    fresh: bool,
    /// Where the key or the dash of the current line is.
    parent: usize,
    /// Inside a block scalar, whose lines are indented more than this.
    block_scalar: Option<usize>,
}

impl Scanner {
    /// Reads a line and says how far it has to be moved.
    fn line(&mut self, content: &[u8], column: usize) -> usize {
        let blank = content.trim_ascii().is_empty();
        if let Some(parent) = self.block_scalar {
            if blank || column > parent {
                return 0;
            }
            self.block_scalar = None;
        }
        let inside = self.depth > 0 || self.quote.is_some();
        let moved = if inside && !blank && column <= self.opened { self.opened + 1 - column } else { 0 };
        if !inside {
            self.fresh = true;
        }
        self.scan(content, column + moved);
        moved
    }

    fn scan(&mut self, content: &[u8], column: usize) {
        let mut node = column;
        let mut at = 0;
        while let Some(byte) = content.get(at).copied() {
            let next = content.get(at + 1).copied().unwrap_or(b'\n');
            let here = column + at;
            at += 1;
            match (self.quote, byte) {
                (Some(b'"'), b'\\') => at += 1,
                (Some(b'\''), b'\'') if next == b'\'' => at += 1,
                (Some(quote), _) if quote == byte => self.quote = None,
                (Some(_), _) => {}
                (None, b' ' | b'\t' | b'\r' | b'\n') => {}
                (None, b'#') if at == 1 || content.get(at - 2).is_some_and(u8::is_ascii_whitespace) => {
                    return;
                }
                (None, b'"' | b'\'') if self.fresh => {
                    (self.quote, self.fresh, node) = (Some(byte), false, here);
                    if self.depth == 0 {
                        self.opened = here;
                    }
                }
                (None, b'[' | b'{') if self.fresh || self.depth > 0 => {
                    if self.depth == 0 {
                        self.opened = here;
                    }
                    self.depth += 1;
                    self.fresh = true;
                }
                (None, b']' | b'}') if self.depth > 0 => {
                    self.depth -= 1;
                    self.fresh = false;
                }
                (None, b',') if self.depth > 0 => self.fresh = true,
                (None, b':') if next.is_ascii_whitespace() || (self.depth > 0 && b",[]{}\"'".contains(&next)) => {
                    self.fresh = true;
                    self.parent = node;
                }
                (None, b'-' | b'?') if self.fresh && self.depth == 0 && next.is_ascii_whitespace() => {
                    self.parent = here
                }
                // An anchor or a tag comes before its node.
                (None, b'&' | b'!') if self.fresh => {
                    at += content
                        .get(at..)
                        .unwrap_or_default()
                        .iter()
                        .take_while(|byte| !byte.is_ascii_whitespace())
                        .count();
                }
                (None, b'|' | b'>') if self.fresh && self.depth == 0 => {
                    self.block_scalar = Some(self.parent);
                    return;
                }
                (None, _) if self.fresh => (self.fresh, node) = (false, here),
                (None, _) => {}
            }
        }
    }
}

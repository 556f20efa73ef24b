//! Log formats in spdlog's syntax: `[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v`.

use std::fmt::Write as _;

use chrono::{DateTime, Local};

use crate::cli::LogLevel;

/// What a line is made of.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// When.
    pub time: DateTime<Local>,
    /// On which thread.
    pub thread: u64,
    /// How bad.
    pub level: LogLevel,
    /// Envoy's name of the logger.
    pub logger: &'a str,
    /// Source file, with its path.
    pub file: &'a str,
    /// Line in it.
    pub line: u32,
    /// What is said.
    pub message: &'a str,
}

/// A compiled format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
    escape: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Flag { flag: char, width: Option<Width> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Width {
    align: Align,
    columns: usize,
    cut: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Align {
    Right,
    Left,
    Centre,
}

/// Widest padding; what asks for more gets this.
const MAX_WIDTH: usize = 64;

impl Pattern {
    /// Compiles a format. Unknown flags are printed as they stand, as spdlog does. With `escape`, control characters in
    /// messages are written as C escapes.
    #[must_use]
    pub fn parse(format: &str, escape: bool) -> Self {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut chars = format.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            let align = match chars.peek() {
                Some('-') => Some(Align::Left),
                Some('=') => Some(Align::Centre),
                _ => None,
            };
            if align.is_some() {
                chars.next();
            }
            let mut columns = 0_usize;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                columns = columns.saturating_mul(10).saturating_add(digit as usize);
                chars.next();
            }
            let cut = columns > 0 && chars.next_if_eq(&'!').is_some();
            let width = (columns > 0).then(|| Width {
                align: align.unwrap_or(Align::Right),
                columns: columns.min(MAX_WIDTH),
                cut,
            });
            match chars.next() {
                Some('%') => text.push('%'),
                Some(flag) => {
                    if !text.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut text)));
                    }
                    parts.push(Part::Flag { flag, width });
                }
                None => text.push('%'),
            }
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Self { parts, escape }
    }

    /// One line, without its end.
    #[must_use]
    pub fn render(&self, line: &Line<'_>) -> String {
        let mut out = String::with_capacity(128 + line.message.len());
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Flag { flag, width: None } => self.flag(*flag, line, &mut out),
                Part::Flag { flag, width: Some(width) } => {
                    let mut value = String::new();
                    self.flag(*flag, line, &mut value);
                    width.pad(&value, &mut out);
                }
            }
        }
        out
    }

    fn flag(&self, flag: char, line: &Line<'_>, out: &mut String) {
        let time = |format: &'static str| line.time.format(format);
        // Writing to a `String` cannot fail.
        let _ = match flag {
            'v' if self.escape => write!(out, "{}", line.message.escape_debug()),
            'v' => write!(out, "{}", line.message),
            '_' => write!(out, "{}", line.message.replace('\n', "\\n")),
            'j' => write!(out, "{}", json_text(line.message)),
            'l' => write!(out, "{}", line.level.name()),
            'L' => write!(out, "{}", short(line.level)),
            'n' => write!(out, "{}", line.logger),
            't' => write!(out, "{}", line.thread),
            'P' => write!(out, "{}", std::process::id()),
            'g' => write!(out, "{}", line.file),
            's' => write!(out, "{}", line.file.rsplit('/').next().unwrap_or_default()),
            '#' => write!(out, "{}", line.line),
            '@' => write!(out, "{}:{}", line.file, line.line),
            'e' => write!(out, "{:03}", line.time.timestamp_subsec_millis().min(999)),
            'f' => write!(out, "{:06}", line.time.timestamp_subsec_micros().min(999_999)),
            'F' => write!(out, "{:09}", line.time.timestamp_subsec_nanos().min(999_999_999)),
            'E' => write!(out, "{}", line.time.timestamp()),
            'T' | 'X' => write!(out, "{}", time("%H:%M:%S")),
            'D' | 'x' => write!(out, "{}", time("%m/%d/%y")),
            'z' => write!(out, "{}", time("%:z")),
            'c' => write!(out, "{}", time("%a %b %e %H:%M:%S %Y")),
            'C' | 'y' => write!(out, "{}", time("%y")),
            'b' | 'h' => write!(out, "{}", time("%b")),
            'Y' => write!(out, "{}", time("%Y")),
            'm' => write!(out, "{}", time("%m")),
            'd' => write!(out, "{}", time("%d")),
            'H' => write!(out, "{}", time("%H")),
            'I' => write!(out, "{}", time("%I")),
            'M' => write!(out, "{}", time("%M")),
            'S' => write!(out, "{}", time("%S")),
            'p' => write!(out, "{}", time("%p")),
            'r' => write!(out, "{}", time("%I:%M:%S %p")),
            'R' => write!(out, "{}", time("%H:%M")),
            'a' => write!(out, "{}", time("%a")),
            'A' => write!(out, "{}", time("%A")),
            'B' => write!(out, "{}", time("%B")),
            // Colours, which a log in a file or a container has no use for, and the function's name, which is not known.
            '^' | '$' | '!' => Ok(()),
            other => write!(out, "%{other}"),
        };
    }
}

impl Width {
    fn pad(self, value: &str, out: &mut String) {
        let length = value.chars().count();
        if length >= self.columns {
            out.extend(value.chars().take(if self.cut { self.columns } else { length }));
            return;
        }
        let missing = self.columns - length;
        let before = match self.align {
            Align::Left => 0,
            Align::Right => missing,
            Align::Centre => missing / 2,
        };
        out.extend(std::iter::repeat_n(' ', before));
        out.push_str(value);
        out.extend(std::iter::repeat_n(' ', missing - before));
    }
}

/// A message as the inside of a JSON string.
fn json_text(message: &str) -> String {
    let quoted = serde_json::Value::from(message).to_string();
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

const fn short(level: LogLevel) -> char {
    match level {
        LogLevel::Trace => 'T',
        LogLevel::Debug => 'D',
        LogLevel::Info => 'I',
        LogLevel::Warning => 'W',
        LogLevel::Error => 'E',
        LogLevel::Critical => 'C',
        LogLevel::Off => 'O',
    }
}

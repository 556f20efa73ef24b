//! From a format string to its parts.

use super::command::Command;
use super::{FormatOptions, Part};

/// Splits a format string at its operators.
///
/// # Errors
/// In Envoy's words.
pub(super) fn parts(text: &str, options: &FormatOptions) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(percent) = text[at..].find('%') {
        literal.push_str(&text[at..at + percent]);
        at += percent;
        if text[at..].starts_with("%%") {
            literal.push('%');
            at += 2;
            continue;
        }
        let Some(operator) = Operator::read(&text[at..]) else {
            return Err(format!("Incorrect configuration: {text}. Couldn't find valid command at position {at}"));
        };
        let command = Command::parse(operator.name, operator.argument, operator.max, options)?;
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal).into_bytes().into()));
        }
        parts.push(Part::Command(command));
        at += operator.length;
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into_bytes().into()));
    }
    Ok(parts)
}

/// `%NAME(argument):max%`
struct Operator<'a> {
    name: &'a str,
    argument: Option<&'a str>,
    max: Option<usize>,
    length: usize,
}

impl<'a> Operator<'a> {
    /// The operator a text begins with; the text begins with `%`.
    fn read(text: &'a str) -> Option<Self> {
        let body = &text[1..];
        let name_end = body.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
        let (name, mut rest) = body.split_at(name_end);
        if name.is_empty() {
            return None;
        }
        let mut argument = None;
        if let Some(open) = rest.strip_prefix('(') {
            let close = open.find([')', '\n'])?;
            if !open[close..].starts_with(')') {
                return None;
            }
            argument = Some(&open[..close]);
            rest = &open[close + 1..];
        }
        let mut max = None;
        if let Some(digits) = rest.strip_prefix(':') {
            let end = digits.find(|c: char| !c.is_ascii_digit())?;
            max = Some(digits[..end].parse().ok()?);
            rest = &digits[end..];
        }
        let rest = rest.strip_prefix('%')?;
        Some(Self { name, argument, max, length: text.len() - rest.len() })
    }
}

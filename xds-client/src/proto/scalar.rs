//! The JSON forms of scalars and of the well-known types that are strings in JSON: durations, timestamps, field masks.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose};

use super::rules::Span;

/// The longest duration protobuf allows, in seconds: about ten thousand years.
const MAX_DURATION: i64 = 315_576_000_000;
/// The years 1 and 9999.
const TIMESTAMPS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Reads an integer that may be written as a fraction or with an exponent as long as it is whole.
pub(crate) fn integer(text: &str) -> Result<i128, &'static str> {
    if let Ok(value) = text.parse::<i128>() {
        return if text.starts_with('+') { Err("not a number") } else { Ok(value) };
    }
    let value = double(text)?;
    if value.is_nan() || value.is_infinite() || value.abs() >= 1e20 {
        return Err("integer out of range");
    }
    if value.fract() != 0.0 {
        return Err("expected integer, but JSON number had fractional part");
    }
    Ok(value as i128)
}

/// Reads a floating-point number.
pub(crate) fn double(text: &str) -> Result<f64, &'static str> {
    match text {
        "NaN" => return Ok(f64::NAN),
        "Infinity" => return Ok(f64::INFINITY),
        "-Infinity" => return Ok(f64::NEG_INFINITY),
        _ => {}
    }
    // Rust also reads words such as `inf`; JSON does not.
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'-' | b'+'));
    let value = text.parse::<f64>().ok().filter(|_| numeric && !text.starts_with('+')).ok_or("not a number")?;
    if value.is_infinite() { Err("number out of range") } else { Ok(value) }
}

/// Reads base64: standard or URL-safe alphabet, padded or not.
pub(crate) fn bytes(text: &str) -> Result<Vec<u8>, &'static str> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { alphabet::URL_SAFE } else { alphabet::STANDARD };
    GeneralPurpose::new(&alphabet, CONFIG).decode(text).map_err(|_| "corrupt base64")
}

/// Writes base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    general_purpose::STANDARD.encode(bytes)
}

/// Reads a duration such as `1.5s`.
pub(crate) fn duration(text: &str) -> Result<Span, &'static str> {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = split_number(rest).ok_or("duration must start with an integer")?;
    let seconds = whole.parse::<i64>().map_err(|_| "duration out of range")?;
    let (nanos, unit) = nanos(fraction)?;
    if unit != "s" {
        return Err("duration must end with a single 's'");
    }
    if seconds > MAX_DURATION {
        return Err("duration out of range");
    }
    let sign = if negative { -1 } else { 1 };
    Ok(Span { seconds: i64::from(sign) * seconds, nanos: sign * nanos })
}

/// Whether a duration's parts are within protobuf's bounds and agree in sign.
pub(crate) fn is_duration(span: Span) -> bool {
    span.seconds.abs() <= MAX_DURATION
        && span.nanos.unsigned_abs() < 1_000_000_000
        && (span.seconds == 0 || span.nanos == 0 || (span.seconds < 0) == (span.nanos < 0))
}

/// Writes a duration with no, three, six or nine digits after the point.
pub(crate) fn format_duration(span: Span) -> String {
    let sign = if span.seconds < 0 || span.nanos < 0 { "-" } else { "" };
    format!("{sign}{}{}s", span.seconds.unsigned_abs(), format_nanos(span.nanos.unsigned_abs()))
}

/// Reads a timestamp of RFC 3339.
pub(crate) fn timestamp(text: &str) -> Result<Span, &'static str> {
    const BAD: &str = "not a timestamp of RFC 3339";
    let field = |from: usize, to: usize| -> Result<i64, &'static str> {
        let digits = text.get(from..to).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|digits| digits.parse().ok()).ok_or(BAD)
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, byte)| text.as_bytes().get(*at).map(u8::to_ascii_uppercase) != Some(*byte)) {
        return Err(BAD);
    }
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return Err(BAD),
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return Err(BAD);
    }
    let (nanos, zone) = nanos(text.get(19..).unwrap_or_default())?;
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - 6;
            let (hours, minutes) = (field(at + 1, at + 3)?, field(at + 4, at + 6)?);
            if hours > 23 || minutes > 59 {
                return Err(BAD);
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return Err(BAD),
    };
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    if TIMESTAMPS.contains(&seconds) { Ok(Span { seconds, nanos }) } else { Err("timestamp out of range") }
}

/// Writes a timestamp; `None` when it is outside the years 1 to 9999.
pub(crate) fn format_timestamp(span: Span) -> Option<String> {
    if !TIMESTAMPS.contains(&span.seconds) || !(0..1_000_000_000).contains(&span.nanos) {
        return None;
    }
    let (days, time) = (span.seconds.div_euclid(86_400), span.seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    let fraction = format_nanos(span.nanos.unsigned_abs());
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z"))
}

/// A field mask's path from JSON's lowerCamelCase to the protos' names.
pub(crate) fn snake_case(path: &str) -> String {
    let mut output = String::with_capacity(path.len() + 4);
    for c in path.chars() {
        match c {
            'A'..='Z' => {
                output.push('_');
                output.push(c.to_ascii_lowercase());
            }
            c => output.push(c),
        }
    }
    output
}

/// A field's name, or a field mask's path, from the protos' spelling to JSON's lowerCamelCase.
pub(crate) fn camel_case(path: &str) -> String {
    let mut output = String::with_capacity(path.len());
    let mut upper = false;
    for c in path.chars() {
        if c == '_' {
            upper = true;
        } else {
            output.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    output
}

/// The digits at the start, and the rest.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// An optional fraction of a second, and what follows it.
fn nanos(text: &str) -> Result<(i32, &str), &'static str> {
    let Some(fraction) = text.strip_prefix('.') else {
        return Ok((0, text));
    };
    let (digits, rest) = split_number(fraction)
        .filter(|(digits, _)| digits.len() <= 9)
        .ok_or("at most nine digits may follow the point")?;
    format!("{digits:0<9}").parse().map(|nanos| (nanos, rest)).map_err(|_| "not a fraction")
}

fn format_nanos(nanos: u32) -> String {
    match nanos {
        0 => String::new(),
        _ if nanos.is_multiple_of(1_000_000) => format!(".{:03}", nanos / 1_000_000),
        _ if nanos.is_multiple_of(1000) => format!(".{:06}", nanos / 1000),
        _ => format!(".{nanos:09}"),
    }
}

/// Days from 1970-01-01, in the proleptic Gregorian calendar. Years are counted from March so that the leap day is the
/// last of its year, in cycles of 400 years.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The inverse of [`days_since_epoch`].
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;

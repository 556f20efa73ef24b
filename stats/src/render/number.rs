//! Numbers as the printing functions that Envoy uses write them, one for each rendering.

use std::fmt::Write;

/// As few digits as tell the number from its neighbours, without exponent between 0.0001 and 10^16 (as `fmt` does).
pub(super) fn plain(value: f64) -> String {
    let Some(decimal) = Decimal::shortest(value) else {
        return not_finite(value);
    };
    if (-4..16).contains(&decimal.exponent) { decimal.fixed() } else { decimal.scientific() }
}

/// As few digits as tell the number from its neighbours, with an exponent if that is shorter (as `std::to_chars` does).
pub(super) fn compact(value: f64) -> String {
    let Some(decimal) = Decimal::shortest(value) else {
        return not_finite(value);
    };
    let (fixed, scientific) = (decimal.fixed(), decimal.scientific());
    if fixed.len() <= scientific.len() { fixed } else { scientific }
}

/// At most `precision` significant digits (as `printf` does for `%g`).
pub(super) fn general(value: f64, precision: usize) -> String {
    let Some(decimal) = Decimal::rounded(value, precision) else {
        return not_finite(value);
    };
    let below = i32::try_from(precision).unwrap_or(i32::MAX);
    if (-4..below).contains(&decimal.exponent) { decimal.fixed() } else { decimal.scientific() }
}

/// `0.d1d2d3... * 10^(exponent + 1)`, without trailing zeros.
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i32,
}

impl Decimal {
    fn shortest(value: f64) -> Option<Self> {
        Self::parse(value, &format!("{:e}", value.abs()))
    }

    fn rounded(value: f64, precision: usize) -> Option<Self> {
        Self::parse(value, &format!("{:.*e}", precision.saturating_sub(1), value.abs()))
    }

    fn parse(value: f64, text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_once('e').filter(|_| value.is_finite())?;
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        let kept = digits.trim_end_matches('0');
        let digits = if kept.is_empty() { "0" } else { kept }.to_owned();
        Some(Self { negative: value < 0.0, digits, exponent: exponent.parse().ok()? })
    }

    fn fixed(&self) -> String {
        let mut text = self.sign();
        match usize::try_from(self.exponent) {
            Ok(exponent) => {
                let whole = exponent + 1;
                match self.digits.split_at_checked(whole) {
                    Some((digits, "")) => text.push_str(digits),
                    Some((digits, rest)) => text.extend([digits, ".", rest]),
                    None => {
                        text.push_str(&self.digits);
                        text.extend(std::iter::repeat_n('0', whole - self.digits.len()));
                    }
                }
            }
            Err(_) => {
                text.push_str("0.");
                text.extend(std::iter::repeat_n('0', self.exponent.unsigned_abs() as usize - 1));
                text.push_str(&self.digits);
            }
        }
        text
    }

    fn scientific(&self) -> String {
        let mut text = self.sign();
        let (first, rest) = self.digits.split_at_checked(1).unwrap_or(("0", ""));
        text.push_str(first);
        if !rest.is_empty() {
            text.extend([".", rest]);
        }
        let sign = if self.exponent < 0 { '-' } else { '+' };
        let _ = write!(text, "e{sign}{:02}", self.exponent.unsigned_abs());
        text
    }

    fn sign(&self) -> String {
        if self.negative { "-".to_owned() } else { String::new() }
    }
}

fn not_finite(value: f64) -> String {
    match value {
        value if value.is_nan() => "nan".to_owned(),
        value if value > 0.0 => "inf".to_owned(),
        _ => "-inf".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_has_its_own_idea_of_an_exponent() {
        let cases = [
            (0.0, "0", "0", "0"),
            (0.5, "0.5", "0.5", "0.5"),
            (1.0666666666666667, "1.0666666666666667", "1.0666666666666667", "1.06667"),
            (60000.0, "60000", "60000", "60000"),
            (300000.0, "300000", "3e+05", "300000"),
            (1800000.0, "1800000", "1800000", "1.8e+06"),
            (123456789.0, "123456789", "123456789", "1.23457e+08"),
            (1e16, "1e+16", "1e+16", "1e+16"),
            (1.05e15, "1050000000000000", "1.05e+15", "1.05e+15"),
            (0.001, "0.001", "0.001", "0.001"),
            (0.0001, "0.0001", "1e-04", "0.0001"),
            (0.00001, "1e-05", "1e-05", "1e-05"),
            (-2.5, "-2.5", "-2.5", "-2.5"),
            (f64::NAN, "nan", "nan", "nan"),
            (f64::NEG_INFINITY, "-inf", "-inf", "-inf"),
        ];
        for (value, as_plain, as_compact, as_general) in cases {
            assert_eq!((&*plain(value), &*compact(value), &*general(value, 6)), (as_plain, as_compact, as_general));
        }
    }

    #[test]
    fn thirty_two_digits_are_exact() {
        assert_eq!(general(1.05, 32), "1.0500000000000000444089209850063");
        assert_eq!(general(0.1, 32), "0.10000000000000000555111512312578");
        assert_eq!(general(1.0 + 1.0 / 21.0, 32), "1.0476190476190476719153821250075");
        assert_eq!(general(3600000.0, 32), "3600000");
    }
}

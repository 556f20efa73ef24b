//! One runtime value: its text, and what it is as a number, a switch or a fraction.

use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value as Proto};
use filters::matcher::FractionalPercent;

use super::Values;

/// Deepest nesting of structures in a layer.
const MAX_DEPTH: usize = 64;

/// A value as text, with everything it can be read as. Parsed once, when the layer is loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    raw: String,
    number: Option<f64>,
    boolean: Option<bool>,
    fraction: Option<FractionalPercent>,
}

impl Value {
    /// A value given as text (a file, `/runtime_modify`, a string in a layer): a switch if it says `true` or `false`, a
    /// number if it is one, a fraction if it is a mapping of numerator and denominator.
    #[must_use]
    pub fn parse(raw: String) -> Self {
        let boolean = match raw.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        let number = raw.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        let fraction = if boolean.is_none() && number.is_none() { fraction_of_text(&raw) } else { None };
        Self { raw, number, boolean, fraction }
    }

    /// The text.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// As a number.
    #[must_use]
    pub const fn number(&self) -> Option<f64> {
        self.number
    }

    /// As a whole number that is not negative.
    #[must_use]
    pub fn integer(&self) -> Option<u64> {
        let number = self.number?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and in range, as checked")]
        let whole =
            ((0.0..18_446_744_073_709_551_616.0).contains(&number) && number.fract() == 0.0).then_some(number as u64);
        whole
    }

    /// As a switch.
    #[must_use]
    pub const fn boolean(&self) -> Option<bool> {
        self.boolean
    }

    /// As a fraction: itself, or a whole number as that many percent.
    #[must_use]
    pub fn fraction(&self) -> Option<FractionalPercent> {
        self.fraction.or_else(|| {
            let percent = self.integer()?;
            Some(FractionalPercent { numerator: u32::try_from(percent.min(100)).unwrap_or(100), denominator: 100 })
        })
    }

    fn number_value(number: f64) -> Self {
        Self { raw: number.to_string(), number: Some(number), boolean: None, fraction: None }
    }

    fn switch(boolean: bool) -> Self {
        Self { raw: boolean.to_string(), number: None, boolean: Some(boolean), fraction: None }
    }
}

/// The values of a `Struct`, nested ones joined by dots. A structure with `numerator` or `denominator` is a fraction.
///
/// # Errors
/// The key of a value that is a list, null, nested too deep or no fraction.
pub fn flatten(layer: &Struct) -> Result<Values, String> {
    let mut values = Values::new();
    walk("", layer, 0, &mut values)?;
    Ok(values)
}

fn walk(prefix: &str, layer: &Struct, depth: usize, values: &mut Values) -> Result<(), String> {
    for (name, value) in &layer.fields {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let value = match &value.kind {
            Some(Kind::NumberValue(number)) => Value::number_value(*number),
            Some(Kind::BoolValue(boolean)) => Value::switch(*boolean),
            Some(Kind::StringValue(text)) => Value::parse(text.clone()),
            Some(Kind::StructValue(fields)) if is_fraction(fields) => {
                let fraction = fraction_of(fields).ok_or_else(|| key.clone())?;
                Value { raw: text_of(fraction), number: None, boolean: None, fraction: Some(fraction) }
            }
            Some(Kind::StructValue(fields)) if depth < MAX_DEPTH => {
                walk(&key, fields, depth + 1, values)?;
                continue;
            }
            _ => return Err(key),
        };
        values.insert(key, value);
    }
    Ok(())
}

fn is_fraction(fields: &Struct) -> bool {
    fields.fields.is_empty() || fields.fields.contains_key("numerator") || fields.fields.contains_key("denominator")
}

fn fraction_of(fields: &Struct) -> Option<FractionalPercent> {
    let mut fraction = FractionalPercent { numerator: 0, denominator: 100 };
    for (name, Proto { kind }) in &fields.fields {
        match (name.as_str(), kind.as_ref()?) {
            ("numerator", Kind::NumberValue(number)) => {
                fraction.numerator = u32::try_from(Value::number_value(*number).integer()?).ok()?;
            }
            ("numerator", Kind::StringValue(number)) => fraction.numerator = number.parse().ok()?,
            ("denominator", Kind::StringValue(name)) => fraction.denominator = denominator(name)?,
            ("denominator", Kind::NumberValue(number)) => {
                fraction.denominator = match Value::number_value(*number).integer()? {
                    0 => 100,
                    1 => 10_000,
                    2 => 1_000_000,
                    _ => return None,
                };
            }
            _ => return None,
        }
    }
    Some(fraction)
}

fn denominator(name: &str) -> Option<u32> {
    Some(match name {
        "HUNDRED" => 100,
        "TEN_THOUSAND" => 10_000,
        "MILLION" => 1_000_000,
        _ => return None,
    })
}

/// A fraction in a file or an override: `{numerator: 3, denominator: TEN_THOUSAND}`, or the same two as lines or JSON.
fn fraction_of_text(text: &str) -> Option<FractionalPercent> {
    let inner = text.trim();
    let inner = inner.strip_prefix('{').map_or(Some(inner), |rest| rest.strip_suffix('}'))?;
    let mut fraction = FractionalPercent { numerator: 0, denominator: 100 };
    let mut any = false;
    for pair in inner.split(['\n', ',']).map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once(':')?;
        let plain = |text: &'_ str| text.trim().trim_matches(['"', '\'']).to_owned();
        match plain(name).as_str() {
            "numerator" => fraction.numerator = plain(value).parse().ok()?,
            "denominator" => fraction.denominator = denominator(&plain(value))?,
            _ => return None,
        }
        any = true;
    }
    any.then_some(fraction)
}

fn text_of(fraction: FractionalPercent) -> String {
    let name = match fraction.denominator {
        100 => "HUNDRED",
        10_000 => "TEN_THOUSAND",
        _ => "MILLION",
    };
    format!("{{\"numerator\":{},\"denominator\":\"{name}\"}}", fraction.numerator)
}

//! From the `validate.rules` option to [`Rules`].

use envoy_types::pb::google::protobuf::{Duration, Timestamp};
use envoy_types::pb::validate as pb;
use prost::Message as _;
use regex::{Regex, bytes};

use super::formats::Format;
use super::{
    AnyRules, Bounds, BytesRules, EnumRules, MapRules, Number, NumberRules, RangeRules, RepeatedRules, RuleKind, Rules,
    Span, StringRules,
};

/// A rule this program does not know, or cannot compile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuleError {
    #[error("not a rule: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("pattern: {0}")]
    Pattern(#[from] regex::Error),
    #[error("the rule `{0}` is not implemented")]
    Unknown(&'static str),
}

impl Rules {
    /// Compiles the bytes of a `validate.FieldRules`; `None` when they demand nothing.
    pub(crate) fn parse(option: &[u8]) -> Result<Option<Self>, RuleError> {
        let rules = Self::compile(pb::FieldRules::decode(option)?)?;
        let empty = !rules.required && !rules.skip && matches!(rules.kind, RuleKind::None);
        Ok((!empty).then_some(rules))
    }

    fn compile(rules: pb::FieldRules) -> Result<Self, RuleError> {
        use pb::field_rules::Type;
        let pb::FieldRules { message, r#type } = rules;
        let pb::MessageRules { skip, required } = message.unwrap_or_default();
        let mut compiled =
            Self { required: required.unwrap_or(false), skip: skip.unwrap_or(false), kind: RuleKind::None };
        compiled.kind = match r#type {
            None => RuleKind::None,
            Some(Type::Float(rules)) => rules.compile(),
            Some(Type::Double(rules)) => rules.compile(),
            Some(Type::Int32(rules)) => rules.compile(),
            Some(Type::Int64(rules)) => rules.compile(),
            Some(Type::Uint32(rules)) => rules.compile(),
            Some(Type::Uint64(rules)) => rules.compile(),
            Some(Type::Sint32(rules)) => rules.compile(),
            Some(Type::Sint64(rules)) => rules.compile(),
            Some(Type::Fixed32(rules)) => rules.compile(),
            Some(Type::Fixed64(rules)) => rules.compile(),
            Some(Type::Sfixed32(rules)) => rules.compile(),
            Some(Type::Sfixed64(rules)) => rules.compile(),
            Some(Type::Bool(pb::BoolRules { r#const })) => r#const.map_or(RuleKind::None, RuleKind::Bool),
            Some(Type::String(rules)) => RuleKind::String(Box::new(string(rules)?)),
            Some(Type::Bytes(rules)) => RuleKind::Bytes(Box::new(bytes_rules(rules)?)),
            Some(Type::Enum(pb::EnumRules { r#const, defined_only, r#in, not_in })) => RuleKind::Enum(EnumRules {
                constant: r#const,
                defined_only: defined_only.unwrap_or(false),
                within: r#in,
                not_within: not_in,
            }),
            Some(Type::Repeated(rules)) => RuleKind::Repeated(Box::new(repeated(*rules)?)),
            Some(Type::Map(rules)) => RuleKind::Map(Box::new(map(*rules)?)),
            Some(Type::Any(pb::AnyRules { required, r#in, not_in })) => {
                compiled.required |= required.unwrap_or(false);
                RuleKind::Any(AnyRules { within: r#in, not_within: not_in })
            }
            Some(Type::Duration(rules)) => {
                let pb::DurationRules { required, r#const, lt, lte, gt, gte, r#in, not_in } = rules;
                compiled.required |= required.unwrap_or(false);
                RuleKind::Duration(Box::new(RangeRules {
                    constant: r#const.map(Span::from),
                    lt: lt.map(Span::from),
                    lte: lte.map(Span::from),
                    gt: gt.map(Span::from),
                    gte: gte.map(Span::from),
                    within: r#in.into_iter().map(Span::from).collect(),
                    not_within: not_in.into_iter().map(Span::from).collect(),
                }))
            }
            Some(Type::Timestamp(rules)) => {
                let pb::TimestampRules { required, r#const, lt, lte, gt, gte, lt_now, gt_now, within } = rules;
                if lt_now.is_some() || gt_now.is_some() || within.is_some() {
                    return Err(RuleError::Unknown("timestamp relative to now"));
                }
                compiled.required |= required.unwrap_or(false);
                RuleKind::Timestamp(Box::new(RangeRules {
                    constant: r#const.map(Span::from),
                    lt: lt.map(Span::from),
                    lte: lte.map(Span::from),
                    gt: gt.map(Span::from),
                    gte: gte.map(Span::from),
                    within: Vec::new(),
                    not_within: Vec::new(),
                }))
            }
        };
        Ok(compiled)
    }
}

impl From<Duration> for Span {
    fn from(Duration { seconds, nanos }: Duration) -> Self {
        Self { seconds, nanos }
    }
}

impl From<Timestamp> for Span {
    fn from(Timestamp { seconds, nanos }: Timestamp) -> Self {
        Self { seconds, nanos }
    }
}

/// The twelve messages of number rules differ in their scalar only.
trait Compile {
    fn compile(self) -> RuleKind;
}

macro_rules! number_rules {
    ($($rules:ident => $number:ident),*) => {$(
        impl Compile for pb::$rules {
            fn compile(self) -> RuleKind {
                let Self { r#const, lt, lte, gt, gte, r#in, not_in, ignore_empty } = self;
                RuleKind::Number(Box::new(NumberRules {
                    ignore_empty: ignore_empty.unwrap_or(false),
                    range: RangeRules {
                        constant: r#const.map(|value| Number::$number(value.into())),
                        lt: lt.map(|value| Number::$number(value.into())),
                        lte: lte.map(|value| Number::$number(value.into())),
                        gt: gt.map(|value| Number::$number(value.into())),
                        gte: gte.map(|value| Number::$number(value.into())),
                        within: r#in.into_iter().map(|value| Number::$number(value.into())).collect(),
                        not_within: not_in.into_iter().map(|value| Number::$number(value.into())).collect(),
                    },
                }))
            }
        }
    )*};
}

number_rules! {
    FloatRules => Float, DoubleRules => Float,
    Int32Rules => Signed, Int64Rules => Signed, SInt32Rules => Signed, SInt64Rules => Signed,
    SFixed32Rules => Signed, SFixed64Rules => Signed,
    UInt32Rules => Unsigned, UInt64Rules => Unsigned, Fixed32Rules => Unsigned, Fixed64Rules => Unsigned
}

fn string(rules: pb::StringRules) -> Result<StringRules, RuleError> {
    use pb::string_rules::WellKnown;
    let pb::StringRules {
        r#const,
        len,
        min_len,
        max_len,
        len_bytes,
        min_bytes,
        max_bytes,
        pattern,
        prefix,
        suffix,
        contains,
        not_contains,
        r#in,
        not_in,
        strict,
        ignore_empty,
        well_known,
    } = rules;
    let format = match well_known {
        None => None,
        Some(WellKnown::Email(on)) => on.then_some(Format::Email),
        Some(WellKnown::Hostname(on)) => on.then_some(Format::Hostname),
        Some(WellKnown::Ip(on)) => on.then_some(Format::Ip),
        Some(WellKnown::Ipv4(on)) => on.then_some(Format::Ipv4),
        Some(WellKnown::Ipv6(on)) => on.then_some(Format::Ipv6),
        Some(WellKnown::Uri(on)) => on.then_some(Format::Uri),
        Some(WellKnown::UriRef(on)) => on.then_some(Format::UriRef),
        Some(WellKnown::Address(on)) => on.then_some(Format::Address),
        Some(WellKnown::Uuid(on)) => on.then_some(Format::Uuid),
        Some(WellKnown::WellKnownRegex(number)) => match pb::KnownRegex::try_from(number) {
            Ok(pb::KnownRegex::Unknown) => None,
            Ok(_) if strict == Some(false) => Some(Format::HeaderLenient),
            Ok(pb::KnownRegex::HttpHeaderName) => Some(Format::HeaderName),
            Ok(pb::KnownRegex::HttpHeaderValue) => Some(Format::HeaderValue),
            Err(_) => return Err(RuleError::Unknown("well_known_regex")),
        },
    };
    Ok(StringRules {
        ignore_empty: ignore_empty.unwrap_or(false),
        constant: r#const,
        length: Bounds { min: len.or(min_len), max: len.or(max_len) },
        size: Bounds { min: len_bytes.or(min_bytes), max: len_bytes.or(max_bytes) },
        pattern: pattern.as_deref().map(Regex::new).transpose()?,
        prefix,
        suffix,
        contains,
        not_contains,
        within: r#in,
        not_within: not_in,
        format,
    })
}

fn bytes_rules(rules: pb::BytesRules) -> Result<BytesRules, RuleError> {
    use pb::bytes_rules::WellKnown;
    let pb::BytesRules {
        r#const,
        len,
        min_len,
        max_len,
        pattern,
        prefix,
        suffix,
        contains,
        r#in,
        not_in,
        ignore_empty,
        well_known,
    } = rules;
    Ok(BytesRules {
        ignore_empty: ignore_empty.unwrap_or(false),
        constant: r#const,
        size: Bounds { min: len.or(min_len), max: len.or(max_len) },
        pattern: pattern.as_deref().map(bytes::Regex::new).transpose()?,
        prefix,
        suffix,
        contains,
        within: r#in,
        not_within: not_in,
        address: match well_known {
            None => None,
            Some(WellKnown::Ip(on)) => on.then_some(Format::Ip),
            Some(WellKnown::Ipv4(on)) => on.then_some(Format::Ipv4),
            Some(WellKnown::Ipv6(on)) => on.then_some(Format::Ipv6),
        },
    })
}

fn repeated(rules: pb::RepeatedRules) -> Result<RepeatedRules, RuleError> {
    let pb::RepeatedRules { min_items, max_items, unique, items, ignore_empty } = rules;
    Ok(RepeatedRules {
        ignore_empty: ignore_empty.unwrap_or(false),
        items_count: Bounds { min: min_items, max: max_items },
        unique: unique.unwrap_or(false),
        items: items.map(|items| Rules::compile(*items)).transpose()?,
    })
}

fn map(rules: pb::MapRules) -> Result<MapRules, RuleError> {
    let pb::MapRules { min_pairs, max_pairs, no_sparse, keys, values, ignore_empty } = rules;
    if no_sparse == Some(true) {
        return Err(RuleError::Unknown("map.no_sparse"));
    }
    Ok(MapRules {
        ignore_empty: ignore_empty.unwrap_or(false),
        pairs: Bounds { min: min_pairs, max: max_pairs },
        keys: keys.map(|keys| Rules::compile(*keys)).transpose()?,
        values: values.map(|values| Rules::compile(*values)).transpose()?,
    })
}

//! Which streams are logged (`envoy.config.accesslog.v3.AccessLogFilter`); local reply mappers ask the same questions.

use filters::flags::ResponseFlags;
use filters::format::{AccessLogType, FormatContext};
use filters::http::{Headers, Known};
use filters::matcher::{FractionalPercent, HeaderMatcher, MetadataMatcher, Runtime};

use crate::http::reply::{GrpcStatus, status_from_http};

/// A question about a stream.
#[derive(Debug)]
pub enum LogFilter {
    /// `status_code_filter`
    StatusCode(Comparison),
    /// `duration_filter`, in milliseconds
    Duration(Comparison),
    /// `not_health_check_filter`
    NotHealthCheck,
    /// `runtime_filter`
    Runtime {
        /// The key that may change the share.
        key: Box<str>,
        /// The share without a value under the key.
        default: FractionalPercent,
        /// Draw anew instead of by the request id.
        independent: bool,
    },
    /// `and_filter`
    And(Vec<Self>),
    /// `or_filter`
    Or(Vec<Self>),
    /// `header_filter`, about the request
    Header(HeaderMatcher),
    /// `response_flag_filter`: one of these flags is set; without any, some flag.
    ResponseFlag(Vec<ResponseFlags>),
    /// `grpc_status_filter`
    GrpcStatus {
        /// The codes.
        statuses: Vec<u32>,
        /// All but these.
        exclude: bool,
    },
    /// `log_type_filter`
    LogType {
        /// The types.
        types: Vec<AccessLogType>,
        /// All but these.
        exclude: bool,
    },
    /// `metadata_filter`, about dynamic metadata
    Metadata {
        /// What the value has to be.
        matcher: Option<MetadataMatcher>,
        /// The answer where there is none.
        unless: bool,
    },
    /// A filter that is not implemented and was let through: logs everything, or nothing.
    Constant(bool),
}

/// A number against a limit that the runtime may change.
#[derive(Debug)]
pub struct Comparison {
    /// How to compare.
    pub op: ComparisonOp,
    /// The limit.
    pub value: u64,
    /// Key of another limit.
    pub runtime_key: Box<str>,
}

/// `ComparisonFilter.Op`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComparisonOp {
    /// `EQ`
    Equal,
    /// `GE`
    AtLeast,
    /// `LE`
    AtMost,
    /// `NE`
    NotEqual,
}

impl LogFilter {
    /// The answer for one stream.
    #[must_use]
    pub fn matches(&self, context: &FormatContext<'_>, runtime: &dyn Runtime) -> bool {
        match self {
            Self::StatusCode(comparison) => comparison.holds(context.info.response_code.into(), runtime),
            Self::Duration(comparison) => match context.info.end {
                Some(end) => {
                    let elapsed = end.saturating_duration_since(context.info.start).as_millis();
                    comparison.holds(u64::try_from(elapsed).unwrap_or(u64::MAX), runtime)
                }
                None => false,
            },
            Self::NotHealthCheck => !context.info.health_check,
            Self::Runtime { key, default, independent } => {
                let share = runtime.fraction(key).unwrap_or(*default);
                let id = context.request.and_then(|request| request.headers.value(&Known::XRequestId));
                match id.and_then(|id| random_of(id)) {
                    Some(random) if !independent => share.contains(random),
                    _ => share.contains(fastrand::u64(..)),
                }
            }
            Self::And(all) => all.iter().all(|filter| filter.matches(context, runtime)),
            Self::Or(any) => any.iter().any(|filter| filter.matches(context, runtime)),
            Self::Header(matcher) => context.request.is_some_and(|request| matcher.matches(request)),
            Self::ResponseFlag(flags) if flags.is_empty() => !context.info.flags.is_empty(),
            Self::ResponseFlag(flags) => flags.iter().any(|flag| context.info.flags.contains(*flag)),
            Self::GrpcStatus { statuses, exclude } => statuses.contains(&grpc_status(context)) != *exclude,
            Self::LogType { types, exclude } => types.contains(&context.log_type) != *exclude,
            Self::Metadata { matcher, unless } => {
                let metadata = context.info.dynamic_metadata.as_deref();
                matcher.as_ref().and_then(|matcher| matcher.judge(metadata)).unwrap_or(*unless)
            }
            Self::Constant(logs) => *logs,
        }
    }
}

impl Comparison {
    fn holds(&self, value: u64, runtime: &dyn Runtime) -> bool {
        let limit = if self.runtime_key.is_empty() { None } else { runtime.integer(&self.runtime_key) };
        let limit = limit.unwrap_or(self.value);
        match self.op {
            ComparisonOp::Equal => value == limit,
            ComparisonOp::AtLeast => value >= limit,
            ComparisonOp::AtMost => value <= limit,
            ComparisonOp::NotEqual => value != limit,
        }
    }
}

/// The stream's gRPC status: from the trailers, else the response head, else what the HTTP status means.
/// What is no status is none that can be listed.
fn grpc_status(context: &FormatContext<'_>) -> u32 {
    let of = |headers: &Headers| {
        let value = headers.value(&Known::GrpcStatus)?;
        Some(std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(u32::MAX))
    };
    let GrpcStatus(from_http) = status_from_http(context.info.response_code);
    context.trailers.and_then(of).or_else(|| context.response.and_then(|head| of(&head.headers))).unwrap_or(from_http)
}

/// The random value a request id stands for: its first eight hexadecimal digits.
fn random_of(request_id: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(request_id.get(..8)?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

//! `AccessLog` to runtime types: which streams, what a line says, where it goes.

use bytes::Bytes;
use envoy_types::pb::envoy::config::accesslog::v3 as proto;
use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format as FormatSpecifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, RuntimeUInt32, SubstitutionFormatString, data_source};
use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType as TypeProto;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3 as stream;
use envoy_types::pb::google::protobuf::Struct;
use filters::config::{At, ConfigError};
use filters::flags::ResponseFlags;
use filters::format::{AccessLogType, DEFAULT_ACCESS_LOG, Format, FormatOptions, JsonFormat};
use filters::ledger;
use filters::matcher::{FractionalPercent, HeaderMatcher, MetadataMatcher, RegexLimits};

use super::any::{self, StructToBytes, Typed};
use crate::observe::access_log::{AccessLog, Comparison, ComparisonOp, LogFiles, LogFilter, LogFormat, LogTarget};

/// What parsing access logs needs of the process.
#[derive(Debug, Clone, Copy)]
pub struct LogContext<'a> {
    /// Converts the content of a `TypedStruct`.
    pub convert: StructToBytes,
    /// Facts format strings print; missing values as `-`.
    pub formats: &'a FormatOptions,
    /// How big regular expressions may be.
    pub limits: RegexLimits,
    /// The process's log files.
    pub files: &'a LogFiles,
}

ledger! {
    /// Filters of access logs that are not here.
    pub mod unsupported_filters for "envoy.config.accesslog.v3.AccessLogFilter" {
        traceable_filter => Warn, "logs traced requests only; tracing is not here yet, so none is logged";
        extension_filter => Warn, "CEL and rate-limiting filters are not here yet; every request is logged";
    }
}

ledger! {
    /// Loggers that are not here.
    pub mod unsupported_loggers for "envoy.config.accesslog.v3.AccessLog" {
        typed_config => Warn, "only file, stdout and stderr loggers are here yet; nothing is sent to this one";
    }
}

ledger! {
    /// Format options that are not here.
    pub mod unsupported_formats for "envoy.config.core.v3.SubstitutionFormatString" {
        formatters => Refuse, "formatter extensions are not here yet; their operators would not load";
    }
}

ledger! {
    /// Data source options that are not here.
    pub mod unsupported_sources for "envoy.config.core.v3.DataSource" {
        watched_directory => Warn, "the file is read once, when the configuration is loaded";
    }
}

/// Parses a list of loggers.
///
/// # Errors
/// Of the first that is wrong.
pub fn parse_all(
    at: &At<'_>,
    protos: Vec<proto::AccessLog>,
    context: &LogContext<'_>,
) -> Result<Vec<AccessLog>, ConfigError> {
    let parsed = protos.into_iter().enumerate().map(|(n, proto)| parse(&at.index(n), proto, context));
    parsed.filter_map(Result::transpose).collect()
}

/// Parses one logger and opens its file; `None` for a kind of logger that is not here and may be left out.
///
/// # Errors
/// When it is not valid, or its file cannot be opened.
pub fn parse(at: &At<'_>, proto: proto::AccessLog, context: &LogContext<'_>) -> Result<Option<AccessLog>, ConfigError> {
    let proto::AccessLog { name, filter: filter_proto, config_type } = proto;
    let filter = filter_proto.map(|proto| filter(&at.field("filter"), proto, context)).transpose()?;
    let here = at.field("typed_config");
    let Some(proto::access_log::ConfigType::TypedConfig(typed)) = config_type else {
        return Err(at.unknown_extension(&name, ""));
    };
    let typed = any::unwrap(&here, typed, context.convert)?;
    let Some((target, format)) = logger(at, &here, &name, &typed, context)? else { return Ok(None) };
    let file = context.files.open(&target).map_err(|error| here.error(error))?;
    Ok(Some(AccessLog { filter, format, file }))
}

fn logger(
    at: &At<'_>,
    here: &At<'_>,
    name: &str,
    typed: &Typed,
    context: &LogContext<'_>,
) -> Result<Option<(LogTarget, LogFormat)>, ConfigError> {
    let at_format = here.field("log_format");
    let given = |format: Option<SubstitutionFormatString>| match format {
        Some(format) => substitution_format(&at_format, format, context),
        None => default_format(here, context),
    };
    Ok(Some(match typed.type_name() {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            let FileAccessLog { path, access_log_format } = typed.decode(here)?;
            if path.is_empty() {
                return Err(here.field("path").error("value length must be at least 1 characters"));
            }
            (LogTarget::of(&path), file_format(here, access_log_format, context)?)
        }
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
            let stream::StdoutAccessLog { access_log_format } = typed.decode(here)?;
            let format = access_log_format.map(|stream::stdout_access_log::AccessLogFormat::LogFormat(format)| format);
            (LogTarget::Stdout, given(format)?)
        }
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            let stream::StderrAccessLog { access_log_format } = typed.decode(here)?;
            let format = access_log_format.map(|stream::stderr_access_log::AccessLogFormat::LogFormat(format)| format);
            (LogTarget::Stderr, given(format)?)
        }
        other if other.starts_with("envoy.extensions.access_loggers.") => {
            here.refuse_or_warn(&unsupported_loggers::typed_config)?;
            return Ok(None);
        }
        other => return Err(at.unknown_extension(name, other)),
    }))
}

#[expect(deprecated, reason = "Envoy accepts the old fields as well")]
fn file_format(
    at: &At<'_>,
    format: Option<file_access_log::AccessLogFormat>,
    context: &LogContext<'_>,
) -> Result<LogFormat, ConfigError> {
    use file_access_log::AccessLogFormat as Old;
    match format {
        None => default_format(at, context),
        Some(Old::Format(text)) if text.is_empty() => default_format(at, context),
        Some(Old::Format(format)) => text(&at.field("format"), &format, context.formats).map(LogFormat::Text),
        Some(Old::JsonFormat(format)) => json(&at.field("json_format"), &format, context.formats).map(LogFormat::Json),
        Some(Old::TypedJsonFormat(format)) => {
            json(&at.field("typed_json_format"), &format, context.formats).map(LogFormat::Json)
        }
        Some(Old::LogFormat(format)) => substitution_format(&at.field("log_format"), format, context),
    }
}

fn default_format(at: &At<'_>, context: &LogContext<'_>) -> Result<LogFormat, ConfigError> {
    text(at, DEFAULT_ACCESS_LOG, context.formats).map(LogFormat::Text)
}

/// Parses a `SubstitutionFormatString` for a log.
///
/// # Errors
/// When a format string is not valid, or its file cannot be read.
pub fn substitution_format(
    at: &At<'_>,
    proto: SubstitutionFormatString,
    context: &LogContext<'_>,
) -> Result<LogFormat, ConfigError> {
    // The content type matters to local replies only.
    format_and_type(at, proto, context.formats).map(|(format, _)| format)
}

/// Parses a `SubstitutionFormatString`, with its content type.
#[expect(deprecated, reason = "Envoy accepts `text_format` as well; sorting is always on")]
pub(super) fn format_and_type(
    at: &At<'_>,
    proto: SubstitutionFormatString,
    formats: &FormatOptions,
) -> Result<(LogFormat, String), ConfigError> {
    let SubstitutionFormatString { omit_empty_values, content_type, formatters, json_format_options: _, format } =
        proto;
    at.unsupported(&unsupported_formats::formatters, &formatters)?;
    let options = FormatOptions { omit_empty_values, ..formats.clone() };
    let format = match format {
        None => return Err(at.error("format: is required")),
        Some(FormatSpecifier::TextFormat(format)) => {
            LogFormat::Text(text(&at.field("text_format"), &format, &options)?)
        }
        Some(FormatSpecifier::JsonFormat(format)) => {
            LogFormat::Json(json(&at.field("json_format"), &format, &options)?)
        }
        Some(FormatSpecifier::TextFormatSource(source)) => {
            let here = at.field("text_format_source");
            let source = data_source(&here, source)?;
            let format = std::str::from_utf8(&source).map_err(|_| here.error("the format is not UTF-8"))?;
            LogFormat::Text(text(&here, format, &options)?)
        }
    };
    Ok((format, content_type))
}

fn text(at: &At<'_>, format: &str, options: &FormatOptions) -> Result<Format, ConfigError> {
    Format::parse(format, options).map_err(|error| at.error(error))
}

fn json(at: &At<'_>, format: &Struct, options: &FormatOptions) -> Result<JsonFormat, ConfigError> {
    JsonFormat::parse(format, options).map_err(|error| at.error(error))
}

/// The bytes of a `DataSource`, read now.
///
/// # Errors
/// When it names nothing, or a file or variable that cannot be read.
pub fn data_source(at: &At<'_>, proto: DataSource) -> Result<Bytes, ConfigError> {
    let DataSource { watched_directory, specifier } = proto;
    at.unsupported(&unsupported_sources::watched_directory, &watched_directory)?;
    match specifier {
        None => Err(at.error("specifier: is required")),
        Some(data_source::Specifier::InlineBytes(bytes)) => Ok(bytes.into()),
        Some(data_source::Specifier::InlineString(text)) => Ok(text.into()),
        Some(data_source::Specifier::Filename(path)) => std::fs::read(&path)
            .map(Bytes::from)
            .map_err(|error| at.field("filename").error(format_args!("Unable to read file: {path}: {error}"))),
        Some(data_source::Specifier::EnvironmentVariable(name)) => {
            std::env::var(&name).map(Bytes::from).map_err(|_| {
                at.field("environment_variable").error(format_args!("Environment variable doesn't exist: {name}"))
            })
        }
    }
}

/// Parses a filter.
///
/// # Errors
/// When it is not valid.
pub fn filter(at: &At<'_>, proto: proto::AccessLogFilter, context: &LogContext<'_>) -> Result<LogFilter, ConfigError> {
    let proto::AccessLogFilter { filter_specifier } = proto;
    let skipped = |entry: &_, logs| at.refuse_or_warn(entry).map(|()| LogFilter::Constant(logs));
    Ok(match filter_specifier {
        None => return Err(at.error("filter_specifier: is required")),
        Some(FilterSpecifier::StatusCodeFilter(proto::StatusCodeFilter { comparison: limit })) => {
            LogFilter::StatusCode(comparison(&at.field("status_code_filter"), limit)?)
        }
        Some(FilterSpecifier::DurationFilter(proto::DurationFilter { comparison: limit })) => {
            LogFilter::Duration(comparison(&at.field("duration_filter"), limit)?)
        }
        Some(FilterSpecifier::NotHealthCheckFilter(proto::NotHealthCheckFilter {})) => LogFilter::NotHealthCheck,
        Some(FilterSpecifier::TraceableFilter(proto::TraceableFilter {})) => {
            skipped(&unsupported_filters::traceable_filter, false)?
        }
        Some(FilterSpecifier::RuntimeFilter(filter)) => {
            let proto::RuntimeFilter { runtime_key, percent_sampled, use_independent_randomness } = filter;
            let here = at.field("runtime_filter");
            if runtime_key.is_empty() {
                return Err(here.field("runtime_key").error("value length must be at least 1 characters"));
            }
            let default = match percent_sampled {
                Some(share) => FractionalPercent::parse(share, here.field("percent_sampled"))?,
                None => FractionalPercent { numerator: 0, denominator: 100 },
            };
            LogFilter::Runtime { key: runtime_key.into(), default, independent: use_independent_randomness }
        }
        Some(FilterSpecifier::AndFilter(proto::AndFilter { filters })) => {
            LogFilter::And(several(&at.field("and_filter").field("filters"), filters, context)?)
        }
        Some(FilterSpecifier::OrFilter(proto::OrFilter { filters })) => {
            LogFilter::Or(several(&at.field("or_filter").field("filters"), filters, context)?)
        }
        Some(FilterSpecifier::HeaderFilter(proto::HeaderFilter { header })) => {
            let here = at.field("header_filter");
            let header = here.required("header", header)?;
            LogFilter::Header(HeaderMatcher::parse(header, here.field("header"), context.limits)?)
        }
        Some(FilterSpecifier::ResponseFlagFilter(proto::ResponseFlagFilter { flags })) => {
            let here = at.field("response_flag_filter").field("flags").path();
            let flag = |name: String| {
                ResponseFlags::from_short(&name)
                    .ok_or_else(|| ConfigError { path: here.clone(), message: format!("'{name}' is no response flag") })
            };
            LogFilter::ResponseFlag(flags.into_iter().map(flag).collect::<Result<_, _>>()?)
        }
        Some(FilterSpecifier::GrpcStatusFilter(proto::GrpcStatusFilter { statuses, exclude })) => {
            let here = at.field("grpc_status_filter");
            let here = here.field("statuses");
            let status =
                |code: i32| u32::try_from(code).ok().filter(|code| *code <= 16).ok_or_else(|| here.error(NOT_A_VALUE));
            LogFilter::GrpcStatus { statuses: statuses.into_iter().map(status).collect::<Result<_, _>>()?, exclude }
        }
        Some(FilterSpecifier::LogTypeFilter(proto::LogTypeFilter { types, exclude })) => {
            let here = at.field("log_type_filter");
            let here = here.field("types");
            let mut parsed = Vec::new();
            for number in types {
                let known = TypeProto::try_from(number).map_err(|_| here.error(NOT_A_VALUE))?;
                // A type this proxy never logs matches nothing.
                parsed.extend(AccessLogType::ALL.into_iter().find(|ours| ours.as_str() == known.as_str_name()));
            }
            LogFilter::LogType { types: parsed, exclude }
        }
        Some(FilterSpecifier::MetadataFilter(proto::MetadataFilter { matcher, match_if_key_not_found })) => {
            let here = at.field("metadata_filter");
            let matcher = matcher.map(|it| MetadataMatcher::parse(it, here.field("matcher"), context.limits));
            LogFilter::Metadata {
                matcher: matcher.transpose()?,
                unless: match_if_key_not_found.is_none_or(|logs| logs.value),
            }
        }
        Some(FilterSpecifier::ExtensionFilter(_)) => skipped(&unsupported_filters::extension_filter, true)?,
    })
}

const NOT_A_VALUE: &str = "value must be one of the defined enum values";

fn several(
    at: &At<'_>,
    protos: Vec<proto::AccessLogFilter>,
    context: &LogContext<'_>,
) -> Result<Vec<LogFilter>, ConfigError> {
    if protos.len() < 2 {
        return Err(at.error("value must contain at least 2 item(s)"));
    }
    protos.into_iter().enumerate().map(|(n, proto)| filter(&at.index(n), proto, context)).collect()
}

fn comparison(at: &At<'_>, proto: Option<proto::ComparisonFilter>) -> Result<Comparison, ConfigError> {
    use proto::comparison_filter::Op;
    let proto::ComparisonFilter { op, value } = at.required("comparison", proto)?;
    let here = at.field("comparison");
    let op = match Op::try_from(op) {
        Ok(Op::Eq) => ComparisonOp::Equal,
        Ok(Op::Ge) => ComparisonOp::AtLeast,
        Ok(Op::Le) => ComparisonOp::AtMost,
        Ok(Op::Ne) => ComparisonOp::NotEqual,
        Err(_) => return Err(here.field("op").error(NOT_A_VALUE)),
    };
    let RuntimeUInt32 { default_value, runtime_key } = here.required("value", value)?;
    Ok(Comparison { op, value: default_value.into(), runtime_key: runtime_key.into() })
}

#[cfg(test)]
mod tests;

use std::time::Duration;

use envoy_types::pb::envoy::config::accesslog::v3::access_log::ConfigType;
use envoy_types::pb::google::protobuf::Any;
use filters::config::Session;
use prost::Name;

use super::*;

fn no_conversion(_: &str, _: &Struct) -> Result<Bytes, String> {
    Err("no conversion here".to_owned())
}

fn any<T: Name>(message: &T) -> Any {
    Any { type_url: format!("type.googleapis.com/{}.{}", T::PACKAGE, T::NAME), value: message.encode_to_vec() }
}

fn log(typed: Any, filter: Option<FilterSpecifier>) -> proto::AccessLog {
    let filter = filter.map(|specifier| proto::AccessLogFilter { filter_specifier: Some(specifier) });
    proto::AccessLog { name: "foo".into(), filter, config_type: Some(ConfigType::TypedConfig(typed)) }
}

fn run(proto: proto::AccessLog) -> (Result<Option<AccessLog>, String>, usize) {
    let session = Session::default();
    let files = LogFiles::new(Duration::from_secs(10));
    let formats = FormatOptions::default();
    let context =
        LogContext { convert: no_conversion, formats: &formats, limits: RegexLimits::default(), files: &files };
    let parsed = parse(&session.root(), proto, &context).map_err(|error| error.to_string());
    (parsed, session.take_warnings().len())
}

#[expect(deprecated, reason = "the old form is tested on purpose")]
fn file(path: &str, format: &str) -> Any {
    let format = file_access_log::AccessLogFormat::LogFormat(SubstitutionFormatString {
        format: Some(FormatSpecifier::TextFormat(format.to_owned())),
        ..SubstitutionFormatString::default()
    });
    any(&FileAccessLog { path: path.to_owned(), access_log_format: Some(format) })
}

#[test]
fn loggers_that_are_here_load() {
    let (parsed, warnings) = run(log(file("/dev/null", "%PROTOCOL%\n"), None));
    assert!(matches!(parsed, Ok(Some(AccessLog { filter: None, format: LogFormat::Text(_), .. }))), "{parsed:?}");
    assert_eq!(warnings, 0);
    let stdout = any(&stream::StdoutAccessLog { access_log_format: None });
    assert!(matches!(run(log(stdout, None)).0, Ok(Some(_))));
    let stderr = any(&stream::StderrAccessLog { access_log_format: None });
    assert!(matches!(run(log(stderr, None)).0, Ok(Some(_))));
}

#[test]
fn errors_say_what_and_where() {
    let typed = |url: &str| Any { type_url: url.to_owned(), value: vec![] };
    let rows = [
        (log(file("", "x"), None), "typed_config.path: value length must be at least 1 characters"),
        (
            log(file("/nope/x.log", "x"), None),
            "typed_config: unable to open file '/nope/x.log': No such file or directory",
        ),
        (
            log(file("/dev/null", "%NOPE%"), None),
            "typed_config.log_format.text_format: Not supported field in StreamInfo: NOPE",
        ),
        (
            log(typed("type.googleapis.com/foo.Bar"), None),
            "Didn't find a registered implementation for 'foo' with type URL: 'foo.Bar'",
        ),
        (
            proto::AccessLog { name: "foo".into(), filter: None, config_type: None },
            "Didn't find a registered implementation for 'foo' with type URL: ''",
        ),
        (
            log(file("/dev/null", "x"), Some(FilterSpecifier::StatusCodeFilter(proto::StatusCodeFilter::default()))),
            "filter.status_code_filter.comparison: value is required",
        ),
        (
            log(file("/dev/null", "x"), Some(FilterSpecifier::AndFilter(proto::AndFilter { filters: vec![] }))),
            "filter.and_filter.filters: value must contain at least 2 item(s)",
        ),
        (
            log(
                file("/dev/null", "x"),
                Some(FilterSpecifier::ResponseFlagFilter(proto::ResponseFlagFilter { flags: vec!["XX".into()] })),
            ),
            "filter.response_flag_filter.flags: 'XX' is no response flag",
        ),
    ];
    for (proto, expected) in rows {
        let (parsed, _) = run(proto);
        assert_eq!(parsed.map(|_| ()), Err(expected.to_owned()));
    }
}

#[test]
fn what_is_not_here_is_warned_about_and_left_out() {
    let grpc = Any {
        type_url: "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig".into(),
        value: vec![],
    };
    let (parsed, warnings) = run(log(grpc, None));
    assert!(matches!(parsed, Ok(None)), "{parsed:?}");
    assert_eq!(warnings, 1);
    let (parsed, warnings) =
        run(log(file("/dev/null", "x"), Some(FilterSpecifier::TraceableFilter(proto::TraceableFilter {}))));
    assert!(matches!(parsed, Ok(Some(AccessLog { filter: Some(LogFilter::Constant(false)), .. }))), "{parsed:?}");
    assert_eq!(warnings, 1);
}

//! From an operator's name and argument to the operator, or to Envoy's words on what is wrong with them.

use super::FormatOptions;
use super::command::{
    AddressForm, Command, Fact, GrpcForm, HostSource, Message, MetadataOf, Moment, PathSource, Preference, Side,
    StateForm, Unit, is_never_known,
};
use super::time::TimeFormat;
use super::tls;
use super::xfcc::XfccKey;
use crate::http::HeaderKey;

impl Command {
    /// Understands one operator.
    ///
    /// # Errors
    /// In Envoy's words: an unknown name, an argument too many, too few or not understood.
    pub(super) fn parse(
        name: &str,
        argument: Option<&str>,
        max: Option<usize>,
        options: &FormatOptions,
    ) -> Result<Self, String> {
        let argument = argument.unwrap_or_default();
        let alone = || match (argument, max) {
            ("", None) => Ok(()),
            _ => Err(format!("{name} does not take any parameters or length")),
        };
        let no_length = || match max {
            None => Ok(()),
            Some(_) => Err(format!("{name} does not allow length to be specified.")),
        };
        let required = || match argument {
            "" => Err(format!("{name} requires parameters")),
            argument => Ok(argument),
        };
        if let Some(fact) = Fact::named(name) {
            return alone().map(|()| Self::Fact(fact));
        }
        if let Some(of) = message_named(name) {
            let (name, alternative) = headers(required()?)?;
            return Ok(Self::Header { of, name, alternative, max });
        }
        if let Some((of, form)) = address_named(name) {
            let form = match form {
                AddressForm::WithoutPort(_) => {
                    no_length()?;
                    AddressForm::WithoutPort(argument.parse().ok())
                }
                other => {
                    alone()?;
                    other
                }
            };
            return Ok(Self::Address { of, form });
        }
        if let Some((upstream, fact)) = tls::fact_named(name) {
            return alone().map(|()| Self::Tls { upstream, fact });
        }
        if let Some((upstream, end)) = tls::validity_named(name) {
            no_length()?;
            return Ok(Self::Validity { upstream, end, format: time_format(argument, false)? });
        }
        Ok(match name {
            "START_TIME" | "EMIT_TIME" | "START_TIME_LOCAL" | "EMIT_TIME_LOCAL" => {
                no_length()?;
                let format = time_format(argument, name.ends_with("_LOCAL"))?;
                Self::Time { emitted: name.starts_with("EMIT"), format }
            }
            "HOSTNAME" => {
                alone()?;
                Self::text_or_missing(options.hostname.as_bytes())
            }
            "ENVIRONMENT" => {
                // An absent variable has a value of its own, where missing values are left out too.
                let value = std::env::var(required()?).ok().filter(|value| !value.is_empty());
                let value = value.as_deref().unwrap_or("-").as_bytes();
                Self::Constant(value[..max.map_or(value.len(), |max| max.min(value.len()))].into())
            }
            "RESPONSE_CODE_DETAILS" => {
                no_length()?;
                Self::Details { spaces: argument == "ALLOW_WHITESPACES" }
            }
            "COMMON_DURATION" => interval(required()?)?,
            "GRPC_STATUS" => Self::GrpcStatus(match argument {
                "" | "CAMEL_STRING" => GrpcForm::Camel,
                "SNAKE_STRING" => GrpcForm::Snake,
                "NUMBER" => GrpcForm::Number,
                _ => {
                    return Err(format!(
                        "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: {argument}"
                    ));
                }
            }),
            "REQUESTED_SERVER_NAME" => server_name(argument)?,
            "QUERY_PARAM" => Self::QueryParameter { name: required()?.as_bytes().into(), max },
            "QUERY_PARAMS" => match argument {
                "" | "ORIG" => Self::Query { decoded: false },
                "DECODED" => Self::Query { decoded: true },
                _ => {
                    return Err(format!(
                        "Invalid QUERY_PARAMS option: '{argument}', only 'ORIG'/'DECODED' are allowed"
                    ));
                }
            },
            "PATH" => path(argument, max)?,
            "DYNAMIC_METADATA" => metadata(MetadataOf::Dynamic, required()?, max),
            "CLUSTER_METADATA" => {
                no_length()?;
                metadata(MetadataOf::Cluster, required()?, max)
            }
            "UPSTREAM_METADATA" => {
                no_length()?;
                metadata(MetadataOf::UpstreamHost, required()?, max)
            }
            "METADATA" => {
                let (kind, rest) = required()?.split_once(':').unwrap_or((argument, ""));
                let of = match kind {
                    "DYNAMIC" => MetadataOf::Dynamic,
                    "CLUSTER" => MetadataOf::Cluster,
                    "ROUTE" => MetadataOf::Route,
                    "UPSTREAM_HOST" => MetadataOf::UpstreamHost,
                    "VIRTUAL_HOST" => MetadataOf::VirtualHost,
                    "LISTENER" | "LISTENER_FILTER_CHAIN" => MetadataOf::Nothing,
                    _ => return Err(format!("{kind} is not supported type of metadata")),
                };
                metadata(of, rest, max)
            }
            "FILTER_STATE" => filter_state(argument, max)?,
            // Nothing is left on upstream connections.
            "UPSTREAM_FILTER_STATE" => filter_state(argument, max).map(|_| Self::Missing)?,
            "COALESCE" => coalesce(required()?, options)?,
            "XFCC_VALUE" if argument.is_empty() => return Err("XFCC_VALUE command requires a subcommand".to_owned()),
            "XFCC_VALUE" => Self::Xfcc(
                XfccKey::named(argument.as_bytes())
                    .ok_or_else(|| format!("XFCC_VALUE command does not support subcommand: {argument}"))?,
            ),
            "CEL" | "TYPED_CEL" => return Err(format!("{name} is not supported by Legate: it has no CEL interpreter")),
            _ if is_never_known(name) => alone().map(|()| Self::Missing)?,
            _ => return Err(format!("Not supported field in StreamInfo: {name}")),
        })
    }

    fn text_or_missing(text: &[u8]) -> Self {
        if text.is_empty() { Self::Missing } else { Self::Constant(text.into()) }
    }
}

fn message_named(name: &str) -> Option<Message> {
    match name {
        "REQ" | "REQUEST_HEADER" => Some(Message::Request),
        "RESP" | "RESPONSE_HEADER" => Some(Message::Response),
        "TRAILER" | "RESPONSE_TRAILER" => Some(Message::Trailers),
        _ => None,
    }
}

fn address_named(name: &str) -> Option<(Side, AddressForm)> {
    const SIDES: [(&str, Side); 6] = [
        ("UPSTREAM_LOCAL_", Side::UpstreamLocal),
        ("UPSTREAM_REMOTE_", Side::UpstreamRemote),
        ("DOWNSTREAM_REMOTE_", Side::DownstreamRemote),
        ("DOWNSTREAM_DIRECT_REMOTE_", Side::DownstreamDirectRemote),
        ("DOWNSTREAM_LOCAL_", Side::DownstreamLocal),
        ("DOWNSTREAM_DIRECT_LOCAL_", Side::DownstreamDirectLocal),
    ];
    SIDES.into_iter().find_map(|(prefix, side)| {
        let form = match name.strip_prefix(prefix)? {
            "ADDRESS" => AddressForm::Full,
            "ADDRESS_WITHOUT_PORT" => AddressForm::WithoutPort(None),
            "ADDRESS_ENDPOINT_ID" => AddressForm::EndpointId,
            "PORT" => AddressForm::Port,
            _ => return None,
        };
        Some((side, form))
    })
}

/// `X?Y`: a header and what to print in its absence.
fn headers(argument: &str) -> Result<(Option<HeaderKey>, Option<HeaderKey>), String> {
    let (name, alternative) = argument.split_once('?').unwrap_or((argument, ""));
    if alternative.contains('?') {
        return Err(format!("More than 1 alternative header specified in token: {argument}"));
    }
    let key = |name: &str| match name {
        "" => Ok(None),
        name => HeaderKey::parse(name)
            .map(Some)
            .ok_or_else(|| "Invalid header configuration. Format string contains invalid characters.".to_owned()),
    };
    Ok((key(name)?, key(alternative)?))
}

fn time_format(format: &str, local: bool) -> Result<TimeFormat, String> {
    if format.is_empty() {
        return Ok(TimeFormat::default_for(local));
    }
    let newline = format.split('%').skip(1).any(|directive| {
        let flags = directive.trim_start_matches(['-', '_', '0', '^', '#']);
        flags.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('n')
    });
    if newline {
        return Err("Invalid header configuration. Format string contains newline.".to_owned());
    }
    Ok(TimeFormat::new(format, local))
}

fn interval(argument: &str) -> Result<Command, String> {
    let mut fields = argument.split(':');
    let (Some(from), Some(to), unit, None) = (fields.next(), fields.next(), fields.next(), fields.next()) else {
        return Err(format!("Invalid common duration configuration: {argument}."));
    };
    let unit = match unit {
        None | Some("ms") => Unit::Milliseconds,
        Some("us") => Unit::Microseconds,
        Some("ns") => Unit::Nanoseconds,
        Some(other) => return Err(format!("Invalid common duration precision: {other}.")),
    };
    let moment = |name| match name {
        "DS_RX_BEG" => Moment::DownstreamRxBegin,
        "DS_RX_END" => Moment::DownstreamRxEnd,
        "US_TX_BEG" => Moment::UpstreamTxBegin,
        "US_TX_END" => Moment::UpstreamTxEnd,
        "US_RX_BEG" => Moment::UpstreamRxBegin,
        "US_RX_END" => Moment::UpstreamRxEnd,
        "DS_TX_BEG" => Moment::DownstreamTxBegin,
        "DS_TX_END" => Moment::DownstreamTxEnd,
        _ => Moment::Never,
    };
    Ok(Command::Interval { from: moment(from), to: moment(to), unit })
}

fn server_name(argument: &str) -> Result<Command, String> {
    let (sni, host) = argument.split_once(':').unwrap_or((argument, ""));
    let sni = match sni {
        "" | "SNI_ONLY" => Preference::SniOnly,
        "SNI_FIRST" => Preference::SniFirst,
        "HOST_FIRST" => Preference::HostFirst,
        other => {
            return Err(format!(
                "Invalid REQUESTED_SERVER_NAME option: '{other}', only 'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST' are allowed"
            ));
        }
    };
    let host = match host {
        "" | "ORIG_OR_HOST" => HostSource::OriginalOrCurrent,
        "ORIG" => HostSource::Original,
        "HOST" => HostSource::Current,
        other => {
            return Err(format!(
                "Invalid REQUESTED_SERVER_NAME option: '{other}', only 'ORIG_OR_HOST'/'HOST'/'ORIG' are allowed"
            ));
        }
    };
    Ok(Command::ServerName { sni, host })
}

fn path(argument: &str, max: Option<usize>) -> Result<Command, String> {
    let (query, source) = argument.split_once(':').unwrap_or((argument, ""));
    let query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        other => return Err(format!("Invalid PATH option: '{other}', only 'WQ'/'NQ' are allowed")),
    };
    let source = match source {
        "" | "ORIG_OR_PATH" => PathSource::OriginalOrCurrent,
        "ORIG" => PathSource::Original,
        "PATH" => PathSource::Current,
        other => {
            return Err(format!("Invalid PATH option: '{other}', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed"));
        }
    };
    Ok(Command::Path { query, source, max })
}

fn metadata(of: MetadataOf, argument: &str, max: Option<usize>) -> Command {
    let mut fields = argument.split(':');
    let namespace = fields.next().unwrap_or_default().into();
    Command::Metadata { of, namespace, path: fields.map(Into::into).collect(), max }
}

/// `key[:PLAIN|TYPED|FIELD:name]`
fn filter_state(argument: &str, max: Option<usize>) -> Result<Command, String> {
    let mut fields = argument.split(':');
    let key = fields.next().unwrap_or_default();
    if key.is_empty() {
        return Err("Invalid filter state configuration, key cannot be empty.".to_owned());
    }
    let of = |form| Ok(Command::FilterState { key: key.into(), form, max });
    let (form, field, more) = (fields.next(), fields.next(), fields.next());
    match form {
        Some("TYPED") | None if field.is_none() => of(StateForm::Typed),
        Some("PLAIN") if field.is_none() => of(StateForm::Plain),
        Some("FIELD") if more.is_none() && field.is_some_and(|name| !name.is_empty()) => of(StateForm::Field),
        Some("PLAIN" | "TYPED" | "FIELD") | None => {
            Err("Invalid filter state serialize type, FIELD should be used with the field name.".to_owned())
        }
        Some(_) => Err("Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.".to_owned()),
    }
}

/// `{"operators": ["NAME", {"command": "NAME", "param": "…", "max_length": 3}, …]}`
fn coalesce(argument: &str, options: &FormatOptions) -> Result<Command, String> {
    use serde_json::Value;
    let config: Value = serde_json::from_str(argument).map_err(|error| {
        format!("COALESCE: failed to parse JSON configuration: JSON supplied is not valid. {error}")
    })?;
    let Some(Value::Array(operators)) = config.get("operators") else {
        return Err("COALESCE: JSON configuration must contain 'operators' array".to_owned());
    };
    if operators.is_empty() {
        return Err("COALESCE: 'operators' array must not be empty".to_owned());
    }
    let command = |operator: &Value| match operator {
        Value::String(name) => Command::parse(name, None, None, options),
        Value::Object(fields) => {
            let text = |key: &str| fields.get(key).and_then(Value::as_str);
            let name = text("command").ok_or("COALESCE: an operator must have a 'command'")?;
            let max = fields.get("max_length").and_then(Value::as_u64).map(|max| max as usize);
            Command::parse(name, text("param"), max, options)
        }
        _ => Err("COALESCE: an operator must be a string or an object".to_owned()),
    };
    Ok(Command::FirstOf(operators.iter().map(command).collect::<Result<_, _>>()?))
}

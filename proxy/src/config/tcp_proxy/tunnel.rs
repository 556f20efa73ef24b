//! `tunneling_config`: connections carried over HTTP, as the body of a CONNECT or a POST.

use bytes::Bytes;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::RequestIdExtension;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::TunnelingConfig;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use filters::config::{At, ConfigError};
use filters::format::parse_header_value;
use filters::http::HeaderName;
use filters::ledger;
use filters::mutation::{Fields, HeaderMutations, Template};

use crate::config::any;

/// How an upstream is asked for a tunnel.
#[derive(Debug)]
pub struct Tunneling {
    /// The authority, made for every connection. A value that is missing stands as `-`.
    pub hostname: Template,
    /// The path of a POST; `None` asks by CONNECT.
    pub post_path: Option<Bytes>,
    /// `headers_to_add`
    pub headers: HeaderMutations,
    /// The response's head is kept in the connection's filter state.
    pub propagate_headers: bool,
    /// The response's trailers are kept there.
    pub propagate_trailers: bool,
    /// The request is given an id.
    pub request_id: Option<RequestId>,
}

/// The id of a tunnel's request.
#[derive(Debug)]
pub struct RequestId {
    /// The header it stands in.
    pub header: HeaderName,
    /// Its name among the connection's dynamic metadata.
    pub metadata_key: Box<str>,
}

ledger! {
    /// What a tunnel may say that Legate does not do.
    pub mod unsupported for "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TunnelingConfig" {
        formatters => Refuse, "no formatter extensions are here, headers would lack their values";
    }
}

impl Tunneling {
    /// Parses the message.
    ///
    /// # Errors
    /// The first thing wrong with it.
    pub fn parse(at: &At<'_>, proto: TunnelingConfig) -> Result<Self, ConfigError> {
        let TunnelingConfig {
            hostname,
            use_post,
            headers_to_add,
            propagate_response_headers,
            post_path,
            propagate_response_trailers,
            request_id_extension,
            request_id_header,
            request_id_metadata_key,
            formatters,
        } = proto;
        at.unsupported(&unsupported::formatters, &formatters)?;
        if hostname.is_empty() {
            return Err(at.field("hostname").error("value length must be at least 1 characters"));
        }
        if !use_post && !post_path.is_empty() {
            return Err(at.field("post_path").error("Can't set a post path when POST method isn't used"));
        }
        let post_path =
            use_post.then(|| if post_path.is_empty() { Bytes::from_static(b"/") } else { post_path.into() });
        let fields = Fields { add: "headers_to_add", remove: "" };
        Ok(Self {
            hostname: Template::parse(&hostname, parse_header_value)
                .map_err(|error| at.field("hostname").error(error))?,
            post_path,
            headers: HeaderMutations::parse(headers_to_add, Vec::new(), *at, fields, parse_header_value)?,
            propagate_headers: propagate_response_headers,
            propagate_trailers: propagate_response_trailers,
            request_id: request_id(at, request_id_extension, &request_id_header, request_id_metadata_key)?,
        })
    }
}

fn request_id(
    at: &At<'_>,
    extension: Option<RequestIdExtension>,
    header: &str,
    metadata_key: String,
) -> Result<Option<RequestId>, ConfigError> {
    let Some(RequestIdExtension { typed_config: Some(typed) }) = extension else { return Ok(None) };
    let here = at.field("request_id_extension");
    let typed = any::unwrap(&here, typed, any::struct_to_bytes)?;
    match typed.type_name() {
        "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig" => {
            // Both options are about traces, and a tunnel has none.
            let UuidRequestIdConfig { pack_trace_reason: _, use_request_id_for_trace_sampling: _ } =
                typed.decode(&here)?;
        }
        other => return Err(here.error(format_args!("Didn't find a registered implementation for type: '{other}'"))),
    }
    let header = if header.is_empty() { "x-request-id" } else { header };
    let header = HeaderName::parse(header.as_bytes())
        .ok_or_else(|| at.field("request_id_header").error(format_args!("'{header}' is not a header name")))?;
    let metadata_key = if metadata_key.is_empty() { "tunnel_request_id".to_owned() } else { metadata_key };
    Ok(Some(RequestId { header, metadata_key: metadata_key.into() }))
}

#[cfg(test)]
mod tests {
    use filters::config::Session;

    use super::*;

    fn parse(proto: TunnelingConfig) -> Result<Tunneling, String> {
        Tunneling::parse(&Session::default().root(), proto).map_err(|error| error.to_string())
    }

    fn base() -> TunnelingConfig {
        TunnelingConfig { hostname: "h:1".into(), ..TunnelingConfig::default() }
    }

    #[test]
    fn a_post_has_a_path() {
        assert_eq!(parse(base()).unwrap().post_path, None);
        let post = TunnelingConfig { use_post: true, ..base() };
        assert_eq!(parse(post.clone()).unwrap().post_path.as_deref(), Some(&b"/"[..]));
        let to = TunnelingConfig { post_path: "/x".into(), ..post };
        assert_eq!(parse(to).unwrap().post_path.as_deref(), Some(&b"/x"[..]));
    }

    #[test]
    fn what_envoy_rejects_is_rejected() {
        for (proto, expected) in [
            (TunnelingConfig::default(), "hostname: value length must be at least 1"),
            (TunnelingConfig { post_path: "/x".into(), ..base() }, "post_path: Can't set a post path"),
            (TunnelingConfig { hostname: "%NONE%".into(), ..base() }, "hostname: "),
            (
                TunnelingConfig {
                    request_id_extension: Some(RequestIdExtension {
                        typed_config: Some(envoy_types::pb::google::protobuf::Any {
                            type_url: "type.googleapis.com/a.B".into(),
                            value: Vec::new(),
                        }),
                    }),
                    ..base()
                },
                "request_id_extension: Didn't find a registered implementation for type: 'a.B'",
            ),
        ] {
            let error = parse(proto).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}

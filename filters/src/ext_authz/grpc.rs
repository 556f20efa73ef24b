//! What the service says by `CheckResponse`.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;

use super::check::to_object;
use super::decision::{Changes, Decided, Decision, Pair, Refusal};

/// The method that is called.
pub(super) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The status of a refusal that names none.
const FORBIDDEN: u16 = 403;

/// What a response decides.
pub(super) fn decision(response: CheckResponse) -> Decision {
    let CheckResponse { status, dynamic_metadata, http_response } = response;
    let mut decision = Decision::default();
    let passes = status.is_none_or(|status| status.code == 0);
    let mut metadata = dynamic_metadata;
    decision.verdict = match http_response {
        Some(HttpResponse::OkResponse(ok)) => {
            let (changes, own) = changes(ok, &mut decision.unknown_action);
            metadata = own.or(metadata);
            if passes { Decided::Passes(Box::new(changes)) } else { forbidden() }
        }
        Some(HttpResponse::DeniedResponse(denied)) if !passes => {
            let refusal = refusal(denied);
            Decided::Refused(Refusal { status: refusal.status.or(Some(FORBIDDEN)), ..refusal })
        }
        Some(HttpResponse::ErrorResponse(error)) if !passes => Decided::Failed(Some(refusal(error))),
        _ if passes => Decided::Passes(Box::default()),
        _ => forbidden(),
    };
    decision.metadata = metadata.map(to_object).unwrap_or_default();
    decision
}

fn forbidden() -> Decided {
    Decided::Refused(Refusal { status: Some(FORBIDDEN), ..Refusal::default() })
}

fn refusal(denied: DeniedHttpResponse) -> Refusal {
    let DeniedHttpResponse { status, headers, body } = denied;
    let status = status.map(|HttpStatus { code }| code).filter(|code| *code > 0);
    Refusal {
        status: status.and_then(|code| u16::try_from(code).ok()),
        headers: headers.into_iter().filter(|option| !appends(option)).filter_map(pair).collect(),
        body: body.into(),
    }
}

#[expect(deprecated, reason = "services still say it this way")]
fn changes(
    ok: OkHttpResponse,
    unknown_action: &mut bool,
) -> (Changes, Option<envoy_types::pb::google::protobuf::Struct>) {
    let OkHttpResponse {
        headers,
        headers_to_remove,
        dynamic_metadata,
        response_headers_to_add,
        query_parameters_to_set,
        query_parameters_to_remove,
    } = ok;
    let mut changes = Changes {
        remove: headers_to_remove,
        query_set: query_parameters_to_set.into_iter().map(|it| (it.key, it.value)).collect(),
        query_remove: query_parameters_to_remove,
        ..Changes::default()
    };
    for option in headers {
        let list = if appends(&option) { &mut changes.append } else { &mut changes.set };
        list.extend(pair(option));
    }
    let response = &mut changes.response;
    for option in response_headers_to_add {
        let action = match &option.append {
            Some(append) if append.value => Ok(HeaderAppendAction::AppendIfExistsOrAdd),
            Some(_) => Ok(HeaderAppendAction::OverwriteIfExistsOrAdd),
            None => HeaderAppendAction::try_from(option.append_action),
        };
        let list = match action {
            Ok(HeaderAppendAction::AppendIfExistsOrAdd) => &mut response.add,
            Ok(HeaderAppendAction::AddIfAbsent) => &mut response.add_if_absent,
            Ok(HeaderAppendAction::OverwriteIfExists) => &mut response.overwrite,
            Ok(HeaderAppendAction::OverwriteIfExistsOrAdd) => &mut response.set,
            Err(_) => {
                *unknown_action = true;
                continue;
            }
        };
        list.extend(pair(option));
    }
    (changes, dynamic_metadata)
}

/// Whether a header is one more of its name.
#[expect(deprecated, reason = "services still say it this way")]
fn appends(option: &HeaderValueOption) -> bool {
    option.append.is_some_and(|append| append.value)
}

fn pair(option: HeaderValueOption) -> Option<Pair> {
    let header = option.header?;
    Some((header.key, Bytes::from(header.value)))
}

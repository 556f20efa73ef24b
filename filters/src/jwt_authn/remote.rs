//! Keys that a cluster has: how to ask for them, and how long they are good for.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{HttpUri, RetryPolicy, http_uri::HttpUpstreamType};
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as proto;

use super::ahead::Ahead;
use super::config::{CACHED_KEYS, ParseContext};
use super::failure::Failure;
use super::jwks::Jwks;
use crate::call::{Answer, Question, Service, Unanswered};
use crate::config::duration::duration;
use crate::config::{At, ConfigError};
use crate::http::{Headers, Known, Method, RequestHead, Scheme};

/// `RemoteJwks`
#[derive(Debug)]
pub struct RemoteJwks {
    /// Whom to ask.
    pub service: Service,
    head: RequestHead,
    /// How long the keys are good for.
    pub cache: Duration,
    /// How they are fetched before anybody needs them; `None`: the first who does fetches them.
    pub ahead: Option<Ahead>,
}

/// When fetching is tried again, where it is.
const RETRY_ON: &str = "5xx,gateway-error,connect-failure,reset";

impl RemoteJwks {
    pub(super) fn parse(
        provider: &str,
        proto: proto::RemoteJwks,
        at: &At<'_>,
        context: ParseContext<'_>,
    ) -> Result<Self, ConfigError> {
        let proto::RemoteJwks { http_uri, cache_duration, async_fetch, retry_policy } = proto;
        let HttpUri { uri, timeout, http_upstream_type } = at.required("http_uri", http_uri)?;
        let here = at.field("http_uri");
        let Some(HttpUpstreamType::Cluster(cluster)) = http_upstream_type else {
            return Err(here.field("cluster").error("value is required"));
        };
        let head =
            head(&uri).ok_or_else(|| here.error(format_args!("Provider '{provider}' has an invalid URI: '{uri}'")))?;
        let cache = cache_duration.map(|it| duration(&at.field("cache_duration"), &it)).transpose()?;
        // Fractions of a second do not count.
        let cache = cache.map_or(CACHED_KEYS, |cache| Duration::from_secs(cache.as_secs()));
        let ahead = async_fetch.map(|it| Ahead::parse(&it, cache, &at.field("async_fetch"))).transpose()?;
        let retry = retry_policy.map(|policy| {
            let here = at.field("retry_policy");
            if !policy.retry_on.is_empty() {
                here.field("retry_on").warn(
                    "envoy.extensions.filters.http.jwt_authn.v3.RemoteJwks.retry_policy.retry_on",
                    format!("fetching keys is tried again on {RETRY_ON}, whatever this says, as by Envoy"),
                );
            }
            let policy = RetryPolicy { retry_on: String::new(), ..policy };
            (context.retry)(policy, RETRY_ON, here, context.limits)
        });
        let timeout = duration(&here.field("timeout"), &here.required("timeout", timeout)?)?;
        Ok(Self {
            service: Service {
                cluster: cluster.into(),
                timeout: Some(timeout).filter(|timeout| !timeout.is_zero()),
                retry: retry.transpose()?,
                signed: true,
            },
            head,
            cache,
            ahead,
        })
    }

    /// What to ask.
    #[must_use]
    pub fn question(&self) -> Question {
        Question { head: self.head.clone(), ..Question::default() }
    }

    /// The keys in an answer.
    ///
    /// # Errors
    /// When there are none.
    pub fn keys(answer: Result<Answer, Unanswered>) -> Result<Arc<Jwks>, Failure> {
        match answer {
            Ok(Answer { head, body, .. }) if head.status == 200 && !body.is_empty() => {
                Jwks::parse(&body).map(Arc::new).map_err(|_| Failure::JwksFetchFails)
            }
            Ok(_) | Err(_) => Err(Failure::JwksFetchFails),
        }
    }
}

/// The head of a request for an absolute URI.
fn head(uri: &str) -> Option<RequestHead> {
    let parsed: http::Uri = uri.parse().ok()?;
    let scheme = match parsed.scheme_str()? {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let mut headers = Headers::new();
    // Providers of keys that look at who asks know Envoy by it.
    headers.append(Known::UserAgent, "Go-browser");
    Some(RequestHead {
        headers,
        method: Method::Get,
        scheme,
        authority: parsed.authority()?.as_str().to_owned().into(),
        path: parsed.path_and_query().map_or("/", |path| path.as_str()).to_owned().into(),
        ..RequestHead::default()
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::http::ResponseHead;

    #[test]
    fn where_to_ask() {
        for (uri, expected) in [
            ("http://jw.ks:81/k?a=b", Some((Scheme::Http, "jw.ks:81", "/k?a=b"))),
            ("https://jw.ks", Some((Scheme::Https, "jw.ks", "/"))),
            ("jw.ks/k", None),
            ("ftp://jw.ks/k", None),
            ("http://", None),
            ("", None),
        ] {
            let head = head(uri);
            let found = head.as_ref().map(|head| (head.scheme, &head.authority[..], &head.path[..]));
            assert_eq!(found, expected.map(|(scheme, host, path)| (scheme, host.as_bytes(), path.as_bytes())), "{uri}");
        }
    }

    #[test]
    fn answers_without_keys() {
        let answer = |status, body: &'static str| {
            let head = ResponseHead { status, ..ResponseHead::default() };
            RemoteJwks::keys(Ok(Answer { head, body: Bytes::from(body), trailers: None }))
        };
        let good = r#"{"keys": [{"kty": "oct", "k": "YWJj"}]}"#;
        assert!(answer(200, good).is_ok());
        assert!(answer(201, good).is_err());
        assert!(answer(200, "").is_err());
        assert!(answer(200, "{}").is_err());
        assert!(RemoteJwks::keys(Err(Unanswered::NoCluster)).is_err());
    }
}

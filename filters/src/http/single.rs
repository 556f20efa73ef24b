//! Fields that are one field however many lines they come in: as in Envoy, the lines are joined with commas.
//!
//! Which fields these are is observable: an upstream sees `via: a,b` for two lines and two lines of `accept-language`.

use super::{HeaderName, Headers, Known};

/// A set of known names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldSet(u128);

const _: () = assert!(Known::ALL.len() <= u128::BITS as usize, "a known name is a bit");

impl FieldSet {
    /// No name.
    const EMPTY: Self = Self(0);

    const fn of(names: &[Known]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < names.len() {
            bits |= 1 << names[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Whether a name is in the set.
    #[must_use]
    pub const fn contains(self, name: Known) -> bool {
        self.0 & (1 << name as u8) != 0
    }
}

/// The fields of a request that are one.
pub const SINGLE_IN_REQUESTS: FieldSet = FieldSet::of(&[
    Known::Accept,
    Known::AcceptEncoding,
    Known::AccessControlRequestHeaders,
    Known::AccessControlRequestMethod,
    Known::Authorization,
    Known::CacheControl,
    Known::ContentEncoding,
    Known::ContentType,
    Known::Expect,
    Known::GrpcAcceptEncoding,
    Known::GrpcTimeout,
    Known::IfMatch,
    Known::IfModifiedSince,
    Known::IfNoneMatch,
    Known::IfRange,
    Known::IfUnmodifiedSince,
    Known::Origin,
    Known::Pragma,
    Known::ProxyStatus,
    Known::Referer,
    Known::Te,
    Known::UserAgent,
    Known::Via,
    Known::XClientTraceId,
    Known::XEnvoyAttemptCount,
    Known::XEnvoyDecoratorOperation,
    Known::XEnvoyDownstreamServiceCluster,
    Known::XEnvoyDownstreamServiceNode,
    Known::XEnvoyExpectedRqTimeoutMs,
    Known::XEnvoyExternalAddress,
    Known::XEnvoyForceTrace,
    Known::XEnvoyHedgeOnPerTryTimeout,
    Known::XEnvoyIpTags,
    Known::XEnvoyIsTimeoutRetry,
    Known::XEnvoyMaxRetries,
    Known::XEnvoyOriginalHost,
    Known::XEnvoyOriginalPath,
    Known::XEnvoyOriginalUrl,
    Known::XEnvoyRetriableHeaderNames,
    Known::XEnvoyRetriableStatusCodes,
    Known::XEnvoyRetryGrpcOn,
    Known::XEnvoyRetryOn,
    Known::XEnvoyUpstreamAltStatName,
    Known::XEnvoyUpstreamRqPerTryTimeoutMs,
    Known::XEnvoyUpstreamRqTimeoutAltResponse,
    Known::XEnvoyUpstreamRqTimeoutMs,
    Known::XEnvoyUpstreamStreamDurationMs,
    Known::XForwardedClientCert,
    Known::XForwardedFor,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::XForwardedProto,
    Known::XRequestId,
]);

/// The fields of a response that are one.
pub const SINGLE_IN_RESPONSES: FieldSet = FieldSet::of(&[
    Known::AccessControlAllowCredentials,
    Known::AccessControlAllowHeaders,
    Known::AccessControlAllowMethods,
    Known::AccessControlAllowOrigin,
    Known::AccessControlExposeHeaders,
    Known::AccessControlMaxAge,
    Known::Age,
    Known::CacheControl,
    Known::ContentEncoding,
    Known::ContentType,
    Known::Date,
    Known::Etag,
    Known::Expires,
    Known::GrpcMessage,
    Known::GrpcStatus,
    Known::LastModified,
    Known::Location,
    Known::ProxyStatus,
    Known::Server,
    Known::Vary,
    Known::Via,
    Known::XEnvoyAttemptCount,
    Known::XEnvoyDecoratorOperation,
    Known::XEnvoyDegraded,
    Known::XEnvoyImmediateHealthCheckFail,
    Known::XEnvoyRateLimited,
    Known::XEnvoyUpstreamCanary,
    Known::XEnvoyUpstreamHealthcheckedCluster,
    Known::XRequestId,
]);

/// Which fields of a set came in several lines, found while a head is gone through for other reasons.
#[derive(Debug)]
pub struct Repeats {
    set: FieldSet,
    seen: FieldSet,
    repeated: FieldSet,
}

impl Repeats {
    /// Nothing seen yet.
    #[must_use]
    pub const fn of(set: FieldSet) -> Self {
        Self { set, seen: FieldSet::EMPTY, repeated: FieldSet::EMPTY }
    }

    /// Takes note of a header.
    #[inline]
    pub fn note(&mut self, name: &HeaderName) {
        if let Some(known) = name.known() {
            let bit = 1 << known as u8 & self.set.0;
            self.repeated.0 |= self.seen.0 & bit;
            self.seen.0 |= bit;
        }
    }

    /// Makes one line of each repeated field that is still there, where its first line is.
    pub fn join(&self, headers: &mut Headers) {
        if self.repeated == FieldSet::EMPTY {
            return;
        }
        for name in Known::ALL.iter().filter(|name| self.repeated.contains(**name)) {
            if !headers.contains(name) {
                continue;
            }
            let mut joined = Vec::new();
            for value in headers.values(name).filter(|value| !value.is_empty()) {
                if !joined.is_empty() {
                    joined.push(b',');
                }
                joined.extend_from_slice(value);
            }
            headers.set(*name, joined);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_field_are_joined_where_the_first_is() {
        let mut headers = Headers::new();
        for (name, value) in [
            (Known::Via, "a"),
            (Known::AcceptLanguage, "x"),
            (Known::UserAgent, ""),
            (Known::Via, "b"),
            (Known::AcceptLanguage, "y"),
            (Known::Via, ""),
            (Known::UserAgent, "u"),
            (Known::Te, "a"),
            (Known::Te, "b"),
        ] {
            headers.append(name, value);
        }
        let mut repeats = Repeats::of(SINGLE_IN_REQUESTS);
        headers.iter().for_each(|header| repeats.note(&header.name));
        headers.remove(&Known::Te);
        repeats.join(&mut headers);
        let shown = headers.iter().map(|h| format!("{}={}", h.name.as_str(), h.value.escape_ascii()));
        let shown = shown.collect::<Vec<_>>().join(" ");
        assert_eq!(shown, "via=a,b accept-language=x user-agent=u accept-language=y");
    }

    #[test]
    fn each_side_has_its_own_fields() {
        assert!(SINGLE_IN_REQUESTS.contains(Known::UserAgent) && !SINGLE_IN_RESPONSES.contains(Known::UserAgent));
        assert!(SINGLE_IN_RESPONSES.contains(Known::Vary) && !SINGLE_IN_REQUESTS.contains(Known::Vary));
        assert!(!SINGLE_IN_RESPONSES.contains(Known::SetCookie) && !SINGLE_IN_REQUESTS.contains(Known::Cookie));
    }
}

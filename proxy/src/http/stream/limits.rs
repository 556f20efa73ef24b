//! How long a request may take: its route's limits as trusted headers and `grpc-timeout` change them, and what of that the
//! upstream is told.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use filters::call::grpc::timeout_text;
use filters::flags::{ResponseFlags, details};
use filters::http::{Headers, Known};

use super::deadline::TryLimits;
use super::{Downstream, Step, Stream};
use crate::http::reply::LocalReply;
use crate::route::ForwardAction;
use crate::route::policy::GrpcTimeoutTarget;
use crate::route::retry::RetryOn;

/// What a timeout header may ask for at most: `grpc-timeout` has eight digits.
const MAX_GRPC_TIMEOUT: u64 = 99_999_999;

impl<D: Downstream> Stream<'_, D> {
    /// Sets the deadlines that follow from the route and the request, and takes the headers out that asked for them.
    pub(super) fn set_time_limits(&mut self, forward: &ForwardAction) {
        let timers = Rc::clone(self.manager.worker.timers());
        let router = self.manager.config.router();
        let Some(head) = &mut self.request else { return };
        let limits = &forward.timeouts;

        let of_manager = self.manager.config.timeouts.max_stream_duration;
        let bounded = limits.max_stream_duration.or(of_manager);
        let grpc = (limits.grpc.is_some() || bounded.is_some()) && head.is_grpc();
        let wanted = if grpc { head.headers.value(&Known::GrpcTimeout).and_then(|v| grpc_timeout(v)) } else { None };
        let duration = match (&limits.grpc, wanted) {
            (Some(rule), Some(wanted)) if rule.target == GrpcTimeoutTarget::StreamDuration => {
                Some(rule.stream_duration(wanted))
            }
            _ => bounded.filter(|limit| !limit.is_zero()),
        };
        if let Some(duration) = duration
            && grpc
        {
            head.headers.set(Known::GrpcTimeout, timeout_text(duration));
        }

        let grpc_response = limits.grpc.as_ref().filter(|rule| grpc && rule.target == GrpcTimeoutTarget::Response);
        let mut response = match grpc_response {
            Some(rule) => rule.response(wanted),
            None => limits.response,
        };
        let cluster = self.cluster.as_ref();
        let retry = cluster.and_then(|cluster| forward.retry_on(cluster.config()));
        let mut per_try = retry.and_then(|retry| retry.per_try_timeout);
        let mut of_upstream = cluster.and_then(|cluster| cluster.config().http.common.max_stream_duration);
        self.hedges = forward.hedge_on_per_try_timeout;
        if asks(&head.headers) {
            let asked = Asked::take(&mut head.headers, router.respect_expected_rq_timeout);
            response = asked.response.or(response);
            per_try = asked.per_try.or(per_try);
            of_upstream = asked.upstream_duration.or(of_upstream);
            self.hedges = asked.hedges.unwrap_or(self.hedges);
            self.timeout_status = if asked.alternative { 204 } else { 504 };
        }
        let response = response.filter(|limit| !limit.is_zero());
        // A try's limit that is no tighter than the whole response's is none.
        let per_try = per_try.filter(|limit| !limit.is_zero() && response.is_none_or(|response| *limit < response));

        let expected = per_try.filter(|_| !self.hedges).or(response);
        if let Some(limit) = expected {
            tell_time_limit(&mut head.headers, limit, router.suppress_envoy_headers, grpc_response.is_some());
        }

        self.deadlines.set_route(response);
        self.deadlines.set_try_limits(TryLimits {
            response: per_try,
            idle: retry.and_then(|retry| retry.per_try_idle_timeout),
            duration: of_upstream,
        });
        if let Some(idle) = limits.idle {
            self.deadlines.set_idle(timers.recent(), Some(idle));
        }
        self.deadlines.set_max_duration(timers.tick(self.info.start), duration);
        if self.down.request_complete() {
            self.info.timing.last_downstream_rx.get_or_insert_with(|| timers.recent_instant());
            self.deadlines.request_complete(&timers);
        }
    }

    /// The router's `strict_check_headers`: a request whose header says nothing sensible is refused.
    pub(super) async fn check_strictly(&mut self) -> Step<()> {
        let strict = &self.manager.config.router().strict_check_headers;
        let Some(head) = self.request.as_ref().filter(|_| !strict.is_empty()) else { return Ok(()) };
        let bad = strict.iter().find_map(|name| {
            let value = head.headers.value(name)?;
            (!is_sensible(name.known(), value)).then_some((name, value))
        });
        let Some((name, value)) = bad else { return Ok(()) };
        let name = String::from_utf8_lossy(name.as_bytes());
        let body = [b"invalid header '", name.as_bytes(), b"' with value '", value, b"'"].concat();
        let why = format!("{}{{{name}}}", details::REQUEST_HEADERS_FAILED_STRICT_CHECK);
        self.info.flags.insert(ResponseFlags::INVALID_ENVOY_REQUEST_HEADERS);
        self.reply_end(LocalReply::new(400, body), why).await
    }
}

/// Tells the upstream how long it has, unless that is not to be told; to gRPC in its own words too.
pub(super) fn tell_time_limit(headers: &mut Headers, limit: Duration, suppress: bool, grpc: bool) {
    if !suppress {
        let mut text = itoa::Buffer::new();
        let text = Bytes::copy_from_slice(text.format(limit.as_millis()).as_bytes());
        headers.set(Known::XEnvoyExpectedRqTimeoutMs, text);
    }
    if grpc {
        headers.set(Known::GrpcTimeout, timeout_text(limit));
    }
}

/// What a request asks of the router in headers only trusted clients may send.
#[derive(Debug, PartialEq, Eq, Default)]
struct Asked {
    response: Option<Duration>,
    per_try: Option<Duration>,
    upstream_duration: Option<Duration>,
    /// A timeout is answered with 204.
    alternative: bool,
    hedges: Option<bool>,
}

impl Asked {
    /// Reads the headers and removes them; with `respect_expected`, what an Envoy before this one set comes first.
    fn take(headers: &mut Headers, respect_expected: bool) -> Self {
        let milliseconds = |name| headers.value(&name).and_then(|value| number(value)).map(Duration::from_millis);
        let expected = respect_expected && headers.contains(&Known::XEnvoyExpectedRqTimeoutMs);
        let response = if expected { Known::XEnvoyExpectedRqTimeoutMs } else { Known::XEnvoyUpstreamRqTimeoutMs };
        let hedges = headers.value(&Known::XEnvoyHedgeOnPerTryTimeout);
        let asked = Self {
            response: milliseconds(response),
            per_try: milliseconds(Known::XEnvoyUpstreamRqPerTryTimeoutMs),
            upstream_duration: milliseconds(Known::XEnvoyUpstreamStreamDurationMs),
            alternative: headers.contains(&Known::XEnvoyUpstreamRqTimeoutAltResponse),
            hedges: hedges.and_then(|value| match &value[..] {
                b"true" => Some(true),
                b"false" => Some(false),
                _ => None,
            }),
        };
        headers.retain(|header| match header.name.known() {
            Some(Known::XEnvoyUpstreamRqTimeoutMs) => expected,
            // What asks for retries is looked at when the route has changed the headers.
            Some(known) => super::retry::is_about_retries(known) || !is_request_to_router(known),
            None => true,
        });
        asked
    }
}

/// Whether any header concerns the router: almost never, so one look decides.
fn asks(headers: &Headers) -> bool {
    headers.iter().any(|header| {
        header
            .name
            .known()
            .is_some_and(|known| is_request_to_router(known) || known == Known::XEnvoyExpectedRqTimeoutMs)
    })
}

/// Headers that speak to the router and go no further.
const fn is_request_to_router(known: Known) -> bool {
    matches!(
        known,
        Known::XEnvoyUpstreamRqTimeoutMs
            | Known::XEnvoyUpstreamRqPerTryTimeoutMs
            | Known::XEnvoyUpstreamRqTimeoutAltResponse
            | Known::XEnvoyUpstreamStreamDurationMs
            | Known::XEnvoyUpstreamAltStatName
            | Known::XEnvoyHedgeOnPerTryTimeout
            | Known::XEnvoyMaxRetries
            | Known::XEnvoyRetriableHeaderNames
            | Known::XEnvoyRetriableStatusCodes
            | Known::XEnvoyRetryGrpcOn
            | Known::XEnvoyRetryOn
    )
}

/// Whether a header of `strict_check_headers` can be understood; configuration names no others.
fn is_sensible(name: Option<Known>, value: &[u8]) -> bool {
    let conditions = |grpc| std::str::from_utf8(value).is_ok_and(|list| RetryOn::is_valid_header(list, grpc));
    match name {
        Some(Known::XEnvoyRetryOn) => conditions(false),
        Some(Known::XEnvoyRetryGrpcOn) => conditions(true),
        _ => number(value).is_some(),
    }
}

/// A whole number, as Envoy reads one: white space and a plus sign may stand before it.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    let digits = digits.strip_prefix(b"+").unwrap_or(digits);
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A `grpc-timeout` value: at most eight digits and a unit; rounded up to milliseconds.
pub(super) fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let n = number(digits).filter(|n| *n <= MAX_GRPC_TIMEOUT)?;
    let nanos: u128 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    let millis = (u128::from(n) * nanos).div_ceil(1_000_000);
    Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_as_the_protocol_defines_them() {
        for (text, expected) in [
            ("1S", Some(1000)),
            ("250m", Some(250)),
            ("1u", Some(1)),
            ("12345678n", Some(13)),
            ("2H", Some(7_200_000)),
            ("99999999H", Some(359_999_996_400_000)),
            ("1 S", Some(1000)),
            ("0m", Some(0)),
            ("123456789S", None),
            ("-1S", None),
            ("5", None),
            ("S", None),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(grpc_timeout(text.as_bytes()), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn grpc_timeouts_are_written_in_the_finest_unit_that_fits() {
        for (millis, expected) in [
            (0, "0m"),
            (2000, "2000m"),
            (99_999_999, "99999999m"),
            (100_000_000, "100000S"),
            (100_000_000_000, "1666666M"),
            (u64::MAX, "99999999H"),
        ] {
            assert_eq!(timeout_text(Duration::from_millis(millis)), expected, "{millis}");
        }
    }

    #[test]
    fn what_a_request_asks_is_taken_out_of_it() {
        let all = [
            (Known::XEnvoyUpstreamRqTimeoutMs, "70"),
            (Known::XEnvoyUpstreamRqPerTryTimeoutMs, "x"),
            (Known::XEnvoyUpstreamRqTimeoutAltResponse, "1"),
            (Known::XEnvoyHedgeOnPerTryTimeout, "true"),
            (Known::XEnvoyRetryOn, "5xx"),
            (Known::XRequestId, "a"),
        ];
        let headers = || {
            let mut headers = Headers::default();
            for (name, value) in all {
                headers.append(name, value);
            }
            headers
        };
        let mut plain = headers();
        assert!(asks(&plain));
        let asked = Asked::take(&mut plain, true);
        let expected = Asked {
            response: Some(Duration::from_millis(70)),
            alternative: true,
            hedges: Some(true),
            ..Asked::default()
        };
        assert_eq!(asked, expected);
        assert_eq!(plain.iter().count(), 2, "{plain:?}");
        assert!(plain.contains(&Known::XEnvoyRetryOn), "the retries have not looked at it yet");
        let mut told = headers();
        told.append(Known::XEnvoyExpectedRqTimeoutMs, "30");
        assert_eq!(Asked::take(&mut told, true).response, Some(Duration::from_millis(30)));
        assert!(told.contains(&Known::XEnvoyUpstreamRqTimeoutMs), "it was not looked at");
        let mut told = headers();
        told.append(Known::XEnvoyExpectedRqTimeoutMs, "30");
        assert_eq!(Asked::take(&mut told, false).response, Some(Duration::from_millis(70)));
    }

    #[test]
    fn strict_checks_know_what_each_header_may_say() {
        for (name, value, sensible) in [
            (Known::XEnvoyUpstreamRqTimeoutMs, "12", true),
            (Known::XEnvoyUpstreamRqTimeoutMs, "abc", false),
            (Known::XEnvoyMaxRetries, "-1", false),
            (Known::XEnvoyRetryOn, "5xx,reset", true),
            (Known::XEnvoyRetryOn, "5xx,foo", false),
            (Known::XEnvoyRetryOn, "cancelled", false),
            (Known::XEnvoyRetryGrpcOn, "cancelled", true),
        ] {
            assert_eq!(is_sensible(Some(name), value.as_bytes()), sensible, "{name:?}: {value}");
        }
    }
}

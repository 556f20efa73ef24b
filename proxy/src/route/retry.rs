//! `RetryPolicy`: which tries are followed by another, when, and on which host.

use std::time::Duration;

use filters::http::HeaderName;
use filters::matcher::HeaderMatcher;

use crate::upstream::host::{Host, Metadata};

/// When and how a request is sent again.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Conditions.
    pub on: RetryOn,
    /// How often at most, beyond the first attempt.
    pub num_retries: u32,
    /// One attempt's time limit; `None` is the whole request's.
    pub per_try_timeout: Option<Duration>,
    /// One attempt's limit without upstream data.
    pub per_try_idle_timeout: Option<Duration>,
    /// Hosts that a retry should not go to; one that says so is enough.
    pub host_predicates: Box<[HostPredicate]>,
    /// How often another host is looked for when a predicate rejects one.
    pub host_selection_retry_max_attempts: u32,
    /// After how many attempts the priorities tried so far are left out, and again after as many more
    /// (`previous_priorities`); `None` leaves priorities alone.
    pub previous_priorities: Option<u32>,
    /// Statuses for [`RetryOn::RETRIABLE_STATUS_CODES`].
    pub retriable_status_codes: Box<[u16]>,
    /// Response headers for [`RetryOn::RETRIABLE_HEADERS`]; one match is enough.
    pub retriable_headers: Box<[HeaderMatcher]>,
    /// A request is retried only if one of these matches it; empty means every request.
    pub retriable_request_headers: Box<[HeaderMatcher]>,
    /// Base of the exponential back-off; `None` is the runtime's 25 ms.
    pub base_interval: Option<Duration>,
    /// Cap of the back-off; `None` is ten times the base.
    pub max_interval: Option<Duration>,
    /// Response headers that say when to come back, first match wins.
    pub reset_headers: Box<[ResetHeader]>,
    /// The longest such a header may ask for.
    pub reset_max_interval: Duration,
}

/// A host that a retry should not go to (`retry_host_predicate`).
#[derive(Debug, Clone, PartialEq)]
pub enum HostPredicate {
    /// One that was tried before.
    Previous,
    /// A canary.
    Canary,
    /// One whose `envoy.lb` metadata has all of these values; where it holds a list, in that list.
    Metadata(Metadata),
}

impl HostPredicate {
    /// Whether a retry should not go to `host`; `tried` are the numbers of the hosts tried before.
    #[must_use]
    pub fn rejects(&self, host: &Host, tried: &[u64]) -> bool {
        match self {
            Self::Previous => tried.contains(&host.id()),
            Self::Canary => host.attributes().canary,
            Self::Metadata(wanted) => {
                let own =
                    host.attributes().metadata.as_ref().and_then(|metadata| metadata.get("envoy.lb")?.as_object());
                wanted.iter().all(|(key, value)| match own.and_then(|own| own.get(key)) {
                    Some(serde_json::Value::Array(list)) => list.contains(value),
                    Some(found) => found == value,
                    None => false,
                })
            }
        }
    }
}

/// A response header that holds a time to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetHeader {
    /// Its name.
    pub name: HeaderName,
    /// Whether it holds a Unix time rather than seconds from now.
    pub unix_timestamp: bool,
}

/// A set of retry conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(u32);

macro_rules! retry_on {
    ($($(#[$meta:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl RetryOn {
            $($(#[$meta])* pub const $name: Self = Self(1 << $bit);)*

            fn token(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

retry_on! {
    /// Any 5xx, or no response at all.
    FIVE_XX = 0, "5xx";
    /// 502, 503 and 504, or no response at all.
    GATEWAY_ERROR = 1, "gateway-error";
    /// The upstream did not respond at all.
    RESET = 2, "reset";
    /// The stream was reset before the request's headers were sent.
    RESET_BEFORE_REQUEST = 3, "reset-before-request";
    /// No connection.
    CONNECT_FAILURE = 4, "connect-failure";
    /// The response carries `x-envoy-ratelimited`.
    ENVOY_RATELIMITED = 5, "envoy-ratelimited";
    /// 409.
    RETRIABLE_4XX = 6, "retriable-4xx";
    /// REFUSED_STREAM.
    REFUSED_STREAM = 7, "refused-stream";
    /// A listed status.
    RETRIABLE_STATUS_CODES = 8, "retriable-status-codes";
    /// A listed response header.
    RETRIABLE_HEADERS = 9, "retriable-headers";
    /// HTTP/3 failed after the handshake.
    HTTP3_POST_CONNECT_FAILURE = 10, "http3-post-connect-failure";
    /// gRPC status 1.
    GRPC_CANCELLED = 11, "cancelled";
    /// gRPC status 4.
    GRPC_DEADLINE_EXCEEDED = 12, "deadline-exceeded";
    /// gRPC status 8.
    GRPC_RESOURCE_EXHAUSTED = 13, "resource-exhausted";
    /// gRPC status 14.
    GRPC_UNAVAILABLE = 14, "unavailable";
    /// gRPC status 13.
    GRPC_INTERNAL = 15, "internal";
}

impl RetryOn {
    /// The conditions of a comma-separated list (a policy's or `x-envoy-retry-on`'s), and the words that are none.
    #[must_use]
    pub fn parse(list: &str) -> (Self, Vec<&str>) {
        let mut unknown = Vec::new();
        let mut on = Self::default();
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match Self::token(word) {
                Some(condition) => on = on | condition,
                None => unknown.push(word),
            }
        }
        (on, unknown)
    }

    /// Whether the list is fit for `x-envoy-retry-on`, or with `grpc` for `x-envoy-retry-grpc-on`: each header has its own
    /// conditions.
    #[must_use]
    pub fn is_valid_header(list: &str, grpc: bool) -> bool {
        let (on, unknown) = Self::parse(list);
        let foreign = if grpc { on.0 & !Self::GRPC } else { on.0 & Self::GRPC };
        unknown.is_empty() && foreign == 0
    }

    /// The conditions about gRPC statuses.
    const GRPC: u32 = Self::GRPC_CANCELLED.0
        | Self::GRPC_DEADLINE_EXCEEDED.0
        | Self::GRPC_RESOURCE_EXHAUSTED.0
        | Self::GRPC_UNAVAILABLE.0
        | Self::GRPC_INTERNAL.0;

    /// The conditions that are about gRPC statuses.
    #[must_use]
    pub const fn only_grpc(self) -> Self {
        Self(self.0 & Self::GRPC)
    }

    /// The conditions that are not about gRPC statuses.
    #[must_use]
    pub const fn without_grpc(self) -> Self {
        Self(self.0 & !Self::GRPC)
    }

    /// Whether any condition is about a gRPC status.
    #[must_use]
    pub const fn has_grpc(self) -> bool {
        self.0 & Self::GRPC != 0
    }

    /// Whether all of these conditions are in the set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is no condition.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::ops::BitOr for RetryOn {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

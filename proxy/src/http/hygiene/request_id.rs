//! `x-request-id`: a version 4 UUID whose version digit also says why a request is traced.

use bytes::Bytes;
use filters::http::{Headers, Known};
use filters::uuid;

use super::RequestHygiene;

/// Why a request is traced, packed into the request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceReason {
    /// It is not.
    NotTraced,
    /// Sampling.
    Sampled,
    /// `x-envoy-force-trace`, or the service asked.
    ServiceForced,
    /// `x-client-trace-id`
    ClientForced,
}

impl TraceReason {
    const fn digit(self) -> u8 {
        match self {
            Self::NotTraced => b'4',
            Self::Sampled => b'9',
            Self::ServiceForced => b'a',
            Self::ClientForced => b'b',
        }
    }

    /// The reason a request id carries; `NotTraced` when it is no UUID.
    #[must_use]
    pub fn of(request_id: &[u8]) -> Self {
        match request_id.get(REASON_AT) {
            Some(b'9') if request_id.len() == uuid::LEN => Self::Sampled,
            Some(b'a') if request_id.len() == uuid::LEN => Self::ServiceForced,
            Some(b'b') if request_id.len() == uuid::LEN => Self::ClientForced,
            _ => Self::NotTraced,
        }
    }
}

const REASON_AT: usize = 14;

impl RequestHygiene {
    /// Gives the request an id where it has none, and at an edge a new one unless the client's is to be kept.
    pub(super) fn request_id(&self, headers: &mut Headers, edge: bool, rng: &mut fastrand::Rng) {
        let absent = headers.value(&Known::XRequestId).is_none_or(Bytes::is_empty);
        if absent || edge && !self.preserve_external_request_id {
            headers.set(Known::XRequestId, Bytes::copy_from_slice(&uuid::v4(rng)));
        } else if edge && self.pack_trace_reason {
            // A client may not decide what this mesh traces.
            set_trace_reason(headers, TraceReason::NotTraced);
        }
    }
}

/// Writes why a request is traced into its id; an id that is no UUID stays as it is.
pub fn set_trace_reason(headers: &mut Headers, reason: TraceReason) {
    let Some(id) = headers.value(&Known::XRequestId) else { return };
    if id.len() != uuid::LEN || id[REASON_AT] == reason.digit() {
        return;
    }
    let mut changed = id.to_vec();
    changed[REASON_AT] = reason.digit();
    headers.set(Known::XRequestId, changed);
}

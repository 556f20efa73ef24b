//! End to end: the real binary, a control plane of the tests' own, and peers that misbehave on purpose; for what cannot be
//! compared byte by byte. `LEGATE_UNDER_TEST=envoy` runs the same tests against the real Envoy, which proves that they
//! expect what Envoy does; tests of what only Legate promises are then left out.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::redundant_clone,
    clippy::cloned_ref_to_slice_refs,
    clippy::wrong_self_convention,
    reason = "a test binary has no outside, and says by a panic what is wrong"
)]

#[allow(dead_code, reason = "each test binary uses its part of what they share")]
#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod clients;
mod control;
mod drain;
mod grpc;
mod load;
mod updates;
mod upstreams;

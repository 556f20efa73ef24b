//! End to end: the real binary, a control plane of the tests' own, and peers that misbehave on purpose; for what cannot be
//! compared byte by byte. `LEGATE_UNDER_TEST=envoy` runs the same tests against the real Envoy, which proves that they
//! expect what Envoy does; tests of what only Legate promises are then left out.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on says so and ends")]
#![allow(unreachable_pub, reason = "what the two test binaries share is public in neither")]

#[allow(dead_code, reason = "each test binary uses its part of what they share")]
#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod clients;
mod control;
mod drain;
mod drill;
mod dumps;
mod grpc;
mod load;
mod rotation;
mod runtime;
mod secure_control;
mod soak;
mod tcp;
mod tls;
mod updates;
mod upstreams;

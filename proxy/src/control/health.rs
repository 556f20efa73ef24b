//! Active health checks: hosts are asked whether they are well, on the control thread, by connections of its own.
//!
//! * A [`Session`](session::Session) belongs to one host and one checker of its cluster. It is sans-io: results of checks
//!   come in, and it says when to check next, which health bits of the host change, and what is to be counted and logged.
//! * A driver per kind of checker (HTTP, gRPC, TCP) makes the connection, asks, reads the answer within the timeout, and
//!   hands the session a [`Report`](session::Report). It knows nothing of thresholds and intervals.
//! * The cluster manager owns the sessions as it owns outlier detection: hosts that come get one, hosts that leave end it, and
//!   a change of health is published like any other ([`on_health_changed`](super::clusters::ClusterManager::on_health_changed)).
//!   A cluster is warm once every host had its first check.
//!
//! What exists: the sessions. Drivers, configuration and warming are not wired yet; `health_checks` says so when it is set.

pub mod session;

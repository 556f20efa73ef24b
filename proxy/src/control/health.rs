//! Active health checks: hosts are asked whether they are well, on the control thread, by connections of its own.
//!
//! * A [`Session`](session::Session) belongs to one host and one checker of its cluster. It is sans-io: results of checks
//!   come in, and it says which health bits of the host change, and how soon the next check is due.
//! * [`clusters::health`](super::clusters) owns the sessions as [`clusters::outlier`](super::clusters) owns outlier
//!   detection: hosts that come get one, hosts that leave end it, it knows who is asked when, and a change of health is
//!   published like any other. A cluster is warm once every host of its first set was asked.
//! * [`probes`] ask: a task per host holds its connection, asks when it is told to, reads the answer within the timeout and
//!   reports. They know nothing of thresholds and intervals.

pub mod counts;
pub mod log;
pub mod probes;
pub mod session;

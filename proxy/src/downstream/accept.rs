//! Accepting connections on a worker.

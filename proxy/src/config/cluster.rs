//! `Cluster` to runtime types.

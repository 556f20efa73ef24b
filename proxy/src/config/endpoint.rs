//! `ClusterLoadAssignment` to runtime types.

//! DNS for STRICT_DNS and LOGICAL_DNS clusters.

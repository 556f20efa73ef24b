//! Hosts and immutable host sets.

//! Load balancers: pure picks over a host set.

//! HTTP/2 over the h2 crate.

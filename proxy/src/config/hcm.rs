//! `HttpConnectionManager` to runtime types.

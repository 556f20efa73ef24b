//! `FilterChain` and its match to runtime types.

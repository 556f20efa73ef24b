//! `Bootstrap` to runtime types.

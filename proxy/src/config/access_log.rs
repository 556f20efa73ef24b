//! `AccessLog` to runtime types.

//! Header changes, compiled once.

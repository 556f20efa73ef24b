//! `%COMMAND%` format strings, compiled once.

//! stub
pub mod backend;

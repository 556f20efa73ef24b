//! The control-plane side of Legate.

pub mod proto;

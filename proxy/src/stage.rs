//! What `legate demo` and `legate drill` stand on: proxies as child processes that end with their parent, a control
//! plane for each, resources written as YAML, and a client for their admin pages.

pub(crate) mod admin;
pub(crate) mod control;
pub(crate) mod http1;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod resources;

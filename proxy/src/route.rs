//! Routing: from a request head to what is done with it.

pub mod table;

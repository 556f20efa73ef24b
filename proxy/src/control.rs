//! The control thread: managers that own configuration state, warm it, order it and publish it to the workers.

pub mod clusters;
pub mod dns;
pub mod listeners;
pub mod routes;

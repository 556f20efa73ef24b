//! Virtual hosts and their routes, first match wins.

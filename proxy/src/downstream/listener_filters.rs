//! Listener filters: what peeks at a connection before its chain is chosen.

//! Listener manager: LDS, warming, sockets, drain, publication.

//! `TcpProxy` to runtime types.

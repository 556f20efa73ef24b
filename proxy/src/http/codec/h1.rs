//! HTTP/1 codec, sans-io.

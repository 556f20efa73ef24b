//! `envoy.config.core.v3.Address` and socket options.

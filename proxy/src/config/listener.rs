//! `envoy.config.listener.v3.Listener` to runtime types.

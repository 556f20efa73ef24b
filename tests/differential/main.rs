//! The differential ring: the real Envoy and Legate get the same configuration and the same bytes, and must answer the
//! same, send the same upstream, log the same and count the same.
//!
//! Each module of [`areas`] is one file of the manifest: an [`Area`](manifest::Area) has the listeners and clusters of one
//! bootstrap and the cases that run against it. A difference is a bug, or a row of [`known`] with its reason, mirrored in
//! `docs/compatibility.md`; a row that no longer differs fails too.
//!
//! Envoy comes from `.ci/install-peers`, or from the variable `ENVOY`. `LEGATE_UNDER_TEST=envoy` puts Envoy on both
//! sides, which must show no difference: that checks the harness. `CASES=text` runs only the cases whose names contain it;
//! `ASPECTS=client,upstream,log,stats` compares only some of what was seen; `SHOW=1` prints what Envoy did; `ATTEMPTS=1`
//! believes the first difference, for a quick look; `LOT=7` draws other cases in [`areas::generated`].

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on says so and ends")]
#![allow(unreachable_pub, reason = "what the two test binaries share is public in neither")]

#[allow(dead_code, reason = "each test binary uses its part of what they share")]
#[path = "../support/mod.rs"]
mod support;

mod areas;
mod balance;
mod callers;
mod dns;
mod failing;
mod fates;
mod fragments;
mod health;
mod health_failed;
mod known;
mod manifest;
mod measured;
mod names;
mod observe;
mod over_time;
mod pages;
mod report;
mod run;
mod server_names;
mod tls;
mod tls_tcp;
mod tls_upstream;
mod validate;

/// One test per area, so that they run side by side and fail one by one.
macro_rules! areas {
    ($($area:ident),* $(,)?) => {
        $(
            #[test]
            fn $area() {
                run::area(areas::$area::area());
            }
        )*

        #[test]
        fn manifest_is_sound() {
            known::check(&[$(areas::$area::area()),*]);
        }
    };
}

areas! {
    matchers, http1_requests, http1_exchanges, manager, addresses, headers, routing, timeouts, retries, generated, mirrors, redirects, replies, formats, upgrades, upstreams, http2, h2_upstreams, h2_clients, log_filters, clusters, pools, outliers, overrides, listeners, tcp, tunnels, proxied, runtime_keys, scopes, http_filters, health_filter, ext_authz, jwt, rbac_http,
}

/// What does not fit into areas.
macro_rules! comparisons {
    ($($name:ident: $run:path),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                report::patiently($run);
            }
        )*
    };
}

comparisons! {
    admin_pages: pages::run,
    measured_requests: measured::run,
    names_of_statistics: names::run,
    verdicts_on_configurations: validate::run,
    health_failed: health_failed::run,
    health: health::run,
    fates_of_hosts: fates::run,
    ejection_times: fates::ejection_times,
    warming_at_start: fates::warming_at_start,
    original_destinations: fates::original_destinations,
    tls_downstream: tls::run,
    tls_resumption: tls::resumption,
    tls_upstream: tls_upstream::run,
    tls_server_names: server_names::run,
    tls_callers: callers::run,
    tls_tcp: tls_tcp::run,
    tls_strange_bytes: tls::hostile,
    jwt_keys_ahead: areas::jwt::keys_ahead,
    slow_start: over_time::slow_start,
    merged_updates: over_time::merged_updates,
    load_balancing: balance::run,
}

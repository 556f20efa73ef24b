//! The differences we know of and keep, with their reasons. `docs/compatibility.md` lists the same.

use std::collections::BTreeSet;
use std::fs;

use super::manifest::Area;
use crate::support::proxy::workspace;

/// A side from which a case is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// What the client received.
    Client,
    /// What the upstream received.
    Upstream,
    /// The access log.
    Log,
    /// The statistics.
    Stats,
}

/// A difference.
pub struct Known {
    /// The cases, with their areas.
    pub cases: &'static [&'static str],
    /// Where it shows.
    pub aspects: &'static [Aspect],
    /// Why it is kept.
    pub reason: &'static str,
}

/// Differences by case.
pub const KNOWN: &[Known] = &[
    Known {
        cases: &["http1_requests/chunk_no_end"],
        aspects: &[Aspect::Client, Aspect::Upstream, Aspect::Log, Aspect::Stats],
        reason: "bytes between a chunk's data and the next line break",
    },
    Known {
        cases: &["upstreams/status_99", "upstreams/status_1000"],
        aspects: &[Aspect::Client, Aspect::Log, Aspect::Stats],
        reason: "a response status that is not three digits from 100",
    },
    Known {
        cases: &["h2_upstreams/status_000"],
        aspects: &[Aspect::Client, Aspect::Upstream, Aspect::Log, Aspect::Stats],
        reason: "a response status that is not three digits from 100",
    },
    Known {
        cases: &["h2_upstreams/data_after_end", "h2_upstreams/head_after_end", "h2_upstreams/trailers_after_end"],
        aspects: &[Aspect::Upstream, Aspect::Stats],
        reason: "frames on a stream that is over",
    },
    Known {
        cases: &["h2_clients/reset_then_data", "h2_clients/data_after_reply"],
        aspects: &[Aspect::Client, Aspect::Stats],
        reason: "frames on a stream that is over",
    },
    Known {
        cases: &["h2_clients/priority_on_zero"],
        aspects: &[Aspect::Client, Aspect::Upstream, Aspect::Log, Aspect::Stats],
        reason: "PRIORITY on stream 0",
    },
    Known {
        cases: &["h2_clients/overflow_by_settings"],
        aspects: &[Aspect::Client, Aspect::Log, Aspect::Stats],
        reason: "SETTINGS that make a stream's window too wide",
    },
    Known {
        cases: &["h2_clients/no_window_at_first", "h2_clients/window_by_settings", "h2_clients/connection_window"],
        aspects: &[Aspect::Stats],
        reason: "a response for which the client gives no window",
    },
    Known {
        cases: &["h2_clients/blocked_for_ever", "h2_clients/blocked_big"],
        aspects: &[Aspect::Log, Aspect::Stats],
        reason: "a response for which the client gives no window",
    },
    Known {
        cases: &["h2_clients/blocked_by_route"],
        aspects: &[Aspect::Client, Aspect::Log, Aspect::Stats],
        reason: "a response for which the client gives no window",
    },
    Known {
        cases: &["h2_clients/reset_while_blocked"],
        aspects: &[Aspect::Upstream, Aspect::Log, Aspect::Stats],
        reason: "a response for which the client gives no window",
    },
    Known {
        cases: &["h2_upstreams/no_window_backed_up", "h2_upstreams/no_window_backed_up_raw"],
        aspects: &[Aspect::Client, Aspect::Log, Aspect::Stats],
        reason: "a request for which the upstream gives no window",
    },
    Known {
        cases: &["h2_upstreams/no_window_backed_up_small"],
        aspects: &[Aspect::Log],
        reason: "a request for which the upstream gives no window",
    },
    Known {
        cases: &["h2_upstreams/informational_with_body"],
        aspects: &[Aspect::Upstream, Aspect::Stats],
        reason: "DATA after an informational head",
    },
    Known {
        cases: &["h2_upstreams/stream_window_ignored"],
        aspects: &[Aspect::Client, Aspect::Upstream, Aspect::Log, Aspect::Stats],
        reason: "an upstream that sends more than a stream's window at once",
    },
    Known {
        cases: &["h2_upstreams/reply_while_blocked"],
        aspects: &[Aspect::Upstream, Aspect::Stats],
        reason: "a complete reply while the request's body waits for its window",
    },
    Known {
        cases: &["upstreams/switching_unasked"],
        aspects: &[Aspect::Client, Aspect::Log, Aspect::Stats],
        reason: "a 101 response nobody asked for",
    },
    Known {
        cases: &["tunnels/switched"],
        aspects: &[Aspect::Log, Aspect::Stats],
        reason: "a 101 response nobody asked for",
    },
    Known {
        cases: &[
            "formats/text h2",
            "formats/text to_h2",
            "formats/text_omit h2",
            "formats/text_omit to_h2",
            "formats/json h2",
            "formats/json to_h2",
            "formats/json_omit h2",
            "formats/json_omit to_h2",
        ],
        aspects: &[Aspect::Log],
        reason: "HTTP/2 counts the bytes of bodies alone: how long a header block was is known to the library only",
    },
    Known {
        cases: &["http2/continuation_flood"],
        aspects: &[Aspect::Client, Aspect::Log, Aspect::Stats],
        reason: "a ninth CONTINUATION frame of one header block",
    },
    Known {
        cases: &["http2/stale_headers", "h2_clients/reset_then_trailers", "h2_clients/head_after_reply"],
        aspects: &[Aspect::Client, Aspect::Upstream, Aspect::Log, Aspect::Stats],
        reason: "HEADERS on a stream below the highest the client has opened",
    },
    Known {
        cases: &["http2/premature_resets"],
        aspects: &[Aspect::Log, Aspect::Stats],
        reason: "requests that come in one read with their resets",
    },
    Known {
        cases: &["http2/too_many_streams_settled", "http2/trailers_kept"],
        aspects: &[Aspect::Upstream, Aspect::Stats],
        reason: "a connection is opened for a request that is then given up",
    },
    Known {
        cases: &["pools/h2_ahead"],
        aspects: &[Aspect::Upstream],
        reason: "an HTTP/2 connection that is opened ahead of need",
    },
    Known {
        cases: &["http1_exchanges/reset_until_close"],
        aspects: &[Aspect::Client, Aspect::Log, Aspect::Stats],
        reason: "a body that ends with its connection, which is reset",
    },
    Known {
        cases: &[
            "redirects/to no route",
            "redirects/to no virtual host's route",
            "redirects/to a host alone",
            "redirects/not safely across",
            "redirects/not listed",
            "redirects/to the same route again",
        ],
        aspects: &[Aspect::Log],
        reason: "the scheme of a request whose redirect was found and then not followed",
    },
    Known {
        cases: &["retries/h2 503", "retries/from h2", "ext_authz/an_HTTP_error"],
        aspects: &[Aspect::Stats],
        reason: "a stream whose response was not wanted, but has come whole",
    },
    Known {
        cases: &["ext_authz/a_bad_name", "ext_authz/a_bad_value"],
        aspects: &[Aspect::Upstream, Aspect::Log, Aspect::Stats],
        reason: "a request header that ext_authz was told to set and that cannot be sent",
    },
    Known {
        cases: &["ext_authz/a_bad_name_of_the_response", "ext_authz/a_bad_value_of_the_response"],
        aspects: &[Aspect::Client],
        reason: "a response header that ext_authz was told to set and that cannot be sent",
    },
    Known {
        cases: &["listeners/small_buffer"],
        aspects: &[Aspect::Stats],
        reason: "a response that comes faster than the connection's buffer limit allows",
    },
    Known {
        cases: &["jwt/parameter decoded", "jwt/parameter decoded space"],
        aspects: &[Aspect::Upstream, Aspect::Log],
        reason: "parameters that stand beside a token which is taken out of the query",
    },
    Known {
        cases: &["jwt/claim newline", "jwt/claim return", "jwt/claim nul", "jwt/claim control", "jwt/claim delete"],
        aspects: &[Aspect::Upstream, Aspect::Log, Aspect::Stats],
        reason: "a claim whose text cannot stand in a header",
    },
    Known {
        cases: &["jwt/path"],
        aspects: &[Aspect::Client, Aspect::Upstream, Aspect::Log, Aspect::Stats],
        reason: "a token in a request's host or path",
    },
    Known {
        cases: &["jwt/host"],
        aspects: &[Aspect::Upstream, Aspect::Log],
        reason: "a token in a request's host or path",
    },
    Known {
        cases: &[
            "jwt/tried again",
            "jwt/tried again, no number",
            "jwt/tried again, own conditions",
            "jwt/tried too often",
        ],
        aspects: &[Aspect::Upstream],
        reason: "the second try of a request of the proxy's own that has no body",
    },
];

/// Statistics that are not compared: part of the name, and why.
pub const STATS: &[(&str, &str)] = &[("nghttp2_", "they count connections of one library, which Legate does not use")];

/// The row that lists a difference.
pub fn listed(case: &str, aspect: Aspect) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.cases.contains(&case) && known.aspects.contains(&aspect))
}

/// Whether an aspect is looked at in this run: all are, unless `ASPECTS` names some.
pub fn looked_at(aspect: Aspect) -> bool {
    let wanted = std::env::var("ASPECTS").unwrap_or_default().to_lowercase();
    wanted.is_empty() || wanted.contains(&format!("{aspect:?}").to_lowercase())
}

/// Whether a statistic is left out of comparison.
pub fn ignored_stat(name: &str) -> bool {
    STATS.iter().any(|(part, _)| name.contains(part))
}

/// Names are unique, rows are named, listed differences belong to cases and are told to users.
pub fn check(areas: &[Area]) {
    let mut names = BTreeSet::new();
    for area in areas {
        for case in &area.cases {
            let name = format!("{}/{}", area.name, case.name);
            assert!(!case.row.is_empty(), "{name} names no row of the reference");
            assert!(area.listeners.iter().any(|(listener, _)| *listener == case.listener), "{name}: {}", case.listener);
            assert!(names.insert(name.clone()), "{name} is there twice");
        }
    }
    let told = fs::read_to_string(workspace().join("docs/compatibility.md")).unwrap_or_default();
    for known in KNOWN {
        for case in known.cases {
            assert!(names.contains(*case), "no case {case}");
        }
        assert!(told.contains(known.reason), "docs/compatibility.md does not tell: {}", known.reason);
    }
    for (part, reason) in STATS {
        assert!(told.contains(reason), "docs/compatibility.md does not tell why {part} differs: {reason}");
    }
}

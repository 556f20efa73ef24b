//! The list of pages: the home page, `/help`, and what a wrong path gets.

use std::fmt::Write as _;

/// A page of the server.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    pub(super) changes: bool,
    pub(super) about: &'static str,
    pub(super) parameters: &'static [Parameter],
}

/// A parameter of a page.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) choices: &'static [&'static str],
}

const fn page(path: &'static str, about: &'static str) -> Endpoint {
    Endpoint { path, changes: false, about, parameters: &[] }
}

const fn change(path: &'static str, about: &'static str) -> Endpoint {
    Endpoint { changes: true, ..page(path, about) }
}

const fn with(endpoint: Endpoint, parameters: &'static [Parameter]) -> Endpoint {
    Endpoint { parameters, ..endpoint }
}

const fn flag(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, choices: &[] }
}

const fn one_of(name: &'static str, about: &'static str, choices: &'static [&'static str]) -> Parameter {
    Parameter { name, about, choices }
}

const SWITCH: &[Parameter] = &[one_of("enable", "on or off", &["y", "n"])];

/// Every page, by path.
pub(super) static ENDPOINTS: [Endpoint; 33] = [
    page("/", "Admin home page"),
    with(change("/allocprofiler", "switch the allocation profiler (not supported)"), SWITCH),
    page("/certs", "certificates in use"),
    with(
        page("/clusters", "clusters and their hosts"),
        &[flag("filter", "regular expression for cluster names"), one_of("format", "format", &["text", "json"])],
    ),
    with(
        page("/config_dump", "configuration in use"),
        &[
            flag("resource", "only this list of resources"),
            flag("mask", "only these fields, of the whole or of each element of resource"),
            flag("name_regex", "only resources whose whole name matches"),
            flag("include_eds", "endpoints too"),
        ],
    ),
    page("/contention", "lock contention (not measured)"),
    with(change("/cpuprofiler", "switch the CPU profiler (not supported)"), SWITCH),
    with(
        change("/drain_listeners", "drain listeners"),
        &[
            flag("graceful", "connections first get the drain time"),
            flag("skip_exit", "connections are drained, listeners stay"),
            flag("inboundonly", "only listeners with traffic_direction INBOUND"),
        ],
    ),
    change("/healthcheck/fail", "fail health checks"),
    change("/healthcheck/ok", "pass health checks"),
    page("/heap_dump", "heap profile (not supported)"),
    with(change("/heapprofiler", "switch the heap profiler (not supported)"), SWITCH),
    page("/help", "this list"),
    page("/hot_restart_version", "version of the hot restart protocol"),
    with(page("/init_dump", "what start-up waits for"), &[flag("mask", "only this component")]),
    with(page("/listeners", "listeners and their addresses"), &[one_of("format", "format", &["text", "json"])]),
    with(
        change("/logging", "show or change log levels"),
        &[
            flag("paths", "several loggers: name:level,name:level"),
            one_of("level", "all loggers", &["", "trace", "debug", "info", "warning", "error", "critical", "off"]),
        ],
    ),
    page("/memory", "memory in use"),
    page("/memory/tcmalloc", "allocator statistics (not supported)"),
    page("/peak_heap_dump", "peak heap profile (not supported)"),
    change("/quitquitquit", "exit the server"),
    page("/ready", "server state: 200 if LIVE, 503 otherwise"),
    change("/reopen_logs", "open log files anew"),
    change("/reset_counters", "set all counters to zero"),
    page("/runtime", "runtime values"),
    change("/runtime_modify", "add or change runtime values: ?key=value&key=value; an empty value removes an override"),
    page("/server_info", "version, state and options"),
    with(
        page("/stats", "statistics"),
        &[
            flag("usedonly", "only those that were written"),
            flag("filter", "regular expression for names"),
            flag("invert_filter", "those that do not match"),
            one_of("format", "format", &["text", "json", "html", "active-html", "prometheus"]),
            one_of("type", "kinds", &["All", "Counters", "Histograms", "Gauges", "TextReadouts"]),
            one_of(
                "histogram_buckets",
                "how histograms are shown",
                &["", "cumulative", "disjoint", "detailed", "summary"],
            ),
        ],
    ),
    with(
        page("/stats/prometheus", "statistics for Prometheus"),
        &[
            flag("usedonly", "only those that were written"),
            flag("text_readouts", "texts as gauges with a label"),
            flag("filter", "regular expression for names"),
            flag("invert_filter", "those that do not match"),
            one_of("histogram_buckets", "how histograms are shown", &["", "cumulative", "summary"]),
        ],
    ),
    page("/stats/recentlookups", "recent look-ups of names (there are none)"),
    change("/stats/recentlookups/clear", "clear recent look-ups"),
    change("/stats/recentlookups/disable", "do not record look-ups"),
    change("/stats/recentlookups/enable", "record look-ups"),
];

/// The page of that path.
pub(super) fn find(path: &str) -> Option<&'static Endpoint> {
    ENDPOINTS.iter().find(|endpoint| endpoint.path == path)
}

/// `/help`.
pub(super) fn help() -> String {
    let mut out = "admin commands are:\n".to_owned();
    for endpoint in &ENDPOINTS {
        let post = if endpoint.changes { " (POST)" } else { "" };
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "  {}{post}: {}", endpoint.path, endpoint.about);
        for parameter in endpoint.parameters {
            let _ = write!(out, "      {}: {}", parameter.name, parameter.about);
            if !parameter.choices.is_empty() {
                let _ = write!(out, "; One of ({})", parameter.choices.join(", "));
            }
            out.push('\n');
        }
    }
    out
}

/// The home page. Everything on it is our own text, so nothing needs escaping.
pub(super) fn html() -> String {
    let mut out =
        "<!DOCTYPE html>\n<html lang='en'>\n<head>\n  <meta charset='utf-8'>\n  <title>Legate Admin</title>\n  \
                   <style>body{font-family:sans-serif;margin:2em}td{padding:4px 12px 4px 0;vertical-align:top}\
                   form{margin:0}label{color:#555;padding-right:8px}</style>\n</head>\n<body>\n<table>\n\
                   <thead><tr><th align='left'>Command</th><th align='left'>Description</th></tr></thead>\n<tbody>\n"
            .to_owned();
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.path != "/") {
        let name = endpoint.path.trim_start_matches('/');
        let method = if endpoint.changes { "post" } else { "get" };
        // Writing to a `String` cannot fail.
        let _ = write!(out, "<tr><td><form action='{name}' method='{method}'><button>{name}</button>");
        for Parameter { name, about, choices } in endpoint.parameters {
            if choices.is_empty() {
                let _ = write!(out, "<br><label>{name} <input name='{name}' title='{about}'></label>");
            } else {
                let _ = write!(out, "<br><label>{name} <select name='{name}' title='{about}'>");
                for choice in *choices {
                    let _ = write!(out, "<option>{choice}</option>");
                }
                out.push_str("</select></label>");
            }
        }
        let _ = writeln!(out, "</form></td><td>{}</td></tr>", endpoint.about);
    }
    out.push_str("</tbody>\n</table>\n</body>\n</html>\n");
    out
}

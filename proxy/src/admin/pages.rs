//! From a path to a page.

use std::time::SystemTime;

use hyper::{HeaderMap, Method, StatusCode};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::backend::{AdminRequest, ClusterView, DrainRequest, UnreadyTargets};
use super::http::{HTML, Page};
use super::query::Query;
use super::{Admin, certs, clusters, config_dump, guard, home, listeners, log_levels};
use crate::config::bootstrap::Flush;
use crate::overload::ProcessMemory;

/// A request, read completely.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

/// Answers any request.
pub(super) async fn answer(admin: &Admin, request: Request<'_>) -> Page {
    match dispatch(admin, &request).await {
        Ok(page) | Err(page) => page,
    }
}

async fn dispatch(admin: &Admin, request: &Request<'_>) -> Result<Page, Page> {
    let path = request.path;
    guard::cross_site(request.method, request.headers)?;
    let allowed = &admin.config.allow_paths;
    if !allowed.is_empty() && !allowed.iter().any(|matcher| matcher.matches(path.as_bytes())) {
        return Err(Page::error(StatusCode::FORBIDDEN, format!("request to path {} not allowed", path.escape_debug())));
    }
    let Some(endpoint) = home::find(path) else {
        return Err(Page::error(StatusCode::NOT_FOUND, format!("invalid path. {}", home::help())));
    };
    if endpoint.changes {
        guard::post(request.method)?;
    }
    let query = Query::parse(request.query);
    let backend = &admin.backend;
    Ok(match endpoint.path {
        "/" => Page { content_type: HTML, ..Page::text(home::html()) },
        "/help" => Page::text(home::help()),
        "/ready" => ready(admin),
        "/server_info" => Page::json(&admin.info.to_json(&admin.state)),
        "/stats" => stats(admin, request.query, stats::Query::parse(request.query)),
        "/stats/prometheus" => stats(admin, request.query, stats::Query::parse_prometheus(request.query)),
        "/stats/recentlookups" => Page::text("Statistics are not looked up by name.\n\ntotal: 0\n"),
        "/stats/recentlookups/clear" | "/stats/recentlookups/disable" | "/stats/recentlookups/enable" => Page::ok(),
        "/reset_counters" => {
            admin.store.reset_counters();
            Page::ok()
        }
        "/clusters" => {
            let filter = name_filter(&query)?;
            let mut views: Vec<ClusterView> = backend.ask(AdminRequest::Clusters).await?;
            views.retain(|cluster| filter.as_ref().is_none_or(|filter| filter.is_match(&cluster.name)));
            match query.get("format") {
                Some("json") => Page::json(&clusters::json(&views)),
                _ => Page::text(clusters::text(&views)),
            }
        }
        "/listeners" => {
            let views = backend.ask(AdminRequest::Listeners).await?;
            match query.get("format") {
                Some("json") => Page::json(&listeners::json(&views)),
                _ => Page::text(listeners::text(&views)),
            }
        }
        "/config_dump" => {
            let include_eds = query.has("include_eds");
            let dump = backend.ask(|reply| AdminRequest::ConfigDump { include_eds, reply }).await?;
            config_dump::page(&dump, &query)
        }
        "/init_dump" => init_dump(&backend.ask(AdminRequest::InitDump).await?, &query),
        "/drain_listeners" => {
            let drain = DrainRequest {
                graceful: query.has("graceful"),
                inbound_only: query.has("inboundonly"),
                skip_exit: query.has("skip_exit"),
            };
            backend.ask(|reply| AdminRequest::Drain(drain, reply)).await?;
            Page::ok()
        }
        "/healthcheck/fail" => {
            backend.ask(|reply| AdminRequest::HealthcheckFail(true, reply)).await?;
            Page::ok()
        }
        "/healthcheck/ok" => {
            backend.ask(|reply| AdminRequest::HealthcheckFail(false, reply)).await?;
            Page::ok()
        }
        "/quitquitquit" => {
            backend.ask(AdminRequest::Quit).await?;
            Page::ok()
        }
        "/reopen_logs" => {
            backend.ask(AdminRequest::ReopenLogs).await?;
            if let Some(log) = &admin.log {
                log.reopen().map_err(|error| Page::error(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))?;
            }
            Page::ok()
        }
        "/runtime" => Page::json(&backend.ask(AdminRequest::Runtime).await?.to_json()),
        "/runtime_modify" => {
            let mut changes = query.into_pairs();
            if changes.is_empty() {
                changes = Query::parse(&String::from_utf8_lossy(request.body)).into_pairs();
            }
            runtime_modify(admin, changes).await?
        }
        "/logging" => match &admin.log {
            Some(log) => log_levels::page(log, &query),
            None => Page::text("active loggers:\n\n"),
        },
        "/certs" => Page::json(&certs::json(&backend.ask(AdminRequest::Certificates).await?, SystemTime::now())),
        "/memory" => memory(),
        "/hot_restart_version" => Page::text(admin.info.hot_restart_version()),
        "/contention" => Page::text(
            "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.",
        ),
        "/cpuprofiler" | "/heapprofiler" | "/allocprofiler" => profiler(endpoint.path, &query),
        "/heap_dump" | "/peak_heap_dump" => unsupported("The current build does not support heap profiler"),
        "/memory/tcmalloc" => unsupported("The current build does not use tcmalloc."),
        _ => return Err(Page::error(StatusCode::NOT_FOUND, format!("invalid path. {}", home::help()))),
    })
}

fn ready(admin: &Admin) -> Page {
    let state = admin.state.name();
    let status = if state.is_live() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Page::error(status, format!("{state}\n"))
}

fn stats(admin: &Admin, raw: &str, query: Result<stats::Query, stats::QueryError>) -> Page {
    let query = match query {
        Ok(query) => query,
        Err(error) => return Page::error(StatusCode::BAD_REQUEST, error.to_string()),
    };
    tracing::trace!(target: "admin", raw, "statistics are asked for");
    if admin.flush == Flush::OnAdmin {
        admin.store.flush();
    }
    let stats::Rendered { content_type, body } = stats::render(&admin.store, &query);
    Page { content_type, ..Page::text(body) }
}

fn name_filter(query: &Query) -> Result<Option<Regex>, Page> {
    let pattern = query.get("filter").filter(|pattern| !pattern.is_empty());
    let compiled = pattern.map(Regex::new).transpose();
    compiled.map_err(|_| Page::error(StatusCode::BAD_REQUEST, "Invalid re2 regex"))
}

fn init_dump(unready: &[UnreadyTargets], query: &Query) -> Page {
    let wanted = query.get("mask").filter(|mask| !mask.is_empty());
    let fits = |target: &&UnreadyTargets| wanted.is_none_or(|mask| target.name.to_ascii_lowercase().contains(mask));
    let dumps: Vec<Value> = unready
        .iter()
        .filter(fits)
        .map(|UnreadyTargets { name, target_names }| json!({"name": name, "target_names": target_names}))
        .collect();
    let mut out = Map::new();
    if !dumps.is_empty() {
        out.insert("unready_targets_dumps".into(), dumps.into());
    }
    Page::json(&Value::Object(out))
}

async fn runtime_modify(admin: &Admin, changes: Vec<(String, String)>) -> Result<Page, Page> {
    if changes.is_empty() {
        return Err(Page::error(
            StatusCode::BAD_REQUEST,
            "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n       or send the parameters as form values\n\
             use an empty value to remove a previously added override",
        ));
    }
    match admin.backend.ask(|reply| AdminRequest::RuntimeModify(changes, reply)).await? {
        Ok(()) => Ok(Page::ok()),
        Err(reason) => Err(Page::error(StatusCode::SERVICE_UNAVAILABLE, reason)),
    }
}

/// What the kernel says: the allocator keeps no books that could be asked from another thread.
fn memory() -> Page {
    let ProcessMemory { allocated, heap_size, physical } = ProcessMemory::now().unwrap_or_default();
    Page::json(&json!({
        "allocated": allocated.to_string(),
        "heap_size": heap_size.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": physical.to_string(),
    }))
}

fn profiler(path: &str, query: &Query) -> Page {
    match query.get("enable") {
        Some("n") => Page::ok(),
        Some("y") => unsupported(match path {
            "/cpuprofiler" => "The current build does not support CPU profiler",
            "/heapprofiler" => "The current build does not support heap profiler",
            _ => "The current build does not support allocation profiler",
        }),
        _ => Page::error(StatusCode::BAD_REQUEST, "?enable=<y|n>\n"),
    }
}

fn unsupported(message: &str) -> Page {
    Page::error(StatusCode::NOT_IMPLEMENTED, message)
}

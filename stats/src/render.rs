//! What Envoy prints for `/stats` and `/stats/prometheus`, byte for byte.

use crate::collect::Selection;
use crate::query::{Format, Hidden, Query, StatsType};
use crate::snapshot::Snapshot;
use crate::store::Store;

mod html;
mod json;
mod number;
mod prometheus;
mod text;

/// A rendering and the type it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// `content-type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

/// Renders in the format that the query asks for.
pub fn render(store: &Store, query: &Query) -> Rendered {
    const PLAIN: &str = "text/plain; charset=UTF-8";
    match query.format {
        Format::Text => Rendered { content_type: PLAIN, body: render_text(store, query) },
        Format::Json => Rendered { content_type: "application/json", body: render_json(store, query) },
        Format::Prometheus => Rendered { content_type: PLAIN, body: render_prometheus(store, query) },
        Format::Html | Format::ActiveHtml => {
            Rendered { content_type: "text/html; charset=UTF-8", body: render_html(store, query) }
        }
    }
}

/// `format=text`: text readouts, then counters and gauges, then histograms, each by name.
pub fn render_text(store: &Store, query: &Query) -> String {
    text::render(store, query, &collect(store, query, Selection::from(query)))
}

/// `format=json`.
pub fn render_json(store: &Store, query: &Query) -> String {
    json::render(store, query, &collect(store, query, Selection::from(query)))
}

/// `/stats/prometheus`: counters, gauges, text readouts if asked for, then histograms, each by name without tags. As in Envoy,
/// `type` means nothing here.
pub fn render_prometheus(store: &Store, query: &Query) -> String {
    let selection = Selection { kind: StatsType::All, tags: true, ..Selection::from(query) };
    prometheus::render(store, query, &collect(store, query, selection))
}

/// `format=html` and `active-html`: the text in a page with a form for the parameters. The second reloads itself.
pub fn render_html(store: &Store, query: &Query) -> String {
    html::render(query, &render_text(store, query))
}

fn collect(store: &Store, query: &Query, selection: Selection<'_>) -> Snapshot {
    if query.hidden == Hidden::Only { Snapshot::default() } else { store.collect(selection) }
}

#[cfg(test)]
mod tests;

//! `format=html` and `format=active-html`: one plain page. Envoy's is a longer form and, for the second, a script.

use crate::query::{Format, Query, StatsType};

pub(super) fn render(query: &Query, text: &str) -> String {
    let mut out =
        String::from("<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n<title>Envoy Admin</title>\n");
    if query.format == Format::ActiveHtml {
        out.push_str("<meta http-equiv='refresh' content='5'>\n");
    }
    out.push_str("</head>\n<body>\n<form action='stats' method='get'>\n");
    let checked = if query.used_only { " checked" } else { "" };
    out.push_str(&format!("<label><input type='checkbox' name='usedonly'{checked}> used only</label>\n"));
    let filter = query.filter.as_ref().map_or("", |filter| filter.as_str());
    out.push_str(&format!("<label>filter <input type='text' name='filter' value='{}'></label>\n", escaped(filter)));
    let formats = [("html", query.format == Format::Html), ("active-html", query.format == Format::ActiveHtml)];
    select(&mut out, "format", formats.into_iter().chain([("text", false), ("json", false)]));
    let types = [
        ("All", StatsType::All),
        ("Counters", StatsType::Counters),
        ("Gauges", StatsType::Gauges),
        ("Histograms", StatsType::Histograms),
        ("TextReadouts", StatsType::TextReadouts),
    ];
    select(&mut out, "type", types.into_iter().map(|(name, kind)| (name, query.kind == kind)));
    out.push_str("<input type='submit' value='show'>\n</form>\n<pre id='stats'>\n");
    out.push_str(&escaped(text));
    out.push_str("</pre>\n</body>\n</html>\n");
    out
}

fn select<'a>(out: &mut String, name: &str, options: impl Iterator<Item = (&'a str, bool)>) {
    out.push_str(&format!("<select name='{name}'>"));
    for (value, selected) in options {
        let selected = if selected { " selected" } else { "" };
        out.push_str(&format!("<option value='{value}'{selected}>{value}</option>"));
    }
    out.push_str("</select>\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;").replace('"', "&quot;")
}

//! The support ledger as a whole: every field and extension of Envoy's API that Legate knows of and does not implement.
//!
//! Each parser declares its rows beside the code that reads the message (`filters::ledger!`); here they come together for
//! `docs/compatibility.md`. Tests hold that no declared row is missing here and that the document says what the code does.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use filters::config::{Entry, Verdict};
use filters::{matcher, rbac};

use super::{access_log, bootstrap, cluster, config_source, filter_chain, hcm, http2, listener, route, tcp_proxy, tls};

/// Rows of fields.
fn declared() -> impl Iterator<Item = &'static Entry> {
    use route::ledger as routes;
    static OWN: &[&[&Entry]] = &[
        filters::call::config::unsupported::ALL,
        filters::ext_authz::unsupported::ALL,
        filters::ext_authz::unsupported_settings::ALL,
        filters::mutation::unsupported::ALL,
        filters::call::config::unsupported::ALL,
        access_log::unsupported_filters::ALL,
        access_log::unsupported_formats::ALL,
        access_log::unsupported_loggers::ALL,
        access_log::unsupported_sources::ALL,
        config_source::config_source_unsupported::ALL,
        config_source::api_config_source_unsupported::ALL,
        config_source::path_unsupported::ALL,
        config_source::grpc_service_unsupported::ALL,
        config_source::retry_unsupported::ALL,
        config_source::google::google_unsupported::ALL,
        config_source::google::channel_unsupported::ALL,
        config_source::google::call_unsupported::ALL,
        listener::unsupported::ALL,
        listener::address::unsupported::ALL,
        listener::listener_filter::unsupported::ALL,
        listener::listener_filter::tls_inspector::ALL,
        listener::listener_filter::proxy_protocol::ALL,
        routes::table::ALL,
        routes::virtual_host::ALL,
        routes::route::ALL,
        routes::route_match::ALL,
        routes::route_action::ALL,
        routes::proxy_protocol::ALL,
        routes::mirror::ALL,
        tcp_proxy::unsupported::ALL,
        tcp_proxy::tunnel::unsupported::ALL,
    ];
    let others = [
        bootstrap::LEDGER,
        cluster::LEDGER,
        filter_chain::LEDGER,
        hcm::LEDGER,
        http2::LEDGER,
        matcher::LEDGER,
        rbac::LEDGER,
        tls::LEDGER,
    ];
    let rows = others.into_iter().flatten().chain(OWN);
    rows.flat_map(|rows| rows.iter().copied())
}

/// Every row, by message and field. A row that several parsers share is there once.
#[must_use]
pub fn all() -> Vec<&'static Entry> {
    let extensions = [
        filter_chain::UNSUPPORTED_FILTERS,
        filter_chain::UNSUPPORTED_TRANSPORTS,
        listener::listener_filter::UNSUPPORTED_FILTERS,
    ];
    let rows = declared().chain(extensions.into_iter().flatten());
    let by_name: BTreeMap<_, _> = rows.map(|row| ((row.message, row.field, row.reason), row)).collect();
    by_name.into_values().collect()
}

/// The ledger as the tables of `docs/compatibility.md`.
#[must_use]
pub fn markdown() -> String {
    let rows = all();
    let (extensions, fields): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.field.is_empty());
    let mut text = String::from("### Fields\n");
    let mut message = "";
    for row in fields {
        if row.message != message {
            message = row.message;
            // Writing to a `String` cannot fail.
            let _ = write!(text, "\n`{message}`\n\n| Field | If it is set | Because |\n|---|---|---|\n");
        }
        let _ = writeln!(text, "| `{}` | {} | {} |", row.field, verdict(row), cell(row.reason));
    }
    text.push_str("\n### Extensions\n\n| Type | If it is configured | Because |\n|---|---|---|\n");
    for row in extensions {
        let _ = writeln!(text, "| `{}` | {} | {} |", row.message, verdict(row), cell(row.reason));
    }
    text
}

const fn verdict(row: &Entry) -> &'static str {
    match row.verdict {
        Verdict::Refuse => "refused",
        Verdict::Warn => "warned once",
    }
}

/// Text that stays within its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use regex::Regex;

    use super::*;

    fn workspace() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if path.is_dir() => sources(&path, found),
                Some("rs") => found.push(path),
                _ => {}
            }
        }
    }

    #[test]
    fn no_row_that_is_declared_anywhere_is_missing() {
        let known: BTreeSet<_> = all().into_iter().map(|row| (row.message.to_owned(), row.field.to_owned())).collect();
        let block = Regex::new(r#"(?s)\bmod \w+ for\s+"(envoy\.[\w.]+)"\s*\{(.*?)\n\s*\}"#).unwrap();
        let row = Regex::new(r"(?m)^\s*(?:r#)?(\w+) => (?:Refuse|Warn),").unwrap();
        let mut files = Vec::new();
        for package in ["proxy/src", "filters/src"] {
            sources(&workspace().join(package), &mut files);
        }
        let mut declared = 0;
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for found in block.captures_iter(&text) {
                for field in row.captures_iter(&found[2]) {
                    declared += 1;
                    let name = (found[1].to_owned(), field[1].to_owned());
                    assert!(known.contains(&name), "{name:?} of {} is not collected", file.display());
                }
            }
        }
        assert!(declared > 100, "only {declared} declarations found: has their shape changed?");
    }

    #[test]
    fn the_document_says_what_the_code_does() {
        const BEGIN: &str = "<!-- ledger:begin -->\n";
        const END: &str = "<!-- ledger:end -->";
        let path = workspace().join("docs/compatibility.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("a place for the ledger");
        let (_, after) = rest.split_once(END).expect("an end of the ledger");
        let current = format!("{before}{BEGIN}\n{}\n{END}{after}", markdown());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, current).unwrap();
        } else {
            assert!(text == current, "docs/compatibility.md is stale: run this test with UPDATE_DOCS=1");
        }
    }
}

//! `/logging`.

use std::fmt::Write as _;

use hyper::StatusCode;

use super::http::Page;
use super::query::Query;
use crate::cli::LogLevel;
use crate::logging::{LogControl, is_logger};

const USAGE: &str = "
usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
usage: /logging?group=<group_name>:<level> (change group of loggers)
levels: trace debug info warning error critical off \n";

/// Shows levels, and changes them if asked to.
pub(super) fn page(log: &LogControl, query: &Query) -> Page {
    match change(log, query) {
        Ok(()) => Page::text(list(log)),
        Err(error) => Page::error(StatusCode::BAD_REQUEST, format!("error: {error}\n{USAGE}{}", list(log))),
    }
}

/// A parameter without a value, as the form on the home page sends it, changes nothing.
fn change(log: &LogControl, query: &Query) -> Result<(), &'static str> {
    let given: Vec<_> = query.pairs().iter().filter(|(_, value)| !value.is_empty()).collect();
    let (name, value) = match given.as_slice() {
        [] => return Ok(()),
        [(name, value)] => (name.as_str(), value.as_str()),
        _ => return Err("invalid number of parameters"),
    };
    let level = |text: &str| LogLevel::by_name(text).ok_or("unknown logger level");
    match name {
        "level" => log.set_all(level(value)?),
        "group" => return Err("group parameter requires fine-grain logging to be enabled"),
        "paths" => {
            // All are checked before any is changed.
            let mut changes = Vec::new();
            for part in value.split(',').filter(|part| !part.is_empty()) {
                let (name, text) = part.split_once(':').ok_or("empty logger name or empty logger level")?;
                if !is_logger(name) {
                    return Err("unknown logger name");
                }
                changes.push((name, level(text)?));
            }
            for (name, level) in changes {
                log.set(name, level);
            }
        }
        name => {
            let level = level(value)?;
            if !log.set(name, level) {
                return Err("unknown logger name");
            }
        }
    }
    Ok(())
}

fn list(log: &LogControl) -> String {
    let mut out = "active loggers:\n".to_owned();
    for (name, level) in log.levels() {
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "  {name}: {}", level.name());
    }
    out.push('\n');
    out
}

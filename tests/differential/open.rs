//! The differences that are still to be looked at: bugs until they are fixed or listed in [`super::known`] with a reason.
//!
//! `open/<area>.txt` has a line for each, the beginning of what the run says about it. A difference that is not there fails
//! the run, so their number can only fall; one that no longer shows is named, to be taken out. `UPDATE_OPEN=1` writes the
//! files from what a run finds.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;

use crate::support::proxy::{Kind, workspace};

/// The failures of an area that are not among its open differences.
pub fn without(area: &str, failures: Vec<String>) -> Vec<String> {
    if Kind::under_test() != Kind::Legate {
        return failures;
    }
    let path = workspace().join("tests/differential/open").join(format!("{area}.txt"));
    let heads: BTreeSet<String> = failures.iter().map(|failure| head(failure)).collect();
    let mut known: BTreeSet<String> = match fs::read_to_string(&path) {
        Ok(text) => text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect(),
        Err(_) => BTreeSet::new(),
    };
    if std::env::var_os("UPDATE_OPEN").is_some() {
        known.extend(heads.iter().cloned());
        let lines: Vec<&str> = known.iter().map(String::as_str).collect();
        fs::create_dir_all(path.parent().expect("it was joined")).expect("the folder can be made");
        fs::write(&path, lines.join("\n") + "\n").expect("the list can be written");
        return Vec::new();
    }
    let gone = known.difference(&heads).count();
    let _ = writeln!(
        std::io::stderr(),
        "{area}: {} open differences from Envoy ({gone} of them do not show this time); see {}",
        known.len(),
        path.display()
    );
    failures.into_iter().filter(|failure| !known.contains(&head(failure))).collect()
}

/// Fails if there is anything to report.
pub fn report(what: &str, failures: &[String]) {
    if failures.is_empty() {
        return;
    }
    let text = format!("\n{what}\n\n{}\n", failures.join("\n\n"));
    panic!("{text}");
}

/// What names a difference: the first line of what is said about it.
fn head(failure: &str) -> String {
    failure.lines().next().unwrap_or_default().split(": ").next().unwrap_or_default().to_owned()
}

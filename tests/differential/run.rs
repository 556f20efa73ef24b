//! Runs an area on both proxies and compares.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

use super::known::{self, Aspect};
use super::manifest::{Area, Case};
use super::observe::{Observed, Side};
use super::report::report;
use crate::support::proxy::Kind;

/// How long an answered connection is watched, attempt by attempt: what differs is tried again, and only what differs each
/// time is a finding. A busy machine may have been slow to close a connection, or to write a line.
pub const SETTLE: [Duration; 4] =
    [Duration::from_millis(25), Duration::from_millis(250), Duration::from_millis(1000), Duration::from_millis(2500)];

/// Runs an area; panics with every difference.
pub fn area(area: Area) {
    if !Kind::require_envoy(area.name) {
        return;
    }
    let wanted = std::env::var("CASES").unwrap_or_default();
    let cases: Vec<&Case> =
        area.cases.iter().filter(|case| format!("{}/{}", area.name, case.name).contains(&wanted)).collect();
    if cases.is_empty() {
        return;
    }
    let (envoy, legate) = std::thread::scope(|scope| {
        let envoy = scope.spawn(|| Side::start(Kind::Envoy, &area));
        let legate = Side::start(Kind::under_test(), &area);
        (envoy.join().expect("the thread of Envoy"), legate)
    });
    let mut envoy = envoy.unwrap_or_else(|error| panic!("{}: Envoy refuses the bootstrap:\n{error}", area.name));
    let refused: Vec<String> =
        envoy.refused.iter().map(|(listener, why)| format!("{}: Envoy refuses {listener}: {why}", area.name)).collect();
    report("Envoy refuses listeners of the manifest", &refused);
    let mut legate = match legate {
        Ok(legate) => legate,
        Err(error) => return report(&format!("{}: Legate refuses the bootstrap", area.name), &[error]),
    };

    let attempts = std::env::var("ATTEMPTS").ok().and_then(|text| text.parse().ok()).unwrap_or(SETTLE.len());
    let mut failures = Vec::new();
    for case in &cases {
        let (mut expected, mut actual) = both(&mut envoy, &mut legate, case, SETTLE[0]);
        for settle in SETTLE.iter().take(attempts).skip(1) {
            if differences(&area, case, &expected, &actual).is_empty() {
                break;
            }
            (expected, actual) = both(&mut envoy, &mut legate, case, *settle);
        }
        if let Some(status) = case.status
            && expected.statuses.iter().rfind(|status| **status >= 101) != Some(&status)
        {
            failures.push(format!(
                "{}/{}: the case expects {status}, but Envoy says:\n{}",
                area.name, case.name, expected.client
            ));
        }
        failures.extend(differences(&area, case, &expected, &actual));
        if !legate.proxy.is_running() {
            failures.push(format!("{}/{}: the proxy died:\n{}", area.name, case.name, legate.proxy.log()));
            break;
        }
        if std::env::var_os("SHOW").is_some() {
            let _ = writeln!(std::io::stderr(), "== {}/{} [{}]\n{expected:#?}", area.name, case.name, case.row);
        }
    }
    for (listener, reason) in &legate.refused {
        failures.push(format!("{}: listener {listener} is refused: {reason}", area.name));
    }
    report(
        &format!(
            "{} of {} cases of {} differ ({} findings)",
            failures.iter().filter_map(|failure| failure.split(' ').next()).collect::<BTreeSet<_>>().len(),
            cases.len(),
            area.name,
            failures.len(),
        ),
        &failures,
    );
}

/// The same case on both, side by side.
fn both(envoy: &mut Side, legate: &mut Side, case: &Case, settle: Duration) -> (Observed, Observed) {
    std::thread::scope(|scope| {
        let expected = scope.spawn(|| envoy.observe(case, settle));
        let actual = legate.observe(case, settle);
        (expected.join().expect("the thread of Envoy"), actual)
    })
}

/// Every aspect in which they differ and should not, or should and do not.
fn differences(area: &Area, case: &Case, expected: &Observed, actual: &Observed) -> Vec<String> {
    let name = format!("{}/{}", area.name, case.name);
    let mut found = Vec::new();
    let mut compare = |aspect: Aspect, expected: &str, actual: &str| {
        if !known::looked_at(aspect) {
            return;
        }
        let listed = known::listed(&name, aspect);
        let same = expected == actual;
        // Whether Legate is on the other side at all decides whether a listed difference has to show.
        if same && listed.is_some() && Kind::under_test() == Kind::Legate {
            found.push(format!("{name} [{}] {aspect:?}: listed as different, but is not", case.row));
        }
        if !same && listed.is_none() {
            found.push(format!("{name} [{}] {aspect:?}\n{}", case.row, lines(expected, actual)));
        }
    };
    compare(Aspect::Client, &expected.client, &actual.client);
    compare(Aspect::Upstream, &expected.upstream, &actual.upstream);
    compare(Aspect::Log, &expected.log, &actual.log);
    let names: BTreeSet<&String> = expected.stats.keys().chain(actual.stats.keys()).collect();
    let changed = |side: &Observed| {
        let lines = names.iter().filter(|name| !known::ignored_stat(name)).filter_map(|name| {
            let (ours, theirs) = (expected.stats.get(*name), actual.stats.get(*name));
            let value = side.stats.get(*name).copied().unwrap_or(0);
            (ours != theirs).then(|| format!("{name}: {value:+}"))
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    compare(Aspect::Stats, &changed(expected), &changed(actual));
    found
}

/// The lines that differ: `-` Envoy's, `+` Legate's.
fn lines(expected: &str, actual: &str) -> String {
    let (left, right): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    let head = left.iter().zip(&right).take_while(|(left, right)| left == right).count();
    let (left, right) = (left.get(head..).unwrap_or_default(), right.get(head..).unwrap_or_default());
    let tail = left.iter().rev().zip(right.iter().rev()).take_while(|(left, right)| left == right).count();
    let part = |lines: &[&str], sign: &str| -> Vec<String> {
        lines.iter().take(lines.len() - tail).map(|line| format!("  {sign} {line}")).collect()
    };
    [part(left, "-"), part(right, "+")].concat().join("\n")
}

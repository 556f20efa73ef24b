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
    let (mut envoy, mut legate) = start(&area);
    let attempts = std::env::var("ATTEMPTS").ok().and_then(|text| text.parse().ok()).unwrap_or(SETTLE.len());
    let differing: Vec<&Case> = cases
        .iter()
        .copied()
        .filter(|case| !compare(&area, (&mut envoy, &mut legate), case, attempts).is_empty())
        .collect();
    // What one bad moment left in a proxy, such as a key that was not fetched, must not decide all further attempts.
    if !differing.is_empty() && attempts > 1 {
        let names: Vec<&str> = differing.iter().map(|case| case.name).collect();
        let _ = writeln!(std::io::stderr(), "{}: tried again on fresh proxies: {}", area.name, names.join(", "));
        (envoy, legate) = start(&area);
    }
    let mut failures = Vec::new();
    for case in differing {
        failures.extend(compare(&area, (&mut envoy, &mut legate), case, attempts));
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

/// Both proxies with the area's configuration; panics if either does not take it.
fn start(area: &Area) -> (Side, Side) {
    let (envoy, legate) = std::thread::scope(|scope| {
        let envoy = scope.spawn(|| Side::start(Kind::Envoy, area));
        let legate = Side::start(Kind::under_test(), area);
        (envoy.join().expect("the thread of Envoy"), legate)
    });
    let envoy = envoy.unwrap_or_else(|error| panic!("{}: Envoy refuses the bootstrap:\n{error}", area.name));
    let refused: Vec<String> =
        envoy.refused.iter().map(|(listener, why)| format!("{}: Envoy refuses {listener}: {why}", area.name)).collect();
    report("Envoy refuses listeners of the manifest", &refused);
    let legate = legate.unwrap_or_else(|error| panic!("{}: Legate refuses the bootstrap:\n{error}", area.name));
    (envoy, legate)
}

/// What differs in one case, each time it was tried; panics if the proxy under test died of it.
fn compare(area: &Area, (envoy, legate): (&mut Side, &mut Side), case: &Case, attempts: usize) -> Vec<String> {
    let (mut expected, mut actual) = both(envoy, legate, case, SETTLE[0]);
    for settle in SETTLE.iter().take(attempts).skip(1) {
        if differences(area, case, &expected, &actual).is_empty() {
            break;
        }
        (expected, actual) = both(envoy, legate, case, *settle);
    }
    if std::env::var_os("SHOW").is_some() {
        let _ = writeln!(std::io::stderr(), "== {}/{} [{}]\n{expected:#?}", area.name, case.name, case.row);
    }
    let name = format!("{}/{}", area.name, case.name);
    assert!(legate.proxy.is_running(), "{name}: the proxy died:\n{}", legate.proxy.log());
    let mut failures = Vec::new();
    if let Some(status) = case.status
        && expected.statuses.iter().rfind(|status| **status >= 101) != Some(&status)
    {
        failures.push(format!("{name}: the case expects {status}, but Envoy says:\n{}", expected.client));
    }
    failures.extend(differences(area, case, &expected, &actual));
    failures
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

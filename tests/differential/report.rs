//! How findings end a test.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write as _;

use crate::support::proxy::Kind;

/// Observes both proxies side by side, each thing by its name, and fails where they differ. `SHOW=1` prints what was seen of
/// Envoy.
pub fn compare<K: Ord + Display + Send>(what: &str, observe: impl Fn(Kind) -> BTreeMap<K, String> + Sync) {
    if !Kind::require_envoy(what) {
        return;
    }
    let (expected, actual) = std::thread::scope(|scope| {
        let expected = scope.spawn(|| observe(Kind::Envoy));
        let actual = observe(Kind::under_test());
        (expected.join().expect("the thread of Envoy"), actual)
    });
    let mut failures = Vec::new();
    for (name, expected) in &expected {
        if std::env::var_os("SHOW").is_some() {
            println!("== {name}\n{expected}");
        }
        let actual = actual.get(name).map_or("", String::as_str);
        if actual != expected {
            failures.push(format!("{name}\n  Envoy:\n{expected}\n  Legate:\n{actual}"));
        }
    }
    report(&format!("{what}: {} of {} differ", failures.len(), expected.len()), &failures);
}

/// Fails if there is anything to report.
pub fn report(what: &str, failures: &[String]) {
    assert!(failures.is_empty(), "\n{what}\n\n{}\n", failures.join("\n\n"));
}

/// Runs a comparison up to three times, until it does not fail: much is a matter of time, and a busy machine is late once in a
/// while. What differs differs each time.
pub fn patiently(comparison: fn()) {
    for _ in 0..2 {
        if std::panic::catch_unwind(comparison).is_ok() {
            return;
        }
        let _ = writeln!(std::io::stderr(), "that is tried again");
    }
    comparison();
}

//! How findings end a test.

use std::collections::BTreeMap;
use std::fmt::Display;

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

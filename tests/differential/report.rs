//! How findings end a test.

/// Fails if there is anything to report.
pub fn report(what: &str, failures: &[String]) {
    assert!(failures.is_empty(), "\n{what}\n\n{}\n", failures.join("\n\n"));
}

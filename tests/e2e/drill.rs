//! The fault drill as a user runs it: no request is lost that could have been saved, and afterwards memory, descriptors and
//! gauges are as before.
//!
//! `DRILL_SECONDS` says how long the load of each protocol lasts; the default suits a gate.

use std::process::Command;

use crate::support::proxy::Kind;

#[test]
fn no_http1_request_is_lost_that_could_have_been_saved() {
    drill("http1", &[]);
}

#[test]
fn no_http2_request_is_lost_that_could_have_been_saved() {
    drill("http2", &[]);
}

#[test]
fn no_grpc_call_is_lost_that_could_have_been_saved() {
    drill("grpc", &[]);
}

#[test]
fn hosts_that_are_ejected_and_taken_back_cost_no_request() {
    drill("http2", &["--outlier-detection", "--seed", "2"]);
}

/// What the drill promises by its exit code is worth something only if it can fail.
#[test]
fn a_proxy_that_cannot_start_is_an_error() {
    let output = command(&["--proxy", "/bin/false"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("did not start"), "{errors}");
}

fn drill(protocol: &str, more: &[&str]) {
    let seconds = std::env::var("DRILL_SECONDS").unwrap_or_else(|_| "4".to_owned());
    let proxy = Kind::under_test().binary().expect("it is installed");
    let mut command = command(&["--protocol", protocol, "--seconds", &seconds, "--rate", "100"]);
    let output = command.arg("--proxy").arg(proxy).args(more).output().expect("it runs");
    let report = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && report.trim_end().ends_with("passed"), "{report}{errors}");
    println!("{report}");
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(Kind::Legate.binary().expect("it is built"));
    command.arg("drill").args(arguments);
    command
}

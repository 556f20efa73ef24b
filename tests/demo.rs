//! `legate demo` as a user runs it.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LEGATE: &str = env!("CARGO_BIN_EXE_legate");

#[test]
fn the_check_passes_and_says_so() {
    let demo = Command::new(LEGATE).args(["demo", "--check"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let demo = demo.expect("it runs");
    let pid = demo.id();
    let output = demo.wait_with_output().expect("it ends");
    let report = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}{errors}");
    assert!(report.trim_end().ends_with("12 passed, 0 failed"), "{report}");
    assert!(proxies_of(pid).is_empty(), "the proxies ended with it");
}

#[test]
fn a_proxy_that_cannot_start_is_an_error() {
    let output = Command::new(LEGATE).args(["demo", "--check", "--proxy", "/bin/false"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("did not start"), "{errors}");
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let output = Command::new(LEGATE).args(["demo", "--requests", "0"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let help = Command::new(LEGATE).args(["demo", "--help"]).output().expect("it runs");
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--check"));
}

#[test]
fn no_proxy_survives_a_demo_that_was_killed() {
    let mut demo = Command::new(LEGATE).arg("demo").stdout(Stdio::piped()).spawn().expect("it runs");
    let output = BufReader::new(demo.stdout.take().expect("a pipe"));
    // The first lines are printed when both proxies serve.
    let line = output.lines().next().expect("a line").expect("text");
    assert!(line.contains("curl http://127.0.0.1:"), "{line}");
    assert_eq!(proxies_of(demo.id()).len(), 2);
    demo.kill().expect("killed");
    demo.wait().expect("waited");
    let deadline = Instant::now() + Duration::from_secs(5);
    while !proxies_of(demo.id()).is_empty() {
        assert!(Instant::now() < deadline, "still running: {:?}", proxies_of(demo.id()));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The demo with this process id keeps its files in a directory named after it, which its proxies were started with.
/// Their guards are not among them: they come after `demo` on the command line.
fn proxies_of(demo: u32) -> Vec<String> {
    let mark = format!("/legate-demo-{demo}-");
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    let commands = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let commands = commands.map(|command| String::from_utf8_lossy(&command).replace('\0', " "));
    commands.filter(|command| command.contains(&mark) && !command.contains(" --guard ")).collect()
}

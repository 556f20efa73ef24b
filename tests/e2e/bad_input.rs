//! Configuration that cannot be used: one clear error, exit code 1, soon, and in little memory.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::bootstrap::{ADMIN, TO_UP, bootstrap, cluster, http_listener, unlogged};
use crate::support::proxy::{Finished, Kind, Proxy};

/// What serving such a file ends with.
fn refusal(text: &str) -> Finished {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("bootstrap.yaml");
    fs::write(&file, unlogged(text)).expect("a file");
    let began = Instant::now();
    let finished = Kind::under_test().run(&[
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "-l",
        "warning",
        "-c",
        &file.to_string_lossy(),
    ]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(began.elapsed() < Duration::from_secs(6), "it took {:?}", began.elapsed());
    finished
}

/// The error names these. Only Legate promises it.
#[track_caller]
fn names(finished: &Finished, parts: &[&str]) {
    if Kind::under_test() == Kind::Legate {
        for part in parts {
            assert!(finished.stderr.contains(part), "does not name {part}: {}", finished.stderr);
        }
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
        assert!(finished.stderr.len() < 4096, "not one clear error: {}", finished.stderr);
    }
}

#[test]
fn alias_bombs() {
    if Kind::under_test() == Kind::Envoy {
        // Envoy's parser expands them.
        return;
    }
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let previous = format!("*a{}", level - 1);
        let _ = writeln!(text, "a{level}: &a{level} [{}]", [previous.as_str(); 9].join(", "));
    }
    refusal(&text);
}

#[test]
fn deep_nesting() {
    let deep =
        |count: usize| format!("node: {{metadata: {{a: {}1{}}}}}\n{ADMIN}", "[".repeat(count), "]".repeat(count));
    if Kind::under_test() == Kind::Legate {
        names(&refusal(&deep(100_000)), &["bootstrap.yaml"]);
    }
}

#[test]
fn duplicate_keys() {
    if Kind::under_test() == Kind::Legate {
        names(&refusal(&format!("{ADMIN}\n{ADMIN}\n")), &["bootstrap.yaml", "admin"]);
    }
}

#[test]
fn unknown_fields_and_wrong_types() {
    let listener = http_listener("in", "", TO_UP, "");
    let up = cluster("up", &[1], "");
    names(
        &refusal(&bootstrap(std::slice::from_ref(&listener), &[up.replace("name: up", "name: up, colour: red")], "")),
        &["colour", "static_resources.clusters[0]"],
    );
    names(&refusal(&bootstrap(std::slice::from_ref(&listener), &[up.replace("2s", "[2]")], "")), &["connect_timeout"]);
    names(
        &refusal(&bootstrap(&[listener.replace("cluster: up", "cluster: gone")], std::slice::from_ref(&up), "")),
        &["gone"],
    );
    names(&refusal(&bootstrap(&[listener], &[up.clone(), up], "")), &["up"]);
}

#[test]
fn files_that_cannot_be_read() {
    for (file, part) in [("/nowhere/at/all.yaml", "/nowhere/at/all.yaml"), ("/", "/")] {
        let finished = Kind::under_test().run(&["--disable-hot-restart", "-c", file]);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        names(&finished, &[part]);
    }
    names(&refusal(""), &[]);
    names(&refusal("\0\0\0"), &["bootstrap.yaml"]);
    names(&refusal("admin: [\n"), &["bootstrap.yaml"]);
}

#[test]
fn unknown_flags() {
    let finished = Kind::under_test().run(&["--no-such-flag"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("--no-such-flag"), "{finished:?}");
}

#[test]
fn a_port_in_use() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let listener = http_listener(
        "in",
        "",
        TO_UP,
        &format!("address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}"),
    );
    names(&refusal(&bootstrap(&[listener], &[cluster("up", &[1], "")], "")), &["in", &port.to_string()]);
}

#[test]
fn a_second_process_does_not_share_a_port() {
    if Kind::under_test() == Kind::Envoy {
        return;
    }
    let up = [cluster("up", &[1], "")];
    let first = Proxy::start(Kind::under_test(), &bootstrap(&[http_listener("in", "", TO_UP, "")], &up, ""));
    let port = first.listener("in").port();
    let listener = http_listener(
        "in",
        "",
        TO_UP,
        &format!("address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}"),
    );
    names(&refusal(&bootstrap(&[listener], &up, "")), &["in", &port.to_string()]);
}

#[test]
fn expensive_expressions() {
    let host = r#"{name: v, domains: ["*"], routes: [{match: {safe_regex: {regex: "((((a{1,100}){1,100}){1,100}){1,100})"}}, route: {cluster: up}}]}"#;
    names(&refusal(&bootstrap(&[http_listener("in", "", host, "")], &[cluster("up", &[1], "")], "")), &["regex"]);
}

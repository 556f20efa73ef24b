use std::time::Duration;

use super::*;

fn run(args: &[&str]) -> Result<Command, UsageError> {
    parse(std::iter::once("legate").chain(args.iter().copied()).map(str::to_owned))
}

fn options_of(args: &[&str]) -> Options {
    match run(args) {
        Ok(Command::Run(options)) => *options,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn the_defaults_are_envoys() {
    let options = options_of(&[]);
    assert_eq!(options.drain_time, Duration::from_secs(600));
    assert_eq!(options.parent_shutdown_time, Duration::from_secs(900));
    assert_eq!(options.file_flush_interval, Duration::from_millis(10_000));
    assert_eq!(
        (options.mode, options.drain_strategy, options.log_level),
        (Mode::Serve, DrainStrategy::Gradual, LogLevel::Info)
    );
    assert_eq!(options.log_format, DEFAULT_LOG_FORMAT);
    assert_eq!(options.drain_on_sigterm, None);
    assert!(options.concurrency >= 1 && options.without_meaning.is_empty());
}

#[test]
fn values_follow_or_are_joined() {
    for args in [["-c", "a.yaml", "--concurrency", "3"].as_slice(), &["--config-path=a.yaml", "--concurrency=3"]] {
        let options = options_of(args);
        assert_eq!((options.config_path.as_str(), options.concurrency), ("a.yaml", 3));
    }
    assert_eq!(options_of(&["--concurrency", "0"]).concurrency, 1);
    assert_eq!(options_of(&["--config-yaml", "-a: b"]).config_yaml, "-a: b", "a value may begin with a dash");
    assert_eq!(options_of(&["--", "--bogus"]).config_path, "", "what follows -- is ignored");
}

#[test]
fn what_istio_and_app_mesh_pass_is_understood() {
    let options = options_of(&[
        "-c",
        "etc/envoy-rev.json",
        "--drain-time-s",
        "45",
        "--drain-strategy",
        "immediate",
        "--local-address-ip-version",
        "v4",
        "--file-flush-interval-msec",
        "1000",
        "--disable-hot-restart",
        "--allow-unknown-static-fields",
        "-l",
        "warning",
        "--component-log-level",
        "misc:error,upstream:debug",
        "--skip-deprecated-logs",
        "--concurrency",
        "2",
        "--cpuset-threads",
        "--base-id",
        "7",
    ]);
    assert_eq!(options.drain_strategy, DrainStrategy::Immediate);
    let levels = [("misc".to_owned(), LogLevel::Error), ("upstream".to_owned(), LogLevel::Debug)];
    assert_eq!(options.component_log_levels, levels);
    let names: Vec<_> = options.without_meaning.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["cpuset-threads", "base-id"], "said once at start");
}

#[test]
fn legates_own_flags() {
    assert_eq!(options_of(&["--drain-on-sigterm"]).drain_on_sigterm, Some(Duration::from_secs(600)));
    assert_eq!(
        options_of(&["--drain-on-sigterm", "--drain-time-s", "5"]).drain_on_sigterm,
        Some(Duration::from_secs(5))
    );
    assert_eq!(options_of(&["--drain-on-sigterm=20"]).drain_on_sigterm, Some(Duration::from_secs(20)));
    let allowed = options_of(&["--allow-unsupported", "a.B.c", "--allow-unsupported=x.y[0]"]).allow_unsupported;
    assert_eq!(allowed, ["a.B.c", "x.y[0]"]);
    assert_eq!(run(&["demo", "--check"]), Ok(Command::Demo(vec!["--check".to_owned()])));
    assert_eq!(run(&["drill", "--json"]), Ok(Command::Drill(vec!["--json".to_owned()])));
    assert!(run(&["--drain-on-sigterm=soon"]).is_err());
}

#[test]
fn errors_read_as_envoys() {
    for (args, start, last) in [
        (
            ["--bogus"].as_slice(),
            "PARSE ERROR: Argument: --bogus\n             Couldn't find match for argument\n\nBrief USAGE: ",
            "--bogus -- Couldn't find match for argument",
        ),
        (
            &["--concurrency", "abc"],
            "PARSE ERROR: Argument: (--concurrency)\n             Couldn't read argument value from string 'abc'\n",
            "(--concurrency) -- Couldn't read argument value from string 'abc'",
        ),
        (
            &["-c"],
            "PARSE ERROR: Argument: -c (--config-path)\n             Missing a value for this argument!\n",
            "-c (--config-path) -- Missing a value for this argument!",
        ),
        (&["-c", "a", "-c", "b"], "PARSE ERROR: Argument: -c (--config-path)\n", "already set!"),
        (&["stray"], "PARSE ERROR: Argument: stray\n", "match for argument"),
        (&["--mode", "foo"], "error: unknown mode 'foo'", "'foo'"),
        (&["-l", "loud"], "error: invalid log level specified 'loud'", "'loud'"),
        (&["--component-log-level", "nope:info"], "error: invalid component specified 'nope'", "'nope'"),
        (&["--restart-epoch", "1"], "error: --restart-epoch above 0 is not supported", "yet"),
        (&["--stats-tag", "a:b", "--stats-tag", "a:c"], "error: misformatted stats-tag 'a:c'", "already"),
    ] {
        let error = run(args).unwrap_err().to_string();
        assert!(error.starts_with(start), "{args:?}: {error}");
        assert!(error.ends_with(last), "{args:?}: {error}");
    }
}

#[test]
fn versions_are_printed() {
    let print = |args: &[&str]| match run(args) {
        Ok(Command::Print(text)) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(print(&["--hot-restart-version"]), "11.104");
    let version = print(&["--version"]);
    assert!(version.starts_with("\nlegate  version: ") && version.contains("/1.40.0/"), "{version}");
    assert!(version.contains(LEGATE_VERSION));
    let help = print(&["-h"]);
    for flag in &FLAGS {
        assert!(help.contains(&format!("--{}", flag.name)), "{}", flag.name);
    }
}

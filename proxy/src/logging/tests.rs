use chrono::TimeZone as _;

use super::*;
use crate::cli::{Command, DEFAULT_LOG_FORMAT, parse};

fn line(message: &str) -> String {
    render(DEFAULT_LOG_FORMAT, false, message)
}

fn render(format: &str, escape: bool, message: &str) -> String {
    let time = chrono::Local.with_ymd_and_hms(2026, 3, 4, 5, 6, 7).unwrap() + chrono::Duration::microseconds(8009);
    let line = Line {
        time,
        thread: 42,
        level: LogLevel::Warning,
        logger: "main",
        file: "proxy/src/server.rs",
        line: 9,
        message,
    };
    Pattern::parse(format, escape).render(&line)
}

#[test]
fn lines_look_like_envoys() {
    assert_eq!(line("hello"), "[2026-03-04 05:06:07.008][42][warning][main] [proxy/src/server.rs:9] hello");
}

#[test]
fn flags_widths_and_escapes() {
    for (format, expected) in [
        ("%L %s %@ %%", "W server.rs proxy/src/server.rs:9 %"),
        ("[%10l][%-10l][%=10l][%3!l]", "[   warning][warning   ][ warning  ][war]"),
        ("%f %E %q", "008009 {epoch} %q"),
        ("%^%v%$", "a\n\"b\""),
        ("{\"m\":\"%j\"}", r#"{"m":"a\n\"b\""}"#),
        ("%_", "a\\n\"b\""),
        ("100%", "100%"),
    ] {
        let epoch = chrono::Local.with_ymd_and_hms(2026, 3, 4, 5, 6, 7).unwrap().timestamp().to_string();
        assert_eq!(render(format, false, "a\n\"b\""), expected.replace("{epoch}", &epoch), "{format}");
    }
    assert!(!render("%v", true, "a\nb").contains('\n'));
}

#[test]
fn modules_belong_to_envoys_loggers() {
    for (target, logger) in [
        ("upstream", "upstream"),
        ("legate::upstream::pool::http1", "pool"),
        ("legate::upstream::host", "upstream"),
        ("legate::http::codec::h2::server", "http2"),
        ("legate", "main"),
        ("legates", "misc"),
        ("hickory_resolver::name_server", "dns"),
        ("somebody_else", "misc"),
    ] {
        assert_eq!(LOGGERS[logger_of(target)], logger, "{target}");
    }
    assert!(MODULES.iter().all(|(_, logger)| is_logger(logger)));
}

#[test]
fn levels_by_component_and_at_run_time() {
    let args = ["legate", "-l", "error", "--component-log-level", "upstream:debug"];
    let Ok(Command::Run(options)) = parse(args.map(str::to_owned)) else { panic!("valid arguments") };
    let control = LogControl::new(Output::StandardError, &options);
    let level = |name: &str| control.levels().find(|(logger, _)| *logger == name).unwrap().1;
    assert_eq!((level("upstream"), level("main")), (LogLevel::Debug, LogLevel::Error));
    assert!(control.set("main", LogLevel::Trace) && !control.set("bogus", LogLevel::Trace));
    assert_eq!(level("main"), LogLevel::Trace);
    control.set_all(LogLevel::Off);
    assert!(control.levels().all(|(_, level)| level == LogLevel::Off));
}

#[test]
fn a_log_file_is_followed_when_it_moves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let output = Output::open(path.clone()).unwrap();
    let Ok(Command::Run(options)) = parse(["legate".to_owned()]) else { panic!("valid arguments") };
    let control = LogControl::new(output, &options);
    control.0.output.write(b"one\n");
    std::fs::rename(&path, directory.path().join("old")).unwrap();
    control.reopen().unwrap();
    control.0.output.write(b"two\n");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "two\n");
    assert!(Output::open("/no/such/directory/log".into()).unwrap_err().starts_with("Failed to open log-file"));
}

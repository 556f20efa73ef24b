//! Writers over real files and pipes, filters by table.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant, SystemTime};

use filters::flags::ResponseFlags;
use filters::format::{AccessLogType, FormatOptions};
use filters::http::{Headers, Known, RequestHead};
use filters::matcher::{FractionalPercent, NoRuntime};
use filters::stream_info::{Address, ConnectionInfo, StreamInfo};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn info() -> StreamInfo {
    let unnamed = Address::Pipe("".into());
    let connection = ConnectionInfo { listener_name: "l".into(), ..ConnectionInfo::between(unnamed.clone(), unnamed) };
    StreamInfo::new(Rc::new(connection), Instant::now(), SystemTime::now(), 1)
}

#[test]
fn lines_of_two_workers_reach_the_file_by_shutdown() {
    let directory = tempfile::tempdir().unwrap();
    let target = LogTarget::File(directory.path().join("a.log"));
    let files = Arc::new(LogFiles::new(Duration::from_secs(10)));
    let store = stats::Store::new(3, stats::StoreOptions::default());
    files.publish(&store);
    let shown = |name: &str| {
        let snapshot = store.snapshot();
        snapshot.numbers().find(|number| number.name == name).map(|number| number.value).unwrap()
    };
    let file = files.open(&target).unwrap();
    assert!(Arc::ptr_eq(&file, &files.open(&target).unwrap()), "a path is opened once");
    let format = LogFormat::Text(Format::parse("%RESPONSE_CODE%\n", &FormatOptions::default()).unwrap());
    let log = AccessLog { filter: None, format, file: Arc::clone(&file) };
    let (one, two) = (WorkerLogs::new(), WorkerLogs::new());
    let mut info = info();
    for (worker, status) in [(&one, 200), (&two, 404), (&one, 503)] {
        info.response_code = status;
        log.log(&FormatContext::new(&info), worker, &NoRuntime);
    }
    let stats = files.stats();
    assert_eq!((stats.write_buffered, stats.write_total_buffered, stats.write_completed), (3, 12, 0));
    assert_eq!((shown("filesystem.write_buffered"), shown("filesystem.write_total_buffered")), (3, 12));
    one.flush();
    drop((one, two));
    files.shutdown(PATIENCE);
    let text = fs::read_to_string(directory.path().join("a.log")).unwrap();
    let mut lines = text.lines().collect::<Vec<_>>();
    lines.sort_unstable();
    assert_eq!(lines, ["200", "404", "503"]);
    let stats = files.stats();
    assert_eq!((stats.write_completed, stats.write_total_buffered, stats.flushed_by_timer), (2, 0, 2));
    assert_eq!((shown("filesystem.write_buffered"), shown("filesystem.write_completed")), (3, 2), "each counted once");
}

#[test]
fn who_flushes_sleeps_until_a_line_is_written() {
    struct Woken(AtomicU32);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let file = LogFiles::new(PATIENCE).open(&LogTarget::File(directory.path().join("a.log"))).unwrap();
    let worker = WorkerLogs::new();
    let woken = Arc::new(Woken(AtomicU32::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let cx = Context::from_waker(&waker);
    assert!(worker.is_empty() && worker.poll_written(&cx).is_pending());
    for _ in 0..2 {
        worker.write(&file, |line| line.extend_from_slice(b"line\n"));
    }
    assert_eq!(woken.0.load(Relaxed), 1, "the first line wakes, the next has nobody to wake");
    assert!(!worker.is_empty() && worker.poll_written(&cx).is_ready());
    worker.flush();
    assert!(worker.poll_written(&cx).is_pending(), "nothing waits any more");
}

#[test]
fn a_full_buffer_is_handed_over_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let files = LogFiles::new(PATIENCE);
    let file = files.open(&LogTarget::File(directory.path().join("a.log"))).unwrap();
    let worker = WorkerLogs::new();
    for _ in 0..3 {
        worker.write(&file, |line| line.resize(line.len() + worker::FLUSH_AT / 2, b'x'));
    }
    files.shutdown(PATIENCE);
    let stats = files.stats();
    assert_eq!((stats.write_completed, stats.flushed_by_timer), (1, 0));
    assert_eq!(stats.write_total_buffered, worker::FLUSH_AT as u64 / 2, "the third line still waits");
}

#[test]
fn reopening_lets_a_rotated_file_go() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.log");
    let files = LogFiles::new(PATIENCE);
    let file = files.open(&LogTarget::File(path.clone())).unwrap();
    let worker = WorkerLogs::new();
    worker.write(&file, |line| line.extend_from_slice(b"old\n"));
    worker.flush();
    let deadline = Instant::now() + PATIENCE;
    while files.stats().write_completed == 0 {
        assert!(Instant::now() < deadline, "the line was not written");
        std::thread::yield_now();
    }
    fs::rename(&path, directory.path().join("a.log.1")).unwrap();
    files.reopen();
    worker.write(&file, |line| line.extend_from_slice(b"new\n"));
    worker.flush();
    files.shutdown(PATIENCE);
    assert_eq!(fs::read_to_string(directory.path().join("a.log.1")).unwrap(), "old\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
}

#[test]
fn a_path_that_cannot_be_reopened_is_counted_and_the_old_file_kept() {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("below");
    fs::create_dir(&below).unwrap();
    let files = LogFiles::new(PATIENCE);
    let file = files.open(&LogTarget::File(below.join("a.log"))).unwrap();
    fs::rename(&below, directory.path().join("moved")).unwrap();
    files.reopen();
    let worker = WorkerLogs::new();
    worker.write(&file, |line| line.extend_from_slice(b"kept\n"));
    drop(worker);
    files.shutdown(PATIENCE);
    assert_eq!(files.stats().reopen_failed, 1);
    assert_eq!(fs::read_to_string(directory.path().join("moved/a.log")).unwrap(), "kept\n");
}

#[test]
fn errors_name_the_path_in_envoys_words() {
    let directory = tempfile::tempdir().unwrap();
    let files = LogFiles::new(PATIENCE);
    for (path, reason) in [
        (directory.path().join("no/x.log"), "No such file or directory"),
        (directory.path().to_owned(), "Is a directory"),
    ] {
        let error = files.open(&LogTarget::File(path.clone())).unwrap_err();
        assert_eq!(error, format!("unable to open file '{}': {reason}", path.display()));
    }
}

#[test]
fn a_stalled_pipe_costs_lines_but_no_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    // Held open for reading, so that opening for writing does not wait; nothing is read at first.
    let reader = fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    let files = LogFiles::new(PATIENCE);
    let file = files.open(&LogTarget::File(path)).unwrap();
    let worker = WorkerLogs::new();
    let lines = 80 + 20;
    for _ in 0..lines {
        worker.write(&file, |line| line.resize(line.len() + worker::FLUSH_AT, b'x'));
    }
    let stats = files.stats();
    assert!(stats.dropped > 0, "{stats:?}");
    assert_eq!(stats.write_buffered + stats.dropped, lines);
    // The reader wakes: what was buffered arrives.
    let wanted = stats.write_total_buffered;
    let thread = std::thread::spawn(move || {
        let (mut reader, mut seen, mut buffer) = (reader, 0_u64, vec![0; 1 << 16]);
        let deadline = Instant::now() + PATIENCE;
        while seen < wanted && Instant::now() < deadline {
            match reader.read(&mut buffer) {
                Ok(read) => seen += read as u64,
                Err(_) => std::thread::yield_now(),
            }
        }
        seen
    });
    let deadline = Instant::now() + PATIENCE;
    while files.stats().write_total_buffered > 0 && Instant::now() < deadline {
        worker.flush();
        std::thread::yield_now();
    }
    assert!(thread.join().unwrap() >= wanted);
}

#[test]
fn filters_by_table() {
    let comparison = |op, value| Comparison { op, value, runtime_key: "".into() };
    let mut info = info();
    info.response_code = 503;
    info.end = Some(info.start + Duration::from_millis(40));
    info.flags.insert(ResponseFlags::NO_ROUTE_FOUND);
    let mut head = RequestHead::default();
    head.headers.append(Known::XRequestId, "00000031-0000-4000-8000-000000000000");
    let mut trailers = Headers::new();
    trailers.append(Known::GrpcStatus, "5");
    let with = |trailers| FormatContext {
        request: Some(&head),
        trailers,
        log_type: AccessLogType::DownstreamEnd,
        ..FormatContext::new(&info)
    };
    let share = |numerator, independent| LogFilter::Runtime {
        key: "k".into(),
        default: FractionalPercent { numerator, denominator: 100 },
        independent,
    };
    use ComparisonOp as Op;
    let rows = [
        (LogFilter::StatusCode(comparison(Op::AtLeast, 500)), true),
        (LogFilter::StatusCode(comparison(Op::Equal, 500)), false),
        (LogFilter::StatusCode(comparison(Op::NotEqual, 500)), true),
        (LogFilter::Duration(comparison(Op::AtMost, 40)), true),
        (LogFilter::Duration(comparison(Op::AtLeast, 41)), false),
        (LogFilter::NotHealthCheck, true),
        (LogFilter::ResponseFlag(vec![]), true),
        (LogFilter::ResponseFlag(vec![ResponseFlags::NO_ROUTE_FOUND, ResponseFlags::LOCAL_RESET]), true),
        (LogFilter::ResponseFlag(vec![ResponseFlags::LOCAL_RESET]), false),
        (LogFilter::GrpcStatus { statuses: vec![5], exclude: false }, true),
        (LogFilter::GrpcStatus { statuses: vec![5], exclude: true }, false),
        (LogFilter::LogType { types: vec![AccessLogType::DownstreamEnd], exclude: false }, true),
        (LogFilter::LogType { types: vec![], exclude: true }, true),
        // 0x31 is 49.
        (share(50, false), true),
        (share(49, false), false),
        (share(0, true), false),
        (share(100, true), true),
        (LogFilter::And(vec![LogFilter::NotHealthCheck, LogFilter::StatusCode(comparison(Op::Equal, 1))]), false),
        (LogFilter::Or(vec![LogFilter::NotHealthCheck, LogFilter::StatusCode(comparison(Op::Equal, 1))]), true),
        (LogFilter::Constant(true), true),
    ];
    for (filter, expected) in rows {
        assert_eq!(filter.matches(&with(Some(&trailers)), &NoRuntime), expected, "{filter:?}");
    }
    let from_http = LogFilter::GrpcStatus { statuses: vec![14], exclude: false };
    assert!(from_http.matches(&with(None), &NoRuntime), "503 means unavailable");
}

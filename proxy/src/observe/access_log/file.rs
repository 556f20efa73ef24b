//! The files: one thread writes each, so that a slow disk or a full pipe delays nothing else.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stats::Store;

/// How many buffers may wait for a file: with 64 KiB each, 4 MiB.
const WAITING_LIMIT: usize = 64;

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// A path; appended to, created with mode 0644.
    File(PathBuf),
    /// The process's standard output.
    Stdout,
    /// The process's standard error.
    Stderr,
}

/// `filesystem.*` statistics, summed over all files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilesystemStats {
    /// `write_buffered`: lines put into a buffer.
    pub write_buffered: u64,
    /// `write_completed`: writes to a file that succeeded.
    pub write_completed: u64,
    /// `write_failed`: writes that did not.
    pub write_failed: u64,
    /// `flushed_by_timer`: buffers handed over because their time had come.
    pub flushed_by_timer: u64,
    /// `reopen_failed`
    pub reopen_failed: u64,
    /// `write_total_buffered`, a gauge: bytes not written yet.
    pub write_total_buffered: u64,
    /// Lines dropped because a file could not keep up (Legate's own).
    pub dropped: u64,
}

/// What a worker hands to a file's thread.
#[derive(Debug)]
pub(super) enum Chunk {
    Lines { bytes: Vec<u8>, by_timer: bool },
    Reopen,
    Stop,
}

/// What one worker has put into one file's buffers; written by that worker only.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) lines: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) dropped: AtomicU64,
}

/// What a file's thread has done.
#[derive(Debug, Default)]
struct Written {
    bytes: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    by_timer: AtomicU64,
    reopen_failed: AtomicU64,
}

/// What is counted about a file; outlives it, so that counters never go back.
#[derive(Debug, Default)]
struct Counts {
    workers: Mutex<Vec<Arc<Progress>>>,
    written: Written,
}

/// An open log file with its thread.
#[derive(Debug)]
pub struct LogFile {
    target: LogTarget,
    sender: SyncSender<Chunk>,
    reopen_pending: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// All log files of the process, each opened once however many loggers name it.
#[derive(Debug)]
pub struct LogFiles {
    flush_interval: Duration,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next_id: usize,
    files: Vec<(Weak<LogFile>, Arc<Counts>)>,
}

impl LogFiles {
    /// No file yet; workers flush every `flush_interval` (`--file-flush-interval-msec`, default 10 s).
    #[must_use]
    pub fn new(flush_interval: Duration) -> Self {
        Self { flush_interval, open: Mutex::default() }
    }

    /// How often workers hand over buffers that are not full.
    #[must_use]
    pub const fn flush_interval(&self) -> Duration {
        self.flush_interval
    }

    /// The file for `target`, opened now if no logger in use has it open.
    ///
    /// # Errors
    /// In Envoy's words, naming the path, when it cannot be opened for appending.
    pub fn open(&self, target: &LogTarget) -> Result<Arc<LogFile>, String> {
        let mut open = lock(&self.open);
        if let Some(file) = open.files.iter().filter_map(|(file, _)| file.upgrade()).find(|file| file.target == *target)
        {
            return Ok(file);
        }
        let sink = Sink::open(target).map_err(|error| {
            let text = error.to_string();
            let reason = text.split(" (os error").next().unwrap_or_default();
            format!("unable to open file '{}': {reason}", target.path().display())
        })?;
        let id = open.next_id;
        open.next_id += 1;
        let file = LogFile::start(id, target.clone(), sink)
            .map_err(|error| format!("unable to start a thread for '{}': {error}", target.path().display()))?;
        let file = Arc::new(file);
        open.files.push((Arc::downgrade(&file), Arc::clone(&file.counts)));
        Ok(file)
    }

    /// Opens every path anew, so that a rotated file is let go (SIGUSR1, `/reopen_logs`). Returns at once.
    pub fn reopen(&self) {
        for file in lock(&self.open).files.iter().filter_map(|(file, _)| file.upgrade()) {
            file.reopen();
        }
    }

    /// Writes what was handed over and ends the threads, waiting no longer than `patience` in all. Workers have flushed or
    /// dropped their [`super::WorkerLogs`] before.
    pub fn shutdown(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let files = lock(&self.open).files.iter().filter_map(|(file, _)| file.upgrade()).collect::<Vec<_>>();
        for file in files {
            file.stop(deadline);
        }
    }

    /// Shows the statistics under `filesystem.`; they are summed up when somebody reads them.
    pub fn publish(self: &Arc<Self>, store: &Arc<Store>) {
        let counter = |name: &str| store.counter(&format!("filesystem.{name}"));
        let counters = [
            counter("flushed_by_timer"),
            counter("reopen_failed"),
            counter("write_buffered"),
            counter("write_completed"),
            counter("write_failed"),
        ];
        let buffered = store.gauge("filesystem.write_total_buffered");
        let files = Arc::downgrade(self);
        // Two readers at once must not both add what is new.
        let shown = Mutex::new([0_u64; 5]);
        store.before_reading(move || {
            let Some(files) = files.upgrade() else { return };
            let mut shown = lock(&shown);
            let now = files.stats();
            let values =
                [now.flushed_by_timer, now.reopen_failed, now.write_buffered, now.write_completed, now.write_failed];
            for ((counter, shown), value) in counters.iter().zip(shown.iter_mut()).zip(values) {
                counter.add(value.saturating_sub(*shown));
                *shown = value;
            }
            buffered.set(now.write_total_buffered);
        });
    }

    /// The statistics now.
    #[must_use]
    pub fn stats(&self) -> FilesystemStats {
        let mut total = FilesystemStats::default();
        for (_, counts) in &lock(&self.open).files {
            let written = &counts.written;
            total.write_completed += written.completed.load(Relaxed);
            total.write_failed += written.failed.load(Relaxed);
            total.flushed_by_timer += written.by_timer.load(Relaxed);
            total.reopen_failed += written.reopen_failed.load(Relaxed);
            let mut buffered = 0;
            for worker in lock(&counts.workers).iter() {
                total.write_buffered += worker.lines.load(Relaxed);
                total.dropped += worker.dropped.load(Relaxed);
                buffered += worker.bytes.load(Relaxed);
            }
            total.write_total_buffered += buffered.saturating_sub(written.bytes.load(Relaxed));
        }
        total
    }
}

impl LogFile {
    fn start(id: usize, target: LogTarget, sink: Sink) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING_LIMIT);
        let counts = Arc::new(Counts::default());
        let reopen_pending = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            target: target.clone(),
            sink,
            receiver,
            counts: Arc::clone(&counts),
            reopen_pending: Arc::clone(&reopen_pending),
        };
        let thread = std::thread::Builder::new().name(format!("log{id}")).spawn(move || writer.run())?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { target, sender, reopen_pending, counts, thread })
    }

    /// A worker's way to this file.
    pub(super) fn attach(&self) -> (SyncSender<Chunk>, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        lock(&self.counts.workers).push(Arc::clone(&progress));
        (self.sender.clone(), progress)
    }

    fn reopen(&self) {
        self.reopen_pending.store(true, Relaxed);
        // When the queue is full the thread is awake and sees the flag; else this wakes it.
        let _ = self.sender.try_send(Chunk::Reopen);
    }

    fn stop(&self, deadline: Instant) {
        let Some(thread) = lock(&self.thread).take() else { return };
        while let Err(TrySendError::Full(_)) = self.sender.try_send(Chunk::Stop) {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = thread.join();
    }
}

impl LogTarget {
    /// What a configured path stands for.
    #[must_use]
    pub fn of(path: &str) -> Self {
        match path {
            "/dev/stdout" => Self::Stdout,
            "/dev/stderr" => Self::Stderr,
            _ => Self::File(PathBuf::from(path)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Stdout => Path::new("/dev/stdout"),
            Self::Stderr => Path::new("/dev/stderr"),
        }
    }
}

/// An open destination.
#[derive(Debug)]
enum Sink {
    File(File),
    Stdout,
    Stderr,
}

impl Sink {
    fn open(target: &LogTarget) -> io::Result<Self> {
        match target {
            LogTarget::File(path) => {
                let mut options = OpenOptions::new();
                Ok(Self::File(options.append(true).create(true).mode(0o644).open(path)?))
            }
            LogTarget::Stdout => Ok(Self::Stdout),
            LogTarget::Stderr => Ok(Self::Stderr),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all(bytes),
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(bytes),
        }
    }
}

/// The thread of one file.
struct Writer {
    target: LogTarget,
    sink: Sink,
    receiver: Receiver<Chunk>,
    counts: Arc<Counts>,
    reopen_pending: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self) {
        while let Ok(chunk) = self.receiver.recv() {
            if self.reopen_pending.swap(false, Relaxed) {
                self.reopen();
            }
            match chunk {
                Chunk::Lines { bytes, by_timer } => self.write(&bytes, by_timer),
                Chunk::Reopen => {}
                Chunk::Stop => return,
            }
        }
    }

    fn write(&mut self, bytes: &[u8], by_timer: bool) {
        let outcome = self.sink.write(bytes);
        let counter = if outcome.is_ok() { &self.counts.written.completed } else { &self.counts.written.failed };
        counter.fetch_add(1, Relaxed);
        self.counts.written.by_timer.fetch_add(by_timer.into(), Relaxed);
        self.counts.written.bytes.fetch_add(bytes.len() as u64, Relaxed);
        if let Err(error) = outcome {
            tracing::debug!(path = %self.target.path().display(), %error, "access log lines lost");
        }
    }

    fn reopen(&mut self) {
        match Sink::open(&self.target) {
            Ok(sink) => self.sink = sink,
            Err(error) => {
                self.counts.written.reopen_failed.fetch_add(1, Relaxed);
                tracing::warn!(path = %self.target.path().display(), %error, "cannot reopen the access log");
            }
        }
    }
}

/// A poisoned lock still guards valid counts and handles.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

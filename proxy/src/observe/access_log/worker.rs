//! The worker's end of the logs: a buffer per file, handed over when it is full or its time has come.

use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use super::file::{Chunk, LogFile, Progress};

/// A buffer is handed over at this size (Envoy's flush size).
pub(super) const FLUSH_AT: usize = 64 * 1024;

/// A buffer that cannot be handed over grows to this size; lines beyond it are dropped.
const BUFFER_LIMIT: usize = 4 * FLUSH_AT;

/// The log buffers of one worker. It stays on its thread; dropping it hands over what it holds.
#[derive(Debug, Default)]
pub struct WorkerLogs {
    buffers: RefCell<Vec<Buffer>>,
    /// Whoever flushes, while nothing waits to be flushed.
    flusher: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Buffer {
    file: Weak<LogFile>,
    bytes: Vec<u8>,
    progress: Arc<Progress>,
    sender: SyncSender<Chunk>,
}

impl WorkerLogs {
    /// Buffers for no file yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one line to a file's buffer. `line` must not log itself.
    pub fn write(&self, file: &Arc<LogFile>, line: impl FnOnce(&mut Vec<u8>)) {
        let mut buffers = self.buffers.borrow_mut();
        let index = match buffers.iter().position(|buffer| std::ptr::eq(buffer.file.as_ptr(), Arc::as_ptr(file))) {
            Some(index) => index,
            None => {
                // A file's first line on this worker: not the hot path.
                let (sender, progress) = file.attach();
                buffers.push(Buffer { file: Arc::downgrade(file), bytes: Vec::new(), progress, sender });
                buffers.len() - 1
            }
        };
        buffers[index].write(line);
        if let Some(flusher) = self.flusher.borrow_mut().take() {
            flusher.wake();
        }
    }

    /// Whether any file has a buffer here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffers.borrow().is_empty()
    }

    /// Ready once a line waits to be flushed; one task may ask.
    pub fn poll_written(&self, cx: &Context<'_>) -> Poll<()> {
        if self.buffers.borrow().iter().any(|buffer| !buffer.bytes.is_empty()) {
            return Poll::Ready(());
        }
        *self.flusher.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Hands over every buffer that holds something and forgets files no logger uses any more.
    pub fn flush(&self) {
        self.buffers.borrow_mut().retain_mut(|buffer| {
            let alive = buffer.hand_over(true);
            alive && (buffer.file.strong_count() > 0 || !buffer.bytes.is_empty())
        });
    }
}

impl Drop for WorkerLogs {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Buffer {
    fn write(&mut self, line: impl FnOnce(&mut Vec<u8>)) {
        if self.bytes.len() >= BUFFER_LIMIT {
            // The file has not kept up; perhaps it has by now.
            self.hand_over(false);
        }
        let progress = &self.progress;
        if self.bytes.len() >= BUFFER_LIMIT {
            progress.dropped.store(progress.dropped.load(Relaxed) + 1, Relaxed);
            return;
        }
        let before = self.bytes.len();
        line(&mut self.bytes);
        // One writer per counter: a load and a store do.
        progress.lines.store(progress.lines.load(Relaxed) + 1, Relaxed);
        progress.bytes.store(progress.bytes.load(Relaxed) + (self.bytes.len() - before) as u64, Relaxed);
        if self.bytes.len() >= FLUSH_AT {
            self.hand_over(false);
        }
    }

    /// Offers the buffer to the file's thread; false when that thread is gone.
    fn hand_over(&mut self, by_timer: bool) -> bool {
        if self.bytes.is_empty() {
            return true;
        }
        let bytes = std::mem::take(&mut self.bytes);
        match self.sender.try_send(Chunk::Lines { bytes, by_timer }) {
            Ok(()) => true,
            Err(TrySendError::Full(Chunk::Lines { bytes, .. })) => {
                self.bytes = bytes;
                true
            }
            Err(_) => false,
        }
    }
}

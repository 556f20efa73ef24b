//! Access logs: a line is formatted on the worker that served the stream and written by the file's own thread.
//!
//! * [`AccessLog`] is one configured logger: a filter, a format, a file.
//! * [`LogFiles`] (control) opens each path once, reopens on request and flushes at the end; [`FilesystemStats`] counts.
//! * [`WorkerLogs`] (one per worker) gathers lines in a buffer per file and hands full buffers over without waiting. When the
//!   file cannot keep up, lines are dropped and counted; a worker never blocks on a log.

mod file;
mod filter;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use filters::format::{Format, FormatContext, JsonFormat};
use filters::matcher::Runtime;

pub use file::{FilesystemStats, LogFile, LogFiles, LogTarget};
pub use filter::{Comparison, ComparisonOp, LogFilter};
pub use worker::WorkerLogs;

/// One configured access logger.
#[derive(Debug)]
pub struct AccessLog {
    /// Which streams are logged; `None` for all.
    pub filter: Option<LogFilter>,
    /// What a line says.
    pub format: LogFormat,
    /// Where lines go.
    pub file: Arc<LogFile>,
}

/// What a line says.
#[derive(Debug)]
pub enum LogFormat {
    /// Text; the format brings its own newline.
    Text(Format),
    /// One JSON object per line.
    Json(JsonFormat),
}

impl LogFormat {
    /// Appends the line.
    pub fn append_to(&self, out: &mut Vec<u8>, context: &FormatContext<'_>) {
        match self {
            Self::Text(format) => format.append_to(out, context),
            Self::Json(format) => format.append_to(out, context),
        }
    }
}

impl AccessLog {
    /// Logs a stream if the filter lets it through.
    pub fn log(&self, context: &FormatContext<'_>, logs: &WorkerLogs, runtime: &dyn Runtime) {
        if self.filter.as_ref().is_none_or(|filter| filter.matches(context, runtime)) {
            logs.write(&self.file, |line| self.format.append_to(line, context));
        }
    }
}

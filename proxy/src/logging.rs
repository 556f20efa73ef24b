//! The application log: Envoy's format, loggers and levels over `tracing`.
//!
//! Every event belongs to one of Envoy's loggers, by its target: either the logger's name itself, or a module of ours that
//! the table below maps. A level is looked up when a call site is first met, and again only after levels changed, so a
//! disabled log line costs one load.

mod pattern;

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use crate::cli::{LogLevel, Options};

pub use self::pattern::{Line, Pattern};

/// Envoy's loggers in the order `/logging` prints them.
pub static LOGGERS: [&str; 73] = [
    "a2a",
    "admin",
    "ai_protocol_manager",
    "alternate_protocols_cache",
    "aws",
    "assert",
    "backtrace",
    "basic_auth",
    "cache_filter",
    "client",
    "config",
    "connection",
    "conn_handler",
    "compression",
    "credential_injector",
    "decompression",
    "dns",
    "dubbo",
    "envoy_bug",
    "ext_authz",
    "ext_proc",
    "rocketmq",
    "file",
    "filter",
    "forward_proxy",
    "geolocation",
    "grpc",
    "happy_eyeballs",
    "hc",
    "health_checker",
    "http",
    "http2",
    "hystrix",
    "init",
    "io",
    "jwt",
    "json_rpc",
    "kafka",
    "key_value_store",
    "lua",
    "local_rate_limit",
    "main",
    "matcher",
    "mcp",
    "misc",
    "mongo",
    "multi_connection",
    "notification",
    "oauth2",
    "quic",
    "quic_stream",
    "pool",
    "rate_limit_quota",
    "rbac",
    "rds",
    "redis",
    "router",
    "runtime",
    "stats",
    "secret",
    "sse",
    "tap",
    "testing",
    "thrift",
    "tracing",
    "upstream",
    "udp",
    "wasm",
    "websocket",
    "golang",
    "stats_sinks",
    "dynamic_modules",
    "ip_tagging",
];

/// Which logger a module's events belong to; the first prefix that fits. Everything else is `misc`.
static MODULES: [(&str, &str); 30] = [
    ("legate::admin", "admin"),
    ("legate::config", "config"),
    ("legate::control::clusters", "upstream"),
    ("legate::control::dns", "dns"),
    ("legate::control::listeners", "config"),
    ("legate::control::routes", "rds"),
    ("legate::control", "config"),
    ("legate::downstream", "conn_handler"),
    ("legate::http::codec::h2", "http2"),
    ("legate::http", "http"),
    ("legate::observe", "file"),
    ("legate::overload", "main"),
    ("legate::route", "router"),
    ("legate::runtime", "runtime"),
    ("legate::server", "main"),
    ("legate::tcp", "filter"),
    ("legate::transport", "connection"),
    ("legate::upstream::pool", "pool"),
    ("legate::upstream", "upstream"),
    ("legate::worker", "main"),
    ("legate", "main"),
    ("filters::matcher", "matcher"),
    ("filters", "filter"),
    ("stats", "stats"),
    ("xds_client", "config"),
    ("h2", "http2"),
    ("hickory", "dns"),
    ("hyper", "client"),
    ("rustls", "connection"),
    ("tonic", "grpc"),
];

/// Whether Envoy has a logger of that name.
#[must_use]
pub fn is_logger(name: &str) -> bool {
    LOGGERS.contains(&name)
}

/// The logger that events of this target belong to, as an index into [`LOGGERS`].
fn logger_of(target: &str) -> usize {
    let index = |name: &str| LOGGERS.iter().position(|logger| *logger == name);
    if let Some(index) = index(target) {
        return index;
    }
    let fits = |prefix: &str| {
        target
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || rest.starts_with('_'))
    };
    let name = MODULES.iter().find(|(prefix, _)| fits(prefix)).map_or("misc", |(_, logger)| logger);
    index(name).unwrap_or(0)
}

/// Levels and the file of a running log. Clones share them.
#[derive(Debug, Clone)]
pub struct LogControl(Arc<State>);

#[derive(Debug)]
struct State {
    levels: [AtomicU8; LOGGERS.len()],
    output: Output,
}

#[derive(Debug)]
enum Output {
    StandardError,
    File { path: PathBuf, file: Mutex<File> },
}

/// Starts the log by the command line. `format` is the bootstrap's, if it has one.
///
/// # Errors
/// When the log file cannot be opened or a log is running already.
pub fn start(options: &Options, format: Option<&str>) -> Result<LogControl, String> {
    let output = if options.log_path.is_empty() {
        Output::StandardError
    } else {
        Output::open(options.log_path.clone().into())?
    };
    let control = LogControl::new(output, options);
    let pattern = Pattern::parse(format.unwrap_or(&options.log_format), options.log_format_escaped);
    let layer = LogLayer { control: control.clone(), pattern };
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
        .map_err(|error| error.to_string())?;
    Ok(control)
}

impl LogControl {
    fn new(output: Output, options: &Options) -> Self {
        let levels = std::array::from_fn(|_| AtomicU8::new(options.log_level as u8));
        let control = Self(Arc::new(State { levels, output }));
        for (name, level) in &options.component_log_levels {
            let _known = control.store(name, *level);
        }
        control
    }

    /// Every logger with its level.
    pub fn levels(&self) -> impl Iterator<Item = (&'static str, LogLevel)> + '_ {
        LOGGERS.iter().enumerate().map(|(index, name)| (*name, self.level(index)))
    }

    /// Sets one logger's level; false if there is no such logger.
    pub fn set(&self, logger: &str, level: LogLevel) -> bool {
        let known = self.store(logger, level);
        tracing::callsite::rebuild_interest_cache();
        known
    }

    /// Sets all levels.
    pub fn set_all(&self, level: LogLevel) {
        self.0.levels.iter().for_each(|slot| slot.store(level as u8, Relaxed));
        tracing::callsite::rebuild_interest_cache();
    }

    /// Opens the log file anew, after it was moved away.
    ///
    /// # Errors
    /// When it cannot be opened; the old one stays in use.
    pub fn reopen(&self) -> std::io::Result<()> {
        if let Output::File { path, file } = &self.0.output {
            let fresh = append(path)?;
            *file.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        Ok(())
    }

    fn store(&self, logger: &str, level: LogLevel) -> bool {
        let slot = LOGGERS.iter().position(|name| *name == logger).and_then(|index| self.0.levels.get(index));
        slot.inspect(|slot| slot.store(level as u8, Relaxed)).is_some()
    }

    fn level(&self, index: usize) -> LogLevel {
        let level = self.0.levels.get(index).map_or(LogLevel::Info as u8, |slot| slot.load(Relaxed));
        LogLevel::ALL.get(usize::from(level)).copied().unwrap_or_default()
    }

    fn shows(&self, metadata: &Metadata<'_>) -> bool {
        level_of(*metadata.level()) >= self.level(logger_of(metadata.target()))
    }
}

impl Output {
    fn open(path: PathBuf) -> Result<Self, String> {
        let file = append(&path).map_err(|error| format!("Failed to open log-file '{}': {error}", path.display()))?;
        Ok(Self::File { path, file: Mutex::new(file) })
    }

    /// One write per line, so that lines of several processes do not mix. A log that cannot be written is no reason to end.
    fn write(&self, line: &[u8]) {
        let _written = match self {
            Self::StandardError => std::io::stderr().lock().write_all(line),
            Self::File { file, .. } => file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line),
        };
    }
}

fn append(path: &std::path::Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn level_of(level: tracing::Level) -> LogLevel {
    match level {
        tracing::Level::TRACE => LogLevel::Trace,
        tracing::Level::DEBUG => LogLevel::Debug,
        tracing::Level::INFO => LogLevel::Info,
        tracing::Level::WARN => LogLevel::Warning,
        tracing::Level::ERROR => LogLevel::Error,
    }
}

/// Filters and prints events.
struct LogLayer {
    control: LogControl,
    pattern: Pattern,
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.control.shows(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.control.shows(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let lowest = self.control.levels().map(|(_, level)| level).min().unwrap_or_default();
        Some(match lowest {
            LogLevel::Trace => LevelFilter::TRACE,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warning => LevelFilter::WARN,
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Critical | LogLevel::Off => LevelFilter::OFF,
        })
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut message = Message::default();
        event.record(&mut message);
        let line = Line {
            time: chrono::Local::now(),
            thread: thread_id(),
            level: level_of(*metadata.level()),
            logger: LOGGERS.get(logger_of(metadata.target())).copied().unwrap_or("misc"),
            file: metadata.file().unwrap_or_default(),
            line: metadata.line().unwrap_or_default(),
            message: &message.text(),
        };
        let mut text = self.pattern.render(&line);
        text.push('\n');
        self.control.0.output.write(text.as_bytes());
    }
}

/// The kernel's number of this thread, as Envoy prints it.
fn thread_id() -> u64 {
    thread_local! {
        static ID: u64 = std::fs::read_link("/proc/thread-self")
            .ok()
            .and_then(|path| path.file_name()?.to_str()?.parse().ok())
            .unwrap_or_default();
    }
    ID.with(|id| *id)
}

/// Collects an event's message, and its other fields after it.
#[derive(Default)]
struct Message {
    message: String,
    fields: String,
}

impl Message {
    fn text(self) -> String {
        match (self.message.is_empty(), self.fields.is_empty()) {
            (_, true) => self.message,
            (true, false) => self.fields.trim_start().to_owned(),
            (false, false) => self.message + &self.fields,
        }
    }
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a `String` cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

#[cfg(test)]
mod tests;

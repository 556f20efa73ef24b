//! The command line: Envoy 1.40's flags with its names, defaults and errors, and Legate's own.
//!
//! Envoy's parser is unlike the usual ones (a value may begin with a dash, a flag may be given once only, short flags do
//! not bundle), so this is a table and a loop. `--flag value` and `--flag=value` both work.

mod cpus;
mod flags;

use std::time::Duration;

pub use self::cpus::{Root, available as available_cpus};
use self::flags::{FLAGS, Flag, Takes};

/// The commit of Envoy whose behaviour this is, as far as control planes and scripts that read versions care.
const SHA: &str = match option_env!("LEGATE_GIT_SHA") {
    Some(sha) => sha,
    None => "0000000000000000000000000000000000000000",
};

/// Envoy's version whose configuration and interfaces Legate has.
pub const ENVOY_VERSION: &str = "1.40.0";

/// Legate's own version.
pub const LEGATE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What Envoy prints for `--hot-restart-version`.
pub const HOT_RESTART_VERSION: &str = "11.104";

/// Envoy's default of `--log-format`.
pub const DEFAULT_LOG_FORMAT: &str = "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v";

/// `<sha>/1.40.0/Clean-legate-<version>/RELEASE/aws-lc`: Envoy's form, so that those who take it apart find `1.40.0`.
#[must_use]
pub fn version() -> String {
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    format!("{SHA}/{ENVOY_VERSION}/Clean-legate-{LEGATE_VERSION}/{build}/aws-lc")
}

/// What the process is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Serve, or validate configuration ([`Options::mode`]).
    Run(Box<Options>),
    /// `legate demo …`, with its own arguments.
    Demo(Vec<String>),
    /// Print this on standard output and exit with success (`--version`, `--help`, `--hot-restart-version`).
    Print(String),
}

/// Arguments that make no sense: to be printed on standard error before exiting with status 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

/// `--mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Load configuration and serve.
    #[default]
    Serve,
    /// Load configuration and exit.
    Validate,
}

/// `--drain-strategy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DrainStrategy {
    /// Ever more connections are asked to leave over the drain time.
    #[default]
    Gradual,
    /// All at once.
    Immediate,
}

/// `--log-level` and its kin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// What a developer needs.
    Debug,
    /// What an operator may want to know.
    #[default]
    Info,
    /// What an operator should look at.
    Warning,
    /// What went wrong.
    Error,
    /// What makes the process end.
    Critical,
    /// Nothing.
    Off,
}

impl LogLevel {
    /// All of them, the most talkative first.
    pub const ALL: [Self; 7] =
        [Self::Trace, Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Critical, Self::Off];

    /// Envoy's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Off => "off",
        }
    }

    /// By its name; `warn` is `warning`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let name = if name == "warn" { "warning" } else { name };
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// Everything the flags say.
#[expect(clippy::struct_excessive_bools, reason = "one per switch of the command line")]
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// `-c`, `--config-path`; empty if not given.
    pub config_path: String,
    /// `--config-yaml`; empty if not given.
    pub config_yaml: String,
    /// `--mode`.
    pub mode: Mode,
    /// `--concurrency`, or the CPUs this process may use; at least 1.
    pub concurrency: usize,
    /// `--cpuset-threads`.
    pub cpuset_threads: bool,
    /// `-l`, `--log-level`.
    pub log_level: LogLevel,
    /// `--component-log-level`: loggers and levels.
    pub component_log_levels: Vec<(String, LogLevel)>,
    /// `--component-log-level` as given.
    pub component_log_level: String,
    /// `--log-path`; empty is standard error.
    pub log_path: String,
    /// `--log-format`.
    pub log_format: String,
    /// `--log-format` was given (it wins over the bootstrap's `application_log_config`).
    pub log_format_set: bool,
    /// `--log-format-escaped`.
    pub log_format_escaped: bool,
    /// `--log-stacktrace-single-entry`.
    pub log_stacktrace_single_entry: bool,
    /// `--enable-fine-grain-logging`.
    pub enable_fine_grain_logging: bool,
    /// `--service-cluster`; empty if not given.
    pub service_cluster: String,
    /// `--service-node`; empty if not given.
    pub service_node: String,
    /// `--service-zone`; empty if not given.
    pub service_zone: String,
    /// `--drain-time-s`.
    pub drain_time: Duration,
    /// `--drain-strategy`.
    pub drain_strategy: DrainStrategy,
    /// `--drain-on-sigterm[=SECONDS]`: how long SIGTERM drains before the process ends; `None` ends it at once, as Envoy.
    pub drain_on_sigterm: Option<Duration>,
    /// `--parent-shutdown-time-s`.
    pub parent_shutdown_time: Duration,
    /// `--file-flush-interval-msec`.
    pub file_flush_interval: Duration,
    /// `--file-flush-min-size-kb`.
    pub file_flush_min_size_kb: u32,
    /// `--admin-address-path`: a file for the admin server's address; empty if not given.
    pub admin_address_path: String,
    /// `--local-address-ip-version` says `v6`.
    pub local_address_v6: bool,
    /// `--allow-unknown-static-fields` or its old name.
    pub allow_unknown_static_fields: bool,
    /// `--reject-unknown-dynamic-fields`.
    pub reject_unknown_dynamic_fields: bool,
    /// `--ignore-unknown-dynamic-fields`.
    pub ignore_unknown_dynamic_fields: bool,
    /// `--skip-deprecated-logs`.
    pub skip_deprecated_logs: bool,
    /// `--stats-tag`: tags of every statistic.
    pub stats_tags: Vec<(String, String)>,
    /// `--allow-unsupported`: types or paths that may be loaded without.
    pub allow_unsupported: Vec<String>,
    /// `--base-id`.
    pub base_id: u32,
    /// `--base-id-path`.
    pub base_id_path: String,
    /// `--use-dynamic-base-id`.
    pub use_dynamic_base_id: bool,
    /// `--disable-hot-restart`.
    pub disable_hot_restart: bool,
    /// `--socket-path`.
    pub socket_path: String,
    /// `--socket-mode` in octal.
    pub socket_mode: u32,
    /// `--skip-hot-restart-on-no-parent`.
    pub skip_hot_restart_on_no_parent: bool,
    /// `--skip-hot-restart-parent-stats`.
    pub skip_hot_restart_parent_stats: bool,
    /// `--disable-extensions`.
    pub disabled_extensions: Vec<String>,
    /// `--enable-mutex-tracing`.
    pub enable_mutex_tracing: bool,
    /// `--enable-core-dump`.
    pub enable_core_dump: bool,
    /// What was given but means nothing here: flag and reason, to be said once at start.
    pub without_meaning: Vec<(&'static str, &'static str)>,
}

/// Understands the arguments, program name first.
///
/// # Errors
/// When they are not understood; the text is Envoy's.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Command, UsageError> {
    let mut args = args.into_iter();
    let program = args.next().unwrap_or_else(|| "legate".to_owned());
    let mut args = args.peekable();
    if args.peek().is_some_and(|first| first == "demo") {
        return Ok(Command::Demo(args.skip(1).collect()));
    }
    let parse_error = |argument: &str, message: &str| {
        UsageError(format!(
            "PARSE ERROR: Argument: {argument}\n             {message}\n\n{}\n{argument} -- {message}",
            flags::brief(&program)
        ))
    };
    let mut given = Given::default();
    while let Some(arg) = args.next() {
        if arg == "--" || arg == "--ignore_rest" {
            break;
        }
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (arg.as_str(), None),
        };
        let Some(flag) = flags::find(name) else {
            return Err(parse_error(&arg, "Couldn't find match for argument"));
        };
        let value = match (flag.takes, inline) {
            (Takes::Nothing, Some(_)) => return Err(parse_error(&arg, "Couldn't find match for argument")),
            (Takes::Nothing, None) => None,
            (Takes::Optional(_), value) => value,
            (Takes::Value(_), Some(value)) => Some(value),
            (Takes::Value(_), None) => match args.next() {
                Some(value) => Some(value),
                None => return Err(parse_error(&flag.label(), "Missing a value for this argument!")),
            },
        };
        if flag.takes == Takes::Value("uint32_t") && value.as_deref().is_some_and(|v| v.parse::<u32>().is_err()) {
            let value = value.unwrap_or_default();
            let message = format!("Couldn't read argument value from string '{value}'");
            return Err(parse_error(&flag.label(), &message));
        }
        if !flag.repeats && given.has(flag.name) {
            return Err(parse_error(&flag.label(), "Argument already set!"));
        }
        given.0.push((flag, value));
    }
    if given.has("help") {
        return Ok(Command::Print(flags::help(&program)));
    }
    if given.has("version") {
        return Ok(Command::Print(format!("\n{program}  version: {}\n\n", version())));
    }
    if given.has("hot-restart-version") {
        let disabled = given.has("disable-hot-restart");
        return Ok(Command::Print(if disabled { "disabled" } else { HOT_RESTART_VERSION }.to_owned()));
    }
    options(&given).map(|options| Command::Run(Box::new(options)))
}

fn options(given: &Given) -> Result<Options, UsageError> {
    let usage = |text: String| UsageError(format!("error: {text}"));
    let mode = match given.text("mode", "serve") {
        "serve" => Mode::Serve,
        "validate" => Mode::Validate,
        other => return Err(usage(format!("unknown mode '{other}'"))),
    };
    let log_level = given.text("log-level", "info");
    let log_level =
        LogLevel::by_name(log_level).ok_or_else(|| usage(format!("invalid log level specified '{log_level}'")))?;
    let local_address_v6 = match given.text("local-address-ip-version", "v4") {
        "v4" => false,
        "v6" => true,
        other => return Err(usage(format!("unknown IP address version '{other}'"))),
    };
    let drain_strategy = match given.text("drain-strategy", "gradual") {
        "gradual" => DrainStrategy::Gradual,
        "immediate" => DrainStrategy::Immediate,
        other => return Err(usage(format!("unknown drain-strategy '{other}'"))),
    };
    let socket_mode = given.text("socket-mode", "600");
    let socket_mode = u32::from_str_radix(socket_mode, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| usage(format!("invalid socket-mode '{socket_mode}'")))?;
    if given.number("restart-epoch", 0) > 0 {
        return Err(usage(
            "--restart-epoch above 0 is not supported by Legate: there is no hot restart yet".to_owned(),
        ));
    }
    let drain_time = Duration::from_secs(given.number("drain-time-s", 600).into());
    let drain_on_sigterm = match given.find("drain-on-sigterm") {
        None => None,
        Some(None) => Some(drain_time),
        Some(Some(seconds)) => Some(Duration::from_secs(
            seconds
                .parse::<u32>()
                .map_err(|_| usage(format!("--drain-on-sigterm: '{seconds}' is no number of seconds")))?
                .into(),
        )),
    };
    let concurrency = match given.find("concurrency") {
        Some(_) => usize::try_from(given.number("concurrency", 1)).unwrap_or(1).max(1),
        None => available_cpus(&Root::default()),
    };
    let component_log_level = given.text("component-log-level", "");
    Ok(Options {
        config_path: given.owned("config-path"),
        config_yaml: given.owned("config-yaml"),
        mode,
        concurrency,
        cpuset_threads: given.has("cpuset-threads"),
        log_level,
        component_log_levels: component_levels(component_log_level)?,
        component_log_level: component_log_level.to_owned(),
        log_path: given.owned("log-path"),
        log_format: given.text("log-format", DEFAULT_LOG_FORMAT).to_owned(),
        log_format_set: given.has("log-format"),
        log_format_escaped: given.has("log-format-escaped"),
        log_stacktrace_single_entry: given.has("log-stacktrace-single-entry"),
        enable_fine_grain_logging: given.has("enable-fine-grain-logging"),
        service_cluster: given.owned("service-cluster"),
        service_node: given.owned("service-node"),
        service_zone: given.owned("service-zone"),
        drain_time,
        drain_strategy,
        drain_on_sigterm,
        parent_shutdown_time: Duration::from_secs(given.number("parent-shutdown-time-s", 900).into()),
        file_flush_interval: Duration::from_millis(given.number("file-flush-interval-msec", 10_000).into()),
        file_flush_min_size_kb: given.number("file-flush-min-size-kb", 64),
        admin_address_path: given.owned("admin-address-path"),
        local_address_v6,
        allow_unknown_static_fields: given.has("allow-unknown-static-fields") || given.has("allow-unknown-fields"),
        reject_unknown_dynamic_fields: given.has("reject-unknown-dynamic-fields"),
        ignore_unknown_dynamic_fields: given.has("ignore-unknown-dynamic-fields"),
        skip_deprecated_logs: given.has("skip-deprecated-logs"),
        stats_tags: stats_tags(given)?,
        allow_unsupported: given.all("allow-unsupported").map(str::to_owned).collect(),
        base_id: given.number("base-id", 0),
        base_id_path: given.owned("base-id-path"),
        use_dynamic_base_id: given.has("use-dynamic-base-id"),
        disable_hot_restart: given.has("disable-hot-restart"),
        socket_path: given.text("socket-path", "@envoy_domain_socket").to_owned(),
        socket_mode,
        skip_hot_restart_on_no_parent: given.has("skip-hot-restart-on-no-parent"),
        skip_hot_restart_parent_stats: given.has("skip-hot-restart-parent-stats"),
        disabled_extensions: given
            .text("disable-extensions", "")
            .split(',')
            .filter(|e| !e.is_empty())
            .map(str::to_owned)
            .collect(),
        enable_mutex_tracing: given.has("enable-mutex-tracing"),
        enable_core_dump: given.has("enable-core-dump"),
        without_meaning: given.without_meaning(),
    })
}

/// `upstream:debug,config:trace`.
fn component_levels(text: &str) -> Result<Vec<(String, LogLevel)>, UsageError> {
    let mut levels = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let fail = |what: &str| UsageError(format!("error: {what} '{part}'"));
        let (name, level) = part.split_once(':').ok_or_else(|| fail("component log level not correctly specified"))?;
        if !crate::logging::is_logger(name) {
            return Err(UsageError(format!("error: invalid component specified '{name}'")));
        }
        let level = LogLevel::by_name(level).ok_or_else(|| fail("invalid log level specified"))?;
        levels.push((name.to_owned(), level));
    }
    Ok(levels)
}

fn stats_tags(given: &Given) -> Result<Vec<(String, String)>, UsageError> {
    let mut tags: Vec<(String, String)> = Vec::new();
    for text in given.all("stats-tag") {
        let fail = |why: &str| UsageError(format!("error: misformatted stats-tag '{text}': {why}"));
        let (name, value) = text.split_once(':').ok_or_else(|| fail("tag:value is expected"))?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(fail("a tag's name is alphanumeric"));
        }
        if value.is_empty() || value.contains('.') {
            return Err(fail("a tag's value has no dots and is not empty"));
        }
        if tags.iter().any(|(known, _)| known == name) {
            return Err(fail("the tag has a value already"));
        }
        tags.push((name.to_owned(), value.to_owned()));
    }
    Ok(tags)
}

/// The flags as given, in order.
#[derive(Default)]
struct Given(Vec<(&'static Flag, Option<String>)>);

impl Given {
    fn find(&self, name: &str) -> Option<Option<&str>> {
        self.0.iter().find(|(flag, _)| flag.name == name).map(|(_, value)| value.as_deref())
    }

    fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.find(name).flatten().unwrap_or(default)
    }

    fn owned(&self, name: &str) -> String {
        self.text(name, "").to_owned()
    }

    /// The parser has checked that it is one.
    fn number(&self, name: &str, default: u32) -> u32 {
        self.find(name).flatten().and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(flag, _)| flag.name == name).filter_map(|(_, value)| value.as_deref())
    }

    fn without_meaning(&self) -> Vec<(&'static str, &'static str)> {
        FLAGS
            .iter()
            .filter(|flag| self.has(flag.name))
            .filter_map(|flag| Some((flag.name, flag.without_meaning?)))
            .collect()
    }
}

#[cfg(test)]
mod tests;

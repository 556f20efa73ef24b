//! What the flags ask for: every setting with its default, its unit and its meaning, made of the flags that were given.

use std::time::Duration;

use super::cpus::{Root, available as available_cpus};
use super::{DEFAULT_LOG_FORMAT, DrainStrategy, Given, LogLevel, Mode, UsageError};

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

pub(super) fn options(given: &Given) -> Result<Options, UsageError> {
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

//! The table of flags, and what `--help` makes of it.

use std::fmt::Write as _;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// It is a switch.
    Nothing,
    /// A value of this kind.
    Value(&'static str),
    /// A value of this kind after `=`, if any.
    Optional(&'static str),
}

/// One flag.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) short: Option<&'static str>,
    pub(super) takes: Takes,
    pub(super) repeats: bool,
    about: &'static str,
    /// Why it changes nothing here, if it does not.
    pub(super) without_meaning: Option<&'static str>,
}

const fn switch(name: &'static str, about: &'static str) -> Flag {
    Flag { name, short: None, takes: Takes::Nothing, repeats: false, about, without_meaning: None }
}

const fn text(name: &'static str, about: &'static str) -> Flag {
    Flag { takes: Takes::Value("string"), ..switch(name, about) }
}

const fn number(name: &'static str, about: &'static str) -> Flag {
    Flag { takes: Takes::Value("uint32_t"), ..switch(name, about) }
}

const fn short(letter: &'static str, flag: Flag) -> Flag {
    Flag { short: Some(letter), ..flag }
}

const fn repeated(flag: Flag) -> Flag {
    Flag { repeats: true, ..flag }
}

const fn idle(flag: Flag, reason: &'static str) -> Flag {
    Flag { without_meaning: Some(reason), ..flag }
}

const NO_HOT_RESTART: &str = "there is no hot restart yet";

/// Every flag. Those with a reason in `without_meaning` are accepted and change nothing.
pub(super) static FLAGS: [Flag; 45] = [
    short("c", text("config-path", "The configuration file (.yaml, .yml, .json, .pb)")),
    text("config-yaml", "Configuration as YAML, laid over that of --config-path"),
    text("mode", "'serve' (default), or 'validate': load the configuration and exit"),
    number("concurrency", "Number of worker threads (default: the CPUs this process may use)"),
    idle(
        switch("cpuset-threads", "Take the CPU set into account for --concurrency"),
        "the CPU set and quota always count",
    ),
    short("l", text("log-level", "trace, debug, info (default), warning or warn, error, critical, off")),
    text("component-log-level", "Levels of single loggers: upstream:debug,config:trace"),
    text("log-path", "File the log is appended to (default: standard error)"),
    text("log-format", "Format of log lines, in spdlog's syntax (default: [%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v)"),
    switch("log-format-escaped", "Escape control characters in log messages"),
    idle(switch("log-stacktrace-single-entry", "Log a stack trace as one entry"), "a stack trace is always one entry"),
    idle(switch("enable-fine-grain-logging", "Set log levels by source file"), "levels are set by logger"),
    text("service-cluster", "Name of the local service cluster (node.cluster)"),
    text("service-node", "Name of this node (node.id)"),
    text("service-zone", "Name of the zone (node.locality.zone)"),
    number("drain-time-s", "Seconds a drain takes (default: 600)"),
    text("drain-strategy", "'gradual' (default) or 'immediate'"),
    Flag {
        takes: Takes::Optional("seconds"),
        ..switch(
            "drain-on-sigterm",
            "SIGTERM drains connections, for --drain-time-s or this many seconds, before the process ends",
        )
    },
    idle(number("parent-shutdown-time-s", "Seconds until a replaced process ends"), NO_HOT_RESTART),
    number("file-flush-interval-msec", "Milliseconds between flushes of access logs (default: 10000)"),
    number("file-flush-min-size-kb", "Kilobytes after which an access log is flushed (default: 64)"),
    text("admin-address-path", "File the admin server's address is written to"),
    text("local-address-ip-version", "'v4' (default) or 'v6': what the local address is looked up as"),
    switch("allow-unknown-static-fields", "Unknown fields of the bootstrap are warnings"),
    switch("allow-unknown-fields", "The old name of --allow-unknown-static-fields"),
    switch("reject-unknown-dynamic-fields", "Unknown fields from a control plane are errors"),
    switch("ignore-unknown-dynamic-fields", "Unknown fields from a control plane are not even warned about"),
    switch("skip-deprecated-logs", "Deprecated fields are not warned about"),
    repeated(text("stats-tag", "A tag of every statistic, as name:value")),
    repeated(text(
        "allow-unsupported",
        "Load configuration without something Legate does not have: Message.type.field, or a path",
    )),
    idle(number("base-id", "Tells processes on a host apart"), NO_HOT_RESTART),
    idle(text("base-id-path", "File the base id is written to"), NO_HOT_RESTART),
    idle(switch("use-dynamic-base-id", "Choose a free base id"), NO_HOT_RESTART),
    switch("disable-hot-restart", "No hot restart"),
    number("restart-epoch", "Hot restart epoch; only 0 is supported"),
    switch("hot-restart-version", "Print the version of the hot restart protocol and exit"),
    idle(text("socket-path", "Path of the hot restart socket"), NO_HOT_RESTART),
    idle(text("socket-mode", "Permissions of the hot restart socket"), NO_HOT_RESTART),
    idle(switch("skip-hot-restart-on-no-parent", "Start when there is no process to replace"), NO_HOT_RESTART),
    idle(switch("skip-hot-restart-parent-stats", "Do not take over statistics"), NO_HOT_RESTART),
    idle(
        text("disable-extensions", "Extensions to do without"),
        "an extension that no configuration names does nothing",
    ),
    idle(switch("enable-mutex-tracing", "Count contended locks"), "the data path has no locks"),
    idle(switch("enable-core-dump", "Let crashes dump core"), "the process's limit of core size decides"),
    switch("version", "Print the version and exit"),
    short("h", switch("help", "Print this and exit")),
];

/// The flag that an argument names, dashes included.
pub(super) fn find(argument: &str) -> Option<&'static Flag> {
    match argument.strip_prefix("--") {
        Some(name) => FLAGS.iter().find(|flag| flag.name == name),
        None => FLAGS.iter().find(|flag| flag.short.is_some() && argument.strip_prefix('-') == flag.short),
    }
}

impl Flag {
    /// How errors name it: `-c (--config-path)`, `(--concurrency)`.
    pub(super) fn label(&self) -> String {
        match self.short {
            Some(short) => format!("-{short} (--{})", self.name),
            None => format!("(--{})", self.name),
        }
    }

    fn synopsis(&self) -> String {
        let name = self.short.map_or_else(|| format!("--{}", self.name), |short| format!("-{short}"));
        let value = match self.takes {
            Takes::Nothing => String::new(),
            Takes::Value(kind) => format!(" <{kind}>"),
            Takes::Optional(kind) => format!("[=<{kind}>]"),
        };
        format!("[{name}{value}]{}", if self.repeats { " ..." } else { "" })
    }
}

/// The short usage below an error.
pub(super) fn brief(program: &str) -> String {
    format!("Brief USAGE: \n{}\nFor complete USAGE and HELP type: \n   {program} --help\n", synopsis(program))
}

/// What `--help` prints.
pub(super) fn help(program: &str) -> String {
    let mut help = format!(
        "\nUSAGE: \n\n{}   {program} demo [--check]\n   {program} drill [--against <envoy>]\n\n\nWhere: \n\n",
        synopsis(program)
    );
    for flag in &FLAGS {
        let value = match flag.takes {
            Takes::Nothing => String::new(),
            Takes::Value(kind) => format!(" <{kind}>"),
            Takes::Optional(kind) => format!("[=<{kind}>]"),
        };
        let short = flag.short.map_or_else(String::new, |short| format!("-{short}{value},  "));
        let repeats = if flag.repeats { "  (accepted multiple times)" } else { "" };
        // Writing to a `String` cannot fail.
        let _ = write!(help, "   {short}--{}{value}{repeats}\n     {}\n", flag.name, flag.about);
        if let Some(reason) = flag.without_meaning {
            let _ = writeln!(help, "     (accepted, without effect: {reason})");
        }
        help.push('\n');
    }
    help.push_str("   --,  --ignore_rest\n     Ignore the arguments that follow\n\n   legate: a data-plane proxy that takes Envoy's place\n\n");
    help
}

fn synopsis(program: &str) -> String {
    const WIDTH: usize = 76;
    let mut text = format!("   {program} ");
    let indent = text.len().min(40);
    let mut column = text.len();
    for flag in &FLAGS {
        let item = flag.synopsis();
        if column + item.len() + 1 > WIDTH {
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            column = indent;
        }
        column += item.len() + 1;
        text.push(' ');
        text.push_str(&item);
    }
    text.push('\n');
    text
}

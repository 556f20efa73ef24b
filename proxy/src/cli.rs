//! The command line: Envoy 1.40's flags with its names, defaults and errors, and Legate's own.
//!
//! Envoy's parser is unlike the usual ones (a value may begin with a dash, a flag may be given once only, short flags do
//! not bundle), so this is a table and a loop. `--flag value` and `--flag=value` both work.

mod cpus;
mod flags;
mod options;

pub use self::cpus::{Root, available as available_cpus};
use self::flags::{FLAGS, Flag, Takes};
pub use self::options::Options;
use self::options::options;

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

/// The library that does the cryptography, and whether it is the validated module (`ssl.version`).
pub const CRYPTOGRAPHY: &str = if cfg!(feature = "fips") { "aws-lc-FIPS" } else { "aws-lc" };

/// Envoy's default of `--log-format`.
pub const DEFAULT_LOG_FORMAT: &str = "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v";

/// `<sha>/1.40.0/Clean-legate-<version>/RELEASE/aws-lc` (or `aws-lc-FIPS`): Envoy's form, so that those who take it apart find `1.40.0`.
#[must_use]
pub fn version() -> String {
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    format!("{SHA}/{ENVOY_VERSION}/Clean-legate-{LEGATE_VERSION}/{build}/{CRYPTOGRAPHY}")
}

/// The first six digits of the revision this was built from, as a number (`server.version`); 0 if it is not known.
#[must_use]
pub fn revision() -> u64 {
    SHA.get(..6).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

/// What the process is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Serve, or validate configuration ([`Options::mode`]).
    Run(Box<Options>),
    /// `legate demo …`, with its own arguments.
    Demo(Vec<String>),
    /// `legate drill …`, with its own arguments.
    Drill(Vec<String>),
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

/// Understands the arguments, program name first.
///
/// # Errors
/// When they are not understood; the text is Envoy's.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Command, UsageError> {
    let mut args = args.into_iter();
    let program = args.next().unwrap_or_else(|| "legate".to_owned());
    let mut args = args.peekable();
    match args.peek().map(String::as_str) {
        Some("demo") => return Ok(Command::Demo(args.skip(1).collect())),
        Some("drill") => return Ok(Command::Drill(args.skip(1).collect())),
        _ => {}
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

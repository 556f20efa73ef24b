//! Runs a proxy binary: Legate, or the real Envoy.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, eventually};

/// Where `.ci/install-peers` puts Envoy, from the root of the workspace.
const INSTALLED: &str = "target/tools/envoy-1.40.0/envoy/_bin/envoy";

/// Which program to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The binary of this package.
    Legate,
    /// The real Envoy 1.40.
    Envoy,
}

/// A running proxy; killed when dropped.
pub struct Proxy {
    kind: Kind,
    child: Child,
    directory: TempDir,
    admin: SocketAddr,
}

/// What a run that ends by itself left behind.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Everything it printed to standard output.
    pub stdout: String,
    /// Everything it printed to standard error.
    pub stderr: String,
}

/// A reply of an admin page.
#[derive(Clone, Debug)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The decoded body.
    pub body: String,
}

impl Kind {
    /// The program that end-to-end tests examine: Legate, unless `LEGATE_UNDER_TEST=envoy` asks for a check of the
    /// expectations themselves.
    pub fn under_test() -> Self {
        match std::env::var("LEGATE_UNDER_TEST").as_deref() {
            Ok("envoy") => Self::Envoy,
            _ => Self::Legate,
        }
    }

    /// The file to run, if it is there.
    pub fn binary(self) -> Option<PathBuf> {
        match self {
            Self::Legate => Some(PathBuf::from(env!("CARGO_BIN_EXE_legate"))),
            Self::Envoy => {
                let given = std::env::var_os("ENVOY").map(PathBuf::from);
                given.or_else(|| Some(workspace().join(INSTALLED))).filter(|path| path.exists())
            }
        }
    }

    /// Envoy's file, or the reason why a test without it may be skipped. Where skipping is not allowed (in CI, or with
    /// `LEGATE_REQUIRE_PEERS=1`) this panics.
    pub fn require_envoy(test: &str) -> bool {
        if Self::Envoy.binary().is_some() {
            return true;
        }
        let message = format!(
            "{test} needs the real Envoy 1.40: run .ci/install-peers, or name its binary in the variable ENVOY"
        );
        let required = |name: &str, value: &str| std::env::var(name).is_ok_and(|set| set == value);
        assert!(!required("CI", "true") && !required("LEGATE_REQUIRE_PEERS", "1"), "{message}");
        // Not by a macro: those are captured, and nobody reads what a passing test printed.
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: {message}\n");
        false
    }

    fn command(self) -> Command {
        let Some(binary) = self.binary() else {
            panic!("the binary of {self:?} is missing; .ci/install-peers installs it");
        };
        let mut command = Command::new(binary);
        command.stdin(Stdio::null());
        command
    }

    /// Runs to the end with these arguments.
    pub fn run(self, arguments: &[&str]) -> Finished {
        let mut command = self.command();
        finish(command.args(arguments))
    }

    /// What `--mode validate` says about a file.
    pub fn validate(self, file: &Path) -> Finished {
        let mut command = self.command();
        command.args(["--mode", "validate", "--concurrency", "1", "--disable-hot-restart", "-c"]).arg(file);
        finish(&mut command)
    }
}

impl Proxy {
    /// Starts a proxy and waits until it is ready; panics with its log if it does not come up. `${DIR}` in the bootstrap
    /// stands for a directory of the proxy's own, removed with it.
    #[track_caller]
    pub fn start(kind: Kind, bootstrap: &str) -> Self {
        Self::start_with(kind, bootstrap, &[])
    }

    /// The same, with more arguments.
    #[track_caller]
    pub fn start_with(kind: Kind, bootstrap: &str, arguments: &[&str]) -> Self {
        match Self::try_start(kind, bootstrap, arguments) {
            Ok(proxy) => proxy,
            Err(log) => panic!("{kind:?} did not start:\n{log}"),
        }
    }

    /// Starts a proxy; if it ends or does not become ready, its log is the error.
    pub fn try_start(kind: Kind, bootstrap: &str, arguments: &[&str]) -> Result<Self, String> {
        let mut proxy = Self::spawn(kind, bootstrap, arguments)?;
        let deadline = Instant::now() + PATIENCE;
        while !proxy.is_ready() {
            if Instant::now() > deadline || proxy.child.try_wait().is_ok_and(|status| status.is_some()) {
                return Err(format!("never ready\n{}", proxy.log()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(proxy)
    }

    /// Starts a proxy and waits only until its admin pages can be reached.
    pub fn spawn(kind: Kind, bootstrap: &str, arguments: &[&str]) -> Result<Self, String> {
        let directory = TempDir::new().map_err(|error| error.to_string())?;
        let path = |name: &str| directory.path().join(name);
        let bootstrap = bootstrap.replace("${DIR}", &directory.path().to_string_lossy());
        fs::write(path("bootstrap.yaml"), bootstrap).map_err(|error| error.to_string())?;
        let log = |name: &str| fs::File::create(path(name)).map_err(|error| error.to_string());

        let mut command = kind.command();
        command.arg("-c").arg(path("bootstrap.yaml")).arg("--admin-address-path").arg(path("admin"));
        command.args(["--disable-hot-restart", "--file-flush-interval-msec", "15"]);
        if !arguments.contains(&"--concurrency") {
            command.args(["--concurrency", "1"]);
        }
        if kind == Kind::Envoy && !arguments.contains(&"-l") {
            // It lists all its extensions otherwise.
            command.args(["-l", "warning"]);
        }
        command.args(arguments).stdout(log("stdout")?).stderr(log("stderr")?);
        let mut child = command.spawn().map_err(|error| error.to_string())?;

        let deadline = Instant::now() + PATIENCE;
        loop {
            let written = fs::read_to_string(path("admin")).ok().and_then(|text| text.trim().parse().ok());
            if let Some(admin) = written {
                return Ok(Self { kind, child, directory, admin });
            }
            if Instant::now() > deadline || !matches!(child.try_wait(), Ok(None)) {
                let _ = child.kill();
                let _ = child.wait();
                return Err(fs::read_to_string(path("stderr")).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Which program this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address of the admin pages.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The directory that `${DIR}` stood for.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        read("stdout") + &read("stderr")
    }

    /// Whether `/ready` says so.
    pub fn is_ready(&self) -> bool {
        self.try_request("GET", "/ready").is_ok_and(|page| page.status == 200 && page.body.starts_with("LIVE"))
    }

    /// Fetches an admin page.
    #[track_caller]
    pub fn get(&self, path: &str) -> Page {
        self.try_request("GET", path).unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()))
    }

    /// Posts to an admin page.
    #[track_caller]
    pub fn post(&self, path: &str) -> Page {
        self.try_request("POST", path).unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()))
    }

    /// Asks for an admin page.
    pub fn try_request(&self, method: &str, path: &str) -> std::io::Result<Page> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        let message =
            super::message::responses(&reply, &[method], true).into_iter().find(|message| message.status() > 199);
        let message = message.ok_or_else(|| std::io::Error::other("no reply"))?;
        Ok(Page {
            status: message.status(),
            body: String::from_utf8_lossy(&message.body).into_owned(),
            head: message.head,
        })
    }

    /// The address a listener is bound to.
    #[track_caller]
    pub fn listener(&self, name: &str) -> SocketAddr {
        let listeners = self.listeners();
        *listeners.get(name).unwrap_or_else(|| panic!("no listener {name} in {listeners:?}\n{}", self.log()))
    }

    /// The addresses of all listeners, the first of each.
    pub fn listeners(&self) -> BTreeMap<String, SocketAddr> {
        let page: Value = serde_json::from_str(&self.get("/listeners?format=json").body).unwrap_or_default();
        let statuses = page["listener_statuses"].as_array().cloned().unwrap_or_default();
        let address = |status: &Value| {
            let socket = &status["local_address"]["socket_address"];
            let ip = socket["address"].as_str()?.parse().ok()?;
            let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
            Some((status["name"].as_str()?.to_owned(), SocketAddr::new(ip, port)))
        };
        statuses.iter().filter_map(address).collect()
    }

    /// The statistics whose names match: those that were used, and whose value is a number.
    pub fn stats(&self, filter: &str) -> BTreeMap<String, i64> {
        let page = self.get(&format!("/stats?usedonly&filter={filter}"));
        let line = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        page.body.lines().filter_map(line).collect()
    }

    /// One statistic; 0 if it was never used.
    pub fn stat(&self, name: &str) -> i64 {
        self.stats(&format!("^{}$", name.replace('.', r"\."))).get(name).copied().unwrap_or(0)
    }

    /// Waits until a statistic has a value that pleases.
    #[track_caller]
    pub fn wait_for_stat(&self, name: &str, pleases: impl Fn(i64) -> bool) -> i64 {
        eventually(name, || Some(self.stat(name)).filter(|value| pleases(*value)))
    }

    /// The lines of a file in its directory; empty if there is none yet.
    pub fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read(self.directory.path().join(file)).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Processor time used so far.
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().filter_map(|field| fields.get(*field)?.parse::<u64>().ok()).sum();
        // The kernel's clock tick is 100 Hz on every platform Linux reports this file for.
        Duration::from_millis(ticks * 10)
    }

    /// Sends a signal by name (`TERM`).
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([format!("-{signal}"), self.pid().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{signal}");
    }

    /// Waits until the process ends.
    pub fn wait_exit(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Runs a command to its end, for at most [`PATIENCE`].
fn finish(command: &mut Command) -> Finished {
    let directory = TempDir::new().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let file = |name: &str| fs::File::create(path(name)).expect("a file");
    let mut child = command.stdout(file("stdout")).stderr(file("stderr")).spawn().expect("a process");
    let deadline = Instant::now() + PATIENCE;
    let mut code = None;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                code = status.code();
                break;
            }
            _ if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    let read = |name: &str| String::from_utf8_lossy(&fs::read(path(name)).unwrap_or_default()).into_owned();
    Finished { code, stdout: read("stdout"), stderr: read("stderr") }
}

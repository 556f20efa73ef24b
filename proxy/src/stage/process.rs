//! The proxies: child processes that never outlive their parent, a demo or a drill.
//!
//! Between it and each proxy stands a guard, this executable again, whose standard input is a pipe from the parent.
//! However the parent ends (returning, a panic, SIGKILL), the pipe closes, and the guard kills the proxy. Guards have
//! process groups of their own, so a Ctrl-C at the terminal reaches its parent alone, which ends in order.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::http1::Http1;

/// The argument by which this executable becomes a guard; the proxy's command line follows.
pub(crate) const GUARD: &str = "--guard";

/// How often a guard looks whether its proxy ended by itself.
const GUARD_INTERVAL: Duration = Duration::from_millis(50);

/// The life of a guard: runs `command` until it ends or until standard input does.
pub(crate) fn guard(command: &[String]) -> ExitCode {
    let Some((program, args)) = command.split_first() else {
        return ExitCode::from(2);
    };
    let mut child = match Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("{program}: {error}");
            return ExitCode::FAILURE;
        }
    };
    // The parent waits for this line; if it is gone already, standard input says so too.
    let _ = writeln!(io::stdout(), "{}", child.id());
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = ended.send(());
    });
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            eprintln!("the proxy ended: {status}");
            return ExitCode::FAILURE;
        }
        if end.recv_timeout(GUARD_INTERVAL) != Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = child.kill();
            let _ = child.wait();
            return ExitCode::SUCCESS;
        }
    }
}

/// A running proxy. Dropped, it is killed.
pub(crate) struct Proxy {
    guard: Child,
    /// Closing it is what stops the proxy.
    leash: Option<ChildStdin>,
    /// Of the proxy itself, not of its guard.
    pub(crate) pid: u32,
    admin_address_file: PathBuf,
    log: PathBuf,
}

impl Proxy {
    /// Starts `executable` on a bootstrap; `name` names its files in `directory`, `arguments` are added.
    pub(crate) fn start(
        executable: &Path,
        directory: &Path,
        name: &str,
        bootstrap: &str,
        arguments: &[&str],
    ) -> io::Result<Self> {
        let config = directory.join(format!("{name}.yaml"));
        let admin_address_file = directory.join(format!("{name}.admin"));
        let log = directory.join(format!("{name}.log"));
        std::fs::write(&config, bootstrap)?;
        let mut guard = Command::new(std::env::current_exe()?)
            .args(["demo", GUARD])
            .arg(executable)
            .arg("-c")
            .arg(config)
            .arg("--admin-address-path")
            .arg(&admin_address_file)
            // Two proxies of one machine must not take each other for their predecessor.
            .args(["--log-level", "warning", "--disable-hot-restart"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .process_group(0)
            .spawn()?;
        let leash = guard.stdin.take();
        let pid = guard.stdout.take().map(|output| {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).map(|_| line)
        });
        let mut proxy = Self { guard, leash, pid: 0, admin_address_file, log };
        let line = pid.ok_or_else(|| io::Error::other("no pipe from the guard"))??;
        proxy.pid = line.trim().parse().map_err(|_| io::Error::other(proxy.last_words()))?;
        Ok(proxy)
    }

    /// Waits until the proxy says it is ready. The port of its admin pages.
    pub(crate) async fn ready(&mut self) -> Result<u16, String> {
        let mut admin = None;
        loop {
            if matches!(self.guard.try_wait(), Ok(Some(_))) {
                return Err(self.last_words());
            }
            if admin.is_none() {
                admin = self.admin_port().map(|port| (port, Http1::new(port)));
            }
            if let Some((port, client)) = &mut admin
                && client.fetch("/ready").await.is_ok()
            {
                return Ok(*port);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The end of the proxy's log.
    pub(crate) fn last_words(&self) -> String {
        let mut text = String::new();
        if let Ok(file) = File::open(&self.log) {
            let _ = file.take(1 << 20).read_to_string(&mut text);
        }
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_memory(&self) -> Option<u64> {
        self.memory("VmRSS:")
    }

    /// The most it has been, in KiB.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        self.memory("VmHWM:")
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> Option<usize> {
        Some(std::fs::read_dir(format!("/proc/{}/fd", self.pid)).ok()?.count())
    }

    /// Processor time it has used.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        /// What the kernel counts these in, whatever its own clock does.
        const TICKS: u32 = 100;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name of the process stands in parentheses and may contain anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u32>().ok();
        Some(Duration::from_secs(1) * (ticks()? + ticks()?) / TICKS)
    }

    fn memory(&self, what: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(what))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    }

    fn admin_port(&self) -> Option<u16> {
        let address = std::fs::read_to_string(&self.admin_address_file).ok()?;
        address.trim().rsplit_once(':')?.1.parse().ok()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.leash.take());
        let _ = self.guard.wait();
    }
}

/// A directory of a demo's or drill's own, removed with all it holds when dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// A new one, readable by nobody else, named after what it is for.
    pub(crate) fn new(what: &str) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let name = format!("legate-{what}-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

"""Processes on cores of their own, and what the kernel says they cost."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path


class Failure(Exception):
    """A measurement that did not happen as meant: reported as such, never as a number."""


class Process:
    """A child pinned to one core. Its output is kept in a file, for the message should it die."""

    def __init__(self, name, command, core, directory):
        self.name, self.log = name, Path(directory) / f"{name}-{time.monotonic_ns()}.log"
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(["taskset", "-c", str(core), *map(str, command)], stdout=log, stderr=log)
        self.pid = self.child.pid

    def stop(self):
        """Ends it, and says whether it had ended by itself."""
        died = self.child.poll() is not None
        if not died:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(5)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        return died

    def check(self):
        """Raises when it is no longer there."""
        if self.child.poll() is not None:
            raise Failure(f"{self.name} ended with {self.child.returncode}: {self.log.read_text(errors='replace')[-400:]}")

    def wait_for_port(self, port, seconds=60):
        """Returns once something listens on `port`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            try:
                socket.create_connection(("127.0.0.1", port), 0.5).close()
                return
            except OSError:
                time.sleep(0.01)
        raise Failure(f"{self.name} does not listen on {port} after {seconds} s")

    def tree(self):
        """Its process id and those of its children (nginx works in a child)."""
        pids = [self.pid]
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == self.pid:
                pids.append(int(path.parent.name))
        return pids

    def cpu_seconds(self):
        """User and system time of all its threads, in nanosecond resolution."""
        total = 0
        for pid in self.tree():
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    total += int(task.read_text().split()[0])
                except OSError:
                    pass
        return total / 1e9

    def rss_mb(self):
        """Resident memory."""
        total = 0
        for pid in self.tree():
            match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
            total += int(match.group(1)) if match else 0
        return total / 1024


def free_port():
    """A port nobody uses now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cpu_of(pid):
    """User and system time of a process without children, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

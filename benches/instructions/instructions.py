#!/usr/bin/env python3
"""How many instructions a request costs Legate, against recorded budgets.

Time is noise on a shared machine; instructions hardly are. A replay (peers.py) goes through the real binary under callgrind
twice, with different numbers of requests, and the difference of the two counts over the difference of requests is what
one request costs: start-up and end cancel out. A scenario above its budget and its headroom fails; where the instructions
went is in the file that the message names. What the system does for a request is not counted: benches/compare is for that.

Scenarios named "resilient" are the others with a retry policy, outlier detection and circuit breakers configured, and
nothing failing: what that costs is held against the plain scenario of the same run.

    benches/instructions/instructions.py                 # builds Legate (profile `callgrind`), checks every scenario
    benches/instructions/instructions.py --scenario h1   # one
    benches/instructions/instructions.py --record        # takes what is measured as the new budgets
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUDGETS = HERE / "budgets.json"
# Compilers and libraries of another day move the count by a few per cent.
HEADROOM = 0.08
SCENARIOS = {
    # Whether the upstream speaks HTTP/2, and the two ends of the replay.
    "h1": (False, peers.http1_upstream, peers.http1_client),
    "h2": (True, peers.http2_upstream, peers.http2_client),
    "grpc": (True, peers.grpc_upstream, peers.grpc_client),
}
RESILIENT = "-resilient"
NAMES = [name + more for name in SCENARIOS for more in ("", RESILIENT)]
# How much more a request may cost when what would save it is configured.
RESILIENCE = 0.08
RETRIES = """retry_policy: { retry_on: "gateway-error,reset,connect-failure,refused-stream", num_retries: 2, per_try_timeout: 15s,
  retry_host_predicate: [{ name: previous, typed_config: { "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate } }] }"""
WATCHED = """
    outlier_detection: { consecutive_5xx: 5, interval: 299s, base_ejection_time: 30s, max_ejection_percent: 50 }
    circuit_breakers:
      thresholds:
      - { max_connections: 100, max_pending_requests: 100, max_requests: 100, max_retries: 10, track_remaining: true,
          retry_budget: { budget_percent: { value: 20 }, min_retry_concurrency: 3 } }"""
FEW, MANY = 200, 1200
# On a busy machine what is sent at once may arrive in two pieces, and timers ring more often: a few per cent.
TRIES = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--legate", help="binary to measure; default: built now with the profile callgrind")
    parser.add_argument("--scenario", action="append", default=[], choices=NAMES, help="repeatable; default all")
    parser.add_argument("--record", action="store_true", help="write what is measured to budgets.json")
    parser.add_argument("--profiles", default=str(ROOT / "target/instructions"), help="where callgrind's files are left")
    args = parser.parse_args()
    legate, profiles = args.legate or build(), Path(args.profiles)
    profiles.mkdir(parents=True, exist_ok=True)
    budgets = json.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}
    over, plain = [], {}
    for name in args.scenario or NAMES:
        if name.endswith(RESILIENT):
            base = name.removesuffix(RESILIENT)
            if base not in plain:
                plain[base] = least(legate, base, budgets.get(base), profiles)
            if not saves_cheaply(legate, name, plain[base], profiles):
                over.append(name)
            continue
        budget = budgets.get(name)
        if args.record:
            measured = budgets[name] = statistics.median_low(instructions(legate, name, profiles) for _ in range(TRIES))
            print(f"{name}: {measured:,} instructions a request, recorded (before: {budget or 'none'})", flush=True)
            continue
        plain[name] = least(legate, name, budget, profiles)
        if not within(name, plain[name], budget, profiles):
            over.append(name)
    if args.record:
        BUDGETS.write_text(json.dumps(budgets, indent=2) + "\n")
    sys.exit(1 if over else 0)


def least(legate, name, budget, profiles):
    """Instructions of one request: the first count that needs no excuse, or else the least."""
    counts = []
    while len(counts) < TRIES and not any(budget is None or count <= budget * (1 + HEADROOM) for count in counts):
        counts.append(instructions(legate, name, profiles))
    return min(counts)


def saves_cheaply(legate, name, plain, profiles):
    """Says what resilience costs a request that needs none, and answers whether it may pass."""
    counts = []
    while len(counts) < TRIES and not any(count <= plain * (1 + RESILIENCE) for count in counts):
        counts.append(instructions(legate, name, profiles))
    measured = min(counts)
    passes = measured <= plain * (1 + RESILIENCE)
    print(f"{name}: {measured:,} instructions a request, {measured / plain - 1:+.1%} of the {plain:,} without"
          + ("" if passes else f", where {RESILIENCE:+.0%} is allowed: TOO MANY\n"
             f"  where they went: callgrind_annotate {profiles / name}-{MANY}"), flush=True)
    return passes


def within(name, measured, budget, profiles):
    """Says how a measurement compares with its budget, and answers whether it may pass."""
    if budget is None:
        print(f"{name}: {measured:,} instructions a request, but no budget is recorded: run with --record")
        return False
    change = f"{name}: {measured:,} instructions a request, {measured / budget - 1:+.1%} of the budget of {budget:,}"
    if measured <= budget * (1 + HEADROOM):
        loose = "; record it, so that it is kept" if measured < budget * (1 - HEADROOM) else ""
        print(change + loose, flush=True)
        return True
    print(f"{change}, where {HEADROOM:+.0%} is allowed: TOO MANY\n"
          f"  where they went: callgrind_annotate {profiles / name}-{MANY}\n"
          f"  if they are well spent: {Path(sys.argv[0])} --scenario {name} --record, and say for what in the commit", flush=True)
    return False


def build():
    """Legate, optimised but linked quickly. Counts of a debug build would say nothing."""
    command = ["cargo", "build", "--profile", "callgrind", "-p", "legate", "--bin", "legate", "--message-format",
               "json-render-diagnostics"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    messages = [json.loads(line) for line in output.splitlines()]
    return next(message["executable"] for message in messages if message.get("executable"))


def instructions(legate, name, profiles):
    """Instructions of one request."""
    counts = {requests: replay(legate, name, requests, profiles / f"{name}-{requests}") for requests in (FEW, MANY)}
    return round((counts[MANY] - counts[FEW]) / (MANY - FEW))


def replay(legate, name, requests, profile):
    """Instructions of a process that served so many requests."""
    http2, serve, client = SCENARIOS[name.removesuffix(RESILIENT)]
    upstream, port = peers.Upstream(serve), peers.free_port()
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        (directory / "bootstrap.yaml").write_text(bootstrap(port, upstream.port, http2, name.endswith(RESILIENT)))
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", legate, "--concurrency", "1",
                   "--disable-hot-restart", "-l", "warning", "-c", directory / "bootstrap.yaml",
                   "--admin-address-path", directory / "admin"]
        with open(directory / "log", "wb") as log:
            process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log)
        try:
            wait_until_listening(process, port)
            client(port, requests)
            process.terminate()
            process.wait(60)
        except Exception:
            print((directory / "log").read_text(errors="replace")[-2000:], file=sys.stderr)
            raise
        finally:
            process.kill()
            process.wait()
    total = next(line for line in profile.read_text().splitlines() if line.startswith("totals:"))
    return int(total.split()[1])


def wait_until_listening(process, port):
    """By connecting, as a refused connection costs the process nothing."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("Legate did not come up")


def bootstrap(port, upstream, http2, resilient):
    """One listener, three routes, one cluster, an access log to nowhere. What happens by the clock is put off."""
    filters = "type.googleapis.com/envoy.extensions.filters"
    options = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    protocol = "http2_protocol_options" if http2 else "http_protocol_options"
    retries, watched = (f", {RETRIES}", WATCHED) if resilient else ("", "")
    return f"""
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}
stats_flush_interval: 299s
static_resources:
  listeners:
  - name: in
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": {filters}.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          use_remote_address: true
          access_log:
          - name: file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: /dev/null
          route_config:
            virtual_hosts:
            - name: shop
              domains: [shop.example]
              routes:
              - {{ match: {{ path: /api/v2/health }}, route: {{ cluster: shop{retries} }} }}
              - {{ match: {{ prefix: /api/ }}, route: {{ cluster: shop, timeout: 5s{retries} }} }}
              - {{ match: {{ prefix: / }}, route: {{ cluster: shop{retries} }} }}
          http_filters:
          - name: router
            typed_config: {{ "@type": {filters}.http.router.v3.Router }}
  clusters:
  - name: shop
    connect_timeout: 60s{watched}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": {options}
        explicit_http_config: {{ {protocol}: {{}} }}
    load_assignment:
      cluster_name: shop
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {upstream} }} }} }}
"""


if __name__ == "__main__":
    main()

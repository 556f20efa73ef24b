"""What is measured: each scenario is a function of the bench that answers samples by subject, ours first."""

import socket
import time
import urllib.error
import urllib.request

from load import h2load, open_loop, wrk
from machine import Failure


def h1(connections, path="/"):
    """Keep-alive HTTP/1.1 on so many connections."""
    def scenario(bench, name):
        load = wrk(connections, path)
        return bench.rounds({kind: (lambda kind=kind: bench.sample(kind, name, load)) for kind in bench.proxies})
    return scenario


def h2(clients, streams, path="/", options=(), upstream_h2=True):
    """HTTP/2 on so many connections with so many streams each. nginx cannot speak it to an upstream."""
    def scenario(bench, name):
        load = h2load(clients, streams, path, options)
        def take(kind):
            return bench.sample(kind, name, load, upstream_h2=upstream_h2, downstream_h2=True)
        return bench.rounds({kind: (lambda kind=kind: take(kind)) for kind in bench.proxies if kind != "nginx"})
    return scenario


def grpc_unary(bench, name):
    """One message there, one back with trailers."""
    return h2(16, 10, "/bench.Echo/Unary", (
        f"-d{bench.directory / 'grpc'}", "-Hcontent-type: application/grpc", "-Hte: trailers"))(bench, name)


def fixed_rate(bench, name):
    """Half of what Envoy can do at most, in an open loop: what a service with headroom sees."""
    kinds = [kind for kind in bench.proxies if kind != "nginx"]
    reference = "envoy" if "envoy" in kinds else kinds[0]
    # What it could do in a bad moment: it is to keep up in every round.
    most = min(bench.sample(reference, name, wrk(64))["rate"] for _ in range(3))
    load = open_loop(most / 2)
    return bench.rounds({kind: (lambda kind=kind: bench.sample(kind, name, load)) for kind in kinds})


IDLE = 2000


def idle(bench, name):
    """Resident memory at start, and what each of 2,000 connections adds that have carried one request."""
    def take(kind):
        with bench.proxy(kind, name) as (process, port, _):
            time.sleep(0.5)
            start = process.rss_mb()
            sockets = []
            try:
                for _ in range(IDLE):
                    s = socket.create_connection(("127.0.0.1", port), 10)
                    sockets.append(s)
                    s.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                    if not s.recv(4096).startswith(b"HTTP/1.1 200"):
                        raise Failure(f"{kind} did not answer on connection {len(sockets)}")
                time.sleep(1)
                return {"start_mb": start, "idle_kb": (process.rss_mb() - start) * 1024 / IDLE}
            except OSError as error:
                raise Failure(f"{kind} on connection {len(sockets)}: {error}") from None
            finally:
                for s in sockets:
                    s.close()
    return bench.rounds({kind: (lambda kind=kind: take(kind)) for kind in bench.proxies})


def many_routes(table):
    """The same requests with 5,000 routes as with 10, Legate and Envoy; `table(count)` makes virtual hosts."""
    def scenario(bench, name):
        load, few, many = wrk(64), table(10), table(5000)
        def take(kind, count, hosts):
            return bench.sample(kind, f"{name}-{count}", load, virtual_hosts=hosts)
        subjects = {}
        for kind in (k for k in bench.proxies if k in ("legate", "envoy")):
            subjects[f"{kind}-5000"] = lambda kind=kind: take(kind, 5000, many)
            subjects[f"{kind}-10"] = lambda kind=kind: take(kind, 10, few)
        return bench.rounds(subjects)
    return scenario


INDENT = " " * 12


def mixed_routes(count):
    """Routes over 100 hosts (or one): half prefixes, some exact, some regex; the last route of the last host serves."""
    lines, hosts = [], 100 if count >= 100 else 1
    for host in range(hosts):
        domain = f"h{host}.example" if host < hosts - 1 else "*"
        lines.append(f"{INDENT}- name: v{host}\n{INDENT}  domains: ['{domain}']\n{INDENT}  routes:")
        for route in range(count // hosts - 1):
            kind = route % 10
            match = (f"prefix: /p{host}/{route}/" if kind < 5 else f"path: /e{host}/{route}" if kind < 8
                     else f"safe_regex: {{ regex: '/r{host}/{route}/[a-z]+' }}")
            lines.append(f"{INDENT}  - match: {{ {match} }}\n{INDENT}    route: {{ cluster: upstream }}")
        lines.append(f"{INDENT}  - match: {{ prefix: / }}\n{INDENT}    route: {{ cluster: upstream }}")
    return "\n".join(lines)


def header_routes(count):
    """Routes on one prefix that differ by a header no request carries; the last one serves."""
    lines = [f"{INDENT}- name: v\n{INDENT}  domains: ['*']\n{INDENT}  routes:"]
    for route in range(count - 1):
        lines.append(f"{INDENT}  - match: {{ prefix: /, headers: [ {{ name: x-tenant, string_match: {{ exact: t{route} }} }} ] }}\n"
                     f"{INDENT}    route: {{ cluster: upstream }}")
    lines.append(f"{INDENT}  - match: {{ prefix: / }}\n{INDENT}    route: {{ cluster: upstream }}")
    return "\n".join(lines)


def clusters(bench, name):
    """From exec to ready with 1,000 static clusters, Legate and Envoy, and what is resident then."""
    text = "\n".join(CLUSTER.format(n) for n in range(1000))
    def take(kind):
        began = time.monotonic()
        with bench.proxy(kind, name, clusters=text) as (process, _, admin):
            while not ready(admin):
                process.check()
                if time.monotonic() - began > 120:
                    raise Failure(f"{kind} is not ready after two minutes")
                time.sleep(0.005)
            took = (time.monotonic() - began) * 1e3
            time.sleep(0.5)
            return {"ready_ms": took, "rss_mb": process.rss_mb()}
    return bench.rounds({kind: (lambda kind=kind: take(kind)) for kind in bench.proxies if kind in ("legate", "envoy")})


def ready(admin):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


CLUSTER = """  - name: c{0}
    type: STATIC
    connect_timeout: 1s
    lb_policy: ROUND_ROBIN
    load_assignment:
      cluster_name: c{0}
      endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 1 }} }} }} }} ] }} ]"""

SCENARIOS = {
    "h1-64": h1(64),
    "h1-1": h1(1),
    "h1-512": h1(512),
    "h1-1MiB": h1(8, "/big"),
    "h2-16x10": h2(16, 10),
    "h2-1x10": h2(1, 10),
    "h2-to-h1": h2(16, 10, upstream_h2=False),
    "grpc-unary": grpc_unary,
    "fixed-rate": fixed_rate,
    "idle-2000": idle,
    "routes": many_routes(mixed_routes),
    "header-routes": many_routes(header_routes),
    "clusters-1000": clusters,
}

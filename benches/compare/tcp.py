"""What it costs a proxy to carry bytes: CPU seconds per GiB of a layer-4 connection, Legate beside Envoy and HAProxy.

    python3 benches/compare/tcp.py LEGATE ENVOY [HAPROXY]      binaries; one GiB each, GIB=4 for more

The client hashes what arrives: bytes that were lost or swapped end the run. HAProxy runs three times: with
`option splice-auto`, by which it decides itself (and, where the peers are this near, copies), told to splice always, and without
either. Proxies take turns for ROUNDS (5) rounds. Only the ratios within a round say something on a machine that is not quiet:
they are Legate's to the other, their median and their range.
"""

import hashlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from machine import cpu_of, free_port

TOTAL = int(os.environ.get("GIB", "1")) << 30
ROUNDS = int(os.environ.get("ROUNDS", "5"))
CHUNK = os.urandom(1 << 20)

ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: up}}
  clusters:
  - name: up
    load_assignment:
      cluster_name: up
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {up}}}}}}}}}]}}]
"""
SPLICING = {
    "haproxy": "option splice-auto",
    "haproxy, splicing": "option splice-request\n  option splice-response",
    "haproxy, copying": "",
}
HAPROXY = """
global
  nbthread 1
defaults
  mode tcp
  {splice}
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen l
  bind 127.0.0.1:{port}
  server s 127.0.0.1:{up}
"""


def serve(listener):
    """Sends the bytes to everybody who connects."""
    while True:
        peer, _ = listener.accept()
        with peer:
            try:
                for _ in range(TOTAL // len(CHUNK)):
                    peer.sendall(CHUNK)
            except OSError:
                pass


def transfer(port):
    """The digest of what comes, and the seconds it took."""
    digest, begun = hashlib.sha256(), time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as peer:
        while data := peer.recv(1 << 20):
            digest.update(data)
    return digest.hexdigest(), time.monotonic() - begun


def await_port(port, process):
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"the proxy ended with {process.returncode}")
        with open("/proc/net/tcp") as table:
            if any(f":{port:04X} 00000000:0000 0A" in line for line in table):
                return
        time.sleep(0.1)
    sys.exit("the proxy does not listen")


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    up = listener.getsockname()[1]
    expected = hashlib.sha256()
    for _ in range(TOTAL // len(CHUNK)):
        expected.update(CHUNK)
    kinds = dict(zip(["legate", "envoy", "haproxy"], sys.argv[1:]))
    if "haproxy" in kinds:
        kinds |= dict.fromkeys(SPLICING, kinds["haproxy"])
    with tempfile.TemporaryDirectory() as directory:
        running = []
        try:
            for name, binary in kinds.items():
                port, file = free_port(), f"{directory}/{name}.yaml"
                splice = SPLICING.get(name)
                with open(file, "w") as config:
                    config.write((ENVOY if splice is None else HAPROXY).format(port=port, up=up, splice=splice))
                arguments = ["-c", file, "--concurrency", "1"] if splice is None else ["-db", "-f", file]
                arguments += ["--use-dynamic-base-id"] if name == "envoy" else []
                process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                running.append((name, process, port))
                await_port(port, process)
            costs = {name: [] for name in kinds}
            for _ in range(ROUNDS):
                for name, process, port in running:
                    before = cpu_of(process.pid)
                    digest, seconds = transfer(port)
                    if digest != expected.hexdigest():
                        sys.exit(f"{name}: the bytes are not those that were sent")
                    costs[name].append(((cpu_of(process.pid) - before) * (1 << 30) / TOTAL, seconds))
            print("CPU s/GiB            best  median   worst   fastest transfer, s   ratio: median, range")
            own = [cost for cost, _ in costs["legate"]]
            for name, rounds in costs.items():
                spent = [cost for cost, _ in rounds]
                fastest = min(seconds for _, seconds in rounds)
                line = f"{name:18} {min(spent):6.3f} {statistics.median(spent):7.3f} {max(spent):7.3f} {fastest:8.1f}"
                ratios = [mine / theirs for mine, theirs in zip(own, spent)]
                print(f"{line}   {statistics.median(ratios):22.2f}x [{min(ratios):.2f}..{max(ratios):.2f}]")
        finally:
            for _, process, _ in running:
                process.kill()


if __name__ == "__main__":
    main()

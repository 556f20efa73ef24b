"""What it costs a proxy to carry bytes: CPU seconds per GiB of a layer-4 connection, Legate beside Envoy and HAProxy.

    python3 benches/compare/tcp.py LEGATE ENVOY [HAPROXY]      binaries; one GiB each, GIB=4 for more

The client hashes what arrives: bytes that were lost or swapped end the run. Proxies take turns, the best of ROUNDS (3)
counts: what else runs on the machine only ever adds.
"""

import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

TOTAL = int(os.environ.get("GIB", "1")) << 30
ROUNDS = int(os.environ.get("ROUNDS", "3"))
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
HAPROXY = """
global
  nbthread 1
defaults
  mode tcp
  option splice-auto
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


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
    with tempfile.TemporaryDirectory() as directory:
        running = []
        try:
            for name, binary in kinds.items():
                port, file = free_port(), f"{directory}/{name}.yaml"
                with open(file, "w") as config:
                    config.write((HAPROXY if name == "haproxy" else ENVOY).format(port=port, up=up))
                arguments = ["-db", "-f", file] if name == "haproxy" else ["-c", file, "--concurrency", "1"]
                arguments += ["--use-dynamic-base-id"] if name == "envoy" else []
                process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                running.append((name, process, port))
                await_port(port, process)
            best = {}
            for _ in range(ROUNDS):
                for name, process, port in running:
                    before = cpu(process.pid)
                    digest, seconds = transfer(port)
                    if digest != expected.hexdigest():
                        sys.exit(f"{name}: the bytes are not those that were sent")
                    cost = (cpu(process.pid) - before) * (1 << 30) / TOTAL
                    best[name] = min(best.get(name, (cost, seconds)), (cost, seconds))
            for name, (cost, seconds) in best.items():
                print(f"{name:8} {cost:6.2f} CPU s/GiB   {seconds:5.1f} s")
        finally:
            for _, process, _ in running:
                process.kill()


if __name__ == "__main__":
    main()

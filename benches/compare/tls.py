"""What TLS costs a proxy: handshakes per CPU second, CPU per request on connections that are kept, CPU per GiB of 1 MiB
bodies, Legate beside Envoy.

    python3 benches/compare/tls.py LEGATE ENVOY      binaries

Needs openssl, wrk and nginx. Proxies take turns for ROUNDS (5) rounds of SECONDS (4) each. Only the ratios within a round say
something on a machine that is not quiet: they are Legate's to Envoy's, their median and their range. The certificate has a
P-256 key; clients are OpenSSL's.
"""

import os
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

from machine import cpu_of, free_port

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = float(os.environ.get("SECONDS", "4"))

PROXY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates:
            - {{certificate_chain: {{filename: {directory}/cert.pem}}, private_key: {{filename: {directory}/key.pem}}}}
      filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: h
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {{match: {{path: /here}}, direct_response: {{status: 200}}}}
              - {{match: {{prefix: /}}, route: {{cluster: up}}}}
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: up
    load_assignment:
      cluster_name: up
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {up}}}}}}}}}]}}]
"""
NGINX = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log /dev/null;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {directory}; proxy_temp_path {directory};
  fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};
  server {{ listen 127.0.0.1:{up}; root {directory}/www; location = /small {{ return 200 "hello"; }} }}
}}
"""


def wait_for(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nobody listens on {port}")


def s_time(port, version):
    """New sessions, one after another; how many."""
    command = ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-new", "-time", str(int(SECONDS)), version]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return int(re.search(r"(\d+) connections in \d+ real seconds", output)[1])


def resumed(port, version):
    """Sessions that are resumed, one after another, each with a request; how many."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    session, count, end = None, 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), session=session) as client:
            client.sendall(b"GET /here HTTP/1.1\r\nhost: a\r\n\r\n")
            client.recv(4096)
            if session is not None and not client.session_reused:
                sys.exit("a session was not resumed")
            session = client.session
        count += 1
    return count


def wrk(port, path, connections):
    """Requests on connections that are kept; how many, and how many bytes came."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{int(SECONDS)}s", f"https://127.0.0.1:{port}{path}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(output)
    count, size, unit = re.search(r"(\d+) requests in [\d.]+\w+, ([\d.]+)(\w+) read", output).groups()
    return int(count), float(size) * {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}[unit]


# What is measured, the unit of work, and whether Legate's cost has to be so small a part of Envoy's.
MEASURES = {
    "full handshake, TLS 1.3": (lambda port: s_time(port, "-tls1_3"), 1.0),
    "full handshake, TLS 1.2": (lambda port: s_time(port, "-tls1_2"), 1.0),
    "resumed handshake and a request, TLS 1.3": (lambda port: resumed(port, ssl.TLSVersion.TLSv1_3), 1.0),
    "resumed handshake and a request, TLS 1.2": (lambda port: resumed(port, ssl.TLSVersion.TLSv1_2), 1.0),
    "request, 64 kept connections": (lambda port: wrk(port, "/small", 64)[0], 0.4),
    "GiB of 1 MiB bodies": (lambda port: wrk(port, "/mebibyte", 8)[1] / (1 << 30), 1.0),
}


def main():
    legate, envoy = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as directory:
        new_key = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9"]
        names = ["-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem", "-subj", "/CN=bench"]
        subprocess.run(new_key + names, check=True, capture_output=True)
        os.makedirs(f"{directory}/www")
        with open(f"{directory}/www/mebibyte", "wb") as file:
            file.write(os.urandom(1 << 20))
        up = free_port()
        with open(f"{directory}/nginx.conf", "w", encoding="ascii") as file:
            file.write(NGINX.format(directory=directory, up=up))
        processes = [subprocess.Popen(["nginx", "-c", f"{directory}/nginx.conf", "-p", directory])]
        ports = {}
        for name, binary in [("legate", legate), ("envoy", envoy)]:
            port = free_port()
            path = f"{directory}/{name}.yaml"
            with open(path, "w", encoding="ascii") as file:
                file.write(PROXY.format(port=port, up=up, directory=directory))
            command = [binary, "-c", path, "--concurrency", "1", "-l", "warning", "--use-dynamic-base-id"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            processes.append(subprocess.Popen(command, **quiet))
            ports[name] = (port, processes[-1].pid)
        try:
            wait_for(up)
            for port, _ in ports.values():
                wait_for(port)
            for what, (work, most) in MEASURES.items():
                ratios, costs = [], {name: [] for name in ports}
                for round_ in range(ROUNDS):
                    order = list(ports) if round_ % 2 == 0 else list(ports)[::-1]
                    cost = {}
                    for name in order:
                        port, pid = ports[name]
                        before = cpu_of(pid)
                        done = work(port)
                        cost[name] = (cpu_of(pid) - before) / done
                        costs[name].append(cost[name])
                    ratios.append(cost["legate"] / cost["envoy"])
                median = statistics.median(ratios)
                mine, other = (statistics.median(costs[name]) for name in ("legate", "envoy"))
                verdict = "ok" if median <= most else "MISSED"
                print(f"{what}: {median:.2f}x [{min(ratios):.2f}..{max(ratios):.2f}] (at most {most}: {verdict}); "
                      f"CPU {mine * 1e6:.1f} us, Envoy {other * 1e6:.1f} us", flush=True)
        finally:
            for process in processes:
                process.terminate()


if __name__ == "__main__":
    main()

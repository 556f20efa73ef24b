"""Mutual TLS between Legate and the implementations it meets, on either side and by both versions: the real Envoy, grpcio,
openssl and curl.

    tls_peers.py --proxy PATH --envoy PATH

Two proxies, one calling the other, are asked the same in each of four pairs. What two Envoys do is what the other pairs must
do: answers, what the side behind saw of the caller, why a connection was refused, and what was counted on either side.
"""

import argparse
import asyncio
import http.client
import http.server
import itertools
import os
import subprocess
import threading

import grpc

from grpc_through import BIG, Service, status
from peers import Checks, Proxy, free_port, free_ports
from sds_peers import Pki
from tls_bootstrap import PROTOCOLS, REQUESTS, SEEN, VERSIONS, Leg, behind, between, front

CONNECTIONS = 8


class Echo(http.server.BaseHTTPRequestHandler):
    """The service behind: it says what it is told."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def echo():
    """Starts the service. Its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def legs():
    """Every way that works, and those that must not."""
    ports = iter(free_ports(64))

    def leg(*words, **more):
        return Leg((next(ports), next(ports)), *words, **more)

    right = {f"{version} {protocol}": leg(version, protocol) for version in VERSIONS for protocol in PROTOCOLS}
    wrong = {}
    for version in VERSIONS:
        other, = set(VERSIONS) - {version}
        wrong[f"{version} caller of another authority"] = leg(version, "http/1.1", caller="c2")
        wrong[f"{version} caller without certificate"] = leg(version, "http/1.1", caller=None)
        wrong[f"{version} expired caller"] = leg(version, "http/1.1", caller="old")
        wrong[f"{version} authority not trusted"] = leg(version, "http/1.1", authority="ca2")
        wrong[f"{version} another name expected"] = leg(version, "h2", expects="other.test")
        wrong[f"{version} calls {other}"] = leg(version, "http/1.1", behind=other)
    return right, wrong


def converse(port, bodies):
    """Sends each body on one connection; the answers: status, what the side behind saw, and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    answers = []
    try:
        for body in bodies:
            connection.request("POST", "/", body, {"host": "s1.test"})
            answer = connection.getresponse()
            answers.append((answer.status, {key: answer.headers.get(key) for key in SEEN}, answer.read()))
    finally:
        connection.close()
    return answers


async def outcome(calling, called, pki, service):
    """What the pair does on each way, told without ports."""
    right, wrong = legs()
    every = [*right.items(), *wrong.items()]
    ways = [leg for _, leg in every]
    told = {}
    with Proxy(called, behind(pki, ways, service)) as second, Proxy(calling, front(pki, ways)) as first:
        await second.ready(ways[0].secure, 30)
        await first.ready(ways[0].plain, 30)
        big = os.urandom(1 << 20)
        for name, leg in every:
            bodies = [b"%d" % number for number in range(CONNECTIONS * REQUESTS - 1)] + [big] if name in right else [b"0"]
            answers = await asyncio.to_thread(converse, leg.plain, bodies)
            if name in right:
                echoed = [text for _, _, text in answers] == bodies
                told[name] = [("answers", len(answers)), ("as they were sent", echoed)]
                told[name] += sorted({(status, *seen.items()) for status, seen, _ in answers})
            else:
                told[name] = [(status, text.decode()) for status, _, text in answers]
        # Some is counted when a connection has ended.
        await asyncio.sleep(0.5)
        for side, proxy in (("cluster.to", first), ("listener.at", second)):
            found = await proxy.statistics()
            for name, leg in every:
                prefix = f"{side}_{leg.secure}.ssl."
                # A client of rustls asks for staples, which docs/compatibility.md says.
                counted = {key.removeprefix(prefix): value for key, value in found.items()
                           if key.startswith(prefix) and value and "ocsp_staple" not in key}
                told[name].append((side, counted))
    return told


async def proxies(checks, legate, envoy, pki):
    """Each pair against two Envoys."""
    service = echo()
    names = {legate: "Legate", envoy: "Envoy"}
    expected = await outcome(envoy, envoy, pki, service)
    for calling, called in ((legate, envoy), (envoy, legate), (legate, legate)):
        told = await outcome(calling, called, pki, service)
        for name, right in expected.items():
            same = told[name] == right
            checks.check(same, f"{names[calling]} calls {names[called]}: {name}")
            if not same:
                for one, other in itertools.zip_longest(right, told[name]):
                    if one != other:
                        print(f"        Envoys: {one}\n        here:   {other}", flush=True)
    some = expected["TLSv1.3 h2"]
    checks.check(some[1] == ("as they were sent", True), f"two Envoys understand each other: {some}")


class Named(Service):
    """Remembers in whose name it is called."""

    def __init__(self):
        super().__init__()
        self.callers = set()

    async def echo(self, request, context):
        self.callers.update(context.auth_context()["x509_common_name"])
        return await super().echo(request, context)


async def by_grpcio(checks, legate, pki):
    """A grpcio client, the proxy, a grpcio server: each shows a certificate to the next."""
    trusted = pki.text("ca1.pem").encode()
    key, certificate = (pki.text(f"s1.{kind}").encode() for kind in ("key", "pem"))
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    service, server = Named(), grpc.aio.server(options=options)
    server.add_generic_rpc_handlers([service])
    credentials = grpc.ssl_server_credentials([(key, certificate)], trusted, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    big = os.urandom(BIG)
    for version in VERSIONS:
        way = Leg((free_port(), port), version, "h2", caller="u1")
        with Proxy(legate, between(pki, way)) as proxy:
            await proxy.ready(way.plain, 30)
            title = f"grpcio by {version}"
            async with secure_channel(pki, way.plain, "c1", options) as channel:
                call = channel.unary_unary("/t.T/Echo")
                checks.check(await call(big) == big, f"{title}: 4 MB both ways")
                many = await asyncio.gather(*(call(b"%d" % n) for n in range(100)))
                checks.check(many == [b"%d" % n for n in range(100)], f"{title}: 100 calls at once")
                down = [message async for message in channel.unary_stream("/t.T/Down")(b"500")]
                checks.check(down == [b"%d" % n for n in range(500)], f"{title}: a stream of 500 answers")
            checks.check(service.callers == {b"u1"}, f"{title}: the server is called by {service.callers}")
            for name in ("c2", "old", None):
                async with secure_channel(pki, way.plain, name, options) as channel:
                    code, _ = await status(channel.unary_unary("/t.T/Echo")(b"", timeout=5))
                    checks.check(code == grpc.StatusCode.UNAVAILABLE, f"{title}: a client that shows {name} gets {code}")
        strange = Leg((free_port(), port), version, "h2", caller="u2")
        with Proxy(legate, between(pki, strange)) as proxy:
            await proxy.ready(strange.plain, 30)
            async with secure_channel(pki, strange.plain, "c1", options) as channel:
                code, _ = await status(channel.unary_unary("/t.T/Echo")(b"", timeout=5))
                checks.check(code == grpc.StatusCode.UNAVAILABLE, f"{title}: the server refuses another authority's, {code}")
    await server.stop(None)


def secure_channel(pki, port, name, options):
    mine = [pki.text(f"{name}.{kind}").encode() for kind in ("key", "pem")] if name else []
    credentials = grpc.ssl_channel_credentials(pki.text("ca1.pem").encode(), *mine)
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, [*options, ("grpc.ssl_target_name_override", "s1.test")])


async def by_openssl(checks, legate, pki):
    """`openssl s_client` and `curl` before the proxy, `openssl s_server` behind it."""
    for version, option in (("TLSv1.2", "1_2"), ("TLSv1.3", "1_3")):
        server = free_port()
        command = ["openssl", "s_server", "-accept", f"127.0.0.1:{server}", "-www", "-Verify", "1", f"-tls{option}"]
        command += ["-cert", pki.path("s1.pem"), "-key", pki.path("s1.key"), "-CAfile", pki.path("ca1.pem")]
        way = Leg((free_port(), server), version, "http/1.1", caller="u1")
        serving = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with Proxy(legate, between(pki, way)) as proxy:
                await proxy.ready(way.plain, 30)
                mine = ["-cert", pki.path("c1.pem"), "-key", pki.path("c1.key")]
                request = b"GET / HTTP/1.1\r\nhost: s1.test\r\nconnection: close\r\n\r\n"
                said = await run(request, "openssl", "s_client", "-connect", f"127.0.0.1:{way.plain}", "-servername", "s1.test",
                                 "-CAfile", pki.path("ca1.pem"), f"-tls{option}", "-ign_eof", "-verify_return_error", *mine)
                checks.check("HTTP/1.1 200 OK" in said and f"Protocol  : {version}" in said and "x-caller: spiffe://td/c1" in said,
                             f"openssl on either side by {version}")
                for protocol, wanted in (("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")):
                    number = option.replace("_", ".")
                    said = await run(b"", "curl", "-sSi", "--resolve", f"s1.test:{way.plain}:127.0.0.1", protocol, f"--tlsv{number}",
                                     "--tls-max", number, "--cacert", pki.path("ca1.pem"), "--cert", pki.path("c1.pem"),
                                     "--key", pki.path("c1.key"), f"https://s1.test:{way.plain}/")
                    right = said.startswith(wanted) and f"x-version: {version}" in said and "x-caller: spiffe://td/c1" in said
                    checks.check(right, f"curl {protocol} by {version}" if right else f"curl {protocol} by {version}: {said[:300]}")
        finally:
            serving.kill()
            serving.wait()


async def run(words, *command):
    """What the program says."""
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                                                   stderr=asyncio.subprocess.STDOUT)
    said, _ = await asyncio.wait_for(process.communicate(words), 20)
    return said.decode(errors="replace")


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--envoy", required=True)
    given = parser.parse_args()
    checks = Checks("TLS peers")
    pki = Pki()
    try:
        await proxies(checks, given.proxy, given.envoy, pki)
        await by_grpcio(checks, given.proxy, pki)
        await by_openssl(checks, given.proxy, pki)
    finally:
        pki.close()
    checks.finish()


asyncio.run(main())

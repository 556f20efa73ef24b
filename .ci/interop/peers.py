"""What the interoperability checks share: ports, a proxy process, upstream services, constant traffic, a tally."""

import asyncio
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request


class Checks:
    """Counts what passed and what failed, and says so at the end."""

    def __init__(self, title):
        self.title, self.passed, self.failed = title, 0, 0
        print(f"== {title}", flush=True)

    def check(self, right, text):
        self.passed, self.failed = self.passed + bool(right), self.failed + (not right)
        print(f"   {'ok  ' if right else 'FAIL'} {text}", flush=True)

    def finish(self):
        print(f"{self.title}: {self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed or not self.passed else 0)


def free_port():
    return free_ports(1)[0]


def free_ports(count):
    """As many ports, none of them twice."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


class Proxy:
    """A Legate or an Envoy on a bootstrap. It ends with the `with` block."""

    def __init__(self, binary, bootstrap, *options):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="legate-interop-"))
        (self.directory / "bootstrap.yaml").write_text(bootstrap)
        self.log = self.directory / "log"
        self.address = self.directory / "admin"
        command = [binary, "-c", self.directory / "bootstrap.yaml", "--admin-address-path", self.address]
        command += ["--concurrency", "2", "--disable-hot-restart", "-l", "warning", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.log.open("wb"))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.kill()
        self.process.wait()
        if kind is not None:
            print("the proxy's log ends with:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-10:]), file=sys.stderr)
        shutil.rmtree(self.directory)

    async def admin(self, path):
        """Status and body of an admin page; (0, "") while there is none."""
        if not self.address.exists() or not (address := self.address.read_text().strip()):
            return 0, ""
        try:
            return await asyncio.to_thread(get, f"http://{address}{path}")
        except OSError:
            return 0, ""

    async def statistics(self):
        """Counters and gauges by name."""
        _, text = await self.admin("/stats")
        lines = [line.rsplit(": ", 1) for line in text.splitlines() if ": " in line]
        return {name: int(value) for name, value in lines if value.isdigit()}

    async def ready(self, port, within=15):
        """Waits until the proxy is live and something accepts at `port`."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the proxy exited with {self.process.returncode}")
            if (await self.admin("/ready"))[0] == 200:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                except OSError:
                    pass
            await asyncio.sleep(0.02)
        raise RuntimeError(f"the proxy did not serve within {within} s")


def get(url):
    """Status and body, whatever the status."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


async def upstream(name):
    """An HTTP/1.1 service that answers with its name. Its port."""
    response = f"HTTP/1.1 200 OK\r\ncontent-length: {len(name)}\r\n\r\n{name}".encode()

    async def serve(reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if b"\r\ntransfer-encoding: chunked\r\n" in head:
                    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                        await reader.readexactly(size + 2)
                    while await reader.readuntil(b"\r\n") != b"\r\n":
                        pass
                elif length := re.search(rb"\r\ncontent-length: (\d+)\r\n", head):
                    await reader.readexactly(int(length[1]))
                writer.write(response)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server.sockets[0].getsockname()[1]


class Traffic:
    """Clients that ask the proxy again and again over HTTP/1.1."""

    def __init__(self, port, host, clients=6, pause=0.004):
        self.port, self.host, self.pause = port, host, pause
        self.answers, self.failures, self.stopping = [], [], False
        self.tasks = [asyncio.create_task(self.client()) for _ in range(clients)]

    async def client(self):
        connection = None
        while not self.stopping:
            sent = time.monotonic()
            try:
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", self.port)
                reader, writer = connection
                writer.write(f"GET / HTTP/1.1\r\nhost: {self.host}\r\n\r\n".encode())
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
                body = await reader.readexactly(int(fields.get(b"content-length", 0)))
                if head.split(b" ", 2)[1] == b"200":
                    self.answers.append((sent, body.decode()))
                else:
                    self.failures.append(f"{head.splitlines()[0].decode()} {body.decode()}")
                if fields.get(b"connection") == b"close":
                    writer.close()
                    connection = None
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
                self.failures.append(repr(error))
                connection = None
            await asyncio.sleep(self.pause)
        if connection:
            connection[1].close()

    def since(self, moment):
        """Who answered the requests sent since then."""
        names = [name for sent, name in self.answers if sent >= moment]
        return {name: names.count(name) for name in set(names)}

    def last(self, name):
        """When the last request that `name` answered was sent."""
        return max((sent for sent, who in self.answers if who == name), default=0.0)

    async def stop(self):
        self.stopping = True
        await asyncio.gather(*self.tasks)


def arguments():
    """The proxy to check: `--proxy PATH`."""
    if len(sys.argv) != 3 or sys.argv[1] != "--proxy" or not os.access(sys.argv[2], os.X_OK):
        sys.exit(f"usage: {sys.argv[0]} --proxy PATH")
    return sys.argv[2]

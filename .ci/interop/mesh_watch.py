"""Who watches the mesh: every byte between its proxies, the certificates they show, and what they hold."""

import asyncio
import itertools
import os
import pathlib
import ssl
import statistics
import time

from spire import identity


class Wire:
    """A relay before a port that looks at every byte: are they TLS records only, and is the marker among them?"""

    def __init__(self, port, target, marker):
        self.port, self.target, self.marker = port, target, marker
        self.streams = self.bytes = self.markers = self.strange = 0
        # Nothing else keeps a relay from being collected whose two ends wait for each other.
        self.relays = set()

    async def start(self):
        self.server = await asyncio.start_server(self.relay, "127.0.0.1", self.port)
        return self

    async def relay(self, reader, writer):
        onward, relay = None, asyncio.current_task()
        self.relays.add(relay)
        try:
            onward = await asyncio.open_connection("127.0.0.1", self.target)
            self.streams += 1
            await asyncio.gather(self.pump(reader, onward[1]), self.pump(onward[0], writer))
            onward[1].close()
            writer.close()
        except (OSError, asyncio.CancelledError):
            for side in filter(None, (writer, onward and onward[1])):
                side.transport.abort()
        finally:
            self.relays.discard(relay)

    async def pump(self, reader, writer):
        records, tail = Records(), b""
        try:
            while data := await reader.read(65536):
                self.bytes += len(data)
                self.strange += not records.feed(data)
                # The end of what came before, so that a marker in two pieces is found; never the whole of one.
                self.markers += (tail + data).count(self.marker)
                tail = (tail + data)[-len(self.marker) + 1:]
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except (OSError, RuntimeError):
            writer.transport.abort()


class Records:
    """Whether bytes are TLS records, one after another."""

    def __init__(self):
        self.left, self.head, self.right = 0, b"", True

    def feed(self, data):
        while data and self.right:
            skipped = min(self.left, len(data))
            self.left, data = self.left - skipped, data[skipped:]
            if self.left or not data:
                break
            self.head, data = self.head + data[:5 - len(self.head)], data[5 - len(self.head):]
            if len(self.head) == 5:
                kind, version, length = self.head[0], self.head[1], int.from_bytes(self.head[3:])
                # Change of cipher, alert, handshake, data; at most what RFC 8446 lets a record be, and RFC 5246.
                self.right = 20 <= kind <= 23 and version == 3 and 0 < length <= (1 << 14) + 2048
                self.left, self.head = length, b""
        return self.right


class Certificates:
    """Shakes hands with every proxy again and again, with OpenSSL, and notes the certificates it is shown."""

    def __init__(self, ports, spire, pause=0.1):
        self.ports, self.spire, self.pause = ports, spire, pause
        # By proxy, by serial: when it was first and last seen, and when it was made.
        self.seen = {name: {} for name in ports}
        self.failures, self.answered, self.handshakes, self.oldest = [], 0, 0, 0.0
        self.stopping, self.task = False, None

    async def start(self):
        await self.trust()
        self.task = asyncio.create_task(self.look())
        return self

    async def trust(self):
        """Only what the server says now is trusted."""
        self.context = ssl.create_default_context(cadata=await self.spire.bundle())
        self.context.check_hostname = False

    async def look(self):
        for name in itertools.cycle(self.ports):
            if self.stopping:
                return
            try:
                await asyncio.wait_for(self.handshake(name), 5)
            except (OSError, asyncio.TimeoutError) as error:
                self.failures.append(f"{name}: {error!r}")
            await asyncio.sleep(self.pause)

    async def handshake(self, name):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[name], ssl=self.context)
        try:
            shown = writer.get_extra_info("peercert")
            names = [value for kind, value in shown["subjectAltName"] if kind == "URI"]
            if names != [identity(name)]:
                self.failures.append(f"{name}: shows {names}")
            # The ten seconds it is made to seem older.
            made = ssl.cert_time_to_seconds(shown["notBefore"]) + 10
            now = time.time()
            first, _, _ = self.seen[name].get(shown["serialNumber"], (now, now, made))
            self.seen[name][shown["serialNumber"]] = (first, now, made)
            self.handshakes, self.oldest = self.handshakes + 1, max(self.oldest, now - made)
            # Without a certificate of our own there is no answer.
            try:
                writer.write(b"GET /app HTTP/1.1\r\nhost: mesh\r\n\r\n")
                self.answered += bool(await reader.read(1))
            except OSError:
                pass
        finally:
            writer.transport.abort()

    async def stop(self):
        self.stopping = True
        await self.task

    def serials(self, since=0.0):
        """How many different certificates each proxy showed for the first time since then."""
        return {name: sum(first > since for first, _, _ in seen.values()) for name, seen in self.seen.items()}

    def overlap(self):
        """The longest that a certificate was shown after a newer one had been, in seconds: a worker that lags behind."""
        longest = 0.0
        for seen in self.seen.values():
            ordered = sorted(seen.values())
            for (_, last, _), (first, _, _) in zip(ordered, ordered[1:]):
                longest = max(longest, last - first)
        return longest


class Footprints:
    """Descriptors and memory of processes, once a second."""

    def __init__(self, processes):
        self.processes = processes
        self.samples = {name: [] for name in processes}
        self.task = asyncio.create_task(self.look())

    async def look(self):
        while True:
            for name, pid in self.processes.items():
                self.samples[name].append(self.sample(pid))
            await asyncio.sleep(1)

    @staticmethod
    def sample(pid):
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
        return len(os.listdir(f"/proc/{pid}/fd")), pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def stop(self):
        self.task.cancel()

    def compared(self, name):
        """Medians of the second quarter (the first is for warming up) and of the last: descriptors, then megabytes."""
        samples = self.samples[name]
        quarter = max(1, len(samples) // 4)
        early, late = samples[quarter:2 * quarter], samples[-quarter:]
        return [tuple(statistics.median(sample[what] for sample in part) for part in (early, late)) for what in (0, 1)]

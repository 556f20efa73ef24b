"""What runs through the mesh: an application beside every proxy, callers of both protocols, and a tally of the answers."""

import asyncio
import collections
import itertools
import time

import grpc

from spire import identity

# Ways through the mesh that callers of a proxy take, as (protocol, proxy) hops.
WAYS = {
    "a": ["1b 1c 1d", "2b 2c 2d", "1b 2c 1d", "2b 1c 2d", "1b", "2c", "1d"],
    "b": ["1c", "2d", "2a 2b", "1d 1a"],
    "c": ["2d 2b", "1a", "1d 2a 1c"],
    "d": ["1b 2c", "2a", "2b 2a 2d"],
}


def path(way):
    return "".join(f"/{hop[0]}/{hop[1]}" for hop in way.split())


def callers(start, way):
    """Who is to be seen calling, the last of them first, as they are added to the answer on its way back."""
    return [identity(name) for name in [start, *(hop[1] for hop in way.split())][-2::-1]]


class Tally:
    """What came of all requests."""

    def __init__(self):
        self.answered, self.failures, self.wrong = collections.Counter(), [], []
        # The certificates callers showed: by caller, serial and when it was first seen.
        self.serials = collections.defaultdict(dict)
        self.stopping = False

    def answer(self, kind, start, way, shown, same):
        """An answer, whose `x-caller` are these, and whether it is what was to be answered."""
        self.answered[kind] += 1
        pairs = [tuple(value.split(" ")) for value in shown]
        if not same or [pair[0] for pair in pairs] != callers(start, way):
            self.wrong.append(f"{kind} {start} {way}: {shown}")
        for caller, serial in pairs:
            self.serials[caller].setdefault(serial, time.monotonic())

    def failure(self, kind, start, way, error):
        self.failures.append(f"{time.strftime('%H:%M:%S')} {kind} {start} {way}: {error}")


class Application(grpc.GenericRpcHandler):
    """Answers with what it is sent, over HTTP/1.1 and as gRPC."""

    async def start(self):
        self.http = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers([self])
        ports = {"1": self.http.sockets[0].getsockname()[1], "2": self.server.add_insecure_port("127.0.0.1:0")}
        await self.server.start()
        return ports

    async def stop(self):
        self.http.close()
        await self.server.stop(1)

    async def serve(self, reader, writer):
        try:
            while True:
                _, fields = await head(reader)
                body = await content(reader, fields)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()

    def service(self, details):
        return {"/mesh.Mesh/Echo": grpc.unary_unary_rpc_method_handler(self.echo),
                "/mesh.Mesh/Talk": grpc.stream_stream_rpc_method_handler(self.talk)}.get(details.method)

    async def echo(self, request, context):
        return request

    async def talk(self, requests, context):
        async for request in requests:
            yield request


async def head(reader):
    """The first line of a message and its fields."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    return lines[0], [line.lower().split(": ", 1) for line in lines[1:] if line]


async def content(reader, fields):
    named = dict(fields)
    if named.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(named.get("content-length", 0)))
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return body


async def ask(port, target, body, connection=None):
    """One request over HTTP/1.1: status, fields, body, and the connection to go on with."""
    reader, writer = connection or await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"POST {target} HTTP/1.1\r\nhost: mesh\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        first, fields = await head(reader)
        return int(first.split()[1]), fields, await content(reader, fields), (reader, writer)
    except BaseException:
        writer.close()
        raise


class Callers:
    """Callers of all proxies (`ports`), until they are stopped."""

    def __init__(self, ports, marker, pause):
        self.tally, self.ports, self.marker, self.pause = Tally(), ports, marker, pause
        every = [(start, way) for start, ways in WAYS.items() for way in ways]
        self.tasks = [asyncio.create_task(self.http(every[first::4])) for first in range(4)]
        self.tasks += [asyncio.create_task(self.grpc([pair for pair in every if pair[0] == start])) for start in "ac"]
        self.streams = [asyncio.create_task(self.stream(start, way)) for start, way in (("a", "2b 2c 2d"), ("d", "2b 2c"))]

    async def http(self, ways):
        connections = {}
        for turn, (start, way) in enumerate(itertools.cycle(ways)):
            if self.tally.stopping:
                break
            # One in ten is of many records.
            body = self.marker + b"." * (40_000 if turn % 10 == 0 else 50)
            try:
                asked = ask(self.ports[start], f"{path(way)}/app", body, connections.pop(start, None))
                status, fields, answer, connection = await asyncio.wait_for(asked, 10)
                if status == 200:
                    shown = [value for name, value in fields if name == "x-caller"]
                    self.tally.answer("HTTP/1.1", start, way, shown, answer == body)
                else:
                    self.tally.failure("HTTP/1.1", start, way, f"{status} {answer[:200]}")
                # Some connections of the caller's end too.
                if ["connection", "close"] in fields or turn % 25 == 24:
                    connection[1].close()
                else:
                    connections[start] = connection
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
                self.tally.failure("HTTP/1.1", start, way, repr(error))
            await asyncio.sleep(self.pause)
        for _, writer in connections.values():
            writer.close()

    def channel(self, start):
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.ports[start]}", [("grpc.use_local_subchannel_pool", 1)])

    async def grpc(self, ways):
        ways = itertools.cycle(ways)
        while not self.tally.stopping:
            start, way = next(ways)
            async with self.channel(start) as channel:
                for _ in range(30):
                    # HTTP/1.1 has no trailers here, which gRPC ends with.
                    await self.call(channel, start, way.replace("1", "2"))
                    await asyncio.sleep(self.pause)
                    _, way = next(ways)

    async def call(self, channel, start, way):
        body = self.marker + b"." * 50
        call = channel.unary_unary(f"{path(way)}/mesh.Mesh/Echo")(body, timeout=10)
        try:
            answer = await call
            shown = [value for name, value in await call.initial_metadata() if name == "x-caller"]
            self.tally.answer("gRPC", start, way, shown, answer == body)
        except grpc.aio.AioRpcError as error:
            self.tally.failure("gRPC", start, way, f"{error.code()} {error.details()}")

    async def stream(self, start, way):
        """One stream from the beginning to the end: its connections live through whatever happens to certificates."""
        async with self.channel(start) as channel:
            call = channel.stream_stream(f"{path(way)}/mesh.Mesh/Talk")()
            try:
                while not self.tally.stopping:
                    await call.write(self.marker)
                    answer = await asyncio.wait_for(call.read(), 10)
                    self.tally.answered["messages of streams"] += 1
                    if answer != self.marker:
                        self.tally.wrong.append(f"stream {start} {way}: {answer!r}")
                        return
                    await asyncio.sleep(0.1)
                await call.done_writing()
                if await asyncio.wait_for(call.read(), 10) is not grpc.aio.EOF:
                    self.tally.wrong.append(f"stream {start} {way}: does not end")
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.TimeoutError) as error:
                why = f"{await call.code()} {await call.details()}" if call.done() else ""
                self.tally.failure("stream", start, way, f"{error!r} {why}")

    async def stop(self):
        self.tally.stopping = True
        await asyncio.gather(*self.tasks, *self.streams)
        return self.tally


class Refused:
    """Asks, once a second, for what must not be answered: how often, and whatever came of it but 503."""

    def __init__(self, targets):
        self.targets, self.asked, self.others = targets, 0, []
        self.task = asyncio.create_task(self.look())

    async def look(self):
        for port, target in itertools.cycle(self.targets):
            status, _, answer, (_, writer) = await ask(port, target, b"")
            writer.close()
            self.asked += 1
            if status != 503:
                self.others.append(f"{target}: {status} {answer[:100]}")
            await asyncio.sleep(1)

    async def stop(self):
        self.task.cancel()
        # What ended it early is told.
        if not isinstance(ended := (await asyncio.gather(self.task, return_exceptions=True))[0], asyncio.CancelledError):
            self.others.append(repr(ended))

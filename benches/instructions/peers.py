"""The client and the upstream of a replay: one connection each, one request at a time, the same bytes in every run.

One at a time, because what arrives together is handled together: with several requests under way the count would depend
on who was faster. HTTP/2 is written here to the frame for the same reason; header blocks use the dynamic table as real
clients and servers do.
"""

import socket
import struct
import threading

DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST_WINDOW = (1 << 31) - 1
STATUS_200 = 0x88  # As an indexed field.

AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
COOKIE = "session=9f1b7c0a2d6e4f7d8a3b5c1e; theme=dark; consent=necessary"
# What a page, its parts and a service behind it ask for.
REQUESTS = [
    ("/", {"user-agent": AGENT, "accept": "text/html,application/xhtml+xml", "accept-language": "en-GB,en;q=0.5",
           "accept-encoding": "gzip, deflate", "cookie": COOKIE}),
    ("/static/app.js?v=20260114", {"user-agent": AGENT, "accept": "*/*", "accept-encoding": "gzip, deflate",
                                   "referer": "http://shop.example/", "cookie": COOKIE,
                                   "if-none-match": '"5f3c-61a2b4"'}),
    ("/api/v2/carts/4711/items?page=3&sort=price", {"user-agent": AGENT, "accept": "application/json",
                                                    "accept-encoding": "gzip, deflate", "cookie": COOKIE,
                                                    "authorization": "Bearer dG9rZW4tb2YtYS1yZXBsYXk"}),
    ("/api/v2/health", {"user-agent": "checker/1.4", "accept": "*/*"}),
]
REPLY = {"content-type": "application/json", "cache-control": "no-store", "etag": '"5f3c-61a2b4"'}
BODY = b'{"items":[' + b",".join(b'{"id":%d,"price":"19.90"}' % item for item in range(10)) + b"]}"
MESSAGE = b"\0" + struct.pack(">I", 100) + bytes(100)
GRPC = {"content-type": "application/grpc", "te": "trailers", "user-agent": "grpc-python/1.80.0",
        "grpc-accept-encoding": "identity, deflate, gzip"}


class Upstream:
    """Serves connections, each with `serve`, on a port of its own."""

    def __init__(self, serve):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.serve = serve
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection):
        try:
            self.serve(connection)
        except (ConnectionError, EOFError):
            pass  # The proxy has ended.


def http1_upstream(connection):
    """Answers GETs."""
    head = "".join(f"{name}: {value}\r\n" for name, value in REPLY.items())
    reply = f"HTTP/1.1 200 OK\r\n{head}content-length: {len(BODY)}\r\n\r\n".encode() + BODY
    reader = connection.makefile("rb")
    while True:
        while (line := reader.readline()) != b"\r\n":
            if not line:
                return
        connection.sendall(reply)


def http1_client(port, requests):
    """Sends so many GETs on one connection; each must be answered with 200 and the body."""
    heads = []
    for path, fields in REQUESTS:
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        heads.append(f"GET {path} HTTP/1.1\r\nhost: shop.example\r\n{lines}\r\n".encode())
    connection = connect(port)
    reader = connection.makefile("rb")
    for turn in range(requests):
        connection.sendall(heads[turn % len(heads)])
        status, length = reader.readline(), 0
        while (line := reader.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        if b" 200 " not in status or reader.read(length) != BODY:
            raise RuntimeError(f"request {turn}: {status!r}")


def http2_upstream(connection):
    """Answers GETs."""
    h2 = Http2(connection, server=True)
    for stream in h2.requests():
        head = h2.block([STATUS_200], {**REPLY, "content-length": str(len(BODY))})
        h2.send(frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, BODY))


def grpc_upstream(connection):
    """Answers calls with one message and a status."""
    h2 = Http2(connection, server=True)
    for stream in h2.requests():
        h2.send(frame(HEADERS, END_HEADERS, stream, h2.block([STATUS_200], {"content-type": "application/grpc"})))
        h2.send(frame(DATA, 0, stream, MESSAGE))
        h2.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, h2.block([], {"grpc-status": "0"})))


def http2_client(port, requests):
    """The same GETs on one HTTP/2 connection."""
    h2 = Http2(connect(port), server=False)
    for turn in range(requests):
        path, fields = REQUESTS[turn % len(REQUESTS)]
        # :method GET, :scheme http.
        head = h2.block([0x82, 0x86], {":authority": "shop.example", ":path": path, **fields})
        stream = 2 * turn + 1
        h2.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, head))
        h2.expect(stream, BODY)


def grpc_client(port, requests):
    """Unary calls on one HTTP/2 connection."""
    h2 = Http2(connect(port), server=False)
    for turn in range(requests):
        # :method POST, :scheme http.
        head = h2.block([0x83, 0x86], {":authority": "shop.example", ":path": "/shop.Cart/Add", **GRPC})
        stream = 2 * turn + 1
        h2.send(frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, MESSAGE))
        h2.expect(stream, MESSAGE)


def free_port():
    """A port nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Http2:
    """A connection's frames, and the table of the header blocks sent on it."""

    def __init__(self, connection, server):
        self.connection, self.reader, self.table = connection, connection.makefile("rb"), []
        if server:
            self.read(len(PREFACE))
        # SETTINGS_INITIAL_WINDOW_SIZE, and the connection's: nothing ever waits for a window.
        windows = frame(SETTINGS, 0, 0, struct.pack(">HI", 4, LARGEST_WINDOW))
        windows += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - 65535))
        self.send((b"" if server else PREFACE) + windows)

    def send(self, frames):
        self.connection.sendall(frames)

    def read(self, length):
        data = self.reader.read(length)
        if len(data) < length:
            raise EOFError("the proxy closed the connection")
        return data

    def receive(self):
        """The next frame of a stream: kind, flags, stream, payload. Those of the connection are answered here."""
        while True:
            high, low, kind, flags, stream = struct.unpack(">BHBBI", self.read(9))
            payload = self.read(high << 16 | low)
            if kind in (SETTINGS, PING) and not flags & ACK:
                self.send(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind in (DATA, HEADERS):
                return kind, flags, stream, payload
            elif kind not in (SETTINGS, PING, WINDOW_UPDATE):
                raise RuntimeError(f"an unexpected frame of type {kind} on stream {stream}: {payload!r}")

    def requests(self):
        """The streams whose requests have come whole."""
        while True:
            _, flags, stream, _ = self.receive()
            if flags & END_STREAM:
                yield stream

    def expect(self, stream, body):
        """Reads the response to the end: it must be a 200 with this body."""
        kind, flags, of, block = self.receive()
        if (kind, of) != (HEADERS, stream) or block[0] != STATUS_200:
            raise RuntimeError(f"stream {stream}: not a response with status 200: {block!r}")
        received = b""
        while not flags & END_STREAM:
            kind, flags, _, payload = self.receive()
            received += payload if kind == DATA else b""
        if received != body:
            raise RuntimeError(f"stream {stream}: the body is {received!r}")

    def block(self, start, fields):
        """A header block: these bytes (indexed fields), then the fields, each spelt out only the first time."""
        block = bytearray(start)
        for field in fields.items():
            if field in self.table:
                # The static table has 61 entries; then come ours, the newest first.
                block.append(0x80 | 61 + len(self.table) - self.table.index(field))
            else:
                self.table.append(field)
                block.append(0x40)
                for text in field:
                    block += bytes([len(text)]) + text.encode()
        return bytes(block)


def frame(kind, flags, stream, payload):
    return struct.pack(">BHBBI", len(payload) >> 16, len(payload) & 0xffff, kind, flags, stream) + payload

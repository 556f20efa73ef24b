"""gRPC of all kinds through a proxy: a grpcio client and server, deadlines, cancellation, trailers-only, 4 MB messages."""

import asyncio

import grpc

from peers import Checks, Proxy, arguments, free_port

BIG = 4 << 20


class Service(grpc.GenericRpcHandler):
    """Messages are plain bytes."""

    def __init__(self):
        self.cancelled = asyncio.Event()

    def service(self, details):
        kinds = {
            "/t.T/Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "/t.T/Down": grpc.unary_stream_rpc_method_handler(self.down),
            "/t.T/Up": grpc.stream_unary_rpc_method_handler(self.up),
            "/t.T/Both": grpc.stream_stream_rpc_method_handler(self.both),
            "/t.T/Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "/t.T/Hang": grpc.unary_unary_rpc_method_handler(self.hang),
        }
        return kinds.get(details.method)

    async def echo(self, request, context):
        await context.send_initial_metadata([("x-initial", "1")])
        context.set_trailing_metadata([("x-trailing-bin", b"\x00\xff")])
        return request

    async def down(self, request, context):
        for number in range(int(request)):
            yield b"%d" % number

    async def up(self, requests, context):
        return b"%d" % sum([len(request) async for request in requests])

    async def both(self, requests, context):
        async for request in requests:
            yield request.upper()

    async def fail(self, request, context):
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not a chance: 100 % sure")

    async def hang(self, request, context):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""


def bootstrap(port, upstream):
    extensions = "type.googleapis.com/envoy.extensions"
    return f"""
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}
static_resources:
  listeners:
  - name: grpc
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': {extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: grpc
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - match: {{ prefix: /t.T/, grpc: {{}} }}
                route: {{ cluster: grpc, timeout: 0s, max_stream_duration: {{ grpc_timeout_header_max: 0s }} }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              '@type': {extensions}.filters.http.router.v3.Router
  clusters:
  - name: grpc
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': {extensions}.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: grpc
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {upstream} }} }} }}
"""


async def status(call):
    """The status code and text a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


async def main():
    binary = arguments()
    checks = Checks("gRPC through the proxy")
    service = Service()
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers([service])
    upstream = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    port = free_port()
    with Proxy(binary, bootstrap(port, upstream)) as proxy:
        await proxy.ready(port)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            echo = channel.unary_unary("/t.T/Echo")
            call = echo(b"hello")
            checks.check(await call == b"hello", "unary")
            initial, trailing = dict(await call.initial_metadata()), dict(await call.trailing_metadata())
            checks.check(initial.get("x-initial") == "1", "initial metadata arrives")
            checks.check(trailing.get("x-trailing-bin") == b"\x00\xff", "binary trailing metadata arrives")
            checks.check(await echo(b"") == b"", "an empty message")
            big = bytes(range(256)) * (BIG // 256)
            checks.check(await echo(big) == big, "4 MB both ways")
            many = await asyncio.gather(*(echo(b"%d" % n) for n in range(200)))
            checks.check(many == [b"%d" % n for n in range(200)], "200 calls at once on one connection")

            down = [message async for message in channel.unary_stream("/t.T/Down")(b"1000")]
            checks.check(down == [b"%d" % n for n in range(1000)], "a stream of 1,000 answers")

            async def messages():
                for _ in range(8):
                    yield b"x" * (1 << 20)

            checks.check(await channel.stream_unary("/t.T/Up")(messages()) == b"%d" % (8 << 20), "8 MB upwards")
            both, answers = channel.stream_stream("/t.T/Both")(), []
            for word in [b"one", b"two", b"three"]:
                await both.write(word)
                answers.append(await asyncio.wait_for(both.read(), 5))
            await both.done_writing()
            ended = await both.read() is grpc.aio.EOF
            checks.check(answers == [b"ONE", b"TWO", b"THREE"] and ended, "a conversation, word by word")

            expected = (grpc.StatusCode.FAILED_PRECONDITION, "not a chance: 100 % sure")
            checks.check(await status(channel.unary_unary("/t.T/Fail")(b"")) == expected, "a status without a message")
            code, _ = await status(channel.unary_unary("/t.T/None")(b""))
            checks.check(code == grpc.StatusCode.UNIMPLEMENTED, "trailers only: an unknown method")
            code, _ = await status(channel.unary_unary("/other.S/M")(b""))
            checks.check(code == grpc.StatusCode.UNIMPLEMENTED, "no route: the proxy's own trailers-only answer")

            code, _ = await status(channel.unary_unary("/t.T/Hang")(b"", timeout=0.3))
            checks.check(code == grpc.StatusCode.DEADLINE_EXCEEDED, "a deadline")
            service.cancelled.clear()
            call = channel.unary_unary("/t.T/Hang")(b"")
            await asyncio.sleep(0.3)
            call.cancel()
            try:
                await asyncio.wait_for(service.cancelled.wait(), 5)
            except asyncio.TimeoutError:
                pass
            checks.check(service.cancelled.is_set(), "a cancelled call is cancelled at the server")
            checks.check(await echo(b"still here") == b"still here", "the connection serves on")
    await server.stop(None)
    checks.finish()


if __name__ == "__main__":
    asyncio.run(main())

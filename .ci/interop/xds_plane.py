"""A control plane that answers nothing by itself: what is asked is noted, and scenarios say what is sent."""

import asyncio
import json
import time

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2, duration_pb2, json_format

from peers import free_port

KINDS = {
    "CDS": cluster_pb2.Cluster,
    "EDS": endpoint_pb2.ClusterLoadAssignment,
    "LDS": listener_pb2.Listener,
    "RDS": route_pb2.RouteConfiguration,
    "SDS": secret_pb2.Secret,
}
URLS = {short: f"type.googleapis.com/{kind.DESCRIPTOR.full_name}" for short, kind in KINDS.items()}
SHORT = {url: short for short, url in URLS.items()}


class Broken(Exception):
    """The conversation cannot go on: no comparison, however alike both proxies are in it."""


class Stream:
    """One stream of a proxy, with what is to be said on it."""

    def __init__(self, number, method):
        self.number, self.method, self.queue, self.wanted = number, method, asyncio.Queue(), set()


class ControlPlane(grpc.GenericRpcHandler):
    """Serves every discovery method, at a port and perhaps at a Unix-domain socket, and notes what is asked."""

    def __init__(self, pipe=None, texts=False):
        self.pipe, self.texts = pipe, texts
        self.notes, self.streams, self.opened, self.heard = [], [], 0, time.monotonic()
        self.port, self.server, self.nonces, self.errors, self.nodes = free_port(), None, 0, [], set()

    async def start(self):
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers([self])
        self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        if self.pipe:
            self.server.add_insecure_port(f"unix:{self.pipe}")
        await self.server.start()

    async def stop(self):
        await self.server.stop(None)

    def service(self, details):
        method = details.method.rsplit("/", 1)[1]
        delta = method.startswith("Delta")
        request = discovery_pb2.DeltaDiscoveryRequest if delta else discovery_pb2.DiscoveryRequest

        async def converse(requests, context):
            stream = Stream(self.opened, method)
            self.opened += 1
            self.streams.append(stream)

            async def read():
                async for message in requests:
                    self.note(stream, message, delta)
                await stream.queue.put(None)

            reading = asyncio.create_task(read())
            try:
                while (item := await stream.queue.get()) is not None:
                    # Older streams are answered first.
                    await asyncio.sleep(0.05 * self.streams.index(stream))
                    if isinstance(item, grpc.StatusCode):
                        await context.abort(item, "as the scenario has it")
                    yield item
            finally:
                reading.cancel()
                if stream in self.streams:
                    self.streams.remove(stream)

        return grpc.stream_stream_rpc_method_handler(
            converse, request_deserializer=request.FromString, response_serializer=lambda message: message.SerializeToString()
        )

    def note(self, stream, message, delta):
        self.heard = time.monotonic()
        type_ = SHORT.get(message.type_url, message.type_url)
        if not delta:
            stream.wanted = set(message.resource_names)
        else:
            stream.wanted |= set(message.resource_names_subscribe)
        words = [f"{type_}"]
        if message.HasField("node"):
            words.append("node")
            self.nodes.add(json.dumps(summary_of(message.node), sort_keys=True))
        if delta:
            words.append(f"+{sorted(message.resource_names_subscribe)} -{sorted(message.resource_names_unsubscribe)}")
            if message.initial_resource_versions:
                words.append(f"has {dict(sorted(message.initial_resource_versions.items()))}")
        else:
            words.append(f"{sorted(message.resource_names)} version={message.version_info!r}")
        words.append(f"nonce={message.response_nonce!r}")
        if message.HasField("error_detail"):
            # Most texts are each proxy's own.
            text = f": {message.error_detail.message.strip()}" if self.texts else ""
            words.append(f"error {message.error_detail.code}{text}")
            self.errors.append(message.error_detail.message)
        self.notes.append((stream.method, " ".join(words)))

    def send(self, short, *resources, version="1", removed=(), ttl=None, named=False, url=None, to=None):
        """A response of a type, on the streams that ask for it: where each subscription has its own, each gets its part, or
        the one that asks for `to` all of it."""
        self.nonces += 1
        serving = [stream for stream in self.streams if self.serves(stream.method, short)]
        if not serving:
            raise Broken(f"there is no stream for {short}")
        for stream in serving:
            part, gone = resources, removed
            if to and "Aggregated" not in stream.method:
                if to not in stream.wanted:
                    continue
            elif "Aggregated" not in stream.method and stream.wanted - {"*"}:
                part = [resource for resource in resources if name_of(resource) in stream.wanted]
                gone = [name for name in removed if name in stream.wanted]
                if (resources or removed) and not part and not gone:
                    continue
            make = self.delta if stream.method.startswith("Delta") else self.whole
            stream.queue.put_nowait(make(url or URLS[short], part, version, gone, ttl, named))

    def delta(self, url, resources, version, removed, ttl, _named):
        return discovery_pb2.DeltaDiscoveryResponse(
            system_version_info=version, type_url=url, nonce=f"n{self.nonces}", removed_resources=removed,
            resources=[envelope(resource, version, ttl) for resource in resources])

    def whole(self, url, resources, version, _removed, ttl, named):
        packed = [any_of(envelope(resource, version, ttl) if named or ttl else resource) for resource in resources]
        return discovery_pb2.DiscoveryResponse(version_info=version, type_url=url, nonce=f"n{self.nonces}", resources=packed)

    @staticmethod
    def serves(method, short):
        own = {"CDS": "Clusters", "EDS": "Endpoints", "LDS": "Listeners", "RDS": "Routes", "SDS": "Secrets"}[short]
        return "Aggregated" in method or own in method

    def reset(self, status=grpc.StatusCode.UNAVAILABLE):
        for stream in list(self.streams):
            stream.queue.put_nowait(status)

    async def quiet(self, seconds):
        """What was said until nothing more was, by type."""
        self.heard = max(self.heard, time.monotonic())
        while time.monotonic() - self.heard < seconds:
            await asyncio.sleep(0.02)
        notes, self.notes = self.notes, []
        return notes


def name_of(resource):
    return getattr(resource, "cluster_name", "") or getattr(resource, "name", "")


def summary_of(node):
    """Who a proxy says it is. What is linked into it is its own affair."""
    fields = json_format.MessageToDict(node)
    fields.pop("extensions", None)
    build = fields.get("userAgentBuildVersion", {})
    build.pop("metadata", None)
    return fields


def any_of(resource):
    if isinstance(resource, any_pb2.Any):
        return resource
    url = f"type.googleapis.com/{resource.DESCRIPTOR.full_name}"
    return any_pb2.Any(type_url=url, value=resource.SerializeToString(deterministic=True))


def envelope(resource, version, ttl):
    ttl = ttl and duration_pb2.Duration(seconds=ttl)
    return discovery_pb2.Resource(name=name_of(resource), version=version, resource=any_of(resource), ttl=ttl)

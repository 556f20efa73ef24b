"""What a control plane sees of a proxy: the same conversations with Legate and with the real Envoy, compared.

A scripted control plane answers nothing by itself. Each step of a scenario sends responses (or ends streams) and then
notes what the proxy said until it fell silent: type, version, nonce, names, node, error. The notes of both must be the
same, step by step, and so must the statistics and versions that the proxy shows at the end.
"""

import argparse
import asyncio
import difflib
import json
import pathlib
import re
import shutil
import tempfile
import time

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 (registers the type for JSON)
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2, duration_pb2, json_format

from peers import Checks, Proxy, free_port

KINDS = {
    "CDS": cluster_pb2.Cluster,
    "EDS": endpoint_pb2.ClusterLoadAssignment,
    "LDS": listener_pb2.Listener,
    "RDS": route_pb2.RouteConfiguration,
}
URLS = {short: f"type.googleapis.com/{kind.DESCRIPTOR.full_name}" for short, kind in KINDS.items()}
SHORT = {url: short for short, url in URLS.items()}
# What differs on purpose, with the reason in docs/compatibility.md ("xDS").
KNOWN = {
    "warming/delta-ads": lambda line: line == "  DeltaAggregatedResources EDS node +['a'] -[] nonce=''",
}
# A proxy that says nothing for so long has said all it had to. Who differs gets more time: the machine may be slow.
QUIET = (0.4, 1.5, 4.0)


class Stream:
    """One stream of a proxy, with what is to be said on it."""

    def __init__(self, number, method):
        self.number, self.method, self.queue, self.wanted = number, method, asyncio.Queue(), set()


class ControlPlane(grpc.GenericRpcHandler):
    """Serves every discovery method and notes what is asked."""

    def __init__(self):
        self.notes, self.streams, self.opened, self.heard = [], [], 0, time.monotonic()
        self.port, self.server, self.nonces, self.errors, self.nodes = free_port(), None, 0, [], set()

    async def start(self):
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers([self])
        self.server.add_insecure_port(f"127.0.0.1:{self.port}")
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
            # Texts are each proxy's own.
            words.append(f"error {message.error_detail.code}")
            self.errors.append(message.error_detail.message)
        self.notes.append((stream.method, " ".join(words)))

    def send(self, short, *resources, version="1", removed=(), ttl=None, named=False, url=None):
        """A response of a type, on the streams that ask for it: where each subscription has its own, each gets its part."""
        self.nonces += 1
        for stream in [stream for stream in self.streams if self.serves(stream.method, short)]:
            part, gone = resources, removed
            if "Aggregated" not in stream.method and stream.wanted - {"*"}:
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
        own = {"CDS": "Clusters", "EDS": "Endpoints", "LDS": "Listeners", "RDS": "Routes"}[short]
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


def message(kind, **fields):
    return json_format.ParseDict(fields, kind())


def source(proxy, short):
    if proxy.separate:
        return {"api_config_source": {"api_type": proxy.api, "transport_api_version": "V3",
                                      "grpc_services": [{"envoy_grpc": {"cluster_name": "control_plane"}}]},
                "resource_api_version": "V3", **proxy.patience}
    return {"ads": {}, "resource_api_version": "V3", **proxy.patience}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class Subject:
    """One of the two proxies in a scenario, with its control plane, and makers of its resources."""

    def __init__(self, api, separate, options, patience):
        self.api, self.separate, self.quiet = api, separate, patience
        self.patience = {"initial_fetch_timeout": options.get("fetch", "15s")}
        self.options = options
        self.plane, self.ports, self.proxy, self.steps = ControlPlane(), {}, None, []

    def port(self, name):
        return self.ports.setdefault(name, free_port())

    def cluster(self, name, **more):
        if more.get("type", "EDS") == "EDS":
            more = {"type": "EDS", "eds_cluster_config": {"eds_config": source(self, "EDS")}, **more}
        return message(cluster_pb2.Cluster, name=name, **{"connect_timeout": "1s", **more})

    def endpoints(self, name, *ports):
        hosts = [{"lb_endpoints": [{"endpoint": {"address": address(port)}} for port in ports]}]
        return message(endpoint_pb2.ClusterLoadAssignment, cluster_name=name, endpoints=hosts)

    def listener(self, name, routes="routes", rds=None, **more):
        extensions = "type.googleapis.com/envoy.extensions.filters"
        manager = {
            "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": name,
            "rds": rds or {"route_config_name": routes, "config_source": source(self, "RDS")},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": f"{extensions}.http.router.v3.Router"}}],
        }
        filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
        return message(listener_pb2.Listener, **{"name": name, "address": address(self.port(name)),
                                                 "filter_chains": [{"filters": filters}], **more})

    def routes(self, name, cluster="a", **more):
        route = {"match": {"prefix": "/"}, "route": {"cluster": cluster, **more}}
        return message(route_pb2.RouteConfiguration, name=name,
                       virtual_hosts=[{"name": "all", "domains": ["*"], "routes": [route]}])

    def bootstrap(self):
        api = {"api_type": self.api, "transport_api_version": "V3",
               "grpc_services": [{"envoy_grpc": {"cluster_name": "control_plane"}}]}
        if self.options.get("node_once"):
            api["set_node_on_first_message_only"] = True
        ads = {} if self.separate else {"ads_config": api}
        if self.separate:
            kept = {key: value for key, value in api.items()}
            sources = {name: {"api_config_source": kept, "resource_api_version": "V3", **self.patience}
                       for name in ("lds_config", "cds_config")}
        else:
            sources = {name: {"ads": {}, "resource_api_version": "V3", **self.patience} for name in ("lds_config", "cds_config")}
        options = {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                   "explicit_http_config": {"http2_protocol_options": {}}}
        return json.dumps({
            "node": {"id": "node", "cluster": "cluster"},
            "admin": {"address": address(0)},
            "dynamic_resources": {**ads, **sources},
            "static_resources": {"clusters": [{
                "name": "control_plane", "connect_timeout": "1s",
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
                "load_assignment": {"cluster_name": "control_plane", "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": address(self.plane.port)}}]}]}}]}})

    async def note(self, title, seconds=0.0):
        """Ends a step: what was said in it, by type, in order within a type."""
        notes = await self.plane.quiet(max(seconds, self.quiet))
        self.steps.append(f"# {title}")
        # Streams of one method have no order among them.
        aggregated = lambda note: "" if "Aggregated" in note[0] else note[1]
        for method, text in sorted(notes, key=lambda note: (note[0], note[1].split(" ", 1)[0], aggregated(note))):
            for name, port in [*self.ports.items(), ("control plane", self.plane.port)]:
                text = text.replace(str(port), f"<{name}>")
            self.steps.append(f"  {method} {text}")

    async def state(self):
        """Statistics and versions as the proxy shows them."""
        kept = re.compile(r"^(cluster_manager\.|listener_manager\.(listener_(added|modified|removed|in_place)|lds|total)|control_plane\."
                          r"|cluster\.[ab]\.(update|membership_(total|change))|http\.\w+\.rds\.)")
        # Times, and what depends on when a reconnect happens.
        left = re.compile(self.options.get("left", "^$") + r"|update_time|update_duration|reload_time|control_plane\.(rate_limit|pending)|warming_state")
        _, stats = await self.proxy.admin("/stats")
        lines = [line for line in stats.splitlines() if kept.match(line) and not left.search(line)]
        self.steps += ["# nodes", *(f"  {node}" for node in sorted(self.plane.nodes))]
        self.steps += ["# statistics", *(f"  {line}" for line in sorted(lines))]
        status, dump = await self.proxy.admin("/config_dump")
        if status != 200:
            self.steps.append(f"# no config_dump: {status} {dump}")
            return
        shown = []
        for config in json.loads(dump)["configs"]:
            for key in ("version_info", "dynamic_active_clusters", "dynamic_warming_clusters", "dynamic_listeners",
                        "dynamic_route_configs"):
                entries = config.get(key)
                if isinstance(entries, str):
                    shown.append(f"  {config['@type'].rsplit('.', 1)[1]} {key} {entries}")
                for entry in entries if isinstance(entries, list) else ():
                    entry.pop("error_state", None)
                    if not entry:
                        continue
                    shown.append(f"  {key} {self.summary(entry)}")
        self.steps += ["# config_dump", *sorted(shown)]

    @staticmethod
    def summary(entry):
        def walk(value):
            if not isinstance(value, dict):
                return value
            kept = {}
            for key, inner in value.items():
                if key in ("version_info", "name", "client_status", "details", "route_config_name"):
                    kept[key] = inner
                elif key in ("active_state", "warming_state", "draining_state", "cluster", "listener", "route_config"):
                    kept[key] = walk(inner)
            return kept
        return json.dumps(walk(entry), sort_keys=True)


async def served(s):
    """A mesh of two clusters, a listener and its routes."""
    await s.note("starts")
    s.plane.send("CDS", s.cluster("a"), s.cluster("b"))
    await s.note("two clusters")
    s.plane.send("EDS", s.endpoints("a", 1), s.endpoints("b", 2))
    await s.note("their endpoints")
    s.plane.send("LDS", s.listener("in"))
    await s.note("a listener")
    s.plane.send("RDS", s.routes("routes"))
    await s.note("its routes")


async def lifecycle(s):
    await served(s)
    if s.api == "GRPC":
        s.plane.send("CDS", s.cluster("a"), s.cluster("c"), version="2")
    else:
        s.plane.send("CDS", s.cluster("c"), version="2", removed=["b"])
    await s.note("a cluster leaves, another comes")
    s.plane.send("EDS", s.endpoints("c", 3), version="2")
    await s.note("its endpoints")
    s.plane.send("LDS", s.listener("in", "other"), version="2")
    await s.note("a listener with other routes")
    s.plane.send("RDS", s.routes("other"), version="2")
    await s.note("they come")
    if s.api == "GRPC":
        s.plane.send("LDS", version="3")
    else:
        s.plane.send("LDS", version="3", removed=["in"])
    await s.note("the listener leaves", 1.2)


async def in_place(s):
    await served(s)
    s.plane.send("LDS", s.listener("in", "other"), version="2")
    await s.note("a listener with other routes")
    s.plane.send("RDS", s.routes("other"), version="2")
    await s.note("they come")


async def refused(s):
    await served(s)
    s.plane.send("CDS", s.cluster("a"), s.cluster("bad", connect_timeout="-1s"), version="2")
    await s.note("a cluster with a negative timeout")
    s.plane.send("CDS", s.cluster("a"), s.cluster("a"), version="3")
    await s.note("a cluster twice")
    s.plane.send("CDS", s.cluster("a", lb_policy="CLUSTER_PROVIDED"), s.cluster("b"), version="4")
    await s.note("a policy that does not fit")
    s.plane.send("RDS", s.routes("routes", "nowhere"), version="2")
    await s.note("routes to an unknown cluster")
    s.plane.send("RDS", message(route_pb2.RouteConfiguration, name="routes", virtual_hosts=[
        {"name": "all", "domains": ["*"]}, {"name": "all", "domains": ["x"]}]), version="3")
    await s.note("virtual hosts of one name")
    s.plane.send("LDS", s.listener("in", filter_chains=[]), version="2")
    await s.note("a listener without chains")
    s.plane.send("LDS", s.listener("bad", address={"socket_address": {"address": "not-an-address", "port_value": 1}}), version="3")
    await s.note("a listener on no address")
    s.plane.send("EDS", message(endpoint_pb2.ClusterLoadAssignment, cluster_name="a", endpoints=[{"priority": 200}]), version="2")
    await s.note("a priority out of range")
    garbage = any_pb2.Any(type_url=URLS["CDS"], value=b"\xff\xff\xff")
    s.plane.send("CDS", garbage, version="5")
    await s.note("bytes that are no cluster")


async def wrong_types(s):
    await served(s)
    s.plane.send("CDS", s.endpoints("a", 1), version="2")
    await s.note("endpoints among the clusters")
    s.plane.send("EDS", s.cluster("a"), version="2")
    await s.note("a cluster among the endpoints")
    s.plane.send("CDS", version="3", url="type.googleapis.com/google.protobuf.Struct")
    await s.note("a type nobody asked for")


async def names(s):
    await served(s)
    s.plane.send("EDS", s.endpoints("nobody", 1), version="2")
    await s.note("endpoints nobody asked for")
    s.plane.send("EDS", version="3")
    await s.note("no endpoints")
    s.plane.send("EDS", s.endpoints("a", 1), s.endpoints("a", 2), version="4")
    await s.note("endpoints twice")
    s.plane.send("RDS", s.routes("unwanted"), version="2")
    await s.note("routes nobody asked for")
    s.plane.send("RDS", version="3")
    await s.note("no routes")
    s.plane.send("CDS", s.cluster(""), version="2")
    await s.note("a cluster without name")


async def reconnects(s):
    await served(s)
    s.plane.reset()
    await s.note("the streams end", 2.5)
    s.plane.send("CDS", s.cluster("a"), s.cluster("b"), version="1")
    await s.note("the same clusters")
    s.plane.send("EDS", s.endpoints("a", 1), s.endpoints("b", 2), version="1")
    await s.note("the same endpoints")
    s.plane.send("LDS", s.listener("in"), version="1")
    await s.note("the same listener")
    s.plane.send("RDS", s.routes("routes"), version="1")
    await s.note("the same routes")


async def changes_while_away(s):
    await served(s)
    await s.plane.stop()
    await asyncio.sleep(0.3)
    await s.plane.start()
    await s.note("the control plane comes back", 3.0)
    if s.api == "GRPC":
        s.plane.send("CDS", s.cluster("b"), version="2")
    else:
        s.plane.send("CDS", version="2", removed=["a"])
    await s.note("a cluster left meanwhile")


async def warming(s):
    await s.note("starts")
    s.plane.send("CDS", s.cluster("a"))
    await s.note("a cluster")
    s.plane.send("LDS", s.listener("in"))
    await s.note("a listener before the endpoints")
    s.plane.send("CDS", s.cluster("a", connect_timeout="2s"), version="2")
    await s.note("the cluster changes while it warms")
    s.plane.send("EDS", s.endpoints("a", 1))
    await s.note("endpoints")
    s.plane.send("CDS", s.cluster("a", connect_timeout="3s"), version="3")
    await s.note("it changes again")
    s.plane.send("EDS", s.endpoints("a", 1), version="2")
    await s.note("endpoints again")


async def impatient(s):
    await s.note("starts", 1.5)
    s.plane.send("CDS", s.cluster("a"))
    await s.note("a cluster whose endpoints never come", 1.5)
    s.plane.send("LDS", s.listener("in"))
    await s.note("a listener whose routes never come", 1.5)


async def wrapped(s):
    await s.note("starts")
    s.plane.send("CDS", s.cluster("a"), s.cluster("b"), named=True)
    await s.note("clusters in envelopes")
    if s.api == "GRPC" and not s.separate:
        # Endpoints that expire on an aggregated stream are the end of Envoy 1.40.
        s.plane.send("EDS", s.endpoints("a", 1), s.endpoints("b", 2), named=True)
        return await s.note("endpoints in envelopes")
    s.plane.send("EDS", s.endpoints("a", 1), s.endpoints("b", 2), named=True, ttl=1)
    await s.note("endpoints that expire", 1.6)
    s.plane.send("EDS", s.endpoints("a", 1), version="2", ttl=60)
    await s.note("endpoints that come back")


async def shared(s):
    await s.note("starts")
    s.plane.send("CDS", s.cluster("a"), s.cluster("b", eds_cluster_config={"eds_config": source(s, "EDS"), "service_name": "a"}))
    await s.note("two clusters of one service")
    s.plane.send("EDS", s.endpoints("a", 1))
    await s.note("endpoints")
    s.plane.send("LDS", s.listener("in"), s.listener("in2"))
    await s.note("two listeners of one table")
    s.plane.send("RDS", s.routes("routes"))
    await s.note("the table")
    if s.api == "GRPC":
        s.plane.send("LDS", s.listener("in2"), version="2")
    else:
        s.plane.send("LDS", version="2", removed=["in"])
    await s.note("one of them leaves", 1.2)


SCENARIOS = {
    "lifecycle": (lifecycle, {}), "in_place": (in_place, {}), "refused": (refused, {"left": "[cl]ds.update_attempt"}), "wrong_types": (wrong_types, {}), "names": (names, {}),
    "reconnects": (reconnects, {}), "changes_while_away": (changes_while_away, {"left": "update_(attempt|failure)"}), "warming": (warming, {"left": r"cluster\.a\.update_(attempt|success|no_rebuild)"}),
    "impatient": (impatient, {"fetch": "1s"}), "wrapped": (wrapped, {}), "shared": (shared, {}),
    "node_once": (served, {"node_once": True}),
}
VARIANTS = {"ads": ("GRPC", False), "delta-ads": ("DELTA_GRPC", False), "streams": ("GRPC", True), "delta-streams": ("DELTA_GRPC", True)}


class Files(Subject):
    """Resources from files, moved into place."""

    def __init__(self, options, patience):
        super().__init__("GRPC", False, options, patience)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="legate-files-"))

    def source(self, short):
        return {"path_config_source": {"path": str(self.directory / f"{short}.json")}, "resource_api_version": "V3",
                **self.patience}

    def write(self, short, *resources, version="1", text=None):
        """Puts a file in the place of the one before in one move."""
        response = discovery_pb2.DiscoveryResponse(version_info=version, resources=[any_of(r) for r in resources])
        new = self.directory / "new"
        new.write_text(json_format.MessageToJson(response) if text is None else text)
        new.rename(self.directory / f"{short}.json")

    def bootstrap(self):
        sources = {"lds_config": self.source("LDS"), "cds_config": self.source("CDS")}
        return json.dumps({"node": {"id": "node", "cluster": "cluster"}, "admin": {"address": address(0)},
                           "dynamic_resources": sources})

    async def step(self, title):
        """Ends a step: what the proxy shows after it."""
        await asyncio.sleep(max(0.5, self.quiet))
        self.steps.append(f"# {title}")
        await self.state()


async def files(s):
    """Good, unreadable, refused, and good files in turn."""
    routes = {"rds": {"route_config_name": "routes", "config_source": s.source("RDS")}}
    def cluster(name, **more):
        eds = {"eds_cluster_config": {"eds_config": s.source("EDS"), "service_name": name}}
        return s.cluster(name, **{**eds, **more})
    s.write("EDS", s.endpoints("a", 1), version="e1")
    s.write("RDS", s.routes("routes"), version="r1")
    s.write("CDS", cluster("a"), version="c1")
    s.write("LDS", s.listener("in", **routes), version="l1")
    yield "good files"
    s.write("CDS", text="{ not json")
    s.write("EDS", text="")
    s.write("RDS", text="resources: 7")
    yield "unreadable files"
    s.write("CDS", cluster("a"), cluster("b", connect_timeout="-1s"), version="c2")
    s.write("EDS", s.endpoints("other", 1), version="e2")
    s.write("RDS", s.routes("others"), version="r2")
    s.write("LDS", s.listener("in", filter_chains=[]), version="l2")
    yield "files that are refused, or of others"
    s.write("EDS", s.endpoints("a", 1, 2), version="e3")
    yield "good endpoints again"
    s.write("CDS", cluster("a", connect_timeout="3s"), version="c3")
    yield "good clusters again"
    s.write("RDS", s.routes("routes"), version="r3")
    yield "good routes again"
    s.write("CDS", version="c4")
    s.write("LDS", version="l4")
    yield "nothing in them any more"


async def run_files(binary, options, patience):
    """What a proxy shows of its files, step by step."""
    subject = Files(options, patience)
    script = files(subject)
    title = await anext(script)
    with Proxy(binary, subject.bootstrap()) as proxy:
        subject.proxy = proxy
        while title is not None:
            await subject.step(title)
            title = await anext(script, None)
    shutil.rmtree(subject.directory)
    return [line.replace(str(port), "<port>") for line in subject.steps for port in [subject.port("in")]]


async def run(binary, variant, scenario, options, patience):
    """What a proxy does in a scenario, step by step."""
    subject = Subject(*VARIANTS[variant], options, patience)
    await subject.plane.start()
    with Proxy(binary, subject.bootstrap()) as proxy:
        subject.proxy = proxy
        while not subject.plane.opened:
            if proxy.process.poll() is not None:
                return [f"# the proxy ended: {proxy.log.read_text()[-300:]}"]
            await asyncio.sleep(0.05)
        try:
            await scenario(subject)
            await subject.state()
        finally:
            await subject.plane.stop()
        if proxy.process.poll() is not None:
            subject.steps.append(f"# the proxy ended with {proxy.process.returncode}")
    return subject.steps


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--envoy", required=True)
    parser.add_argument("--only", default="", help="scenarios and variants whose name contains this")
    parser.add_argument("--show", action="store_true", help="print what Envoy did")
    args = parser.parse_args()
    checks = Checks("xDS conversations")
    for name, (scenario, options) in SCENARIOS.items():
        variants = [variant for variant in VARIANTS if args.only in f"{name}/{variant}"]
        for patience in QUIET:
            runs = await asyncio.gather(*(run(binary, variant, scenario, options, patience)
                                          for variant in variants for binary in (args.envoy, args.proxy)))
            left_out = [KNOWN.get(f"{name}/{variant}", lambda _: False) for variant in variants for _ in range(2)]
            runs = [[line for line in run if not known(line)] for run, known in zip(runs, left_out)]
            pairs = dict(zip(variants, zip(runs[::2], runs[1::2])))
            if args.show:
                print("\n".join(runs[0]))
            for variant in [variant for variant, (envoy, ours) in pairs.items() if envoy == ours]:
                checks.check(True, f"{name}/{variant}")
                variants.remove(variant)
        for variant in variants:
            checks.check(False, f"{name}/{variant}")
            print("\n".join(difflib.unified_diff(*pairs[variant], "envoy", "legate", lineterm="", n=1)), flush=True)
    if args.only in "files":
        for patience in QUIET:
            envoy, ours = await asyncio.gather(*(run_files(binary, {}, patience) for binary in (args.envoy, args.proxy)))
            if envoy == ours:
                break
        checks.check(envoy == ours, "files")
        print("\n".join(difflib.unified_diff(envoy, ours, "envoy", "legate", lineterm="", n=1)), flush=True)
    checks.finish()


if __name__ == "__main__":
    asyncio.run(main())

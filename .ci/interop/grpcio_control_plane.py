"""A control plane written with grpcio drives a proxy over ADS, state of the world and delta, under constant traffic.

Weights must be followed within a second; a route that is refused, a control plane that goes away and comes back, and
endpoints that move must not cost a request.
"""

import asyncio
import time

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 (registers the type for JSON)
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import any_pb2, json_format

from peers import Checks, Proxy, Traffic, arguments, free_port, upstream

# In the order in which changes are pushed.
KINDS = [
    (cluster_pb2.Cluster, "name"),
    (endpoint_pb2.ClusterLoadAssignment, "cluster_name"),
    (listener_pb2.Listener, "name"),
    (route_pb2.RouteConfiguration, "name"),
]
URL = {kind: f"type.googleapis.com/{kind.DESCRIPTOR.full_name}" for kind, _ in KINDS}
CLUSTERS, ENDPOINTS, LISTENERS, ROUTES = (URL[kind] for kind, _ in KINDS)
WHOLE = {CLUSTERS, LISTENERS}


class ControlPlane(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
    """Serves `resources`, type URL -> name -> (version, Any), to every stream."""

    def __init__(self):
        self.resources = {url: {} for url in URL.values()}
        self.versions = dict.fromkeys(URL.values(), 0)
        self.wakers, self.nacks, self.acks, self.streams = set(), [], [], 0

    def put(self, *messages):
        for message in messages:
            key = next(key for kind, key in KINDS if isinstance(message, kind))
            url = URL[type(message)]
            self.versions[url] += 1
            packed = any_pb2.Any(type_url=url, value=message.SerializeToString(deterministic=True))
            self.resources[url][getattr(message, key)] = (str(self.versions[url]), packed)
        for waker in self.wakers:
            waker.set()

    def selected(self, url, names):
        return {name: entry for name, entry in self.resources[url].items() if names is None or name in names}

    def heard(self, url, request):
        if request.HasField("error_detail"):
            self.nacks.append((url, request.error_detail.message))
        elif request.response_nonce:
            self.acks.append((time.monotonic(), url, getattr(request, "version_info", "")))

    async def converse(self, requests, on_request, due):
        """One stream: whatever arrives or changes, send what is due."""
        self.streams += 1
        waker = asyncio.Event()
        self.wakers.add(waker)

        async def read():
            async for request in requests:
                on_request(request)
                waker.set()
            ended.set()
            waker.set()

        ended = asyncio.Event()
        reading = asyncio.create_task(read())
        try:
            while not ended.is_set():
                await waker.wait()
                waker.clear()
                for response in due():
                    yield response
        finally:
            self.wakers.discard(waker)
            reading.cancel()

    async def StreamAggregatedResources(self, requests, _context):
        told = {}

        def on_request(request):
            kind = told.setdefault(request.type_url, {"nonce": "", "sent": None})
            if request.response_nonce and request.response_nonce != kind["nonce"]:
                return
            self.heard(request.type_url, request)
            names = set(request.resource_names)
            kind["names"] = None if not names and request.type_url in WHOLE else names

        def due():
            for url in URL.values():
                if (kind := told.get(url)) is None:
                    continue
                selected = self.selected(url, kind["names"])
                versions = {name: version for name, (version, _) in selected.items()}
                if versions == kind["sent"] or not (versions or url in WHOLE):
                    continue
                kind["sent"], kind["nonce"] = versions, f"{url.rsplit('.', 1)[1]}-{time.monotonic_ns()}"
                yield discovery_pb2.DiscoveryResponse(
                    version_info=str(self.versions[url]),
                    type_url=url,
                    nonce=kind["nonce"],
                    resources=[packed for _, packed in selected.values()],
                )

        async for response in self.converse(requests, on_request, due):
            yield response

    async def DeltaAggregatedResources(self, requests, _context):
        told = {}

        def on_request(request):
            url = request.type_url
            if url not in told:
                whole = url in WHOLE and not request.resource_names_subscribe
                known = dict(request.initial_resource_versions)
                told[url] = {"names": None if whole else set(), "sent": known, "introduced": False}
            self.heard(url, request)
            kind = told[url]
            subscribed = set(request.resource_names_subscribe)
            if "*" in subscribed:
                kind["names"] = None
            elif kind["names"] is not None:
                kind["names"] = (kind["names"] | subscribed) - set(request.resource_names_unsubscribe)
            # Asking again means it is not there any more.
            for name in subscribed | set(request.resource_names_unsubscribe):
                kind["sent"].pop(name, None)

        def due():
            for url in URL.values():
                if (kind := told.get(url)) is None:
                    continue
                selected = self.selected(url, kind["names"])
                changed = {name: entry for name, entry in selected.items() if kind["sent"].get(name) != entry[0]}
                removed = [name for name in kind["sent"] if name not in selected]
                if not changed and not removed and (kind["introduced"] or url not in WHOLE):
                    continue
                kind["introduced"] = True
                kind["sent"] = {name: version for name, (version, _) in selected.items()}
                yield discovery_pb2.DeltaDiscoveryResponse(
                    system_version_info=str(self.versions[url]),
                    type_url=url,
                    nonce=f"{url.rsplit('.', 1)[1]}-{time.monotonic_ns()}",
                    resources=[
                        discovery_pb2.Resource(name=name, version=version, resource=packed)
                        for name, (version, packed) in changed.items()
                    ],
                    removed_resources=removed,
                )

        async for response in self.converse(requests, on_request, due):
            yield response

    async def serve(self, port):
        server = grpc.aio.server()
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self, server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        return server


def message(kind, **fields):
    return json_format.ParseDict(fields, kind())


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name):
    eds = {"eds_config": {"ads": {}, "resource_api_version": "V3"}}
    return message(cluster_pb2.Cluster, name=name, type="EDS", eds_cluster_config=eds, connect_timeout="1s")


def endpoints(name, port):
    hosts = [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]
    return message(endpoint_pb2.ClusterLoadAssignment, cluster_name=name, endpoints=hosts)


def listener(port):
    extensions = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "rds": {"route_config_name": "routes", "config_source": {"ads": {}, "resource_api_version": "V3"}},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{extensions}.http.router.v3.Router"},
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return message(listener_pb2.Listener, name="ingress", address=address(port), filter_chains=[{"filters": filters}])


def routes(weights):
    clusters = [{"name": name, "weight": weight} for name, weight in weights.items()]
    route = {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": clusters}}}
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    return message(route_pb2.RouteConfiguration, name="routes", virtual_hosts=hosts)


def bootstrap(port, api_type):
    return f"""
node: {{ id: interop, cluster: interop }}
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}
dynamic_resources:
  ads_config:
    api_type: {api_type}
    transport_api_version: V3
    grpc_services:
    - envoy_grpc: {{ cluster_name: control_plane }}
  lds_config: {{ ads: {{}}, resource_api_version: V3 }}
  cds_config: {{ ads: {{}}, resource_api_version: V3 }}
static_resources:
  clusters:
  - name: control_plane
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: control_plane
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}
"""


async def until(condition, within=5.0):
    deadline = time.monotonic() + within
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return condition()


async def drive(checks, binary, api_type):
    variant = "state of the world" if api_type == "GRPC" else "delta"
    one, two, three = await upstream("one"), await upstream("two"), await upstream("three")
    port, xds = free_port(), free_port()
    control_plane = ControlPlane()
    control_plane.put(cluster("one"), cluster("two"), endpoints("one", one), endpoints("two", two))
    control_plane.put(listener(port), routes({"one": 100, "two": 0}))
    server = await control_plane.serve(xds)
    with Proxy(binary, bootstrap(xds, api_type)) as proxy:
        await proxy.ready(port)
        traffic = Traffic(port, "interop")
        await asyncio.sleep(0.3)
        checks.check(set(traffic.since(0)) == {"one"}, f"{variant}: traffic goes where the first routes say")

        for weights in [(50, 50), (0, 100), (100, 0), (0, 100)]:
            changed = time.monotonic()
            control_plane.put(routes({"one": weights[0], "two": weights[1]}))
            await asyncio.sleep(1.0)
            settled = time.monotonic()
            # A number of requests, not a time: how many fit into one is the machine's affair.
            enough = 200 if 50 in weights else 60
            await until(lambda: sum(traffic.since(settled).values()) >= enough, 30.0)
            shares = traffic.since(settled)
            total = sum(shares.values())
            if 50 in weights:
                # Within five standard deviations of a fair coin.
                right = abs(shares.get("one", 0) - total / 2) <= 5 * (total / 4) ** 0.5
                checks.check(total >= enough and right, f"{variant}: 50/50 within 1 s ({shares})")
            else:
                target, other = ("one", "two") if weights[0] else ("two", "one")
                late = max(0.0, traffic.last(other) - changed)
                text = f"{variant}: all to {target}, the last other request {1000 * late:.0f} ms after the change"
                checks.check(total >= enough and set(shares) == {target} and late <= 1, text)

        control_plane.put(routes({}))
        await until(lambda: control_plane.nacks)
        nacked = [url for url, _ in control_plane.nacks] == [ROUTES] and "routes" in control_plane.nacks[0][1]
        checks.check(nacked, f"{variant}: routes without clusters are refused by name")
        moment = time.monotonic()
        await asyncio.sleep(0.3)
        checks.check(set(traffic.since(moment)) == {"two"}, f"{variant}: what was refused changed nothing")

        moment = time.monotonic()
        control_plane.put(routes({"one": 0, "two": 100}), endpoints("two", three))
        moved = await until(lambda: set(traffic.since(time.monotonic() - 0.1)) == {"three"}, 1.0)
        checks.check(moved, f"{variant}: endpoints that moved are followed within 1 s")

        streams, moment = control_plane.streams, time.monotonic()
        await server.stop(None)
        await asyncio.sleep(0.5)
        checks.check(set(traffic.since(moment)) == {"three"}, f"{variant}: without a control plane traffic goes on")
        server = await control_plane.serve(xds)
        back = await until(lambda: control_plane.streams > streams, 20)
        control_plane.put(routes({"one": 100, "two": 0}))
        followed = await until(lambda: set(traffic.since(time.monotonic() - 0.1)) == {"one"}, 2.0)
        checks.check(back and followed, f"{variant}: a control plane that came back is followed")

        await traffic.stop()
        first = f": {traffic.failures[0]}" if traffic.failures else ""
        text = f"{variant}: {len(traffic.answers)} requests, {len(traffic.failures)} failed{first}"
        checks.check(not traffic.failures, text)
        checks.check(len(control_plane.nacks) == 1, f"{variant}: nothing else was refused {control_plane.nacks[1:]}")
    await server.stop(None)


async def main():
    binary = arguments()
    checks = Checks("grpcio control plane")
    for api_type in ["GRPC", "DELTA_GRPC"]:
        await drive(checks, binary, api_type)
    checks.finish()


if __name__ == "__main__":
    asyncio.run(main())

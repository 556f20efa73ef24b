"""One of two proxies in a conversation: its bootstrap, makers of its resources, and what is noted of it."""

import asyncio
import json
import pathlib
import re
import tempfile

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 (registers the type for JSON)
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format

from peers import free_port
from xds_plane import ControlPlane, any_of

# Begins a note after which two proxies cannot be compared, however alike they are.
BROKEN = "# broken off:"


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
            self.steps.append(f"{BROKEN} no config_dump: {status} {dump}")
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

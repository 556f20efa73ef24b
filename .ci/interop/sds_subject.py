"""One of two proxies whose certificates are secrets that are discovered: its bootstrap, makers of secrets, what its peers see."""

import ast
import asyncio
import hashlib
import json
import pathlib
import re
import shutil
import tempfile
import time

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2  # noqa: F401 (registers the type for JSON)
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2  # noqa: F401 (registers the type for JSON)
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format

from sds_peers import Client, Upstream
from xds_plane import Broken, any_of
from xds_subject import BROKEN, Subject, address, message, source

EXTENSIONS = "type.googleapis.com/envoy.extensions"
# Seconds within which a proxy shows its pages.
STARTS_WITHIN = 30
# Enough new connections that each of two workers has some.
CONNECTIONS = 4


class Secrets(Subject):
    """One of the two proxies: a listener `in` before a cluster `a`, both over TLS with secrets of one source."""

    def __init__(self, transport, api, separate, options, patience, pki):
        super().__init__(api, separate, {"fetch": "90s", **options}, patience)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="legate-sds-"))
        self.transport, self.pki, self.kept, self.shown, self.lines = transport, pki, [], {}, 0
        self.upstream = Upstream(pki)
        self.plane.pipe, self.plane.texts = str(self.directory / "sds.sock"), True

    # Secrets.

    def secret(self, name, **kind):
        return message(secret_pb2.Secret, name=name, **kind)

    def certificate(self, name, of="s1", key=None, **more):
        inline = {"certificate_chain": {"inline_string": self.pki.text(f"{of}.pem")},
                  "private_key": {"inline_string": self.pki.text(f"{key or of}.key")}}
        return self.secret(name, tls_certificate={**inline, **more})

    def trust(self, name, of="ca1", **more):
        return self.secret(name, validation_context={"trusted_ca": {"inline_string": self.pki.text(f"{of}.pem")}, **more})

    def give(self, *secrets, version="1", to=None, removed=(), named=False):
        """Secrets from where they are looked for."""
        if self.transport == "files":
            for name in [to] if to else [secret.name for secret in secrets]:
                self.write(name, *[secret for secret in secrets if to or secret.name == name], version=version)
        else:
            self.plane.send("SDS", *secrets, version=version, to=to, removed=removed, named=named)

    def give_all(self, version="1"):
        self.give(self.certificate("server", "s1"), self.trust("trust"), self.certificate("client", "c1"), self.trust("up_trust"),
                  version=version)

    def write(self, name, *secrets, version="1", text=None):
        """Puts a file in the place of the one before in one move."""
        response = discovery_pb2.DiscoveryResponse(version_info=version, resources=[any_of(secret) for secret in secrets])
        new = self.directory / "new"
        new.write_text(json_format.MessageToJson(response) if text is None else text)
        new.rename(self.directory / f"{name}.json")

    def named(self, name):
        if self.transport == "files":
            path = self.directory / f"{name}.json"
            return {"name": name, "sds_config": {"path_config_source": {"path": str(path)}, "resource_api_version": "V3",
                                                 **self.patience}}
        return {"name": name, "sds_config": source(self, "SDS")}

    # Their users.

    def downstream(self, certificate="server", trust="trust", beside=None, **common):
        context = {"tls_certificate_sds_secret_configs": [self.named(certificate)]}
        if trust:
            context["validation_context_sds_secret_config"] = self.named(trust)
        typed = {"@type": f"{EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext",
                 "common_tls_context": {**context, **common}, **(beside or {})}
        return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": typed}}

    def upstream_tls(self, certificate="client", trust="up_trust", **common):
        context = {"tls_certificate_sds_secret_configs": [self.named(certificate)]}
        if trust:
            context["validation_context_sds_secret_config"] = self.named(trust)
        typed = {"@type": f"{EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext",
                 "common_tls_context": {**context, **common}}
        return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": typed}}

    def server(self, name="in", cluster="a", **more):
        manager = {
            "@type": f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": name,
            "route_config": {"validate_clusters": False, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": cluster}}]}]},
            "http_filters": [{"name": "router", "typed_config": {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router"}}],
        }
        text = ("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% down=%DOWNSTREAM_TRANSPORT_FAILURE_REASON% "
                "up=%UPSTREAM_TRANSPORT_FAILURE_REASON% local=%DOWNSTREAM_LOCAL_SUBJECT%\n")
        log = [{"name": "file", "typed_config": {
            "@type": f"{EXTENSIONS}.access_loggers.file.v3.FileAccessLog", "path": str(self.directory / "log"),
            "log_format": {"text_format_source": {"inline_string": f"{name} {text}"}}}}]
        filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
        return {"name": name, "address": address(self.port(name)), "access_log": log,
                "filter_chains": [{"filters": filters, **(more or self.downstream())}]}

    def peer(self, name="a", **more):
        hosts = [{"lb_endpoints": [{"endpoint": {"address": address(self.upstream.port)}}]}]
        return {"name": name, "connect_timeout": "2s", "type": "STATIC",
                "load_assignment": {"cluster_name": name, "endpoints": hosts}, **(more or self.upstream_tls())}

    def bootstrap(self):
        whole = json.loads(super().bootstrap())
        clusters = whole["static_resources"]["clusters"]
        if self.transport == "unix":
            endpoint = clusters[0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
            endpoint["address"] = {"pipe": {"path": self.plane.pipe}}
        listeners, self.clusters = self.options.get("static", lambda s: ([s.server()], [s.peer()]))(self)
        sources = whole["dynamic_resources"]
        if not self.options.get("dynamic"):
            sources.pop("lds_config")
            if self.separate:
                sources.pop("cds_config")
        if self.transport == "files":
            clusters.clear()
        if self.separate:
            clusters += self.clusters
        whole["static_resources"]["listeners"] = listeners
        whole["static_resources"]["secrets"] = self.options.get("secrets", lambda s: [])(self)
        return json.dumps(whole)

    @staticmethod
    def cluster_resource(cluster):
        return message(cluster_pb2.Cluster, **cluster)

    @staticmethod
    def listener_resource(listener):
        return message(listener_pb2.Listener, **listener)

    async def started(self):
        """Waits until the proxy shows its pages."""
        give_up = time.monotonic() + STARTS_WITHIN
        while not (await self.proxy.admin("/ready"))[0]:
            if self.proxy.process.poll() is not None or time.monotonic() > give_up:
                raise Broken(f"it did not start: {self.proxy.log.read_text(errors='replace')[-600:]}")
            await asyncio.sleep(0.05)
        # Static clusters whose secrets come with everything else are the end of Envoy 1.40.
        if not self.separate and self.clusters:
            while not self.plane.opened:
                await asyncio.sleep(0.05)
            self.plane.send("CDS", *[self.cluster_resource(cluster) for cluster in self.clusters])

    # What is seen.

    def keep(self, name="", port="in"):
        """A connection that is used again and again."""
        client = Client(self, name, port)
        self.kept.append(client)
        return client.ask("/keep")

    def connect(self, name, port):
        client = Client(self, name, port)
        try:
            return client.ask("/close")
        finally:
            client.close()

    async def note(self, title, *clients, seconds=0.0, port="in"):
        """Ends a step: what was said in it, what clients see, and what else is new."""
        if self.transport == "files":
            await asyncio.sleep(max(1.0, seconds, self.quiet))
            self.steps.append(f"# {title}")
        else:
            begin = len(self.steps)
            await super().note(title, seconds)
            self.steps[begin:] = folded([in_short(self.plainly(line)) for line in self.steps[begin:]])
        for name in clients:
            seen = [await asyncio.to_thread(self.connect, name, port) for _ in range(CONNECTIONS)]
            self.steps.append(f"  client {name or 'without certificate'}: {sorted(set(seen))}")
        for client in self.kept:
            self.steps.append(f"  kept: {await asyncio.to_thread(client.ask, '/keep')}")
        # Logs are written behind.
        await asyncio.sleep(0.15)
        await self.state()

    def plainly(self, text):
        """Without what two runs do not have in common."""
        text = text.replace(str(self.directory), "<directory>").replace(self.pki.path(""), "<pki>/").replace(str(self.pki.directory), "<pki>")
        for name, port in [*self.ports.items(), ("control plane", self.plane.port), ("upstream", self.upstream.port)]:
            text = re.sub(rf"(?<!\d){port}(?!\d)", f"<{name}>", text)
        return re.sub(r"(init manager \S+ \S+ )\d+", r"\1<hash>", text)

    async def state(self):
        """What is new on the admin pages and in the log."""
        self.shown, before = {}, self.shown
        for key, value in [pair async for pair in self.pages()]:
            if re.search(self.options.get("left", "^$"), key):
                continue
            key, value = self.plainly(key), self.plainly(value)
            self.shown[key] = value
            if before.get(key) != value:
                self.steps.append(f"  {key}: {value}")
        self.steps += [f"  {key}: gone" for key in before if key not in self.shown]
        path = self.directory / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        self.steps += [f"  log: {line}" for line in sorted(set(lines[self.lines:]))]
        self.lines = len(lines)

    async def pages(self):
        for page in ("/ready", "/listeners"):
            yield page, (await self.proxy.admin(page))[1].strip()
        kept = re.compile(r"^(sds\.|listener\.\S+(ssl|_not_ready)|cluster\.[ab]\.(client_ssl|ssl|upstream_cx_connect_fail)|"
                          r"cluster_manager\.(active|warming)_clusters|listener_manager\.total_listeners)")
        # Envoy asks before it knows where its control plane is, and again at random.
        again = r"update_(attempt|failure)" if self.separate and self.transport != "files" else "^$"
        # Whether a session is resumed depends on the worker.
        left = re.compile("|".join((r"update_time|update_duration|session_reused", again)))
        _, stats = await self.proxy.admin("/stats")
        for line in sorted(map(self.plainly, stats.splitlines())):
            name, _, value = line.partition(": ")
            if kept.match(line) and not left.search(line) and value not in ("0", '""'):
                yield name, value
        status, dump = await self.proxy.admin("/config_dump")
        if status != 200:
            yield BROKEN, f"no config_dump: {status} {dump}"
            return
        for config in json.loads(dump)["configs"]:
            for kind in ("static_secrets", "dynamic_active_secrets", "dynamic_warming_secrets"):
                for entry in sorted(config.get(kind, ()), key=lambda entry: entry["name"]):
                    yield f"{kind} {entry['name']}", json.dumps(brief(entry), sort_keys=True)
        _, certificates = await self.proxy.admin("/certs")
        certificates = json.loads(certificates)["certificates"]
        yield "/certs", json.dumps(sorted(json.dumps(brief(entry), sort_keys=True) for entry in certificates))
        _, awaited = await self.proxy.admin("/init_dump")
        for manager in json.loads(awaited or "{}").get("unready_targets_dumps", ()):
            yield f"/init_dump {manager['name']}", str(sorted(manager["target_names"]))

    def close(self):
        for client in self.kept:
            client.close()
        self.upstream.close()
        shutil.rmtree(self.directory)


def in_short(line):
    """A refusal without what is each proxy's own: what Legate adds (the secret, the field, more of the reason), what Envoy
    calls inline though it was read from a file."""
    head, error, text = line.partition(" error 13: ")
    if not error:
        return line
    text = text.split("\n")[0]
    if text.startswith("goo.gle/debug") or "Proto constraint validation failed" in text:
        return f"{head} error 13: a constraint"
    text = re.sub(r"^(server|trust|client|up_trust|tickets): (([a-z_]+(\[\d+\])?\.?)+: )?", "", text)
    text = re.sub(r"(does not match the message-wide type URL \S+).*", r"\1", text)
    # Envoy reads what is of another type as if it were empty.
    text = re.sub(r"Unexpected SDS secret type \(expecting tls_certificate\).*", "Failed to load incomplete private key from path:", text)
    text = re.sub(r"from path:.*", "from path:", text)
    text = re.sub(r"from( <\S+>\S*)? ?: certificate chain not set.*|Invalid path: <directory>/parts: Is a directory.*", "no chain", text)
    text = re.sub(r"from <\S+>[^,: ]*", "from <source>", text)
    text = text.removeprefix("<inline>: ")
    text = re.sub(r": (No such file|it holds no|a PEM block|a certificate is).*", "", text)
    text = text.replace("Failed to load incomplete certificate ", "")
    return f"{head} error 13: {text}"


def folded(lines):
    """The requests of a step on an aggregated stream: whether subscriptions and answers share some is each proxy's own."""
    kept, delta = [], {}
    for line in lines:
        # That nobody wants a secret any more is said by the end of its stream, too.
        if re.match(r"  (StreamSecrets SDS node \[\]|DeltaSecrets SDS node \+\[\] -\['.*?'\] nonce='')", line):
            continue
        request = re.match(r"  (\S*Aggregated\S*) (\S+) node (.*?) ?nonce='(\w*)'$", line)
        if not request:
            kept.append(line)
        elif "Delta" not in request[1]:
            same = lambda other: re.sub(r"\[.*?\]", "", other) == re.sub(r"\[.*?\]", "", line)
            if kept and same(kept[-1]):
                kept.pop()
            kept.append(line)
        elif "has " in request[3]:
            kept.append(line)
        else:
            added, removed = re.match(r"\+(\[.*?\]) -(\[.*?\])", request[3]).groups()
            whole = delta.setdefault((request[1], request[2]), (set(), set(), set()))
            whole[0].update(ast.literal_eval(added))
            whole[1].update(ast.literal_eval(removed))
            whole[2].update(filter(None, [request[4]]))
    for (method, kind), (added, removed, nonces) in sorted(delta.items()):
        kept.append(f"  {method} {kind} +{sorted(added)} -{sorted(removed)} nonces={sorted(nonces)}")
    return kept


def brief(value):
    """Without times, and with what is long told by its hash."""
    if isinstance(value, dict):
        return {key: brief(inner) for key, inner in value.items() if key != "last_updated"}
    if isinstance(value, list):
        return [brief(inner) for inner in value]
    if isinstance(value, str) and len(value) > 200:
        return f"#{hashlib.sha256(value.encode()).hexdigest()[:12]}"
    return value

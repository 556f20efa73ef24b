"""The bootstraps of the TLS checks: a proxy in front, which calls by TLS, and one behind, which is called."""

import json

from mesh_proxy import TYPE, address, host, route

VERSIONS = {"TLSv1.2": "TLSv1_2", "TLSv1.3": "TLSv1_3"}
# What is offered by ALPN, and which protocol comes of it.
PROTOCOLS = {"http/1.1": (["http/1.1"], "HTTP/1.1"), "h2": (["h2"], "HTTP/2"), "auto": (["h2", "http/1.1"], "HTTP/2")}
OPTIONS = {
    "http/1.1": {"explicit_http_config": {"http_protocol_options": {}}},
    "h2": {"explicit_http_config": {"http2_protocol_options": {}}},
    "auto": {"auto_config": {"http_protocol_options": {}, "http2_protocol_options": {}}},
}
# So many requests a connection.
REQUESTS = 3
# What the side behind adds to an answer: what it knows of the connection and of who called.
SEEN = {"x-version": "%DOWNSTREAM_TLS_VERSION%", "x-suite": "%DOWNSTREAM_TLS_CIPHER%", "x-protocol": "%PROTOCOL%",
        "x-name": "%REQUESTED_SERVER_NAME%", "x-caller": "%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_PEER_SUBJECT%"}


class Leg:
    """One way from the front to the side behind: ports of its own, a version, a protocol, and what is wrong with it."""

    def __init__(self, ports, version, protocol, caller="c1", authority="ca1", expects="s1.test", behind=None):
        self.plain, self.secure = ports
        self.version, self.protocol = version, protocol
        self.caller, self.authority, self.expects = caller, authority, expects
        self.version_behind = behind or version

    def calling(self, pki):
        """The context of who calls."""
        common = common_context(pki, self.caller, self.authority, self.version, PROTOCOLS[self.protocol][0])
        names = [{"san_type": "DNS", "matcher": {"exact": self.expects}}]
        common["validation_context"]["match_typed_subject_alt_names"] = names
        return socket("Upstream", {"common_tls_context": common, "sni": "s1.test"})

    def called(self, pki):
        """The context of who is called."""
        common = common_context(pki, "s1", "ca1", self.version_behind, PROTOCOLS["auto"][0])
        return socket("Downstream", {"common_tls_context": common, "require_client_certificate": True})


def common_context(pki, name, authority, version, protocols):
    context = {
        "tls_params": {"tls_minimum_protocol_version": VERSIONS[version], "tls_maximum_protocol_version": VERSIONS[version]},
        "alpn_protocols": protocols,
        "validation_context": {"trusted_ca": {"filename": pki.path(f"{authority}.pem")}},
    }
    if name:
        context["tls_certificates"] = [{"certificate_chain": {"filename": pki.path(f"{name}.pem")},
                                        "private_key": {"filename": pki.path(f"{name}.key")}}]
    return context


def socket(side, context):
    kind = f"{TYPE}.transport_sockets.tls.v3.{side}TlsContext"
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": kind, **context}}


def front(pki, legs):
    """Takes plain HTTP at every leg's first port and calls its second by TLS."""
    return bootstrap([listener(leg.plain, f"to_{leg.secure}") for leg in legs],
                     [cluster(f"to_{leg.secure}", leg.secure, leg.protocol, leg.calling(pki)) for leg in legs])


def behind(pki, legs, service):
    """Takes TLS at every leg's second port; the service is behind it."""
    return bootstrap([listener(leg.secure, "service", leg.called(pki)) for leg in legs],
                     [cluster("service", service, "http/1.1")])


def between(pki, leg):
    """Takes TLS at the leg's first port and calls its second by TLS."""
    return bootstrap([listener(leg.plain, "peer", leg.called(pki))], [cluster("peer", leg.secure, leg.protocol, leg.calling(pki))])


def bootstrap(listeners, clusters):
    return json.dumps({"admin": {"address": address(0)}, "static_resources": {"listeners": listeners, "clusters": clusters}})


def listener(port, to, transport=None):
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"}}
    routes = {"virtual_hosts": [host([route("/", to, None)])]}
    if transport:
        routes["response_headers_to_add"] = [{"header": {"key": key, "value": value}} for key, value in SEEN.items()]
    manager = {"@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
               "stat_prefix": to, "route_config": routes, "http_filters": [router]}
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
             **({"transport_socket": transport} if transport else {})}
    inspector = {"name": "envoy.filters.listener.tls_inspector",
                 "typed_config": {"@type": f"{TYPE}.filters.listener.tls_inspector.v3.TlsInspector"}}
    return {"name": f"at_{port}", "stat_prefix": f"at_{port}", "address": address(port), "filter_chains": [chain],
            **({"listener_filters": [inspector]} if transport else {})}


def cluster(name, port, protocol, transport=None):
    options = {"@type": f"{TYPE}.upstreams.http.v3.HttpProtocolOptions", **OPTIONS[protocol]}
    if transport:
        options["common_http_protocol_options"] = {"max_requests_per_connection": REQUESTS}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]
    return {"name": name, "connect_timeout": "5s", **({"transport_socket": transport} if transport else {}),
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
            "load_assignment": {"cluster_name": name, "endpoints": endpoints}}

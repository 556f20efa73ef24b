"""The bootstrap of one proxy of the mesh.

`outbound` is for the application beside it and speaks plain HTTP; `inbound` is for the other proxies and speaks TLS to
those who show a certificate. A path says the way through the mesh: `/2/b/1/c/app` goes over HTTP/2 to b, from there over
HTTP/1.1 to c, and to the application there. Every proxy on the way adds an `x-caller` to the answer: who called it, with
which certificate. All certificates and all trust come from the agent.
"""

import json

from spire import DOMAIN, identity

TYPE = "type.googleapis.com/envoy.extensions"
# How the bundle is asked for, by proxy: each of the names the agent knows; d uses the secret as it is.
BUNDLES = {"a": "ALL", "b": "ROOTCA", "c": f"spiffe://{DOMAIN}", "d": "ROOTCA"}
# Who may call: only those that end so are let in; d takes whoever can be verified.
CALLERS = {"a": r"[abcd]", "b": r"[ad]", "c": r"[abcd]"}
# Connections between proxies are made anew after so many requests.
REQUESTS = {"1": 12, "2": 40}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def bootstrap(name, outbound, inbound, others, applications, agent):
    """`others`: the ports where the other proxies are reached; `applications`: those of its own, by protocol."""
    clusters = [tls_cluster(f"{other}.{protocol}", port, protocol, other)
                for other, port in others.items() for protocol in REQUESTS]
    # Reaches a proxy that is not the one it is to be.
    clusters.append(tls_cluster("stranger", next(iter(others.values())), "1", "stranger"))
    clusters += [plain_cluster(f"app.{protocol}", port, protocol) for protocol, port in applications.items()]
    clusters.append(cluster("spire_agent", {"pipe": {"path": str(agent)}}, "2"))
    onward = [route(f"/{protocol}/{other}/", f"{other}.{protocol}") for other in others for protocol in REQUESTS]
    home = [route("/app", "app.1", None), route("/mesh.Mesh/", "app.2", None)]
    caller = {"header": {"key": "x-caller", "value": "%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_PEER_SERIAL%"}}
    return json.dumps({
        "node": {"id": name, "cluster": "mesh"},
        "admin": {"address": address(0)},
        "static_resources": {
            "clusters": clusters,
            "listeners": [
                listener("outbound", outbound, {"virtual_hosts": [host([*onward, route("/stranger", "stranger", None)])]}),
                listener("inbound", inbound,
                         {"virtual_hosts": [host([*onward, *home])], "response_headers_to_add": [caller]},
                         server_tls(name)),
            ],
        },
    })


def secret(name):
    """A secret of this name, from the agent."""
    retry = {"retry_back_off": {"base_interval": "0.25s", "max_interval": "1s"}}
    service = {"envoy_grpc": {"cluster_name": "spire_agent", "retry_policy": retry}}
    api = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [service]}
    return {"name": name, "sds_config": {"resource_api_version": "V3", "api_config_source": api}}


def validation(bundle, matcher):
    """Trust in the bundle, for those whose identity matches."""
    names = [{"san_type": "URI", "matcher": matcher}]
    return {"combined_validation_context": {
        "default_validation_context": {"match_typed_subject_alt_names": names},
        "validation_context_sds_secret_config": secret(bundle)}}


def server_tls(name):
    if name in CALLERS:
        regex = f"spiffe://{DOMAIN}/{CALLERS[name]}".replace(".", r"\.")
        trust = validation(BUNDLES[name], {"safe_regex": {"regex": regex}})
    else:
        trust = {"validation_context_sds_secret_config": secret(BUNDLES[name])}
    certificate = {"tls_certificate_sds_secret_configs": [secret(identity(name))]}
    return {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": f"{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext", "require_client_certificate": True,
        "common_tls_context": {**certificate, **trust, "alpn_protocols": ["h2", "http/1.1"]}}}


def tls_cluster(name, port, protocol, peer):
    common = {"tls_certificate_sds_secret_configs": [secret("default")],
              **validation("ROOTCA", {"exact": identity(peer)}),
              "alpn_protocols": [{"1": "http/1.1", "2": "h2"}[protocol]]}
    socket = {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": f"{TYPE}.transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": common}}
    options = {"common_http_protocol_options": {"max_requests_per_connection": REQUESTS[protocol]}}
    return cluster(name, address(port), protocol, options, transport_socket=socket)


def plain_cluster(name, port, protocol):
    return cluster(name, address(port), protocol)


def cluster(name, where, protocol, options=None, **more):
    explicit = {"1": {"http_protocol_options": {}}, "2": {"http2_protocol_options": {}}}[protocol]
    options = {"@type": f"{TYPE}.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": explicit, **(options or {})}
    endpoint = {"endpoint": {"address": where}}
    return {"name": name, "connect_timeout": "5s", **more,
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}}


def route(prefix, to, rewrite="/"):
    action = {"cluster": to, "timeout": "0s", **({"prefix_rewrite": rewrite} if rewrite else {})}
    return {"match": {"prefix": prefix}, "route": action}


def host(routes):
    return {"name": "all", "domains": ["*"], "routes": routes}


def listener(name, port, routes, socket=None):
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"}}
    manager = {"@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
               "stat_prefix": name, "route_config": routes, "http_filters": [router]}
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    if socket:
        chain["transport_socket"] = socket
    return {"name": name, "address": address(port), "filter_chains": [chain]}

"""The conversations: what is sent, step by step. The proxies' answers are noted after each."""

import asyncio

from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.route.v3 import route_pb2
from google.protobuf import any_pb2

from xds_plane import URLS
from xds_subject import message, source


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
    if not s.separate:
        # On streams of their own nobody asks for listeners until the clusters are ready.
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


# "left" are statistics that are not compared: Envoy counts the answer to a refused delta response twice; how often a proxy
# tries to reconnect depends on the second; a changed cluster asks for its endpoints again here (docs/compatibility.md).
SCENARIOS = {
    "lifecycle": (lifecycle, {}), "in_place": (in_place, {}), "wrong_types": (wrong_types, {}), "names": (names, {}),
    "refused": (refused, {"left": "[cl]ds.update_attempt"}), "reconnects": (reconnects, {}),
    "changes_while_away": (changes_while_away, {"left": "update_(attempt|failure)"}),
    "warming": (warming, {"left": r"cluster\.a\.update_(attempt|success|no_rebuild)"}),
    "impatient": (impatient, {"fetch": "1s"}), "wrapped": (wrapped, {}), "shared": (shared, {}),
    "node_once": (served, {"node_once": True}),
}


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

#!/usr/bin/env python3
"""How long Legate and Envoy take to get a big configuration over ADS, and what it costs: side by side, rounds interleaved.

1,000 EDS clusters with two endpoints each and one route configuration of 2,000 routes come from a control plane written with
grpcio, state of the world and delta. A round is over when the proxy says it is live and a request has gone through the last
route. Measured: time since the start of the process, processor time, resident memory.

    benches/compare/big_configuration.py --legate target/release/legate --envoy target/tools/envoy-1.40.0/envoy/_bin/envoy

Needs the Python packages grpcio and xds-protos. Exits with 1 if Legate takes more than twice Envoy's time, or more memory.
"""

import argparse
import asyncio
import pathlib
import resource
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / ".ci" / "interop"))

from grpcio_control_plane import ControlPlane, bootstrap, cluster, endpoint_pb2, listener, message, route_pb2, address  # noqa: E402
from peers import Proxy, free_port, upstream  # noqa: E402

CLUSTERS, ROUTES = 1000, 2000
TICKS = 100


def endpoints(name, ports):
    hosts = [{"endpoint": {"address": address(port)}} for port in ports]
    return message(endpoint_pb2.ClusterLoadAssignment, cluster_name=name, endpoints=[{"lb_endpoints": hosts}])


def routes():
    table = [
        {"match": {"prefix": f"/service/{n}/"}, "route": {"cluster": f"cluster-{n % CLUSTERS}", "timeout": "3s"}}
        for n in range(ROUTES)
    ]
    hosts = [{"name": "all", "domains": ["*"], "routes": table}]
    return message(route_pb2.RouteConfiguration, name="routes", virtual_hosts=hosts)


def cost(process):
    """Processor seconds and resident megabytes of a process."""
    stat = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return (int(stat[11]) + int(stat[12])) / TICKS, int(resident.split()[1]) / 1024


async def works(port):
    """Whether a request through the last route is answered by an upstream."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /service/{ROUTES - 1}/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        line = await reader.readline()
        writer.close()
        return line.split(b" ")[1:2] == [b"200"]
    except OSError:
        return False


async def once(binary, api_type, backends):
    port, xds = free_port(), free_port()
    control_plane = ControlPlane()
    names = [f"cluster-{n}" for n in range(CLUSTERS)]
    control_plane.put(*(cluster(name) for name in names), *(endpoints(name, backends) for name in names))
    control_plane.put(listener(port), routes())
    server = await control_plane.serve(xds)
    began = time.monotonic()
    with Proxy(binary, bootstrap(xds, api_type)) as proxy:
        await proxy.ready(port, within=120)
        while not await works(port):
            await asyncio.sleep(0.01)
        took = time.monotonic() - began
        # What arrives late is counted too; then all of it has to be there.
        await asyncio.sleep(1)
        _, page = await proxy.admin("/stats?filter=^cluster\\.cluster-.*membership_total")
        hosts = [int(line.rsplit(" ", 1)[1]) for line in page.splitlines() if ": " in line]
        if hosts != [2] * CLUSTERS:
            raise RuntimeError(f"{binary} has {len(hosts)} clusters with {sum(hosts)} endpoints")
        processor, resident = cost(proxy.process)
    await server.stop(None)
    return took, processor, resident


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--legate", required=True)
    parser.add_argument("--envoy", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    backends, failed = [await upstream("one"), await upstream("two")], False
    print(f"{CLUSTERS} clusters, {2 * CLUSTERS} endpoints, {ROUTES} routes over ADS; medians of {options.rounds} rounds")
    for api_type in ["GRPC", "DELTA_GRPC"]:
        rounds = {"legate": [], "envoy": []}
        for _ in range(options.rounds):
            for name in rounds:
                rounds[name].append(await once(getattr(options, name), api_type, backends))
        for index, (what, unit, limit) in enumerate(
            [("ready after", "s", 2.0), ("processor time", "s", None), ("resident memory", "MB", 1.0)]
        ):
            legate, envoy = ([values[index] for values in rounds[name]] for name in ["legate", "envoy"])
            ratios = [ours / theirs for ours, theirs in zip(legate, envoy)]
            ratio = statistics.median(ratios)
            over = limit is not None and ratio > limit
            failed |= over
            print(
                f"{api_type:11} {what:16} legate {statistics.median(legate):8.2f} {unit:2}  envoy "
                f"{statistics.median(envoy):8.2f} {unit:2}  ratio {ratio:5.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
                + (f"  OVER {limit}" if over else ""),
                flush=True,
            )
    sys.exit(failed)


if __name__ == "__main__":
    asyncio.run(main())

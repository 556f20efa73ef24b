"""Four proxies that trust each other by a real SPIRE server and agent, under load while certificates are replaced every few
seconds, the authority behind them is replaced, and the agent is killed and started again.

No request may fail, no byte between proxies may be readable, no certificate old, and nothing may grow.

    spire_mesh.py --proxy PATH --spire DIRECTORY    (MESH_SECONDS=300 for longer than the gate takes)
"""

import argparse
import asyncio
import os
import pathlib
import secrets
import shutil
import tempfile
import time

from mesh_load import Application, Callers, Refused
from mesh_proxy import bootstrap
from mesh_watch import Certificates, Footprints, Wire
from peers import Checks, Proxy, free_port
from spire import CERTIFICATE_SECONDS, Spire

NAMES = "abcd"
# What happens when, as a part of the whole time. In a long run the authority is replaced twice.
STEPS = [(0.10, "prepare"), (0.18, "activate"), (0.26, "taint"), (0.34, "revoke"), (0.45, "crash")]
MORE_STEPS = [(0.70, "prepare"), (0.75, "activate"), (0.80, "taint"), (0.85, "revoke")]
# For so many seconds the agent is away then: less than certificates are still good for.
AWAY = 2


def link(binary, directory):
    """The same binary at a path of its own, which is what makes it a workload of its own."""
    directory.mkdir()
    own = directory / "proxy"
    try:
        os.link(binary, own)
    except OSError:
        shutil.copy2(binary, own)
    return own


class Mesh:
    """The proxies, with a relay before each of their two ports."""

    def __init__(self, spire, binary, marker):
        self.spire, self.marker = spire, marker
        self.binaries = {}
        for name in NAMES:
            # Each is a link to the one before, so that at most one is a copy.
            self.binaries[name] = binary = link(binary, spire.directory / name)
        self.outbound, self.inbound, self.relayed = ({name: free_port() for name in NAMES} for _ in range(3))
        self.proxies = {}

    async def start(self, applications):
        for name, binary in self.binaries.items():
            others = {other: port for other, port in self.relayed.items() if other != name}
            config = bootstrap(name, self.outbound[name], self.inbound[name], others, applications, self.spire.socket)
            self.proxies[name] = Proxy(binary, config)
        self.wires = [await Wire(self.relayed[name], self.inbound[name], self.marker).start() for name in NAMES]
        # What callers send in plain goes through such a relay too: there it has to find the marker.
        self.plain = await Wire(free_port(), self.outbound["a"], self.marker).start()
        for name, proxy in self.proxies.items():
            await proxy.ready(self.outbound[name], 30)

    def stop(self):
        for name, proxy in self.proxies.items():
            if (ended := proxy.process.poll()) is not None:
                print(f"   proxy {name} ended with {ended}: {proxy.log.read_text()[-2000:]}")
            proxy.__exit__(None)


async def events(mesh, certificates, seconds):
    """What happens in the meantime. When the agent was back."""
    start, back = time.monotonic(), 0.0
    for part, step in STEPS + (MORE_STEPS if seconds >= 120 else []):
        # The agent asks once a second; each step is to have reached it before the next.
        await asyncio.sleep(max(2.0, start + part * seconds - time.monotonic()))
        if step == "crash":
            mesh.spire.kill_agent()
            await asyncio.sleep(AWAY)
            await mesh.spire.start_agent()
            back = time.time()
        else:
            await mesh.spire.authority(step)
            await certificates.trust()
        print(f"   {time.monotonic() - start:5.1f} s: {step}", flush=True)
    await asyncio.sleep(max(0.0, start + seconds - time.monotonic()))
    return back


async def drill(checks, mesh, seconds):
    application = Application()
    await mesh.start(await application.start())
    ports = {**mesh.outbound, "a": mesh.plain.port}
    # A certificate of another identity than is asked for, and a caller who is not among those who may call.
    refused = Refused([(mesh.outbound["a"], "/stranger"), (mesh.outbound["c"], "/1/b/app")])
    certificates = await Certificates(mesh.inbound, mesh.spire).start()
    footprints = Footprints({name: proxy.process.pid for name, proxy in mesh.proxies.items()})
    callers = Callers(ports, mesh.marker, 0.02)
    back = await events(mesh, certificates, seconds)
    footprints.stop()
    tally = await callers.stop()
    await certificates.stop()
    await refused.stop()
    await application.stop()
    report_requests(checks, tally, refused)
    report_wire(checks, mesh)
    report_certificates(checks, tally, certificates, seconds, back)
    await report_proxies(checks, mesh, footprints)


def report_requests(checks, tally, refused):
    answered = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.answered.items()))
    checks.check(not tally.failures and len(tally.answered) == 3, f"no request failed: {answered}")
    for failure in tally.failures[:10]:
        print(f"        {failure}")
    checks.check(not tally.wrong, f"every answer is what was sent and names its callers {tally.wrong[:3] or ''}")
    checks.check(refused.asked and not refused.others,
                 f"{refused.asked} asked for the wrong identity, and got 503 {refused.others[:3] or ''}")


def report_wire(checks, mesh):
    streams, data = (sum(getattr(wire, what) for wire in mesh.wires) for what in ("streams", "bytes"))
    found, strange = (sum(getattr(wire, what) for wire in mesh.wires) for what in ("markers", "strange"))
    checks.check(not found and not strange and streams,
                 f"{data / 1e6:.1f} MB in {streams} streams between proxies: TLS records only, {found} markers")
    checks.check(mesh.plain.markers and mesh.plain.strange, f"{mesh.plain.markers} markers before the first proxy")


def report_certificates(checks, tally, certificates, seconds, back):
    # One every ten seconds at least, but for the time the agent is away.
    least = int((seconds - 15) / 10)
    shown = certificates.serials()
    checks.check(min(shown.values()) >= least, f"certificates proxies showed to callers: {shown}, {least} at least")
    sent = {caller.rsplit("/", 1)[1]: len(serials) for caller, serials in sorted(tally.serials.items())}
    checks.check(len(sent) == 4 and min(sent.values()) >= least, f"certificates callers showed to proxies: {sent}")
    checks.check(not certificates.failures and not certificates.answered,
                 f"{certificates.handshakes} handshakes verified by OpenSSL, no answer without a certificate "
                 f"{certificates.failures[:3] or ''}")
    oldest = certificates.oldest
    checks.check(oldest < CERTIFICATE_SECONDS, f"the oldest certificate shown was {oldest:.1f} s old")
    lag = certificates.overlap()
    checks.check(lag < 1, f"none was shown by any worker later than {max(lag, 0):.2f} s after a newer one")
    after = certificates.serials(back)
    checks.check(min(after.values()) >= 1, f"new ones after the agent was killed and came back: {after}")


async def report_proxies(checks, mesh, footprints):
    for name in NAMES:
        stats = await mesh.proxies[name].statistics()
        of = lambda *ends: sum(value for key, value in stats.items() if key.endswith(ends))
        updates = {key: value for key, value in stats.items() if key.startswith("sds.")}
        bad = {key: value for key, value in updates.items()
               if value and key.endswith((".update_rejected", ".key_rotation_failed"))}
        checks.check(not bad, f"{name}: {of('.update_success')} secrets taken, {of('ssl_context_update_by_sds')} contexts "
                              f"made of them, nothing refused {bad or ''}")
        prefix = f"listener.127.0.0.1_{mesh.inbound[name]}."
        workers = [stats.get(f"{prefix}worker_{number}.downstream_cx_total", 0) for number in (0, 1)]
        made, resumed = stats.get(f"{prefix}ssl.handshake", 0), stats.get(f"{prefix}ssl.session_reused", 0)
        checks.check(min(workers) > 0,
                     f"{name}: {made} handshakes taken ({resumed} resumed), connections by worker {workers}")
        (fds, fds_late), (memory, memory_late) = footprints.compared(name)
        flat = fds_late <= fds * 1.2 + 10 and memory_late <= memory * 1.05 + 4
        checks.check(flat, f"{name}: descriptors {fds:.0f} -> {fds_late:.0f}, memory {memory:.1f} -> {memory_late:.1f} MB")
    refusals = mesh.spire.refusals()
    checks.check(not refusals, f"the agent was told of no refusal {refusals[:3] or ''}")


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--spire", required=True)
    given = parser.parse_args()
    seconds = float(os.environ.get("MESH_SECONDS", "45"))
    checks = Checks(f"SPIRE mesh, {seconds:.0f} s")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="legate-mesh-"))
    try:
        async with Spire(given.spire, directory) as spire:
            mesh = Mesh(spire, given.proxy, b"plaintext-" + secrets.token_hex(8).encode())
            for name, binary in mesh.binaries.items():
                await spire.workload(name, binary)
            try:
                await drill(checks, mesh, seconds)
            finally:
                mesh.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    checks.finish()


asyncio.run(main())

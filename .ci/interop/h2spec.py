"""Compares h2spec's verdicts on two proxies: whatever the first fails, the second must fail too.

Run by .ci/h2spec. A case is named by its section and its description; its number alone moves between versions.
"""

import asyncio
import pathlib
import re
import sys
import tempfile
import xml.etree.ElementTree as xml

from peers import Checks, Proxy, free_port, upstream

# Cases Legate fails and Envoy does not: "section: description" -> why that is right. Each must still be needed.
EXPLAINED = {}

# Some cases wait for something not to happen; so long.
TIMEOUT = 2


def bootstrap(port, service):
    extensions = "type.googleapis.com/envoy.extensions.filters"
    return f"""
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}
static_resources:
  listeners:
  - name: h2spec
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': {extensions}.network.http_connection_manager.v3.HttpConnectionManager
          codec_type: HTTP2
          stat_prefix: h2spec
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - match: {{ prefix: / }}
                route: {{ cluster: service }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              '@type': {extensions}.http.router.v3.Router
  clusters:
  - name: service
    connect_timeout: 1s
    load_assignment:
      cluster_name: service
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {service} }} }} }}
"""


async def verdicts(h2spec, binary, *sections):
    """Every case (of these sections) and whether it passed."""
    port, service = free_port(), await upstream("hello, this is a body of some length")
    report = pathlib.Path(tempfile.mkdtemp(prefix="legate-h2spec-")) / "report.xml"
    with Proxy(binary, bootstrap(port, service)) as proxy:
        await proxy.ready(port)
        command = [h2spec, "--strict", "-h", "127.0.0.1", "-p", str(port), "-o", str(TIMEOUT), "-j", str(report), *sections]
        run = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        await run.wait()
    cases = {}
    # It quotes what it received, with characters XML has not.
    text = re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd]", "?", report.read_text(errors="replace"))
    for case in xml.fromstring(text).iter("testcase"):
        name = f"{case.get('package')}: {case.get('classname')}"
        cases[name] = case.find("failure") is None and case.find("error") is None
    report.unlink()
    report.parent.rmdir()
    return cases


async def main():
    h2spec, legate, envoy = sys.argv[1:]
    ours, theirs = await asyncio.gather(verdicts(h2spec, legate), verdicts(h2spec, envoy))
    # Some verdicts depend on who is faster. A case that looks like a difference gets two more chances on both sides.
    for _ in range(2):
        differing = {name for name in ours if not ours[name] and theirs.get(name)} - EXPLAINED.keys()
        if not differing:
            break
        sections = sorted({name.split(":")[0] for name in differing})
        for verdict, binary in [(ours, legate), (theirs, envoy)]:
            again = await verdicts(h2spec, binary, *sections)
            for name in differing:
                # Passing once is what counts for us, failing once for the other.
                better = any if verdict is ours else all
                verdict[name] = better([verdict[name], again.get(name, verdict[name])])
    checks = Checks("h2spec")
    checks.check(len(ours) >= 140 and ours.keys() == theirs.keys(), f"{len(ours)} cases ran against both")
    for name in sorted(ours):
        if ours[name] or not theirs.get(name, True):
            checks.passed += 1
        else:
            why = EXPLAINED.get(name)
            checks.check(why, f"{name}" + (f" (explained: {why})" if why else " fails here and passes with Envoy"))
    for name in EXPLAINED:
        checks.check(not ours.get(name, True), f"{name} still needs its explanation")
    failing = [sum(not passed for passed in cases.values()) for cases in (ours, theirs)]
    print(f"   failing: {failing[0]} here, {failing[1]} with Envoy", flush=True)
    checks.finish()


asyncio.run(main())

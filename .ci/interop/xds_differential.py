"""What a control plane sees of a proxy: the same conversations with Legate and with the real Envoy, compared.

A scripted control plane answers nothing by itself. Each step of a scenario sends responses (or ends streams) and then
notes what the proxy said until it fell silent: type, version, nonce, names, node, error. The notes of both must be the
same, step by step, and so must the statistics and versions that the proxy shows at the end.
"""

import argparse
import asyncio
import difflib
import shutil
import time

from peers import Checks, Proxy
from xds_plane import Broken
from xds_scenarios import SCENARIOS, files
from xds_subject import BROKEN, Files, Subject

# What differs on purpose, with the reason in docs/compatibility.md ("xDS").
KNOWN = {
    "warming/delta-ads": lambda line: line == "  DeltaAggregatedResources EDS node +['a'] -[] nonce=''",
}
# A proxy that says nothing for so long has said all it had to. Who differs gets more time: the machine may be slow.
QUIET = (0.4, 1.5, 4.0)
# Seconds within which a proxy opens its first stream.
CONNECTS_WITHIN = 30
VARIANTS = {"ads": ("GRPC", False), "delta-ads": ("DELTA_GRPC", False), "streams": ("GRPC", True), "delta-streams": ("DELTA_GRPC", True)}


async def run_files(binary, options, patience):
    """What a proxy shows of its files, step by step."""
    subject = Files(options, patience)
    script = files(subject)
    title = await anext(script)
    with Proxy(binary, subject.bootstrap()) as proxy:
        subject.proxy = proxy
        while title is not None and proxy.process.poll() is None:
            await subject.step(title)
            title = await anext(script, None)
        ended(subject, proxy)
    shutil.rmtree(subject.directory)
    return [line.replace(str(port), "<port>") for line in subject.steps for port in [subject.port("in")]]


async def run(binary, variant, scenario, options, patience):
    """What a proxy does in a scenario, step by step."""
    subject = Subject(*VARIANTS[variant], options, patience)
    await subject.plane.start()
    with Proxy(binary, subject.bootstrap()) as proxy:
        subject.proxy = proxy
        give_up = time.monotonic() + CONNECTS_WITHIN
        while not subject.plane.opened:
            if proxy.process.poll() is not None or time.monotonic() > give_up:
                return [f"{BROKEN} it did not connect: {proxy.log.read_text(errors='replace')[-300:]}"]
            await asyncio.sleep(0.05)
        try:
            await scenario(subject)
            await subject.state()
        except Broken as why:
            subject.steps.append(f"{BROKEN} {why}")
        finally:
            await subject.plane.stop()
        ended(subject, proxy)
    return subject.steps


def ended(subject, proxy):
    """Notes that the proxy is not there any more."""
    if proxy.process.poll() is not None:
        subject.steps.append(f"{BROKEN} the proxy ended with {proxy.process.returncode}: {proxy.log.read_text(errors='replace')[-300:]}")


def agree(envoy, ours):
    """Whether both said the same in a whole conversation: two that broke off in the same way say nothing."""
    return envoy == ours and not any(line.startswith(BROKEN) for line in envoy)


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
            if args.show and runs:
                print("\n".join(runs[0]))
            for variant in [variant for variant, (envoy, ours) in pairs.items() if agree(envoy, ours)]:
                checks.check(True, f"{name}/{variant}")
                variants.remove(variant)
        for variant in variants:
            checks.check(False, f"{name}/{variant}")
            show(*pairs[variant])
    if args.only in "files":
        for patience in QUIET:
            envoy, ours = await asyncio.gather(*(run_files(binary, {}, patience) for binary in (args.envoy, args.proxy)))
            if agree(envoy, ours):
                break
        checks.check(agree(envoy, ours), "files")
        if not agree(envoy, ours):
            show(envoy, ours)
    checks.finish()


def show(envoy, ours):
    """What differs, or what broke where nothing differs."""
    differing = difflib.unified_diff(envoy, ours, "envoy", "legate", lineterm="", n=1)
    print("\n".join([*differing] or [line for line in envoy if line.startswith(BROKEN)]), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

"""Secrets that are discovered: the same conversations with Legate and with the real Envoy, compared.

What is said on the wire with every word, whom the proxies serve and trust after each step, what their logs, statistics and
admin pages tell: all of it must be the same.
"""

import argparse
import asyncio
import difflib

from peers import Checks, Proxy
from sds_peers import Pki
from sds_scenarios import SCENARIOS
from sds_subject import Secrets
from xds_differential import agree, ended
from xds_plane import Broken
from xds_subject import BROKEN

# A proxy that says nothing for so long has said all it had to. Who differs gets more time: the machine may be slow.
QUIET = (0.6, 1.5, 4.0)
# Where secrets come from: how, in which dialect, and whether on streams of their own.
VARIANTS = {
    "ads": ("tcp", "GRPC", False), "delta-ads": ("tcp", "DELTA_GRPC", False),
    "own": ("tcp", "GRPC", True), "delta-own": ("tcp", "DELTA_GRPC", True),
    "unix": ("unix", "GRPC", True), "files": ("files", "GRPC", True),
}


async def run(binary, variant, scenario, options, patience, pki):
    """What a proxy does in a scenario, step by step."""
    subject = Secrets(*VARIANTS[variant], options, patience, pki)
    await subject.plane.start()
    if subject.transport == "files":
        for name in ("server", "trust", "client", "up_trust", "tickets"):
            subject.write(name)
    with Proxy(binary, subject.bootstrap(), "--file-flush-interval-msec", "20") as proxy:
        subject.proxy = proxy
        try:
            await subject.started()
            await scenario(subject)
        except Broken as why:
            subject.steps.append(f"{BROKEN} {why}")
        finally:
            await subject.plane.stop()
            subject.close()
        ended(subject, proxy)
    return subject.steps


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--envoy", required=True)
    parser.add_argument("--only", default="", help="scenarios and variants whose name contains this")
    parser.add_argument("--quick", action="store_true", help="do not try again what differs")
    parser.add_argument("--show", action="store_true", help="print what Envoy did")
    args = parser.parse_args()
    checks, pki = Checks("secrets"), Pki()
    for name, (scenario, variants, options) in SCENARIOS.items():
        left = [variant for variant in variants if args.only in f"{name}/{variant}"]
        for patience in QUIET[: 1 if args.quick else None]:
            runs = await asyncio.gather(*(run(binary, variant, scenario, options, patience, pki)
                                          for variant in left for binary in (args.envoy, args.proxy)))
            pairs = dict(zip(left, zip(runs[::2], runs[1::2])))
            for variant, (envoy, ours) in pairs.items():
                if args.show:
                    print("\n".join(envoy))
                if agree(envoy, ours):
                    checks.check(True, f"{name}/{variant}")
                    left.remove(variant)
        for variant in left:
            checks.check(False, f"{name}/{variant}")
            show(*pairs[variant])
    pki.close()
    checks.finish()


def show(envoy, ours):
    """What differs, below the steps it differs in."""
    title = ""
    for line in difflib.ndiff(envoy, ours):
        if line.startswith("  #"):
            title = line[2:]
        elif not line.startswith(("  ", "?")):
            print(*[title] if title else [], line[:400], sep="\n", flush=True)
            title = ""
    print("\n".join(line for line in envoy if line.startswith(BROKEN)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

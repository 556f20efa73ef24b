"""What samples mean: medians, spread, ratios within a round, and the gates."""

import statistics

UNITS = {"cpu_us": "CPU us/request", "p50_us": "p50 us", "p99_us": "p99 us", "rss_mb": "MB resident",
         "start_mb": "MB at start", "idle_kb": "KB/idle connection", "ready_ms": "ms to ready", "rate": "requests/s"}

# What DESIGN asks: scenario, measure, the other side of the ratio, most.
GATES = [
    ("h1-64", "cpu_us", "envoy", 0.40), ("h1-64", "cpu_us", "haproxy", 1.00),
    ("h1-1", "cpu_us", "envoy", 0.40), ("h1-512", "cpu_us", "envoy", 0.30),
    ("h2-16x10", "cpu_us", "envoy", 0.40), ("h2-1x10", "cpu_us", "envoy", 0.60),
    ("fixed-rate", "cpu_us", "envoy", 0.50), ("fixed-rate", "p99_us", "envoy", 1.00),
    ("idle-2000", "start_mb", "envoy", 0.35), ("idle-2000", "idle_kb", "envoy", 0.60),
    ("routes", "cpu_us", "legate-10", 1.50), ("header-routes", "cpu_us", "legate-10", 5.00),
    ("clusters-1000", "ready_ms", "envoy", 2.00), ("clusters-1000", "rss_mb", "envoy", 1.00),
]


def print_scenario(name, samples):
    """Medians with their range, a line a subject."""
    print(f"\n{name}")
    for subject, rows in samples.items():
        cells = []
        for key in rows[0]:
            if key in UNITS:
                values = [row[key] for row in rows]
                cells.append(f"{statistics.median(values):9.2f} [{min(values):.2f}..{max(values):.2f}] {UNITS[key]}")
        print(f"  {subject:12}", "  ".join(cells))
    ours = next(iter(samples))
    for other in list(samples)[1:]:
        cells = [f"{key} {show(ratio(samples, ours, other, key))}" for key in samples[ours][0]
                 if key in UNITS and key in samples[other][0] and key != "rate"]
        print(f"  {ours}/{other}:", "  ".join(cells), flush=True)


def ratio(samples, ours, other, key):
    """The median of the ratios within each round, and their range; `None` where there is none."""
    pairs = zip(samples.get(ours, []), samples.get(other, []))
    ratios = [a[key] / b[key] for a, b in pairs if a.get(key) is not None and b.get(key)]
    return (statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def show(found):
    return "-" if found is None else f"{found[0]:.2f}x [{found[1]:.2f}..{found[2]:.2f}]"


def print_gates(results):
    """A Markdown table of the gates this run can say something about; whether all of them hold."""
    rows = []
    for scenario, key, other, most in GATES:
        samples = results.get(scenario, {})
        ours = next(iter(samples), None)
        found = ratio(samples, ours, other, key)
        if found:
            rows.append((f"| {scenario} | {UNITS[key]} | {ours}/{other} | {show(found)} | <= {most:.2f}x |", found[0] <= most))
    if rows:
        print("\n| scenario | measure | of | ratio [range] | gate | |\n|---|---|---|---|---|---|")
        for row, holds in rows:
            print(row, "holds |" if holds else "MISSED |")
    return all(holds for _, holds in rows)

"""Rules that look at the whole pool, over millions of rows of scores: seconds and peak memory. Markdown.

    python benchmarks/bench_rules.py --rows 128000000

The table is made up in memory: uids, clusters (sqrt n of them, unequal), scores; it holds what `select` reads of the
files for the rule and nothing else. Then the rule is fitted to it and asked for its mask, 200,000 rows at a time, as
`select` does. Each rule has a process of its own; the peak is that of the process, the table in it. Reading the
files, which `bench_select.py` measures, is not in the seconds.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import polars as pl

from mmfilter.rules import build_rule
from mmfilter.table import GROUP

RULES: dict[str, dict[str, Any]] = {
    "fraction": {"fraction": {"score": "s", "keep": 0.3}},
    "probability": {"probability": {"score": "s"}},
    "cluster_quota": {"cluster_quota": {"share": 0.3, "score": "s"}},
    "balanced": {"balanced": {"keep": 0.135}},
    "prototypes": {"prototypes": {"keep": 0.8, "score": "s"}},
    "density_based": {"density_based": {"keep": 0.404, "score": "s"}},
    "ensemble": {"ensemble": {"scores": ["s", "t"], "keep": 0.3}},
}


def table(rows: int, needs: frozenset[str]) -> pl.DataFrame:
    """The columns that a rule asks for."""
    rng = np.random.default_rng(0)
    k = round(rows**0.5)
    made = {
        "uid_hi": lambda: rng.integers(0, 2**64, rows, np.uint64),
        "uid_lo": lambda: rng.integers(0, 2**64, rows, np.uint64),
        "s": lambda: rng.random(rows, np.float32),
        "t": lambda: rng.random(rows, np.float32),
        "cluster_id": lambda: (k * rng.random(rows, np.float32) ** 2).astype(np.int32),
        "cluster_separation": lambda: rng.random(rows, np.float32),
    }
    return pl.DataFrame({name: make() for name, make in made.items() if name in needs | {"uid_hi", "uid_lo"}})


def work(name: str, rows: int) -> None:
    """One rule in this process; prints what it took."""
    rule = build_rule(RULES[name], "benchmark")
    pool = table(rows, rule.needs)
    started, cpu = time.perf_counter(), time.process_time()
    fitted = rule.fit(pool)
    kept = sum(int(fitted.mask(pool.slice(at, GROUP)).sum()) for at in range(0, rows, GROUP))
    spent = {"seconds": round(time.perf_counter() - started, 1), "cpu": round(time.process_time() - cpu, 1)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({**spent, "table": pool.estimated_size() / 2**30, "peak": peak, "kept": kept}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=12_800_000)
    parser.add_argument("--only", nargs="*", choices=RULES)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        return work(asked.work, asked.rows)
    print(f"{asked.rows:,} rows\n\n| rule | seconds | of a core | table GiB | peak GiB | kept |", flush=True)
    print("|---" * 6 + "|", flush=True)
    for name in asked.only or RULES:
        command = [sys.executable, __file__, "--rows", str(asked.rows), "--work", name]
        done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        numbers = f"{done['seconds']} | {done['cpu']} | {done['table']:.2f} | {done['peak']:.2f} | {done['kept']:,}"
        print(f"| `{name}` | {numbers} |", flush=True)


if __name__ == "__main__":
    main()

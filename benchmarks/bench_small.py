"""A small job as a person starts it: the command in a process of its own, without Ray and with it, start included.

    python benchmarks/bench_small.py [--samples 500] [--rounds 3]

A generated pool and the recipe `demo`. Both ways are timed in turn, and their results compared byte for byte.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from mmfilter.synth import SynthOptions, generate

WAYS = {"as the estimate decides": [], "one worker on Ray": ["--workers", "1"]}
RESULTS = {".parquet", ".npz", ".npy", ".tar"}


def seconds(pool: Path, out: Path, more: list[str]) -> float:
    """Of `mmfilter run demo`, from its start to its end."""
    words = ["run", "demo", "--pool", str(pool), "--out", str(out), "--quiet", *more]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "mmfilter", *words], check=True, capture_output=True)
    return time.perf_counter() - started


def contents(out: Path) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.suffix in RESULTS)
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder) / "pool"
        generate(str(pool), SynthOptions(options.samples, per_shard=500))
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(options.rounds):
            outs = [Path(folder) / f"{number}-{at}" for at in range(len(WAYS))]
            for out, (way, more) in zip(outs, WAYS.items(), strict=True):
                times[way].append(seconds(pool, out, more))
            assert contents(outs[0]) == contents(outs[1]), "the two ways gave other bytes"
    print(f"| {options.samples:,} samples | seconds, median of {options.rounds} | least to most |")
    print("|---|---|---|")
    for way, values in times.items():
        print(f"| {way} | {median(values):.1f} | {min(values):.1f} to {max(values):.1f} |")


if __name__ == "__main__":
    main()

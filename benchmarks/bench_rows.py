"""Single embeddings out of a pool: `Vectors.take` beside files that are mapped and stay so. Markdown.

    python benchmarks/bench_rows.py --rows 1000000 --folder /tmp/rows

Rows of `bench_dedup.py`'s generated pool in random order, in lots of 10, 1,024 and 16,384, each row once. Each run is
a process of its own: cold after the system let go of the pool's pages (posix_fadvise), warm right after itself.
"read" is what came from the disk (/proc/self/io), "mapped" the largest RssFile beyond that before. The plain
way is numpy's memmap of every shard, opened once.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from glob import glob

import numpy as np
from bench_dedup import SHARD, generate

from index.vectors import open_vectors, unit

LOTS = {10: 300, 1024: 8, 16_384: 2}  # rows of a lot, and how many lots


def ours(folder: str) -> Callable[[np.ndarray], np.ndarray]:
    vectors = open_vectors(folder, "b32")
    for i in range(len(vectors.stems)):
        vectors.shard(i)  # its header is known from here on
    return vectors.take


def plain(folder: str) -> Callable[[np.ndarray], np.ndarray]:
    vectors = open_vectors(folder, "b32")
    shards = [vectors.shard(i) for i in range(len(vectors.stems))]

    def take(positions: np.ndarray) -> np.ndarray:
        rows = np.empty((len(positions), vectors.dim), np.float32)
        shard = positions // SHARD
        for i in np.unique(shard):
            rows[shard == i] = shards[i][positions[shard == i] - i * SHARD]
        return unit(rows)

    return take


def field(path: str, name: str) -> int:
    with open(path) as file:
        return int(next(line.split()[1] for line in file if line.startswith(name)))


def run(way: str, folder: str, lot: int, cold: bool) -> dict[str, float]:
    """One way's lots: microseconds a row, MB read from the disk, MB mapped."""
    before = field("/proc/self/status", "RssFile")
    take = {"ours": ours, "plain": plain}[way](folder)
    n = len(open_vectors(folder, "b32"))
    lots = np.random.default_rng(lot).permutation(n)[: lot * LOTS[lot]].reshape(-1, lot)
    if cold:
        for path in glob(f"{folder}/*.npz"):
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
    else:
        for positions in lots:
            take(positions)
    read, mapped = field("/proc/self/io", "read_bytes"), 0
    seconds = 0.0
    for positions in lots:
        started = time.perf_counter()
        take(positions)
        seconds += time.perf_counter() - started
        mapped = max(mapped, field("/proc/self/status", "RssFile") - before)
    return {
        "us": seconds / lots.size * 1e6,
        "read": (field("/proc/self/io", "read_bytes") - read) / 1e6,
        "mapped": mapped / 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    pool = f"{args.folder}/{args.rows}x{args.dim}"
    if args.run:
        way, lot, state = args.run
        print(json.dumps(run(way, pool, int(lot), state == "cold")))
        return
    if not os.path.exists(pool):
        generate(pool, args.rows, args.dim, 0.5)
    print("| cache | rows a lot | way | us a row | MB wanted | MB read | MB mapped |\n|---|---|---|---|---|---|---|")
    for state in ("cold", "warm"):
        for lot, lots in LOTS.items():
            for way in ("plain", "ours"):
                command = [sys.executable, __file__, "--rows", str(args.rows), "--dim", str(args.dim)]
                command += ["--folder", args.folder, "--run", way, str(lot), state]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                row = (state, f"{lot:,}", way, f"{found['us']:.1f}", f"{lot * lots * args.dim * 2 / 1e6:.1f}")
                print("|", " | ".join([*row, f"{found['read']:.0f}", f"{found['mapped']:.0f}"]), "|", flush=True)


if __name__ == "__main__":
    main()

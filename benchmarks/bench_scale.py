"""Scores of a whole pool, over millions of rows: seconds and peak memory. Markdown.

    python benchmarks/bench_scale.py --rows 1000000 --folder /tmp/scale
    python benchmarks/bench_scale.py --folder /tmp/scale --only duplicates 'negclip: {model: b32, rounds: 1}'
    python benchmarks/bench_scale.py --rows 16000000 --folder /tmp/scale --captions

The pool is `bench_dedup.py`'s generated rows with captions and their embeddings, 20 GB on disk for 10 million x 512;
with --captions, and for the scores that count them, captions alone, a fifth of which repeat, beside URLs and hashes.
Each score is computed through the door that `mmfilter score` goes through, columns written, in a process of its own.
"Of a core" are processor seconds: on a busy machine the clock tells little. Memory is the largest sum of the
proportional set sizes of that process and its Ray workers; "own" is without what is mapped from files, which the
kernel takes back where memory is short. --only takes names of the table below or a recipe's own words.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from bench_dedup import SHARD, WORDS, Peak, captions, generate

ITEMS = 100  # of the target
TO = {"name": "t", "model": "b32"}
SCORES: dict[str, dict[str, Any]] = {
    "target": {"target": TO},
    "norm_sim, p inf": {"norm_sim": TO},
    "norm_sim, p 2": {"norm_sim": {**TO, "p": 2}},
    "round_robin, a tenth": {"round_robin": {**TO, "take": 0.1}},
    "target_clusters, 50, fid": {"target_clusters": {**TO, "k": 50, "measure": "fid"}},
    "duplicates": {"duplicates": {"model": "b32", "exact": False}},
    "overlap": {"overlap": {"model": "b32", "exact": False}},
    "clusters": {"clusters": {"model": "b32"}},
    "quantization": {"quantization": {"model": "b32"}},
    "caption_agreement": {"caption_agreement": {"model": "b32"}},
    "negclip": {"negclip": {"model": "b32"}},
}
CAPTIONS: dict[str, dict[str, Any]] = {
    "repeats": {"repeats": {}},
    "repeated_pairs": {"repeated_pairs": {}},
    "token_frequency": {"token_frequency": {}},
    "metaclip": {"metaclip": {"tail": 0.06}},
}
ENTRIES = 500_000  # as MetaCLIP has


def prepare(folder: str, rows: int, dim: int) -> None:
    """The pool, and beside it a target of `ITEMS` items: rows of the pool and noise."""
    if os.path.exists(f"{folder}/done"):
        return
    generate(f"{folder}/pool", rows, dim, 0.5, texts=True)
    os.makedirs(f"{folder}/target", exist_ok=True)
    rng = np.random.default_rng(1)
    with np.load(f"{folder}/pool/00000000.npz") as npz:
        items = npz["b32_img"][:ITEMS] + rng.normal(0, 0.5 / np.sqrt(dim), (min(ITEMS, rows), dim))
    np.savez(f"{folder}/target/00000000.npz", b32_img=items.astype(np.float16))
    names = [f"{i:032x}" for i in range(len(items))]
    pq.write_table(pa.table({"uid": names}), f"{folder}/target/00000000.parquet")
    open(f"{folder}/done", "w").close()


def prepare_captions(folder: str, rows: int) -> None:
    """Shards of uid, text, url, sha256, and a list of entries: all words, and pairs of the more frequent."""
    if os.path.exists(f"{folder}/done"):
        return
    os.makedirs(f"{folder}/pool", exist_ok=True)
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(_captions, [(folder, shard, rows) for shard in range(-(-rows // SHARD))]))
    words = [f"w{i:x}" for i in range(WORDS)]
    side = round((ENTRIES - WORDS) ** 0.5)
    pairs = [f"{a} {b}" for a in words[:side] for b in words[:side]]
    with open(f"{folder}/entries.json", "w") as stream:
        json.dump([*words, *pairs], stream)
    open(f"{folder}/done", "w").close()


def _captions(task: tuple[str, int, int]) -> None:
    folder, shard, rows = task
    n = min(SHARD, rows - shard * SHARD)
    rng = np.random.default_rng([7, shard])
    common = captions(np.random.default_rng(7), 1000)  # the same in all shards: a fifth of the rows has one of these
    texts = captions(rng, n)
    for row in np.flatnonzero(rng.random(n) < 0.2).tolist():
        texts[row] = common[row % len(common)]
    image = rng.integers(0, max(rows * 9 // 10, 1), n)
    columns = {
        "uid": [bytes(row).hex() for row in rng.integers(0, 256, (n, 16), dtype=np.uint8)],
        "text": texts,
        "url": [f"https://example.com/{i:x}.jpg" for i in image.tolist()],
        "sha256": [hashlib.sha256(str(i).encode()).hexdigest() for i in image.tolist()],
    }
    pq.write_table(pa.table(columns), f"{folder}/pool/{shard:08d}.parquet")


def work(folder: str, node: dict[str, Any], workers: int) -> None:
    """One score in this process; prints what it took."""
    from jobs.cluster import Width
    from jobs.pool_scores import add_pool_scores, mapper
    from mmfilter.plugs import PoolScore
    from mmfilter.scores import build_score

    width = Width(workers=workers, gpus=0)
    name, fields = next(iter(node.items()))
    fields = dict(fields)
    fields |= {"path": f"{folder}/target"} if "name" in fields else {}
    fields |= {"against": f"{folder}/target"} if name == "overlap" else {}
    fields |= {"entries": f"{folder}/entries.json"} if name == "metaclip" else {}
    score = build_score({name: fields}, "benchmark")
    assert isinstance(score, PoolScore)
    out = f"{folder}/out-{os.getpid()}"
    mapper(width, "start")(len, [[]])  # Ray and its workers
    try:
        with Peak() as peak:
            started = time.perf_counter()
            add_pool_scores([score], out, width, f"{folder}/pool")
            seconds = time.perf_counter() - started
    finally:
        shutil.rmtree(out, ignore_errors=True)
    print(
        json.dumps(
            {
                "seconds": round(seconds, 1),
                "cpu": round(peak.cpu),
                "peak": round(peak.gib, 2),
                "own": round(peak.own, 2),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--only", nargs="*", help="of: " + "; ".join([*SCORES, *CAPTIONS]))
    parser.add_argument("--captions", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    kind = "captions" if asked.captions else f"x{asked.dim}"
    folder = os.path.join(os.path.abspath(asked.folder), f"{asked.rows}{kind}")
    if asked.work:
        return work(folder, json.loads(asked.work), asked.workers)
    if asked.captions:
        prepare_captions(folder, asked.rows)
        print(f"{asked.rows:,} captions; {asked.workers} workers\n", flush=True)
    else:
        prepare(folder, asked.rows, asked.dim)
        stored = asked.rows * asked.dim * 2 / 2**30
        print(f"{asked.rows:,} x {asked.dim}, {stored:.1f} GiB a side in fp16; {asked.workers} workers\n", flush=True)
    print("| score | seconds | of a core | peak GiB | of it own |\n|---|---|---|---|---|", flush=True)
    known = CAPTIONS if asked.captions else SCORES
    for name in asked.only or known:
        node = known.get(name) or yaml.safe_load(name)
        command = [sys.executable, __file__, *sys.argv[1:], "--work", json.dumps(node)]
        for _ in range(5):
            done = subprocess.run(command, capture_output=True, text=True)
            if "timed out during startup" not in done.stderr:  # Ray waits for itself 30 seconds, few on a busy machine
                break
        if done.returncode:
            print(f"| {name} | failed: {done.stderr.strip().splitlines()[-1:]} | | | |", flush=True)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"| {name} | {' | '.join(str(value) for value in found.values())} |", flush=True)


if __name__ == "__main__":
    main()

"""What checking costs: writing shards, selecting from them and scanning their embeddings, against an older version.

    python benchmarks/bench_integrity.py --before CHECKOUT --shards 100

Both versions do the same work on files that each wrote itself, alternately, each run in a process of its own; the
figures are the least processor seconds of `--times` runs, which a busy machine disturbs least, and their ratio.
Shards are of 10,000 rows as img2dataset's: uid, caption, url, two scores, and two arrays of 512 float16.

write     metadata and commit of each shard, from values in memory (of an embedding it is the last step)
select    the top 30 % by a score, without decisions, and `decisions` with them
scan      all embeddings once, as an index, clusters and duplicates read them
index     a kNN index of the embeddings, built anew
embed     a generated pool of 1,000 samples with the packaged model, in one process; most of the work of a real model
          is missing from it, so that the share of everything else is larger than it is for one
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROWS, WIDTH = 10_000, 512
SCORES = ("clip_b32_similarity_score", "image_score")


def write(out: str, shards: int) -> float:
    """Write the shards' files and commits; returns processor seconds without the making of the values."""
    import numpy as np
    import pyarrow as pa

    from mmfilter.sidecar import Stored, write_commit, write_stored

    spent = 0.0
    for number in range(shards):
        rng = np.random.default_rng(number)
        digits = rng.bytes(16 * ROWS).hex()
        uids = [digits[i : i + 32] for i in range(0, 32 * ROWS, 32)]
        columns = {
            "uid": uids,
            "url": [f"https://host/{uid}.jpg" for uid in uids],
            "text": [f"a caption of {uid[:8]} and {uid[8:13]}" for uid in uids],
            "original_width": np.full(ROWS, 640),
            "original_height": np.full(ROWS, 480),
            "face_bboxes": pa.array([None] * ROWS, pa.list_(pa.list_(pa.float64()))),
            "sha256": [2 * uid for uid in uids],
            "key": [f"{row:09d}" for row in range(ROWS)],
            "offset": np.arange(ROWS) * 1000,
            "size": np.full(ROWS, 900),
            **{name: rng.normal(0.2, 0.06, ROWS).astype(np.float32) for name in SCORES},
        }
        rows = rng.normal(size=(2, ROWS, WIDTH)).astype(np.float16)
        stored = Stored(pa.table(columns), {"b32_img": rows[0], "b32_txt": rows[1]})
        counts = {"read": ROWS, "ok": ROWS, "failed": {}}
        commit = {"shard": f"{number:08d}", "path": "p", "input": {"bytes": 1}, "counts": counts, "parts": {"read": {}}}
        started = time.process_time()
        vouched = write_stored(out, f"{number:08d}", stored, []) or {}
        write_commit(out, f"{number:08d}", {**commit, **vouched})
        spent += time.process_time() - started
    return spent


def select(out: str, decisions: bool) -> float:
    """Select the top 30 %; returns processor seconds."""
    from mmfilter.rules import build_rule
    from mmfilter.select import SelectOptions
    from mmfilter.select import select as run
    from mmfilter.table import open_table

    rule = build_rule({"fraction": {"score": SCORES[0], "keep": 0.3}}, "select")
    started = time.process_time()
    run(open_table(out), rule, SelectOptions(out, "bench", decisions=decisions))
    return time.process_time() - started


def scan(out: str) -> float:
    """Read all embeddings in blocks of unit rows; returns processor seconds."""
    from index.vectors import open_vectors

    started = time.process_time()
    for _ in open_vectors(out, "b32").blocks():
        pass
    return time.process_time() - started


def index(out: str) -> float:
    """Build an index; returns processor seconds."""
    from index.build import IndexOptions, build_index

    started = time.process_time()
    build_index(out, IndexOptions("b32", fresh=True), lambda function, tasks: [function(task) for task in tasks])
    return time.process_time() - started


def embed(out: str) -> float:
    """Embed a generated pool into a folder that is removed; returns processor seconds."""
    from jobs.cluster import Width
    from jobs.embed import embed_pool
    from mmfilter.recipe import load_recipe
    from mmfilter.synth import SynthOptions, generate

    with tempfile.TemporaryDirectory() as folder:
        generate(os.path.join(folder, "pool"), SynthOptions(1000, 250))
        paths = [os.path.join(folder, "pool", f"{n:08d}.tar") for n in range(4)]
        started = time.process_time()
        embed_pool(load_recipe("demo"), paths, os.path.join(folder, "out"), Width(local=True))
        return time.process_time() - started


def measure(code: str, job: str, out: str, shards: int) -> float:
    """One run of a version in a process of its own."""
    command = [sys.executable, os.path.abspath(__file__), "--job", job, "--out", out, "--shards", str(shards)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": code}, cwd=code
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="a checkout of the version to compare with")
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--jobs", help="these alone, by commas, after `write`")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    args = parser.parse_args()
    jobs = {
        "write": lambda: write(args.out, args.shards),
        "select": lambda: select(args.out, False),
        "decisions": lambda: select(args.out, True),
        "scan": lambda: scan(args.out),
        "index": lambda: index(args.out),
        "embed": lambda: embed(args.out),
    }
    if args.job:
        print(json.dumps(jobs[args.job]()))
        return
    now = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    print(f"{args.shards} shards of {ROWS:,} rows, {os.cpu_count()} cores, {platform.machine()}; processor seconds")
    print(f"{'':<12}{'before':>10}{'now':>10}{'ratio':>8}{'median of ratios':>18}")
    with tempfile.TemporaryDirectory() as folder:
        for job in args.jobs.split(",") if args.jobs else jobs:
            spent = [
                [measure(code, job, os.path.join(folder, name), args.shards) for name, code in versions]
                for versions in [[("before", os.path.abspath(args.before)), ("now", now)]] * args.times
            ]
            before, after = (min(row[side] for row in spent) for side in (0, 1))
            middle = statistics.median(row[1] / row[0] for row in spent)
            print(f"{job:<12}{before:>10.2f}{after:>10.2f}{after / before:>8.2f}{middle:>18.2f}", flush=True)


if __name__ == "__main__":
    main()

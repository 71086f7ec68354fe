"""Select over DataComp-like metadata: DataComp's way (pandas, file by file, Python a row) and ours. One table.

    python benchmarks/bench_select.py --rows 1280000
    python benchmarks/bench_select.py --rows 128000000 --scores-only    # memory; uids and one score

Files are of 10,000 rows, as img2dataset's shards are, with the columns that the rules read (a real pool's
have url, sha256 and face_bboxes too; neither way reads those). Both are given the same language column; in
"basic_filter + language" theirs finds the language anew, as its script does on every run, where ours has stored it.
DataComp's way runs on the first `--their-files` files and is scaled by rows; it is one process, as its
scripts are at one worker, and ours uses threads: so the ratio of processor seconds, which a busy machine
does not touch, is printed beside that of the clock. Each run is a process of its own, so that the peak memory
is its own; ours includes writing the subset and its record, and with "decisions" every sample's verdict too,
which theirs does not know.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 10_000  # a file
L14 = "clip_l14_similarity_score"
BASIC = {
    "all": [
        {"language": {"is": "en"}},
        {"caption": {"min_words": 3, "min_chars": 6}},
        {"image": {"min_side": 200, "max_aspect": 3.0}},
    ]
}
RECIPES = {
    "basic_filter": BASIC,
    "basic_filter + language": BASIC,
    "clip_score": {"fraction": {"score": L14, "keep": 0.3, "compat": "datacomp"}},
    "clip_score, exact": {"fraction": {"score": L14, "keep": 0.3}},
}
WORDS = ["photo", "of", "the", "red", "dog", "vintage", "leather", "bag", "new", "2015", "in", "women's", "steel"]


def generate(folder: str, rows: int, scores_only: bool) -> None:
    """Files of `ROWS` rows; captions of 1 to 20 words, a third of the pool English."""
    captions = [" ".join(np.random.default_rng(i).choice(WORDS, 1 + i % 20)) for i in range(50_000)]
    for number in range(-(-rows // ROWS)):
        rng = np.random.default_rng(number)
        n = min(ROWS, rows - number * ROWS)
        digits = rng.bytes(16 * n).hex()
        columns: dict[str, Any] = {"uid": [digits[i : i + 32] for i in range(0, 32 * n, 32)]}
        columns[L14] = rng.normal(0.2, 0.06, n).astype(np.float32)
        if not scores_only:
            columns["text"] = [captions[i] for i in rng.integers(0, len(captions), n)]
            columns["original_width"], columns["original_height"] = rng.integers(50, 1500, (2, n))
            columns["language"] = rng.choice(["en", "de", "zh"], n)
        path = os.path.join(folder, f"{number:08d}.parquet")
        pq.write_table(pa.table(columns), path, use_dictionary=["language"] if not scores_only else False)


def uid_pair(uid: str) -> tuple[int, int]:
    return int(uid[:16], 16), int(uid[16:32], 16)


def their_basic(paths: list[str]) -> int:
    """Every caption split and every uid parsed, kept or not, as their script does."""
    import pandas as pd

    kept = []
    for path in paths:
        frame = pd.read_parquet(path, columns=["uid", "text", "original_width", "original_height", "language"])
        words = frame["text"].apply(lambda text: len(text.split()))
        characters = frame["text"].apply(lambda text: len(text))
        number = frame["uid"].apply(int, base=16)
        hi, lo = (number // 2**64).astype("uint64"), (number % 2**64).astype("uint64")
        uids = np.array(list(zip(hi, lo, strict=True)), np.dtype("u8,u8"))
        small = np.minimum(frame["original_width"], frame["original_height"])
        large = np.maximum(frame["original_width"], frame["original_height"])
        mask = (frame["language"] == "en") & (words > 2) & (characters > 5) & (small >= 200) & (large / small <= 3.0)
        kept.append(uids[mask])
    return len(np.sort(np.concatenate(kept)))


def their_basic_with_language(paths: list[str]) -> int:
    """As their script runs: the language model on every caption, too."""
    import pandas as pd

    from mmfilter.scores.language import Language

    for path in paths:
        Language()({"text": list(pd.read_parquet(path, columns=["text"])["text"])})
    return their_basic(paths)


def their_clip(paths: list[str]) -> int:
    import pandas as pd

    scores = pd.concat([pd.read_parquet(path, columns=[L14]) for path in paths])[L14].to_numpy()
    threshold = np.sort(scores)[::-1][int(len(scores) * 0.3)]
    kept = []
    for path in paths:
        frame = pd.read_parquet(path, columns=["uid", L14])
        pairs = [uid_pair(uid) for uid in frame["uid"][frame[L14] >= threshold]]
        kept.append(np.array(pairs, np.dtype("u8,u8")))
    return len(np.sort(np.concatenate(kept)))


THEIRS: dict[str, Callable[[list[str]], int]] = {
    "basic_filter": their_basic,
    "basic_filter + language": their_basic_with_language,
    "clip_score": their_clip,
}


def work(job: str, folder: str, files: int) -> None:
    """One run in this process; prints seconds, how many were kept, and the peak memory in GiB."""
    kind, _, recipe = job.partition(":")
    started, cpu = time.perf_counter(), time.process_time()
    if kind == "theirs":
        kept = THEIRS[recipe](sorted(os.path.join(folder, name) for name in os.listdir(folder))[:files])
    else:
        from mmfilter.rules import build_rule
        from mmfilter.select import SelectOptions, select
        from mmfilter.table import open_table

        with tempfile.TemporaryDirectory(dir=os.path.dirname(folder)) as out:
            started, cpu = time.perf_counter(), time.process_time()
            options = SelectOptions(out, "bench", decisions=kind == "decisions")
            kept = select(open_table(out, folder), build_rule(RECIPES[recipe], "select"), options).counts["kept"]
    spent = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({**spent, "kept": kept, "peak": peak}))


def measure(job: str, folder: str, files: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--work", job, "--folder", folder, "--their-files", str(files)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def report(folder: str, rows: int, files: int, scores_only: bool) -> None:
    theirs_rows = min(rows, files * ROWS)
    print(f"{rows:,} rows, {os.cpu_count()} cores, {platform.machine()}; DataComp's way on {theirs_rows:,}, scaled")
    head = ("DataComp, s", "ours, s", "ratio", "cpu ratio", "peak, GiB", "decisions, s", "kept")
    print(f"{'rule':<25}" + "".join(f"{title:>13}" for title in head))
    for name in RECIPES:
        if scores_only and name.startswith("basic_filter"):
            continue
        ours = measure(f"ours:{name}", folder, files)
        theirs = measure(f"theirs:{name.split(',')[0]}", folder, files)
        slow, cpu = (theirs[clock] * rows / theirs_rows for clock in ("seconds", "cpu"))
        decided = measure(f"decisions:{name}", folder, files)["seconds"]
        ratios = f"{slow / ours['seconds']:>12.1f}x{cpu / ours['cpu']:>12.1f}x"
        print(f"{name:<25}{slow:>13.1f}{ours['seconds']:>13.2f}{ratios}{ours['peak']:>13.2f}{decided:>13.2f}", end="")
        print(f"{ours['kept']:>13,}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_280_000)
    parser.add_argument("--their-files", type=int, default=32)
    parser.add_argument("--scores-only", action="store_true")
    parser.add_argument("--folder", help="where the files are kept between runs; default: a temporary folder")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(args.work, args.folder, args.their_files)
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.join(os.path.abspath(args.folder or temporary), f"rows-{args.rows}-{args.scores_only}")
        if not os.path.isdir(folder):
            os.makedirs(folder)
            generate(folder, args.rows, args.scores_only)
        report(folder, args.rows, args.their_files, args.scores_only)


if __name__ == "__main__":
    main()

"""A kNN index: exact search, the same factory by hand in plain FAISS, and ours. One table.

    python benchmarks/bench_index.py --rows 1000000 --folder WHERE

Embeddings are generated: 512 dimensions, 2,000 concepts of very unequal size, 64 directions in which all vary,
noise, and an offset that all images share. Captions are their images' rows with more noise and another offset, so
that queries by text lie where no image does. All queries are held out. Recall is recall@10 against exact search.

exact       IndexFlatIP over float32 in memory
by hand     FAISS's index of the factory that ours chose, trained on as many rows, all rows in memory, as many lists
            looked at, no second ranking
ours        `mmfilter index` in one process, and `KnnIndex.search`: codes in memory, embeddings where they lie

"batched" hands over 1,000 queries at once, "single" one after the other. Each way is a process of its own, so the
peak memory is its own. Unset OPENBLAS_CORETYPE where it is set: it slows exact search.
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

DIM, CONCEPTS, DIRECTIONS, SHARD, QUERIES = 512, 2000, 64, 10_000, 1000
Search = Callable[[np.ndarray], np.ndarray]
"""Queries (q, d) -> positions (q, 10)."""


def world() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "concepts": 0.7 * rng.normal(size=(CONCEPTS, DIM)),
        "directions": rng.normal(size=(DIRECTIONS, DIM)) / 8,
        "image": 0.8 * rng.normal(size=DIM),
        "text": 0.8 * rng.normal(size=DIM),
    }


def draw(number: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(images, captions), each float16 (n, DIM), of one shard."""
    have, rng = world(), np.random.default_rng(1000 + number)
    bare = have["concepts"][(rng.zipf(1.3, n) - 1) % CONCEPTS] + rng.normal(size=(n, DIRECTIONS)) @ have["directions"]
    bare += 0.4 * rng.normal(size=(n, DIM))
    sides = (bare + have["image"], bare + 0.7 * rng.normal(size=(n, DIM)) + have["text"])
    images, captions = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
    return images.astype(np.float16), captions.astype(np.float16)


def generate(folder: str, rows: int) -> None:
    os.makedirs(folder)
    for number in range(-(-rows // SHARD)):
        n = min(SHARD, rows - number * SHARD)
        images, captions = draw(number, n)
        digits = np.random.default_rng(number).bytes(16 * n).hex()
        uids = [digits[i : i + 32] for i in range(0, 32 * n, 32)]
        pq.write_table(pa.table({"uid": uids}), f"{folder}/{number:08d}.parquet")
        np.savez(f"{folder}/{number:08d}.npz", b32_img=images, b32_txt=captions)
    for name, queries in zip(("image", "text"), draw(-1, QUERIES), strict=True):
        np.save(f"{folder}/queries-{name}.npy", queries.astype(np.float32))


def everything(folder: str) -> np.ndarray:
    from index.vectors import open_vectors

    vectors = open_vectors(folder, "b32")
    rows = np.empty((len(vectors), DIM), np.float32)
    for at, block in vectors.blocks():
        rows[at : at + len(block)] = block
    return rows


def exact(folder: str) -> Search:
    import faiss

    index = faiss.IndexFlatIP(DIM)
    index.add(everything(folder))
    return lambda queries: np.asarray(index.search(queries, 10)[1])


def by_hand(folder: str) -> Search:
    import faiss

    from index.factory import Factory
    from index.knn import read_info, version_folder

    info = read_info(version_folder(folder, "b32-image"))
    text = info["factory"] + ("fs" if info["factory"].endswith("x4") else "")
    index: Any = faiss.index_factory(DIM, text, faiss.METRIC_INNER_PRODUCT)
    rows = everything(folder)
    training = Factory(info["factory"], info["lists"], 0).training
    index.train(rows[np.random.default_rng(0).choice(len(rows), min(training, len(rows)), replace=False)])
    index.add(rows)
    index.nprobe = info["nprobe"]
    return lambda queries: np.asarray(index.search(queries, 10)[1])


def ours(folder: str) -> Search:
    from index.build import IndexOptions, build_index
    from index.knn import open_index

    build_index(folder, IndexOptions("b32", fresh=True), lambda function, tasks: [function(task) for task in tasks])
    index = open_index(folder)
    return lambda queries: index.search(queries, 10)[0]


WAYS: dict[str, Callable[[str], Search]] = {"ours": ours, "exact": exact, "by hand": by_hand}


def work(way: str, folder: str, singles: int) -> None:
    """One way in this process; prints its figures and keeps what it found."""
    started = time.perf_counter()
    search = WAYS[way](folder)
    figures = {"build": time.perf_counter() - started}
    for side in ("image", "text"):
        queries = np.load(f"{folder}/queries-{side}.npy")
        search(queries[:8])
        started = time.perf_counter()
        np.save(f"{folder}/found-{way}-{side}.npy", search(queries))
        figures[f"batched {side}"] = len(queries) / (time.perf_counter() - started)
        started = time.perf_counter()
        for i in range(singles):
            search(queries[i : i + 1])
        figures[f"single {side}"] = singles / (time.perf_counter() - started)
    print(json.dumps({**figures, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


def recall(folder: str, way: str, side: str) -> float:
    truth, found = (np.load(f"{folder}/found-{name}-{side}.npy") for name in ("exact", way))
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(truth.tolist(), found.tolist(), strict=True)]))


def report(folder: str, rows: int) -> None:
    from index.knn import read_info, version_folder

    figures = {}
    for way in WAYS:
        singles = "20" if way == "exact" else "200"
        command = [sys.executable, __file__, "--work", way, "--folder", folder, "--singles", singles]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        figures[way] = json.loads(done.stdout.splitlines()[-1])
    info = read_info(version_folder(folder, "b32-image"))
    print(f"{rows:,} x {DIM}, {os.cpu_count()} cores, {platform.machine()}; {info['factory']}, nprobe {info['nprobe']}")
    print(f"index.json says: recall {info['recall']}, {sum(f['bytes'] for f in info['files'].values()) / 1e6:.0f} MB")
    head = ("build, s", "peak, GiB", "recall image", "recall text", "batched q/s", "x", "single q/s", "x")
    print(f"{'':<10}" + "".join(f"{title:>13}" for title in head))
    flat = figures["exact"]
    for way in ("exact", "by hand", "ours"):
        mine = figures[way]
        both = {kind: min(mine[f"{kind} {side}"] for side in ("image", "text")) for kind in ("batched", "single")}
        base = {kind: min(flat[f"{kind} {side}"] for side in ("image", "text")) for kind in ("batched", "single")}
        recalls = "".join(f"{recall(folder, way, side):>13.3f}" for side in ("image", "text"))
        speeds = "".join(f"{both[kind]:>13,.0f}{both[kind] / base[kind]:>12.1f}x" for kind in both)
        print(f"{way:<10}{mine['build']:>13.1f}{mine['peak']:>13.2f}{recalls}{speeds}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--folder", help="where the pool is kept between runs; default: a temporary folder")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--singles", type=int, default=200, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(args.work, args.folder, args.singles)
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.join(os.path.abspath(args.folder or temporary), f"vectors-{args.rows}")
        if not os.path.isdir(folder):
            generate(folder, args.rows)
        report(folder, args.rows)


if __name__ == "__main__":
    main()

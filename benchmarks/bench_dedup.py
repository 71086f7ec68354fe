"""Semantic dedup of generated embeddings: ours against the authors' algorithm in the plainest numpy.

    python benchmarks/bench_dedup.py --rows 1000000 --folder /tmp/dedup

Both compare the same clusters of the same rows, read from the same npz files. The plain one is run on some
of the clusters and its time scaled by the pairs that are left; on those the answers are compared.
"""

import argparse
import json
import os
import threading
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index.duplicates import Duplicates, members
from index.pool import Pool
from jobs.cluster import Width
from jobs.pool_scores import mapper

EPS, SHARD, WORDS = 0.05, 10_000, 200_000


def generate(folder: str, rows: int, dim: int, decay: float, seed: int = 0, texts: bool = False) -> None:
    """Shards of fp16 unit rows around rows / 500 centres, whose noise falls off over the axes as i ** -decay.

    15 % are near copies of another row of the shard (cosine 0.95 to 1), 2 % the same to the bit. With `texts` also
    captions of 5 to 15 of 200,000 words, rarer and rarer, and their embeddings: the image's and noise (cosine 0.8).
    """
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(seed)
    scale = np.arange(1, dim + 1) ** -decay
    scale = (scale / np.sqrt((scale**2).sum())).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0].astype(np.float32)
    centres = rng.standard_normal((max(rows // 500, 1), dim), np.float32) * scale
    for shard in range(-(-rows // SHARD)):
        n = min(SHARD, rows - shard * SHARD)
        x = centres[rng.integers(0, len(centres), n)] + 0.8 * scale * rng.standard_normal((n, dim), np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        copies = rng.permutation(n)[: int(0.17 * n)]
        much = rng.uniform(0, 0.3, (len(copies), 1)).astype(np.float32)
        much[: int(0.02 * n)] = 0
        noise = rng.standard_normal((len(copies), dim), np.float32) * scale
        x[copies] = x[rng.integers(0, n, len(copies))] + much * noise
        x = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ turn
        columns = {"uid": [bytes(row).hex() for row in rng.integers(0, 256, (n, 16), dtype=np.uint8)]}
        sides = {"b32_img": x.astype(np.float16)}
        if texts:
            more = np.random.default_rng([seed, shard])
            columns["text"] = captions(more, n)
            y = x + np.float32(0.75 / np.sqrt(dim)) * more.standard_normal((n, dim), np.float32)
            sides["b32_txt"] = (y / np.linalg.norm(y, axis=1, keepdims=True)).astype(np.float16)
        pq.write_table(pa.table(columns), f"{folder}/{shard:08d}.parquet")
        np.savez(f"{folder}/{shard:08d}.npz", **sides)


def captions(rng: np.random.Generator, n: int) -> list[str]:
    """n captions of 5 to 15 words, word i about as often as 1 / i."""
    lengths = rng.integers(5, 16, n)
    words = [f"w{int(i):x}" for i in WORDS ** rng.random(int(lengths.sum()))]
    ends = np.cumsum(lengths).tolist()
    return [" ".join(words[a:b]) for a, b in zip([0, *ends], ends, strict=False)]


def plain(rows: np.ndarray, eps: float) -> np.ndarray:
    """(n,) bool: dropped. The authors' loop body: `rows` (n, d) in order of rank."""
    similarity = rows @ rows.T
    return np.triu(similarity, 1).max(axis=0) > 1 - eps


class Peak:
    """The largest sum of the proportional set sizes of this process and its Ray workers: `gib`; without what is mapped
    from files, which the kernel takes back where memory is short: `own`. And their processor seconds: `cpu`.
    """

    def __enter__(self) -> "Peak":
        self.gib, self.own, self.on = 0.0, 0.0, True
        self.first = {pid: _ticks(pid) for pid in _ours()}
        self.last = dict(self.first)
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while self.on:
            started = time.perf_counter()
            ours = _ours()
            self.last |= {pid: ticks for pid in ours if (ticks := _ticks(pid))}
            sizes = [_pss(pid) for pid in ours]
            self.gib = max(self.gib, sum(size for size, _ in sizes) / 2**20)
            self.own = max(self.own, sum(size - mapped for size, mapped in sizes) / 2**20)
            time.sleep(max(0.5, 20 * (time.perf_counter() - started)))  # adding up 20 GB of mapped pages takes 0.3 s

    def __exit__(self, *_: Any) -> None:
        self.on = False
        self.thread.join()
        self.cpu = sum(ticks - self.first.get(pid, 0) for pid, ticks in self.last.items()) / os.sysconf("SC_CLK_TCK")


def _ours() -> list[int]:
    """This process and the Ray workers that descend from it: others' may run beside it."""
    parent, workers = {}, []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                parent[pid] = int(file.read().rpartition(b")")[2].split()[1])
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                workers += [pid] if file.read().startswith(b"ray::Worker") else []
        except OSError:
            pass
    found = [os.getpid()]
    for pid in workers:
        above = pid
        while above in parent and above != os.getpid():
            above = parent[above]
        found += [pid] if above == os.getpid() else []
    return found


def _ticks(pid: int) -> int:
    """Of the processor that it has had so far; 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _pss(pid: int) -> tuple[int, int]:
    """KiB: (all, mapped from files)."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            sizes = {line.split(":")[0]: int(line.split()[1]) for line in file if line.startswith("Pss")}
    except OSError:
        return 0, 0
    return sizes.get("Pss", 0), sizes.get("Pss_File", 0)


def measure(folder: str, k: int | None, width: Width, plain_rows: int) -> dict[str, Any]:
    """Ours whole, the plain algorithm on clusters of some `plain_rows` rows."""
    pool, score = Pool(folder), Duplicates(model="b32", exact=False, eps=EPS, k=k)
    run, seconds = mapper(width, "dedup"), {}
    run(len, [[]])  # start the workers
    with Peak() as peak:
        started = time.perf_counter()
        clusters = score._clusters(pool, run)
        seconds["k-means and assignment"] = time.perf_counter() - started
        order = np.lexsort((pool.uids["f1"], pool.uids["f0"], clusters[1]))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        started = time.perf_counter()
        links = score._semantic(pool, clusters, rank, run)
        seconds["ours"] = time.perf_counter() - started
    dropped = np.zeros(len(order), bool)
    dropped[links.j] = True
    groups = members(clusters[0], rank)
    some = [groups[i] for i in np.random.default_rng(0).permutation(len(groups))]
    some = some[: int(np.searchsorted(np.cumsum([len(g) for g in some]), plain_rows)) + 1]
    vectors, alike = pool.vectors("b32"), True
    started = time.perf_counter()
    answers = [plain(vectors.take(group), EPS) for group in some]
    took = time.perf_counter() - started
    alike = all(np.array_equal(a, dropped[g]) for a, g in zip(answers, some, strict=True))
    pairs, part = (sum(len(g) ** 2 for g in those) for those in (groups, some))
    seconds["plain, on a part"], seconds["plain, scaled"] = took, took * pairs / part
    return {
        "rows": len(order),
        "dim": vectors.dim,
        "clusters": len(groups),
        "largest": max(len(g) for g in groups),
        "dropped": int(dropped.sum()),
        "plain on rows": sum(len(g) for g in some),
        "same answer there": alike,
        "differ": int(sum((a != dropped[g]).sum() for a, g in zip(answers, some, strict=True))),
        "seconds": {name: round(s, 2) for name, s in seconds.items()},
        "times faster": round(seconds["plain, scaled"] / seconds["ours"], 2),
        "peak GiB": round(peak.gib, 2),
        "embeddings GiB": round(len(order) * vectors.dim * 2 / 2**30, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--decay", type=float, default=0.5, help="0: noise alike in all directions, the hardest")
    parser.add_argument("--k", type=int, help="clusters (default: one for 8,800 rows, as SemDeDup)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--plain-rows", type=int, default=60_000)
    parser.add_argument("--folder", required=True)
    asked = parser.parse_args()
    folder = os.path.join(asked.folder, f"{asked.rows}x{asked.dim}-{asked.decay:g}")
    if not os.path.exists(f"{folder}/done"):
        generate(folder, asked.rows, asked.dim, asked.decay)
        open(f"{folder}/done", "w").close()
    width = Width(workers=asked.workers, gpus=0, local=asked.local)
    print(json.dumps(measure(folder, asked.k, width, asked.plain_rows), indent=1))


if __name__ == "__main__":
    main()

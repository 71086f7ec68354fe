"""The pool score `quantization`: bins from the most telling samples to the most common, by graph cut."""

import math
from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import Field

from mmfilter.plugs import PoolScore, Run
from mmfilter.subset import sample_share

from .duplicates import members
from .kmeans import Plan, assign_pool, train
from .pool import Pool
from .semdedup import gather
from .vectors import Vectors

CLUSTER = 1000  # samples a cluster: the time a sample takes grows with it
MOST = 2048  # samples that are binned together, their similarities 32 MB; a larger cluster is cut into even parts
ROWS = 32_768  # a task's


class Quantization(PoolScore):
    """`dq_bin` (int32): the sample's bin of Dataset Quantization (Zhou et al. 2023, arXiv 2308.10524), 0 the first;
    -1 for a row without a direction.

    Of what is left, the sample x of the greatest gain joins the bin until it is full, then the next bin begins:
    gain(x) = sum over what is in neither this bin nor one before of s(p, x), minus the sum over this bin of s(p, x),
    s = (1 + cosine) / 2. That is the graph cut of the authors' code (repository magic-research/Dataset_Quantization,
    lam 1), and by ||f(p) - f(x)||² = 4 - 4 s their equation's gain too. Equal gains go to the smaller uid.

    Theirs is within a class and takes n² similarities; here it is within each of `k` clusters of spherical k-means
    (default: one for each 1,000 samples, a guess; above 2,048 samples a cluster is cut into even parts by a hash of
    seed and uid). Rows are rounded to fixed point (20 bits, more for few samples), where sums are exact.
    The `bins` (10, theirs) of one cluster differ in size by one at most; bin i of the pool is bin i of every cluster.
    An even draw from each is the rule `balanced: {column: dq_bin, keep: ...}`.
    """

    model: str = Field(min_length=1)
    modality: Literal["image", "text"] = "image"
    bins: int = Field(default=10, ge=1)
    k: int | None = Field(default=None, ge=1)
    iterations: int = Field(default=20, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("dq_bin",)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"{'img' if self.modality == 'image' else 'txt'}_emb:{self.model}"})

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        vectors, uids = pool.vectors(self.model, self.modality), pool.uids
        k = self.k or max(1, round(len(vectors) / CLUSTER))
        cluster, _ = assign_pool(vectors, train(vectors, uids, Plan(k, self.iterations, self.seed), run), run)
        rank = np.empty(len(uids), np.int64)
        rank[np.lexsort((uids["f1"], uids["f0"]))] = np.arange(len(uids))
        parts = even_parts(cluster, sample_share(uids, self.seed))
        found = np.where(cluster < 0, -1, self.bins - 1).astype(np.int32)  # a sample alone is the last bin's
        tasks = pack(members(parts, rank))
        for task, bins in zip(tasks, run(partial(_task, vectors, self.bins), tasks), strict=True):
            for rows, numbers in zip(task, bins, strict=True):
                found[rows] = numbers
        return {"dq_bin": found}


def even_parts(cluster: np.ndarray, share: np.ndarray) -> np.ndarray:
    """int64 (n,): clusters of more than `MOST` cut into so many parts, by the share's order; -1 stays."""
    order = np.lexsort((share, cluster))
    order = order[cluster[order] >= 0]
    sizes = np.bincount(cluster[order], minlength=1)
    parts = -(-sizes // MOST)
    first = np.cumsum(sizes) - sizes
    here = cluster[order]
    found = np.full(len(cluster), -1, np.int64)
    found[order] = (np.cumsum(parts) - parts)[here] + (np.arange(len(order)) - first[here]) % np.maximum(parts, 1)[here]
    return found


def pack(groups: list[np.ndarray]) -> list[list[np.ndarray]]:
    """The groups in tasks of up to `ROWS` rows."""
    tasks: list[list[np.ndarray]] = []
    room = 0
    for rows in groups:
        if len(rows) > room:
            tasks.append([])
            room = ROWS
        tasks[-1].append(rows)
        room -= len(rows)
    return tasks


def _task(vectors: Vectors, bins: int, task: list[np.ndarray]) -> list[np.ndarray]:
    return [quantize(rows, bins) for rows in gather(vectors, task)]


def quantize(rows: np.ndarray, bins: int) -> np.ndarray:
    """int32 (m,): the bin of each of the unit rows (m, d), which stand in the order of their uids."""
    m = len(rows)
    bits = (53 - math.ceil(math.log2(max(m, 2)))) // 2  # of a row's length: |x · a sum of m| <= m 4^bits < 2^53
    x = np.rint(rows.astype(np.float64) * 2.0 ** (bits - 1))
    similar = x @ x.T
    left = similar.sum(axis=1)  # over what is in no bin yet
    found = np.full(m, -1, np.int32)
    for number in range(bins):
        gain = left.copy()
        gain[found >= 0] = -np.inf
        for _ in range((number + 1) * m // bins - number * m // bins):
            best = int(gain.argmax())
            found[best], gain[best] = number, -np.inf
            gain -= 2 * similar[best]
        left -= similar[found == number].sum(axis=0)
    return found

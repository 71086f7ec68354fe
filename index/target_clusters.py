"""The pool score `target_clusters`: how each of a pool's clusters stands to a target."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from mmfilter.plugs import Run

from .kmeans import Plan, assign, assign_pool, train
from .moments import Gap, Measure, Moments, of_blocks
from .pool import Pool
from .to_target import ToTarget
from .vectors import Vectors

BLOCK = 8192
TAKEN = 8 * BLOCK  # rows that are gathered at a time: they lie all over the pool, and each time goes to every shard
HELD = 1 << 28  # bytes of clusters' moments that are held at a time


class TargetClusters(ToTarget):
    """`target_NAME_hits` (int32: how many items of the target have the sample's nearest centroid for theirs) and, with
    `measure`, `target_NAME_likeness` (float32: minus the gap between its cluster and the target, 0 the nearest)
    and `target_NAME_union` (bool: its cluster is one of those that are nearest together).

    Clusters are of spherical k-means on the pool with `k` centroids (default: the square root of its size). Hits are
    DP4TL's feature mapping (Zhang et al. 2023, arXiv 2310.08782): clusters with the fewest go first. The rest is
    the search of SnP (Yao et al. 2023, arXiv 2303.16186; repository yorkeyao/SnP): clusters are joined in the order of
    their gaps, smallest first, and the union with the smallest gap is kept, to be pruned to a budget. `measure` is
    `fid`, the Fréchet distance of the embeddings, or `mmd`, under a kernel of ours (`index.moments.Gap`). Their
    clusters are of equal size, and they draw the larger of union and target down to the other's size; here neither.

    A row without a direction has null, NaN and False; where no item of the target has one, likeness is NaN.
    """

    k: int | None = Field(default=None, ge=1)
    measure: Measure | None = None
    iterations: int = Field(default=20, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @property
    def columns(self) -> tuple[str, ...]:
        names = ("hits", "likeness", "union") if self.measure else ("hits",)
        return tuple(f"target_{self.name}_{name}" for name in names)

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        vectors, items = pool.vectors(self.model, self.modality), self.items(pool)
        k = self.k or max(1, round(math.sqrt(len(vectors))))
        centroids = train(vectors, pool.uids, Plan(k, self.iterations, self.seed), run)
        cluster = assign_pool(vectors, centroids, run)[0]
        hits = np.bincount(assign(items, centroids)[0] + 1, minlength=len(centroids) + 1)[cluster + 1]
        columns: dict[str, Any] = {self.columns[0]: pa.array(hits.astype(np.int32), mask=cluster < 0)}
        if self.measure:
            blocks = (items[at : at + BLOCK] for at in range(0, len(items), BLOCK))
            gap = Gap.to(of_blocks(blocks, vectors.dim), self.measure)
            found = search(vectors, by_cluster(cluster, pool.uids, len(centroids)), gap, run)
            for name, values, none in zip(self.columns[1:], found, (np.nan, False), strict=True):
                columns[name] = np.append(values, none)[cluster]  # the last one is for -1
        return columns


def by_cluster(cluster: np.ndarray, uids: np.ndarray, k: int) -> list[np.ndarray]:
    """Positions of each cluster's rows, in the order of their uids: sums are the same however the pool lies."""
    order = np.lexsort((uids["f1"], uids["f0"], cluster))
    return [order[a:b] for a, b in np.searchsorted(cluster[order], [[c, c + 1] for c in range(k)])]


def search(vectors: Vectors, clusters: list[np.ndarray], gap: Gap, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(likeness float32 (k,), whether it is in the union nearest to the target (k,) bool) of clusters of positions."""
    together = max(1, HELD // (8 * vectors.dim**2))
    held = run(partial(_moments, vectors), clusters) if len(clusters) <= together else None
    gaps = np.array([gap(found) for found in held] if held else run(partial(_gap, vectors, gap), clusters), np.float64)
    union = np.zeros(len(clusters), bool)
    order = np.argsort(gaps, kind="stable")[: int((~np.isnan(gaps)).sum())]
    joined, smallest, best = Moments(0, np.zeros(vectors.dim), np.zeros((vectors.dim, vectors.dim))), math.inf, 0
    for at in range(0, len(order), together):
        these = order[at : at + together]
        moments = [held[c] for c in these] if held else run(partial(_moments, vectors), [clusters[c] for c in these])
        for place, found in enumerate(moments):
            joined += found
            here = gap(joined)
            if here < smallest:
                smallest, best = here, at + place + 1
    union[order[:best]] = True
    return -gaps.astype(np.float32), union


def _gap(vectors: Vectors, gap: Gap, positions: np.ndarray) -> float:
    return gap(_moments(vectors, positions))


def _moments(vectors: Vectors, positions: np.ndarray) -> Moments:
    return of_blocks(_blocks(vectors, positions), vectors.dim)


def _blocks(vectors: Vectors, positions: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(positions), TAKEN):
        rows = vectors.take(positions[first : first + TAKEN])
        yield from (rows[at : at + BLOCK] for at in range(0, len(rows), BLOCK))

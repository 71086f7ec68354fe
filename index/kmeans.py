"""Spherical k-means: trained by FAISS on a seeded sample, refined on the pool where that is small; assigned exactly."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from mmfilter.plugs import Run
from mmfilter.subset import sample_share

from . import gpu
from .exact import dots, first_of, margin
from .lloyd import refine
from .vectors import Vectors

POINTS = 100  # of the sample for each centroid; FAISS asks for 39 to 256
FEWEST = 39  # with fewer, the pool itself is gone over
PASSES = 5
SAMPLE_BYTES = 1 << 29  # of the sample, in float32
FEW = 100  # centroids up to which k-means++ starts them: there a poor start shows, and it costs little
CELLS = 1 << 22  # similarities that are looked at together: 16 MB


@dataclass(frozen=True)
class Plan:
    """`k` centroids by so many `iterations` over a sample, then `passes` over the whole pool.

    `passes` None: none where the sample has `FEWEST` rows a centroid or is the whole pool, else `PASSES`.
    """

    k: int
    iterations: int
    seed: int
    passes: int | None = None


def train(vectors: Vectors, uids: np.ndarray, plan: Plan, run: Run) -> np.ndarray:
    """float32 (k or fewer, d) unit centroids.

    The sample is those rows whose hash of (seed, uid) is lowest, in that order, so that neither shards nor
    order have a say; up to `POINTS` a centroid and `SAMPLE_BYTES` together. `uids` (n,) DTYPE by position.
    """
    wanted = min(len(uids), POINTS * plan.k, max(SAMPLE_BYTES // (4 * vectors.dim), plan.k))
    rows = vectors.take(sample(uids, wanted, plan.seed))
    centroids = fit(rows[rows.any(axis=1)], plan.k, plan.iterations, plan.seed)
    passes = plan.passes
    if passes is None:
        passes = PASSES if wanted < min(len(uids), FEWEST * plan.k) else 0
    return refine(vectors, centroids, passes, run)


def sample(uids: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """int64 (wanted,): positions of the uids (n,) DTYPE with the lowest hash of (seed, uid), lowest first."""
    share = sample_share(uids, seed)
    few = np.argpartition(share, wanted - 1)[:wanted] if 0 < wanted < len(uids) else np.arange(len(uids))
    few = np.flatnonzero(share <= share[few].max()) if len(few) else few
    return few[np.lexsort((uids["f1"][few], uids["f0"][few], share[few]))][:wanted]


def fit(rows: np.ndarray, k: int, iterations: int, seed: int) -> np.ndarray:
    """float32 (min(k, m), d) unit centroids of unit `rows` (m, d); with k rows or fewer, the rows themselves."""
    if len(rows) <= k:
        return np.unique(rows, axis=0)
    import faiss

    start = faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS if k <= FEW else faiss.ClusteringInitMethod_RANDOM
    means = faiss.Kmeans(
        rows.shape[1],
        k,
        niter=iterations,
        seed=seed,
        spherical=True,
        init_method=start,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
        gpu=faiss.get_num_gpus() > 0,
    )
    means.train(np.ascontiguousarray(rows))
    return np.asarray(means.centroids)


def assign(rows: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cluster int32 (n,), similarity float64 (n,)): each row's nearest centroid by inner product.

    Of centroids at the same similarity the lowest. A row of zeros has the cluster -1 and the similarity NaN.
    """
    cluster, similarity = np.full(len(rows), -1, np.int32), np.full(len(rows), np.nan)
    if not len(centroids):
        return cluster, similarity
    slack = 2 * margin(rows.shape[1]) * float(np.sqrt(np.einsum("ij,ij->i", centroids, centroids).max()))
    step = max(CELLS // len(centroids), 64) * (16 if gpu.there() else 1)
    there = gpu.put(centroids) if gpu.there() else None
    for at in range(0, len(rows), step):
        block = rows[at : at + step]
        if there is None:
            best, i, j = near_best(block, centroids, slack)
        else:
            best, i, j = gpu.near_best(gpu.put(block), there, slack)
        first = first_of(i, -dots(block, centroids, i, j), j)
        best[i[first]] = j[first]
        cluster[at : at + step] = best
        similarity[at : at + step] = dots(block, centroids, np.arange(len(block)), best)
    empty = ~rows.any(axis=1)
    cluster[empty], similarity[empty] = -1, np.nan
    return cluster, similarity


def near_best(rows: np.ndarray, centroids: np.ndarray, slack: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(best (n,), i, j): each row's greatest product, and all pairs within `slack` of it where there are several."""
    found = rows @ centroids.T
    best = found.argmax(axis=1)
    floor = found[np.arange(len(rows)), best] - slack
    close = np.flatnonzero(np.count_nonzero(found >= floor[:, None], axis=1) > 1)
    i, j = np.nonzero(found[close] >= floor[close, None])
    return best, close[i], j


def assign_pool(vectors: Vectors, centroids: np.ndarray, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """`assign` over a pool, a task a shard: (cluster (n,), similarity (n,)) by position."""
    found = run(partial(_assign_shard, vectors, centroids), range(len(vectors.stems)))
    clusters = [np.empty(0, np.int32), *(cluster for cluster, _ in found)]
    return np.concatenate(clusters), np.concatenate([np.empty(0), *(similarity for _, similarity in found)])


def _assign_shard(vectors: Vectors, centroids: np.ndarray, shard: int) -> tuple[np.ndarray, np.ndarray]:
    start, stop = vectors.starts[shard : shard + 2]
    parts = [assign(rows, centroids) for _, rows in vectors.blocks(8192, int(start), int(stop))]
    if not parts:
        return np.empty(0, np.int32), np.empty(0)
    return np.concatenate([cluster for cluster, _ in parts]), np.concatenate([found for _, found in parts])

"""Lloyd's passes over a whole pool, read from disk: for more centroids than a sample in memory has rows for.

Each row goes to its nearest centroid, exactly, and each centroid to its rows' mean direction. Rows are added up as
whole numbers, whose sum is the same in any order: neither shards nor workers have a say.
"""

from functools import partial

import numpy as np

from mmfilter.plugs import Run

from .vectors import Vectors

ONE = 2.0**30  # of a row's number in a sum: 2**33 rows fit int64, and float32 has 24 bits
SUMS = 1 << 31  # bytes of all tasks' sums together
ROWS = 8192


def refine(vectors: Vectors, centroids: np.ndarray, passes: int, run: Run) -> np.ndarray:
    """float32 (k, d) unit centroids after `passes` over all rows, fewer once nothing moves; one without rows stays."""
    dense = 8 * max(centroids.size, 1)
    tasks = np.array_split(np.arange(len(vectors.stems)), max(1, min(len(vectors.stems), SUMS // dense)))
    for _ in range(passes):
        sums = np.zeros(centroids.shape, np.int64)
        for part in run(partial(_sums, vectors, centroids), tasks):
            sums += part
        lengths = np.sqrt(np.square(sums, dtype=np.float64).sum(axis=1))
        moved = np.where(lengths[:, None] > 0, sums / np.maximum(lengths, 1)[:, None], centroids).astype(np.float32)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def _sums(vectors: Vectors, centroids: np.ndarray, shards: np.ndarray) -> np.ndarray:
    """int64 (k, d): each centroid's rows of these shards, added up."""
    from .kmeans import assign

    sums = np.zeros(centroids.shape, np.int64)
    if len(shards):
        start, stop = int(vectors.starts[shards[0]]), int(vectors.starts[shards[-1] + 1])
        for _, rows in vectors.blocks(ROWS, start, stop):
            cluster = assign(rows, centroids)[0]
            order = np.argsort(cluster, kind="stable")
            order = order[np.searchsorted(cluster[order], 0) :]  # rows without a direction are in no cluster
            if len(order):
                mine, first = np.unique(cluster[order], return_index=True)
                sums[mine] += np.add.reduceat(np.rint(rows[order] * ONE).astype(np.int64), first, axis=0)
    return sums

"""How crowded it is around a sample: the mean similarity to its nearest neighbours in its cluster."""

from functools import partial

import numpy as np

from mmfilter.plugs import Run

from .exact import dots, margin
from .semdedup import gather
from .vectors import Vectors

NEIGHBOURS = 10
ROWS = 32_768  # a task's, and of the others that a cluster's row is compared with
BLOCK = 512


def densities(vectors: Vectors, clusters: list[np.ndarray], run: Run) -> np.ndarray:
    """float32 (n,) by position: the mean cosine to the 10 nearest others of the cluster, or to all where they are
    fewer; NaN for a row in no cluster and 0 for one that is alone. `clusters` are positions.
    """
    tasks: list[list[tuple[np.ndarray, np.ndarray]]] = []
    room = 0
    for rows in clusters:
        others = rows if len(rows) <= ROWS else rows[:: -(-len(rows) // ROWS)]  # of a giant, an even part
        for at in range(0, len(rows), ROWS):
            part = rows[at : at + ROWS]
            if len(part) > room:
                tasks.append([])
                room = ROWS
            tasks[-1].append((part, others))
            room -= len(part)
    found = np.full(len(vectors), np.nan, np.float32)
    for task, values in zip(tasks, run(partial(_task, vectors), tasks), strict=True):
        for (part, _), value in zip(task, values, strict=True):
            found[part] = value
    return found


def _task(vectors: Vectors, task: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    blocks = gather(vectors, [side for pair in task for side in pair])
    return [_cluster(*pair, x, y) for pair, x, y in zip(task, blocks[::2], blocks[1::2], strict=True)]


def _cluster(part: np.ndarray, others: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float32 (m,): of the rows `x` at positions `part`, against the rows `y` at `others`."""
    found = np.zeros(len(part), np.float64)
    for at in range(0, len(x), BLOCK):
        block, mine = x[at : at + BLOCK], part[at : at + BLOCK]
        similar = block @ y.T
        similar[mine[:, None] == others[None]] = -2  # not itself
        k = min(NEIGHBOURS, len(others) - int(np.isin(mine, others).all()))
        if k < 1:
            continue
        edge = np.partition(similar, -k, axis=1)[:, -k] - 2 * margin(x.shape[1])
        i, j = np.nonzero(similar >= np.maximum(edge, -1.5)[:, None])
        cosine = dots(block, y, i, j)
        order = np.lexsort((-cosine, i))
        place = np.arange(len(i)) - np.searchsorted(i[order], i[order])
        best = order[place < k]
        sums = np.bincount(i[best], cosine[best], len(block))
        found[at : at + BLOCK] = sums / np.maximum(np.bincount(i[best], minlength=len(block)), 1)
    return found.astype(np.float32)

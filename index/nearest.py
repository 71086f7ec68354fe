"""The k best of what was looked at, plainly: by similarity, ties going to the smaller position."""

import numpy as np

NONE = -1  # a position where there are fewer than k
BLOCK = 16_384


def best(similarity: np.ndarray, positions: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(positions int64 (q, k), similarity float32 (q, k)), descending, of candidates (q, m); -1 and -inf past the end.

    `positions` is (q, m) or (m,); a candidate of position -1 is none.
    """
    positions = np.broadcast_to(positions, similarity.shape)
    similarity = np.where(positions == NONE, -np.inf, similarity).astype(np.float32)
    m = similarity.shape[1]
    if m > 4 * k > 0:  # most cannot be among the k: keep those, and what ties with the last
        edge = -np.partition(-similarity, k - 1, axis=1)[:, k - 1 : k]
        width = int((similarity >= edge).sum(axis=1).max())
        if width < m:
            chosen = np.argpartition(-similarity, width, axis=1)[:, :width]
            similarity, positions = (np.take_along_axis(a, chosen, axis=1) for a in (similarity, positions))
    order = np.lexsort((positions, -similarity), axis=1)[:, :k]
    found, near = (np.take_along_axis(a, order, axis=1) for a in (positions, similarity))
    found = np.where(np.isneginf(near), NONE, found).astype(np.int64)
    if found.shape[1] < k:
        fill = ((0, 0), (0, k - found.shape[1]))
        found, near = np.pad(found, fill, constant_values=NONE), np.pad(near, fill, constant_values=-np.inf)
    return found, near


def merge(parts: list[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """`best` of several answers to the same queries, each (positions (q, k'), similarity (q, k'))."""
    positions, similarity = (np.concatenate([part[side] for part in parts], axis=1) for side in (0, 1))
    return best(similarity, positions, k)

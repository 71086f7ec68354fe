"""Measures of a set of embeddings that need no training, from its moments: streamed, so that nothing is held.

Vendi score, Fréchet distance, and the maximum mean discrepancy under the cosine kernel.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from mmfilter.plugs import Run

from .frechet import frechet
from .moments import Moments
from .vectors import Vectors

TASKS = 16  # at most: each returns d x d doubles a set, 4.7 MB at d = 768
BLOCK = 8192


def weighted(rows: np.ndarray, weights: np.ndarray) -> Moments:
    """Of unit `rows` (m, d), each `weights` (m,) times; rows of zeros have no direction and are not counted."""
    there = rows.any(axis=1) & (weights > 0)
    x, w = rows[there].astype(np.float64), weights[there].astype(np.float64)
    scaled = x * w[:, None]
    return Moments(int(w.sum()), scaled.sum(axis=0), scaled.T @ x)


def gather(vectors: Vectors, weights: Sequence[np.ndarray], run: Run) -> list[Moments]:
    """The moments of each set, in one pass over the pool; each of `weights` (n,) by position is a set."""
    cuts = np.unique(np.linspace(0, len(vectors.stems), min(TASKS, len(vectors.stems)) + 1).round().astype(int))
    spans = [(int(vectors.starts[a]), int(vectors.starts[b])) for a, b in pairwise(cuts)]
    tasks = [(start, stop, [w[start:stop] for w in weights]) for start, stop in spans]
    zero = Moments(0, np.zeros(vectors.dim), np.zeros((vectors.dim, vectors.dim)))
    found = [zero] * len(weights)
    for part in run(partial(_task, vectors), tasks):
        found = [a + b for a, b in zip(found, part, strict=True)]
    return found


def _task(vectors: Vectors, task: tuple[int, int, list[np.ndarray]]) -> list[Moments]:
    start, stop, weights = task
    found = [Moments(0, np.zeros(vectors.dim), np.zeros((vectors.dim, vectors.dim))) for _ in weights]
    for at, rows in vectors.blocks(BLOCK, start, stop):
        here = slice(at - start, at - start + len(rows))
        found = [had + weighted(rows, w[here]) for had, w in zip(found, weights, strict=True)]
    return found


def vendi(a: Moments) -> float | None:
    """exp of the entropy of the eigenvalues of K / n, K the cosines of all pairs: from 1, all alike, to min(n, d).

    Friedman and Dieng 2023, arXiv 2210.02410. The eigenvalues other than 0 are those of sum x xᵀ / n, (d, d), so
    that this is exact for any n. None for an empty set.
    """
    if not a.n:
        return None
    share = np.linalg.eigvalsh(a.square / a.n)
    share = share[share > 1e-12]
    return float(np.exp(-(share * np.log(share)).sum()))


def fid(a: Moments, b: Moments) -> float | None:
    """Fréchet distance of the normal distributions of two sets' embeddings (Heusel et al. 2017, arXiv 1706.08500).

    Of unit rows it lies in 0 to 4, and is not to be compared with an Inception network's. None where one is empty.
    """
    return frechet(a.mean, a.covariance, b.mean, b.covariance) if a.n and b.n else None


def mmd_cosine(a: Moments, b: Moments, shared: int = 0) -> float | None:
    """Squared maximum mean discrepancy under the kernel x·y, unbiased: so it can be a little below 0.

    Gretton et al. 2012, "A Kernel Two-Sample Test", eq. 3, from the sums alone, over all rows. `shared` counts the
    pairs of one sample in both sets, which are left out as a row and itself are (their eq. 4): of a set and itself
    it is 0. None where a set has fewer than two rows.
    """
    if min(a.n, b.n) < 2:
        return None
    within = sum(float(m.total @ m.total - m.n) / (m.n * (m.n - 1)) for m in (a, b))
    return within - 2 * (float(a.total @ b.total) - shared) / max(a.n * b.n - shared, 1)

"""Distances between two samples of embeddings: the maximum mean discrepancy, and Sinkhorn's divergence."""

import numpy as np

from mmfilter.subset import sample_share

BLOCK = 1024
EPSILON = 0.05  # of the entropic term, in units of the cost 1 - cosine: a choice of ours
ITERATIONS = 500  # at most; it stops when no potential moves by more than TOLERANCE
TOLERANCE = 1e-6
COPY = 1 << 40  # far from any seed, also the rule `random`'s: a copy of a sample is drawn by a hash of its own


def draw(uids: np.ndarray, weights: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """int64 (min(wanted, sum of weights),): positions of a random sample of a multiset, without replacement.

    Chosen by a hash of (seed, uid, copy), lowest first: neither order nor shards have a say, and the first m of a
    longer draw are the draw of m. `uids` (n,) DTYPE, `weights` (n,) how often each is in the set.
    """
    places, shares = [], []
    for copy in range(int(weights.max(initial=0))):
        at = np.flatnonzero(weights > copy)
        share = sample_share(uids[at], seed + (copy + 1) * COPY)
        if len(at) > wanted:
            few = np.flatnonzero(share <= np.partition(share, wanted - 1)[wanted - 1]) if wanted else at[:0]
            at, share = at[few], share[few]
        places.append(at)
        shares.append(share)
    at, share = np.concatenate([np.empty(0, np.int64), *places]), np.concatenate([np.empty(0), *shares])
    return at[np.lexsort((uids["f1"][at], uids["f0"][at], share))][:wanted]


def bandwidth(rows: np.ndarray) -> float:
    """The median squared distance of two different rows of (m, d), the usual choice (Gretton et al. 2012); 1 where
    that is 0, up to float32's rounding, or there are no two.
    """
    gaps = 2 - 2 * (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    median = float(np.median(gaps)) if len(gaps) else 0.0
    return median if median > 1e-6 else 1.0


def mmd(a: np.ndarray, b: np.ndarray, squared_width: float, shared: int = 0) -> float | None:
    """Squared maximum mean discrepancy of unit rows (m, d) and (k, d), unbiased, under exp(-|x - y|² / (2 width²)).

    Gretton et al. 2012, eq. 3; a little below 0 is chance. `shared` counts the pairs of one sample in both, which
    are left out (their eq. 4). None below two rows.
    """
    if min(len(a), len(b)) < 2:
        return None
    within = sum((_kernel(x, x, squared_width) - len(x)) / (len(x) * (len(x) - 1)) for x in (a, b))
    return within - 2 * (_kernel(a, b, squared_width) - shared) / max(len(a) * len(b) - shared, 1)


def _kernel(a: np.ndarray, b: np.ndarray, squared_width: float) -> float:
    """The kernel's sum over all pairs; of a row and itself it is 1 exactly."""
    total = 0.0
    for at in range(0, len(a), BLOCK):
        gaps = np.maximum(2 - 2 * (a[at : at + BLOCK].astype(np.float64) @ b.T.astype(np.float64)), 0)
        if a is b:
            gaps[np.arange(len(gaps)), np.arange(at, at + len(gaps))] = 0
        total += float(np.exp(-gaps / (2 * squared_width)).sum())
    return total


def sinkhorn(a: np.ndarray, b: np.ndarray, epsilon: float = EPSILON) -> tuple[float | None, int]:
    """(Sinkhorn's divergence, iterations): the cost 1 - cosine of moving one sample onto the other, made 0 for equal
    ones: OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2, each with an entropic term.

    Cuturi 2013 (arXiv 1306.0895); debiased as in Feydy et al. 2019 (arXiv 1810.08278), in logarithms. None for no row.
    """
    if not len(a) or not len(b):
        return None, 0
    across, steps = _transport(_cost(a, b), epsilon)
    within = (_to_itself(_cost(a, a), epsilon) + _to_itself(_cost(b, b), epsilon)) / 2
    return max(across - within, 0.0), steps


def _cost(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(1 - a.astype(np.float64) @ b.T.astype(np.float64), 0)


def _transport(cost: np.ndarray, epsilon: float) -> tuple[float, int]:
    """(the dual's value at its optimum, iterations) for even weights on both sides."""
    f, g, flipped, steps = np.zeros(len(cost)), np.zeros(cost.shape[1]), np.ascontiguousarray(cost.T), 0
    while steps < ITERATIONS:
        steps += 1
        moved = _soft_least(cost, g, epsilon)
        g = _soft_least(flipped, moved, epsilon)
        gap, f = np.abs(moved - f).max(), moved
        if gap < TOLERANCE:
            break
    return float(f.mean() + g.mean()), steps


def _to_itself(cost: np.ndarray, epsilon: float) -> float:
    """The same of a sample and itself, whose two potentials are one: halfway steps converge in a few."""
    f = np.zeros(len(cost))
    for _ in range(ITERATIONS):
        moved = (f + _soft_least(cost, f, epsilon)) / 2
        gap, f = np.abs(moved - f).max(), moved
        if gap < TOLERANCE:
            break
    return float(2 * f.mean())


def _soft_least(cost: np.ndarray, other: np.ndarray, epsilon: float) -> np.ndarray:
    """(n,): -epsilon log mean_j exp((other_j - cost_ij) / epsilon)."""
    scaled = (other - cost) / epsilon
    top = scaled.max(axis=1)
    return -epsilon * (top + np.log(np.exp(scaled - top[:, None]).mean(axis=1)))

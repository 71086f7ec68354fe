"""Which samples an epoch trains on: fresh random subsets, or a window that slides from easy to hard."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .subset import Subset, sample_share

STEPS = 300  # of 1-D k-means at most


def rs2(subset: Subset, epochs: int, keep: float, seed: int = 0, replacement: bool = True) -> Iterator[Subset]:
    """Repeated random sampling (RS2, Okanovic et al., ICLR 2024): a fresh random round(keep · n) an epoch.

    With `replacement` each epoch draws from all; without, from what no epoch has had since all had been drawn, so
    that a whole pass comes before a second (an epoch across two passes holds no sample twice). Within an epoch
    nothing is drawn twice; a uid that stands twice in `subset` is two. The draw is a hash of (seed, epoch, uid).
    """
    n = len(subset)
    size = round(keep * n)
    queue = np.empty(0, np.int64)
    turn = 0
    for epoch in range(epochs):
        if replacement:
            yield Subset(subset.uids[_shuffled(subset.uids, seed, epoch)[:size]])
            continue
        taken, queue = queue[:size], queue[size:]
        if len(taken) < size:
            order, turn = _shuffled(subset.uids, seed, turn), turn + 1
            again = np.isin(order, taken)
            order = np.concatenate([order[~again], order[again]])
            more = size - len(taken)
            taken, queue = np.concatenate([taken, order[:more]]), order[more:]
        yield Subset(subset.uids[taken])


@dataclass(frozen=True)
class Window:
    """SeTa's settings, by its code's names: keep is 1 - prune_ratio, groups num_group, share window_scale, anneal
    1 - delta.
    """

    keep: float = 1.0
    groups: int = 10
    share: float = 0.5
    anneal: float = 0.125


def seta(subset: Subset, difficulty: np.ndarray, epochs: int, window: Window, seed: int = 0) -> Iterator[Subset]:
    """SeTa: a window over groups of difficulty, easy to hard (Zhou et al. 2025, arXiv 2503.13385; code mrazhou/SeTa).

    `difficulty` (n,) float64 stands beside `subset.uids` (n,), high is hard, NaN is left out. Each epoch draws
    round(keep · n), groups the draw by 1-D k-means, and takes the groups of a window of round(groups · share) that
    starts at epoch mod (groups - window + 1). The last `anneal` of the epochs take the whole draw. Where fewer
    values differ than there are groups, each is one. Theirs measures the difficulty anew each epoch (the loss) and
    so begins with an epoch of all; here it is known before, and the first epoch is a window too.
    """
    there = np.flatnonzero(~np.isnan(difficulty))
    uids, difficulty = subset.uids[there], difficulty[there]
    for epoch in range(epochs):
        drawn = _shuffled(uids, seed, epoch)[: round(window.keep * len(uids))]
        if epoch + 1 > epochs * (1 - window.anneal):
            yield Subset(uids[drawn])
            continue
        group = kmeans_1d(difficulty[drawn], window.groups)
        k = int(group.max(initial=0)) + 1
        wide = max(1, round(k * window.share))
        start = epoch % (k - wide + 1)
        yield Subset(uids[drawn[(group >= start) & (group < start + wide)]])


def kmeans_1d(values: np.ndarray, k: int) -> np.ndarray:
    """int64 (n,): each value's group, 0 the lowest; Lloyd's k-means from evenly spaced different values.

    The sums run over the sorted values, so that the order of `values` has no say. Up to k groups, none empty.
    """
    different, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    k = min(k, len(different))
    if k < 2:
        return np.zeros(len(values), np.int64)
    centres = different[(2 * np.arange(k) + 1) * len(different) // (2 * k)]
    sums, rows = (np.concatenate([[0], np.cumsum(part)]) for part in (different * counts, counts))
    cuts = np.empty(0, np.int64)
    for _ in range(STEPS):
        before, cuts = cuts, np.searchsorted(different, (centres[1:] + centres[:-1]) / 2)
        if np.array_equal(cuts, before):
            break
        low, high = np.append(0, cuts), np.append(cuts, len(different))
        some = high > low
        centres[some] = (sums[high] - sums[low])[some] / (rows[high] - rows[low])[some]
    group = np.searchsorted(cuts, np.arange(len(different)), "right")
    return np.unique(group, return_inverse=True)[1][where]


def _shuffled(uids: np.ndarray, seed: int, turn: int) -> np.ndarray:
    """int64 (n,): places of the sorted uids (n,) DTYPE in a random order; copies of a uid are drawn apart."""
    new = np.ones(len(uids), bool)
    new[1:] = uids[1:] != uids[:-1]
    first = np.maximum.accumulate(np.where(new, np.arange(len(uids)), 0))
    copy = np.arange(len(uids)) - first
    share = np.empty(len(uids))
    for number in np.unique(copy).tolist():
        rows = copy == number
        share[rows] = sample_share(uids[rows], seed + (turn << 32) + (number << 52))
    return np.argsort(share, kind="stable")

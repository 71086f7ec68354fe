"""More of concepts that are wide and far from others, less of dense ones: Density-Based Pruning."""

from typing import Self

import numpy as np
import polars as pl
from pydantic import Field, PrivateAttr

from ..plugs import Rule
from .masks import numbers
from .quota import Edges, Ranked, Rows


class DensityBased(Rule):
    """Density-Based Pruning (Abbas et al. 2024, arXiv 2401.04578; repository amro-kamal/effective_pruning).

    Of each cluster j: d_intra, the mean of 1 - `score` (cosine to its centroid) over what the rule is fitted on;
    d_inter, the column `separation` (the mean of 1 - cosine to the 20 nearest centroids, of the score `clusters`);
    C = d_inter · d_intra, p = softmax(C / `tau`). N = round(keep · n) samples are shared out as x = argmin
    ||x - p N||² with sum x = N, lb <= x <= ub: ub the size, lb = min(int(N / k · balance), ub - 1), with `balance` 0
    min(1, ub - 1). Then made whole (largest remainders, ties to the lower id), and of each cluster the x_j furthest
    from the centroid are kept, ties to the smaller uid. `tau` and `balance` are their code's defaults.

    A row without a cluster, similarity or separation counts in n and is never kept. Put it in a `then` behind
    `not_duplicate`, as in the paper.
    """

    keep: float = Field(ge=0, le=1)
    tau: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    balance: float = Field(default=0.5, ge=0, le=1)
    column: str = "cluster_id"
    score: str = "centroid_similarity"
    separation: str = "cluster_separation"
    _edges: Edges | None = PrivateAttr(None)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.column, self.score, self.separation, "uid_hi", "uid_lo"})

    def fit(self, table: pl.DataFrame) -> Self:
        ranked = Ranked(self._rows(table))
        wanted = min(round(self.keep * table.height), len(ranked.order))
        fitted = self.model_copy()
        fitted._edges = ranked.edges(self._quotas(ranked, numbers(table, self.separation), wanted))
        return fitted

    def _quotas(self, ranked: Ranked, separation: np.ndarray, wanted: int) -> np.ndarray:
        """(k,) int64: how many of each cluster, N together."""
        sizes, k = ranked.have, len(ranked.ids)
        some = sizes > 0
        take = np.zeros(k, np.int64)
        if not some.any():
            return take
        starts, sizes = ranked.starts[some], sizes[some]
        far = 1 + ranked.rows.score[ranked.order]  # the rows' score is -cosine; summed in one order, so to the bit
        intra = np.add.reduceat(far, starts) / sizes
        inter = separation[ranked.order[starts]].astype(np.float64)
        lowest = int(wanted / len(sizes) * self.balance) if self.balance else 1
        lower = np.maximum(np.minimum(lowest, sizes - 1), 0)
        if lower.sum() > wanted:  # balance 0 and fewer samples than clusters
            lower = np.zeros_like(lower)
        shares = project(softmax(inter * intra / self.tau) * wanted, lower, sizes, wanted)
        take[some] = whole(shares, lower, sizes, wanted)
        return take

    def _rows(self, table: pl.DataFrame) -> Rows:
        furthest = -numbers(table, self.score).astype(np.float64)
        furthest[np.isnan(numbers(table, self.separation).astype(np.float64))] = np.nan
        return Rows.read(table, self.column, furthest)

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        if self._edges is None:
            raise RuntimeError("the rule is fitted to the pool before it is asked for a mask")
        return self._edges.mask(self._rows(table))

    def describe(self) -> str:
        return f"{self.keep:.4g}, by the density of each {self.column} (tau {self.tau:g}), lowest {self.score} first"


def softmax(values: np.ndarray) -> np.ndarray:
    """float64 (k,), sum 1."""
    raised = np.exp(values - values.max())
    return np.asarray(raised / raised.sum())


def project(target: np.ndarray, lower: np.ndarray, upper: np.ndarray, total: int) -> np.ndarray:
    """float64 (k,): the x nearest to `target` with sum x = `total` and lower <= x <= upper, which must hold it.

    x = clip(target - mu, lower, upper), the quadratic programme's solution by its KKT conditions, mu by bisection.
    """
    low, high = float((target - upper).min()), float((target - lower).max())
    for _ in range(200):  # halves to the last bit long before
        mu = (low + high) / 2
        if np.clip(target - mu, lower, upper).sum() > total:
            low = mu
        else:
            high = mu
    return np.clip(target - high, lower, upper)


def whole(x: np.ndarray, lower: np.ndarray, upper: np.ndarray, total: int) -> np.ndarray:
    """int64 (k,) of the sum `total` within the bounds: x by the largest remainder, ties to the lower place."""
    found = np.clip(np.floor(x), lower, upper).astype(np.int64)
    order = np.argsort(-np.round(x - found, 6), kind="stable")
    while short := total - int(found.sum()):
        able = (found < upper if short > 0 else found > lower)[order]
        rows = order[able] if short > 0 else order[able][::-1]
        found[rows[: abs(short)]] += np.sign(short)
    return found

"""As many of each concept, from the coarsest level down: balanced sampling over a hierarchy of clusters."""

from typing import Literal, Self

import numpy as np
import polars as pl
from pydantic import Field, PrivateAttr, model_validator

from ..errors import UsageError
from ..plugs import Rule
from ..subset import sample_share
from ..uids import DTYPE
from .masks import numbers, sound
from .quota import Edges, Ranked, Rows


class Balanced(Rule):
    """Keep `n` samples, or round(keep · n), spread as evenly over clusters as their sizes allow (hierarchical sampling,
    Vo et al. 2024, arXiv 2405.15613; repository facebookresearch/ssl-data-curation).

    From the coarsest of `levels` down to the cluster: the target is shared among the groups in it by the cut c, the
    largest whole number with sum min(c, size) <= target; what is left over goes to the largest groups, one each,
    ties to the lower id (theirs draw it). Inside the finest cluster the samples come by a hash of (`seed`, uid), or
    `nearest` or `furthest` by `score`, the similarity to the centroid; ties to the smaller uid. None is repeated.

    `column` is the finest cluster, and with `levels` ``COLUMN_1`` ... ``COLUMN_levels`` are what it belongs to, as the
    score `clusters` writes them; `levels` 0 balances over the clusters alone. A row that is in no cluster counts in
    n and is never kept.
    """

    n: int | None = Field(default=None, ge=0)
    keep: float | None = Field(default=None, ge=0, le=1)
    levels: int = Field(default=0, ge=0, le=16)
    within: Literal["random", "nearest", "furthest"] = "random"
    seed: int = 0
    column: str = "cluster_id"
    score: str = "centroid_similarity"
    _edges: Edges | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.n is None) == (self.keep is None):
            raise ValueError("give one of 'n' and 'keep'")
        return self

    @property
    def _parents(self) -> list[str]:
        return [f"{self.column}_{level}" for level in range(1, self.levels + 1)]

    @property
    def needs(self) -> frozenset[str]:
        score = set() if self.within == "random" else {self.score}
        return frozenset({self.column, "uid_hi", "uid_lo", *self._parents} | score)

    def fit(self, table: pl.DataFrame) -> Self:
        ranked = Ranked(self._rows(table))
        target = self.n if self.n is not None else round((self.keep or 0) * table.height)
        some = ranked.have > 0
        first = ranked.order[ranked.starts[some]]
        path = [np.arange(len(first))]
        for parent in self._parents:
            ids = numbers(table, parent)
            path.insert(0, ids[first])
            if (ids[ranked.order] != np.repeat(ids[first], ranked.have[some])).any():
                raise UsageError(f"'{parent}' is no group of '{self.column}': samples of one cluster differ in it")
        take = np.zeros(len(ranked.ids), np.int64)
        take[some] = descend(path, ranked.have[some], target)
        fitted = self.model_copy()
        fitted._edges = ranked.edges(take)
        return fitted

    def _rows(self, table: pl.DataFrame) -> Rows:
        if self.within == "random":
            uids = np.empty(table.height, DTYPE)
            uids["f0"], uids["f1"] = table["uid_hi"].to_numpy(), table["uid_lo"].to_numpy()
            score = sample_share(uids, self.seed)
        else:
            score = numbers(table, self.score).astype(np.float64) * (1 if self.within == "nearest" else -1)
        for parent in self._parents:
            ids = numbers(table, parent)
            score[~(sound(ids) & (ids >= 0))] = np.nan
        return Rows.read(table, self.column, score)

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        if self._edges is None:
            raise RuntimeError("the rule is fitted to the pool before it is asked for a mask")
        return self._edges.mask(self._rows(table))

    def describe(self) -> str:
        many = f"{self.n:,}" if self.n is not None else f"{self.keep:.4g}"
        levels = f" over {self.levels} levels above it" if self.levels else ""
        return f"{many}, balanced over {self.column}{levels}, {self.within} within"


def descend(path: list[np.ndarray], sizes: np.ndarray, target: int) -> np.ndarray:
    """int64 (k,): how many of each cluster of `sizes` (k,); `path` are by level, the coarsest first, the ids (k,)."""
    if not len(sizes):
        return sizes
    inside = np.unique(path[0], return_inverse=True)[1]
    shares = cut(np.bincount(inside, sizes).astype(np.int64), target)
    if len(path) == 1:
        return shares[inside]
    take = np.zeros(len(sizes), np.int64)
    order = np.argsort(inside, kind="stable")
    for rows, share in zip(np.split(order, np.cumsum(np.bincount(inside))[:-1]), shares.tolist(), strict=True):
        take[rows] = descend([ids[rows] for ids in path[1:]], sizes[rows], share)
    return take


def cut(sizes: np.ndarray, target: int) -> np.ndarray:
    """int64 (k,): min(c, size), c the largest that the target holds; then one more for the largest until it is met."""
    if int(sizes.sum()) <= target:
        return sizes.astype(np.int64)
    low, high = 0, int(sizes.max())  # sum min(low, size) <= target < sum min(high, size)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if int(np.minimum(middle, sizes).sum()) > target else (middle, high)
    shares = np.minimum(low, sizes).astype(np.int64)
    larger = np.flatnonzero(sizes > low)
    shares[larger[np.argsort(-sizes[larger], kind="stable")][: target - int(shares.sum())]] += 1
    return shares

"""The top share of the pool by a score."""

from typing import Literal, Self

import numpy as np
import polars as pl
from pydantic import Field, PrivateAttr

from ..plugs import Rule
from .masks import numbers, sound


class Fraction(Rule):
    """Keep the `keep` share with the highest score.

    Exactly round(keep · n) of the n rows it is fitted on (halves to even), ties at the edge going to
    the smaller uid. A row without a score (null, NaN) counts in n and is never kept. With ``of: pool`` n counts
    the rows that the outermost `then` began with, in place of those that the rules before it kept: ``then:
    [fraction: {score: a, keep: 0.3}, fraction: {score: b, keep: 0.2, of: pool}]`` ends with a fifth of the pool.

    With ``compat: datacomp`` it is DataComp's `clip_score` baseline to the row: the threshold is
    ``sorted_descending[int(n · keep)]`` and all rows at or above it are kept, ties included, so n · keep + 1
    rows or more; at 1.0, where theirs raises IndexError, everything with a score.
    """

    score: str
    keep: float = Field(ge=0, le=1)
    of: Literal["rest", "pool"] = "rest"
    compat: Literal["datacomp"] | None = None
    _edge: float | None = PrivateAttr(None)  # fitted: the lowest score that is kept
    _edge_uid: tuple[int, int] | None = PrivateAttr(None)  # fitted: at the edge, uids up to this one are kept

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.score} | (set() if self.compat else {"uid_hi", "uid_lo"}))

    @property
    def thresholds(self) -> dict[str, list[float]]:
        """The fitted edge, for the report."""
        return {} if self._edge is None or not np.isfinite(self._edge) else {self.score: [self._edge]}

    def fit(self, table: pl.DataFrame) -> Self:
        return self.fit_of(table, table.height)

    def fit_of(self, table: pl.DataFrame, pool: int) -> Self:
        values = numbers(table, self.score)
        there = sound(values)
        scores = values[there]
        n = pool if self.of == "pool" else table.height
        if self.compat == "datacomp":
            return self._fitted(self._datacomp_edge(scores, n))
        wanted = min(round(self.keep * n), len(scores))
        if wanted == 0:
            return self._fitted(float("inf"), None)
        edge = np.partition(scores, len(scores) - wanted)[len(scores) - wanted]
        above = int((scores > edge).sum())
        tied = np.flatnonzero(there & (values == edge))
        hi, lo = table["uid_hi"].to_numpy()[tied], table["uid_lo"].to_numpy()[tied]
        last = np.lexsort((lo, hi))[wanted - above - 1]
        return self._fitted(edge.item(), (int(hi[last]), int(lo[last])))

    def _fitted(self, edge: float, uid: tuple[int, int] | None = None) -> Self:
        fitted = self.model_copy()
        fitted._edge, fitted._edge_uid = edge, uid
        return fitted

    def _datacomp_edge(self, scores: np.ndarray, n: int) -> float:
        rank = int(n * self.keep)
        if not len(scores):
            return float("inf")
        place = max(len(scores) - 1 - rank, 0)
        edge: float = np.partition(scores, place)[place].item()
        return edge

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        if self._edge is None:
            raise RuntimeError("a fraction is fitted to the pool before it is asked for a mask")
        values = numbers(table, self.score)
        if self.compat == "datacomp":
            return np.asarray(values >= self._edge)
        keep = np.asarray(values > self._edge)
        tied = np.flatnonzero(values == self._edge) if self._edge_uid is not None else np.empty(0, int)
        if len(tied) and self._edge_uid is not None:
            hi, lo = table["uid_hi"].to_numpy()[tied], table["uid_lo"].to_numpy()[tied]
            last_hi, last_lo = np.uint64(self._edge_uid[0]), np.uint64(self._edge_uid[1])
            keep[tied] = (hi < last_hi) | ((hi == last_hi) & (lo <= last_lo))
        return keep

    def describe(self) -> str:
        edge = "" if self._edge is None else f": {self.score} >= {self._edge:.4f}"
        share = f"{self.keep:.4g}{' of the pool' if self.of == 'pool' else ''}"
        return f"top {share} by {self.score}{' as DataComp' if self.compat else ''}{edge}"

"""The hardest, or the easiest, of each concept: self-supervised prototypes."""

from typing import Literal, Self

import numpy as np
import polars as pl
from pydantic import Field, PrivateAttr

from ..plugs import Rule
from .masks import numbers
from .quota import Edges, Ranked, Rows, highest


class Prototypes(Rule):
    """Keep the `keep` share that is hardest, or easiest: 1 - similarity to the nearest centroid (Sorscher et al. 2022,
    arXiv 2206.14486, whose difficulty this is; hardest where data is plenty, easiest where it is scarce).

    Exactly round(keep · n) of n rows, of those that have a cluster and a similarity. Of the N that are kept, each of
    the k clusters has at least floor(`balance` · N / k), or all it has: its own first, then the rest by difficulty
    over all clusters. That each class keeps at least half an even share is remembered from their paper, and the
    default of the repository amro-kamal/effective_pruning, from which N / k is; that it suits another pool is a
    guess. Ties go to the smaller uid. `column` holds the clusters, `score` the similarity.
    """

    keep: float = Field(ge=0, le=1)
    which: Literal["hardest", "easiest"] = "hardest"
    balance: float = Field(default=0.5, ge=0, le=1)
    column: str = "cluster_id"
    score: str = "centroid_similarity"
    _edges: Edges | None = PrivateAttr(None)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.column, self.score, "uid_hi", "uid_lo"})

    def fit(self, table: pl.DataFrame) -> Self:
        ranked = Ranked(self._rows(table))
        fitted = self.model_copy()
        fitted._edges = ranked.edges(self._quotas(ranked, round(self.keep * table.height)))
        return fitted

    def _quotas(self, ranked: Ranked, wanted: int) -> np.ndarray:
        """(k,) int64: how many of each cluster."""
        wanted = min(wanted, len(ranked.order))
        even = wanted / max(int(np.count_nonzero(ranked.have)), 1)
        sure = np.minimum(int(self.balance * even), ranked.have).astype(np.int64)
        rest = ranked.place >= sure[ranked.where]
        rows, where = ranked.order[rest], ranked.where[rest]
        score, hi, lo = (values[rows] for values in (ranked.rows.score, ranked.rows.hi, ranked.rows.lo))
        first = highest(score, hi, lo, wanted - int(sure.sum()))
        return np.asarray(sure + np.bincount(where[first], minlength=len(sure)))

    def _rows(self, table: pl.DataFrame) -> Rows:
        similarity = numbers(table, self.score).astype(np.float64)
        return Rows.read(table, self.column, -similarity if self.which == "hardest" else similarity)

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        if self._edges is None:
            raise RuntimeError("prototypes are fitted to the pool before they are asked for a mask")
        return self._edges.mask(self._rows(table))

    def describe(self) -> str:
        return f"the {self.which} {self.keep:.4g} by {self.score}, {self.balance:.4g} of even for each {self.column}"

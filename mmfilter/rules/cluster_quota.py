"""So many of each cluster: balance over concepts."""

from typing import Self

import numpy as np
import polars as pl
from pydantic import Field, PrivateAttr, model_validator

from ..plugs import Rule
from .masks import numbers
from .quota import Edges, Ranked, Rows


class ClusterQuota(Rule):
    """Keep at most `at_most` samples, or exactly the `share` round(share · size), of each cluster.

    The highest by `score` come first, ties (and all, without a score) by the smaller uid. The size counts every
    sample of the cluster that the rule is fitted on; one without a score is never kept, nor one in no
    cluster (null, or below 0).
    """

    at_most: int | None = Field(default=None, ge=0)
    share: float | None = Field(default=None, ge=0, le=1)
    score: str | None = None
    column: str = "cluster_id"
    _edges: Edges | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.at_most is None) == (self.share is None):
            raise ValueError("give one of 'at_most' and 'share'")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.column, "uid_hi", "uid_lo"} | ({self.score} if self.score else set()))

    def fit(self, table: pl.DataFrame) -> Self:
        ranked = Ranked(self._rows(table))
        sizes = ranked.sizes
        wanted = np.rint(self.share * sizes) if self.share is not None else np.minimum(sizes, self.at_most or 0)
        fitted = self.model_copy()
        fitted._edges = ranked.edges(wanted)
        return fitted

    def _rows(self, table: pl.DataFrame) -> Rows:
        return Rows.read(table, self.column, numbers(table, self.score) if self.score else np.zeros(table.height))

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        if self._edges is None:
            raise RuntimeError("a quota is fitted to the pool before it is asked for a mask")
        return self._edges.mask(self._rows(table))

    def describe(self) -> str:
        how = f"at most {self.at_most:,}" if self.at_most is not None else f"{self.share:.4g}"
        return f"{how} of each {self.column}{f', highest {self.score} first' if self.score else ''}"

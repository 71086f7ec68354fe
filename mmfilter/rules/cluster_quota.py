"""So many of each cluster: balance over concepts."""

from typing import Any, Self

import numpy as np
import polars as pl
from pydantic import Field, PrivateAttr, model_validator

from ..plugs import Rule
from .masks import numbers, sound


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
    _edges: dict[str, np.ndarray] | None = PrivateAttr(None)  # fitted: by cluster, the last sample that is kept

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.at_most is None) == (self.share is None):
            raise ValueError("give one of 'at_most' and 'share'")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.column, "uid_hi", "uid_lo"} | ({self.score} if self.score else set()))

    def fit(self, table: pl.DataFrame) -> Self:
        cluster, score, hi, lo, there = self._read(table)
        ids, where, sizes = np.unique(cluster[there], return_inverse=True, return_counts=True)
        wanted = np.rint(self.share * sizes) if self.share is not None else np.minimum(sizes, self.at_most or 0)
        rows = np.flatnonzero(there)
        scored = ~np.isnan(score[rows]) if score.dtype.kind == "f" else np.ones(len(rows), bool)
        rows, where = rows[scored], where[scored]
        order = np.lexsort((lo[rows], hi[rows], -score[rows].astype(np.float64), where))
        rows, where = rows[order], where[order]
        starts = np.searchsorted(where, np.arange(len(ids)))
        have = np.searchsorted(where, np.arange(len(ids)), "right") - starts
        take = np.minimum(wanted, have).astype(np.int64)
        last = rows[starts[take > 0] + take[take > 0] - 1]
        fitted = self.model_copy()
        fitted._edges = {"id": ids[take > 0], "score": score[last], "hi": hi[last], "lo": lo[last]}
        return fitted

    def _read(self, table: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(cluster, score, uid's halves, whether it is in a cluster), each (n,)."""
        ids = numbers(table, self.column)
        there = sound(ids) & (ids >= 0)
        cluster = np.where(there, ids, -1).astype(np.int64)
        score = numbers(table, self.score) if self.score else np.zeros(table.height, np.int8)
        hi, lo = (table[half].to_numpy() for half in ("uid_hi", "uid_lo"))
        return cluster, score, hi, lo, there

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        if self._edges is None:
            raise RuntimeError("a quota is fitted to the pool before it is asked for a mask")
        cluster, score, hi, lo, there = self._read(table)
        edges: dict[str, Any] = self._edges
        if not len(edges["id"]):
            return np.zeros(table.height, bool)
        at = np.minimum(np.searchsorted(edges["id"], cluster), len(edges["id"]) - 1)
        last, last_hi, last_lo = (edges[name][at] for name in ("score", "hi", "lo"))
        keep = (score > last) | ((score == last) & ((hi < last_hi) | ((hi == last_hi) & (lo <= last_lo))))
        return np.asarray(keep & there & (edges["id"][at] == cluster))

    def describe(self) -> str:
        how = f"at most {self.at_most:,}" if self.at_most is not None else f"{self.share:.4g}"
        return f"{how} of each {self.column}{f', highest {self.score} first' if self.score else ''}"

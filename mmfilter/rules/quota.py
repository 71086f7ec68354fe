"""So many of each cluster: rows in order within their clusters, and the last one of each that is kept."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from .masks import numbers, sound


@dataclass(frozen=True)
class Rows:
    """A table's rows, each (n,): cluster int64, score float64 (the higher come first), the uid's halves uint64.

    `there`: the row is in a cluster (0 or above). A row with the score NaN is never kept.
    """

    cluster: np.ndarray
    score: np.ndarray
    hi: np.ndarray
    lo: np.ndarray
    there: np.ndarray

    @classmethod
    def read(cls, table: pl.DataFrame, column: str, score: np.ndarray) -> Self:
        """`column` holds the clusters' ids; `score` (n,) is any number, null as NaN."""
        ids = numbers(table, column)
        there = sound(ids) & (ids >= 0)
        hi, lo = (table[half].to_numpy() for half in ("uid_hi", "uid_lo"))
        return cls(np.where(there, ids, -1).astype(np.int64), score.astype(np.float64), hi, lo, there)


@dataclass(frozen=True)
class Edges:
    """By cluster (k,), ids ascending: the score and uid of the last sample that is kept."""

    ids: np.ndarray
    score: np.ndarray
    hi: np.ndarray
    lo: np.ndarray

    def mask(self, rows: Rows) -> np.ndarray:
        """(n,) bool: which rows come no later than their cluster's last."""
        if not len(self.ids):
            return np.zeros(len(rows.cluster), bool)
        at = np.minimum(np.searchsorted(self.ids, rows.cluster), len(self.ids) - 1)
        last, hi, lo = self.score[at], self.hi[at], self.lo[at]
        earlier = (rows.hi < hi) | ((rows.hi == hi) & (rows.lo <= lo))
        before = (rows.score > last) | ((rows.score == last) & earlier)
        return np.asarray(before & rows.there & (self.ids[at] == rows.cluster))


class Ranked:
    """Rows that have a cluster and a score, by cluster, the highest score first, ties by the smaller uid.

    `ids` (k,) ascending are the clusters, `sizes` (k,) all their rows, `have` (k,) those with a score; `order` (m,)
    are the rows' places in the table, `where` (m,) their cluster's place in `ids`, `starts` (k,) where each begins.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        there = np.flatnonzero(rows.there)
        self.ids, where, self.sizes = _numbered(rows.cluster[there])
        scored = ~np.isnan(rows.score[there])
        there, where = there[scored], where[scored]
        order = _ordered(where, -rows.score[there], rows.hi[there], rows.lo[there])
        self.order, self.where = there[order], where[order]
        self.starts = np.searchsorted(self.where, np.arange(len(self.ids)))
        self.have = np.bincount(self.where, minlength=len(self.ids))

    @property
    def place(self) -> np.ndarray:
        """(m,) int64: each row's place in its cluster, from 0."""
        return np.arange(len(self.order)) - self.starts[self.where]

    def edges(self, take: np.ndarray) -> Edges:
        """The first `take` (k,) rows of each cluster; where it has fewer, all."""
        take = np.minimum(take, self.have).astype(np.int64)
        some = take > 0
        last, rows = self.order[self.starts[some] + take[some] - 1], self.rows
        return Edges(self.ids[some], rows.score[last], rows.hi[last], rows.lo[last])


def _numbered(cluster: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids (k,) ascending, where (n,), sizes (k,)) of ids (n,) >= 0; counted where they are small, else sorted."""
    if not len(cluster) or cluster.max() > 4 * len(cluster) + 65_536:
        return np.unique(cluster, return_inverse=True, return_counts=True)
    counts = np.bincount(cluster)
    ids = np.flatnonzero(counts)
    number = np.zeros(len(counts), np.uint16 if len(ids) < 1 << 16 else np.int64)  # numpy sorts two bytes in one go
    number[ids] = np.arange(len(ids))
    return ids, number[cluster], counts[ids]


def _ordered(where: np.ndarray, key: np.ndarray, hi: np.ndarray, lo: np.ndarray) -> np.ndarray:
    """np.lexsort((lo, hi, key, where)), in which uids are looked at only where the others are equal."""
    order = np.argsort(key)
    order = order[np.argsort(where[order], kind="stable")]
    same = (where[order][1:] == where[order][:-1]) & (key[order][1:] == key[order][:-1])
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    rows = order[tied]
    order[tied] = rows[np.lexsort((lo[rows], hi[rows], key[rows], where[rows]))]
    return order


def highest(score: np.ndarray, hi: np.ndarray, lo: np.ndarray, wanted: int) -> np.ndarray:
    """int64: places of the `wanted` highest of score (n,), no NaN among them; ties at the edge by the smaller uid."""
    if not 0 < wanted < len(score):
        return np.arange(len(score) if wanted else 0)
    edge = np.partition(score, len(score) - wanted)[len(score) - wanted]
    above, tied = np.flatnonzero(score > edge), np.flatnonzero(score == edge)
    return np.concatenate([above, tied[np.lexsort((lo[tied], hi[tied]))][: wanted - len(above)]])

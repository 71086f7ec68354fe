"""How a pool's duplicates stand to the samples that are kept for them: each number is of the two samples it names.

The columns of `duplicates` say which sample is kept, and how near the sample was that made another a duplicate: in a
chain a-b-c, where a is kept, the number of c is its similarity to b. Here c is measured against a, and b is named.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from mmfilter.errors import MMFilterError
from mmfilter.plugs import build_plug
from mmfilter.subset_record import column_origins
from mmfilter.uids import format_uids, parse_uids

from .chains import Link, Members, parents
from .duplicates import KINDS, Duplicates
from .measured import Measures, Ruler
from .pool import Pool

DOUBT = ("semantic", "perceptual", "exact")  # the kind that errs most comes first
CHAIN_MAX = 4096  # samples of a group whose chains are worked out: n^2 similarities


@dataclass(frozen=True)
class Evidence:
    """Duplicates by group: `rows` (m,), positions, stand for `kept` (m,), sorted by kept, then by row.

    `kind` (m,) int8 is an index of `KINDS`, -1 where the pool does not say; `recorded` (m,) float32 the column
    duplicate_similarity; `score` what made the columns, None where that is not known.
    """

    pool: Pool
    rows: np.ndarray
    kept: np.ndarray
    kind: np.ndarray
    recorded: np.ndarray
    score: Duplicates | None

    @classmethod
    def open(cls, pool: Pool) -> "Evidence | None":
        """None where the pool has no column duplicate_of. Raises MMFilterError."""
        columns = ["duplicate_of", "duplicate_kind", "duplicate_similarity"]
        have = [name for name in columns if name in pool.table.columns]
        if "duplicate_of" not in have:
            return None
        frame = pool.read("uid", *have).with_row_index("row")
        first = frame.select(pl.col("uid").cast(pl.String), kept="row").unique("uid", keep="first")
        marked = frame.drop("uid").with_columns(uid=pl.col("duplicate_of").cast(pl.String, strict=False))
        marked = marked.filter(pl.col("uid") != "").join(first, on="uid").sort("kept", "row")
        kind, recorded = (
            marked[name] if name in have else pl.Series([None] * marked.height, dtype=dtype)
            for name, dtype in zip(columns[1:], (pl.String, pl.Float32), strict=True)
        )
        codes = kind.cast(pl.String).replace_strict({k: i for i, k in enumerate(KINDS)}, default=-1)
        return cls(
            pool,
            marked["row"].to_numpy().astype(np.int64),
            marked["kept"].to_numpy().astype(np.int64),
            codes.cast(pl.Int8).to_numpy(),
            recorded.cast(pl.Float32).fill_null(float("nan")).to_numpy(),
            _score(pool),
        )

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def ruler(self) -> Ruler:
        """What measures two samples; semantic ones by the model that found them, else by the pool's first."""
        score = self.score
        return Ruler.of(self.pool, score.model if score else None, score.modality if score else "image")

    @cached_property
    def starts(self) -> np.ndarray:
        """(groups,) where each group begins in `rows`."""
        return np.flatnonzero(np.diff(self.kept, prepend=-1))

    @cached_property
    def sizes(self) -> np.ndarray:
        """(groups,) how many duplicates each has."""
        return np.diff(np.append(self.starts, len(self)))

    def group_of(self, row: int) -> int:
        """The group in which `row` is kept; -1 where it is in none."""
        at = int(np.searchsorted(self.kept[self.starts], row))
        return at if at < len(self.starts) and self.kept[self.starts[at]] == row else -1

    def find(self, uid: str) -> int:
        """The row of a uid (32 hex), of several the first; -1 where the pool does not hold it."""
        rows = np.flatnonzero(self.pool.uids == parse_uids([uid])[0])
        return int(rows[0]) if len(rows) else -1

    def place_of(self, row: int) -> int:
        """The place of the duplicate `row`; -1 where it is none."""
        places = np.flatnonzero(self.rows == row)
        return int(places[0]) if len(places) else -1

    @cached_property
    def measures(self) -> Measures:
        """(m,) of each: the duplicate and the one that is kept."""
        return self.ruler.measure(self.rows, self.kept)

    @cached_property
    def direct(self) -> np.ndarray:
        """(m,) int8: 1 where the kept one and the duplicate are alike by the kind it was found by, 0 where only a
        chain joins them, -1 where it cannot be told."""
        return self._direct(self.kind, self.measures)

    def _direct(self, kind: np.ndarray, measures: Measures) -> np.ndarray:
        found = np.full(len(kind), -1, np.int8)
        for code, name in enumerate(KINDS):
            rows = kind == code
            holds = measures.holds(name, self.score)
            if holds is not None:
                found[rows] = holds[rows]
        return found

    @cached_property
    def doubt(self) -> np.ndarray:
        """(m,) int64: 0 for the duplicate that is least certain to be one, and so on.

        Semantic ones come first, then perceptual, then exact; of a kind the lowest cosine, also of perceptual ones
        where the pool has embeddings, as the hashes of plain pictures collide; else the most bits apart.
        """
        order = np.array([*(DOUBT.index(kind) for kind in KINDS), len(DOUBT)])[self.kind]
        cosine = np.where(np.isnan(self.measures.cosine), np.inf, self.measures.cosine)
        cosine = np.where(self.measures.same, np.inf, cosine)
        places = np.lexsort((self.rows, -self.measures.bits, cosine, order))
        found = np.empty(len(places), np.int64)
        found[places] = np.arange(len(places))
        return found

    def order(self, by: str, kind: str = "") -> "Order":
        """The groups in order; with `kind` those that have such a duplicate, and of each only such duplicates.

        ``doubt``: the least certain first; ``alike``: the most certain first; ``size``: the largest first.
        """
        if (by, kind) not in self._orders:
            places = np.flatnonzero(self.kind == KINDS.index(kind)) if kind else np.arange(len(self))
            group = np.searchsorted(self.starts, places, side="right") - 1  # ascending
            sign = -1 if by == "alike" else 1
            if by != "size":
                places = places[np.lexsort((sign * self.doubt[places], group))]
            low = np.flatnonzero(np.diff(group, prepend=-1))
            high = np.append(low[1:], len(places)) if len(low) else low
            key = low - high if by == "size" else sign * self.doubt[places[low]]
            order = np.argsort(key, kind="stable")
            self._orders[by, kind] = Order(group[low][order], low[order], high[order], places)
        return self._orders[by, kind]

    @cached_property
    def _orders(self) -> "dict[tuple[str, str], Order]":
        return {}

    def tell(self, places: Sequence[int] | np.ndarray, chains: bool = True) -> list[dict[str, Any]]:
        """Of each duplicate at `places` (k,): `Measures.tell` of it and the kept one; kind, of, direct, chain.

        `chain` leads from it to the kept one: uid and numbers of each sample against the one before. It is None
        where the two are alike themselves, where it cannot be told, in a group above `CHAIN_MAX`, and without `chains`.
        """
        places = np.asarray(places, np.int64)
        kept, kind = self.kept[places], self.kind[places]
        measures = self.ruler.measure(self.rows[places], kept)
        direct = self._direct(kind, measures).tolist()
        apart = [chains and alike == 0 for alike in direct]
        ways = self._chains([self._path(at) if far else [] for at, far in zip(places.tolist(), apart, strict=True)])
        told = []
        for i, of in enumerate(format_uids(self.pool.uids[kept])):
            name = KINDS[kind[i]] if kind[i] >= 0 else ""
            alike = None if direct[i] < 0 else bool(direct[i])
            told.append({"of": of, "kind": name, **measures.tell(i, name), "direct": alike, "chain": ways[i]})
        return told

    def _path(self, place: int) -> list[int]:
        """Positions from a duplicate to the kept one, over those it joined through; empty where they are not known."""
        group = int(np.searchsorted(self.starts, place, side="right") - 1)
        found, first = self._parents(group), int(self.starts[group])
        at, path = place - first + 1, [int(self.rows[place])]
        while found is not None and at:
            at = int(found[at])
            if at < 0:
                return []
            path.append(int(self.rows[first + at - 1] if at else self.kept[place]))
        return [] if found is None else path

    def _chains(self, paths: list[list[int]]) -> list[list[dict[str, Any]] | None]:
        """Of each path its samples after the first, each against the one before; all are measured together."""
        before = np.array([row for path in paths for row in path[:-1]], np.int64)
        after = np.array([row for path in paths for row in path[1:]], np.int64)
        measures = self.ruler.measure(before, after)
        holds = {kind: found for kind in KINDS if (found := measures.holds(kind, self.score)) is not None}
        told = []
        for i, uid in enumerate(format_uids(self.pool.uids[after])):
            kind = next((kind for kind, found in holds.items() if found[i]), "")
            told.append({"uid": uid, "kind": kind, **measures.tell(i, kind)})
        steps = iter(told)
        return [[next(steps) for _ in path[1:]] or None for path in paths]

    @cached_property
    def _known(self) -> dict[int, np.ndarray | None]:
        return {}

    def _parents(self, group: int) -> np.ndarray | None:
        """`chains.parents` of a group, worked out once."""
        if group not in self._known:
            part = slice(int(self.starts[group]), int(self.starts[group] + self.sizes[group]))
            if self.score is None or self.sizes[group] > CHAIN_MAX:
                self._known[group] = None
            else:
                rows = np.concatenate([self.kept[part][:1], self.rows[part]])
                members = Members(*self.ruler.read(rows), self.kind[part], self.recorded[part])
                self._known[group] = parents(members, Link.of(self.score))
        return self._known[group]


@dataclass(frozen=True)
class Order:
    """Groups (g,) in the order they are shown; the duplicates of the i-th are `places[low[i] : high[i]]`."""

    groups: np.ndarray
    low: np.ndarray
    high: np.ndarray
    places: np.ndarray


def _score(pool: Pool) -> Duplicates | None:
    """What the pool's first shard says its columns were made by."""
    part = column_origins(pool.table, ["duplicate_of"]).get("duplicate_of")
    if not isinstance(part, dict) or part.get("score") != "duplicates":
        return None
    try:
        return build_plug(Duplicates, part.get("fields"), "duplicate_of")
    except MMFilterError:  # of a later version
        return None

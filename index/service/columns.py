"""A pool's table as the service keeps it: numbers as arrays, read once; text by shard, when it is wanted."""

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl

from mmfilter.errors import DataError, UsageError, nearest
from mmfilter.rules.masks import numbers
from mmfilter.subset import sort_order
from mmfilter.table import Table
from mmfilter.uids import DTYPE, HALVES

from .cache import Cache

CAPTION, PLACE = ("text", "url", "key"), ("offset", "size", "sha256")  # read together, by shard
SIZES = {"original_width", "original_height"}
HIDDEN = {"uid", "key", "offset", "size", "sha256"}  # where a sample lies: nothing to search or to cut by


class Columns:
    """n rows in the table's order; a row's number is its place there. Thread-safe.

    `uids` (n,) DTYPE; `starts` (shards + 1,) int64; `kinds` maps a column to number, bool, text or other.
    """

    def __init__(self, table: Table, cache: int) -> None:
        """`cache` is how many bytes of text may be kept."""
        self.table, self.cache = table, Cache(cache)
        counts = [rows for group in table.groups() for rows in group.rows]
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        halves = table.read(HALVES)
        self.uids = np.empty(halves.height, DTYPE)
        self.uids["f0"], self.uids["f1"] = (halves[half].to_numpy() for half in HALVES)
        if len(self.uids) != self.starts[-1]:
            raise DataError(f"{table.metadata}: it changed while it was read; it will be read again")
        self.order = sort_order(self.uids).astype(np.uint32) if len(self.uids) else np.empty(0, np.uint32)
        self._sorted = self.uids[self.order].astype([("f0", ">u8"), ("f1", ">u8")]).view("S16")
        schema = table.read(table.columns, table.stems[0]).schema
        self.kinds = {name: _kind(dtype) for name, dtype in schema.items()}
        self.hashes = {
            name for name, dtype in schema.items() if dtype == pl.UInt64
        }  # phash: numbers that measure nothing
        self._numbers: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.uids)

    def find(self, uids: np.ndarray) -> np.ndarray:
        """(m,) DTYPE -> (m,) int64: each uid's first row, -1 where it is not in the pool."""
        wanted = np.asarray(uids, DTYPE).astype([("f0", ">u8"), ("f1", ">u8")]).view("S16")
        places = np.searchsorted(self._sorted, wanted)
        inside = np.minimum(places, max(len(self) - 1, 0))
        if not len(self):
            return np.full(len(wanted), -1, np.int64)
        return np.where(self._sorted[inside] == wanted, self.order[inside].astype(np.int64), -1)

    @property
    def scores(self) -> list[str]:
        """The columns of numbers and truths that are no size or place, by name."""
        plain = (name for name, kind in self.kinds.items() if kind in ("number", "bool"))
        return sorted(name for name in plain if name not in SIZES | HIDDEN | self.hashes)

    def check(self, name: str, kinds: Sequence[str] = ("number", "bool")) -> None:
        """Raise UsageError where `name` is no column of these kinds."""
        if name not in self.kinds:
            have = [column for column, kind in self.kinds.items() if kind in kinds]
            raise UsageError(f"no column '{name}'{nearest(name, have)} This pool has: {', '.join(sorted(have))}")
        if self.kinds[name] not in kinds:
            raise UsageError(f"column '{name}' holds no numbers, so there is nothing to count or to cut")

    def numbers(self, name: str) -> np.ndarray:
        """(n,) of a number or bool column in its own precision, null as NaN; read once. Raises UsageError."""
        if name not in self._numbers:
            self.check(name)
            with self._lock:
                if name not in self._numbers:
                    frame = self.table.read([name])
                    if frame.height != len(self):
                        raise DataError(
                            f"column '{name}' has {frame.height} rows, the pool {len(self)}; ask again soon"
                        )
                    self._numbers[name] = np.ascontiguousarray(numbers(frame, name))
        return self._numbers[name]

    def frame(self, names: Iterable[str]) -> pl.DataFrame:
        """The columns as rules take them. Raises UsageError for one that is not there."""
        found: dict[str, Any] = {}
        for name in sorted(set(names)):
            if name in HALVES:
                found[name] = np.ascontiguousarray(self.uids["f0" if name == "uid_hi" else "f1"])
            elif self.kinds.get(name) in ("number", "bool"):
                found[name] = self.numbers(name)
            else:
                self.check(name, tuple(set(self.kinds.values())))
                found[name] = self._text(name)
        return pl.DataFrame(found)

    def _text(self, name: str) -> pl.Series:
        return self.cache.get(name, lambda: self.table.read([name])[name], _series_bytes)

    def rows(self, rows: np.ndarray, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """A dict of `names` (CAPTION or PLACE) for each of `rows` (m,), "" or 0 where the pool has no such column."""
        shards = np.searchsorted(self.starts, rows, side="right") - 1
        have = [name for name in names if name in self.table.columns]
        found: list[dict[str, Any]] = [{} for _ in rows]
        for shard in np.unique(shards).tolist():  # one at a time: all of them may be more text than the cache keeps
            frame = self._shard(shard, have)
            for at in np.flatnonzero(shards == shard).tolist():
                place = int(rows[at] - self.starts[shard])
                found[at] = {name: frame[name][place] if name in have else None for name in names}
        return found

    def place(self, row: int) -> tuple[str, int]:
        """(shard's stem, row in it)."""
        shard = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.table.stems[shard], row - int(self.starts[shard])

    def _shard(self, shard: int, names: list[str]) -> dict[str, pl.Series]:
        def read() -> dict[str, pl.Series]:
            frame = self.table.read(names, self.table.stems[shard]) if names else pl.DataFrame()
            return {name: frame[name] for name in names}

        size = lambda columns: sum(_series_bytes(column) for column in columns.values())  # noqa: E731
        return self.cache.get((shard, *names), read, size)


def _series_bytes(series: pl.Series) -> int:
    return int(series.estimated_size())


def _kind(dtype: pl.DataType) -> str:
    if dtype == pl.Boolean:
        return "bool"
    if dtype.is_numeric():
        return "number"
    return "text" if dtype in (pl.String, pl.Categorical) else "other"

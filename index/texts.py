"""The captions of a whole pool, read a group of shards at a time: hashed and counted, never held."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import polars as pl

from mmfilter import storage
from mmfilter.errors import UsageError
from mmfilter.plugs import Run
from mmfilter.table import Table
from mmfilter.uids import DTYPE

ROUND = 64  # groups, of 200,000 rows each, whose counts are in memory before they are merged
NOTHING = bytes(16)

S = TypeVar("S")


def groups(table: Table) -> list[list[str]]:
    """The shards' stems, in order, in groups: a task each."""
    return [group.stems for group in table.groups()]


def fold(
    run: Run, function: Callable[[Any], Any], tasks: Sequence[Any], merge: Callable[[S, list[Any]], S], to: S
) -> S:
    """`merge(to, results)` over all tasks in their order, so many at a time that memory stays flat."""
    for at in range(0, len(tasks), ROUND):
        to = merge(to, run(function, tasks[at : at + ROUND]))
    return to


def texts(table: Table, stems: Sequence[str], column: str = "text") -> list[str | None]:
    """A column of strings over some shards."""
    return table.read([column], stems)[column].cast(pl.String).to_list()


def digests(strings: Iterable[str | None]) -> np.ndarray:
    """(n,) of `uids.DTYPE`: the BLAKE2b of each string, 128 bits; zero for None.

    Two of 128 million different strings share one with a probability of 2e-23, and would then pass for one.
    """
    data = b"".join(NOTHING if s is None else hashlib.blake2b(s.encode(), digest_size=16).digest() for s in strings)
    return np.frombuffer(data, DTYPE)


@dataclass(frozen=True)
class _Hashed:
    """What a worker does with a group: one digest a row of some columns together."""

    table: Table
    columns: tuple[str, ...]

    def __call__(self, stems: list[str]) -> np.ndarray:
        frame = self.table.read(self.columns, stems)
        rows = zip(*(frame[name].cast(pl.String).to_list() for name in self.columns), strict=True)
        return digests(map(self._joined, rows))

    def _joined(self, row: tuple[str | None, ...]) -> str | None:
        """The row as one string, another for every other row; None where something is missing."""
        parts = []
        for name, value in zip(self.columns, row, strict=True):
            if value is None or (value == "" and name != "text"):  # an empty caption is one, an empty URL is none
                return None
            parts.append(f"{len(value)}:{value}")
        return "".join(parts)


def hashed(table: Table, columns: tuple[str, ...], run: Run) -> np.ndarray:
    """(n,) of `uids.DTYPE` by position: a digest of the columns together, zero where one of them is missing."""
    return np.concatenate([np.empty(0, DTYPE), *run(_Hashed(table, columns), groups(table))])


def there(keys: np.ndarray) -> np.ndarray:
    """(n,) bool: which of (n,) digests stand for something."""
    return (keys["f0"] != 0) | (keys["f1"] != 0)


def codes(keys: np.ndarray) -> np.ndarray:
    """(n,) int64, from 0 without gaps: the same number for the same of (n,) DTYPE."""
    order, new = grouped(keys)
    found = np.empty(len(keys), np.int64)
    found[order] = np.cumsum(new) - 1
    return found


def grouped(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(positions (n,) that put the same of (n,) DTYPE side by side, where another begins (n,) bool)."""
    hi, lo = np.ascontiguousarray(keys["f0"]), keys["f1"]
    order = np.argsort(hi)
    same, alike = (half[order[1:]] == half[order[:-1]] for half in (hi, lo))
    if (same & ~alike).any():  # half of a digest in common, which no pool has yet; both are then sorted
        order = np.lexsort((lo, hi))
        same, alike = (half[order[1:]] == half[order[:-1]] for half in (hi, lo))
    new = np.ones(len(keys), bool)
    new[1:] = ~(same & alike)
    return order, new


def new_runs(ordered: np.ndarray) -> np.ndarray:
    """(n,) bool: where another value begins in (n,) sorted ones."""
    new = np.ones(len(ordered), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return new


def absolute(path: str | None) -> str | None:
    """A path from the working directory, as a recipe's fields are meant."""
    return path if path is None or storage.is_remote(path) else os.path.abspath(path)


def read_text(path: str, what: str) -> str:
    """A file's text, UTF-8. Raises UsageError saying `what` is wanted there."""
    try:
        return storage.read_bytes(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); {what}") from error

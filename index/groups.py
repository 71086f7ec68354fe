"""Links between rows, the nearest of each, and the groups they make."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .exact import first_of


@dataclass(frozen=True)
class Links:
    """m links: `i` (int64) comes before `j` (int64), at `similarity` (float64)."""

    i: np.ndarray
    j: np.ndarray
    similarity: np.ndarray

    def __len__(self) -> int:
        return len(self.i)

    def __getitem__(self, rows: np.ndarray) -> "Links":
        return Links(self.i[rows], self.j[rows], self.similarity[rows])

    @classmethod
    def concat(cls, parts: Sequence["Links"]) -> "Links":
        """All of them, one after the other."""
        none = np.empty(0, np.int64)
        i, j = (np.concatenate([none, *(getattr(part, side) for part in parts)]).astype(np.int64) for side in "ij")
        return cls(i, j, np.concatenate([np.empty(0), *(part.similarity for part in parts)]))

    def best(self) -> "Links":
        """For each j its most similar i, of several the first; j ascending."""
        return self[first_of(self.j, -self.similarity, self.i)]


def join(root: np.ndarray, links: Links) -> None:
    """Join what is linked, in place: `root` (n,) int64 leads, over others, to a group's first row."""
    i, j = links.i, links.j
    while len(i):
        i, j = _find(root, i), _find(root, j)
        apart = i != j
        low, high = np.minimum(i, j)[apart], np.maximum(i, j)[apart]
        np.minimum.at(root, high, low)
        i, j = i[apart], j[apart]


def settle(root: np.ndarray) -> np.ndarray:
    """(n,) int64: each row's group's first row, from what leads there."""
    return _find(root, np.arange(len(root)))


def _find(root: np.ndarray, rows: np.ndarray) -> np.ndarray:
    rows = root[rows]
    while not np.array_equal(up := root[rows], rows):
        rows = up
    return rows


def stars(links: Links) -> Links:
    """Fewer links that join the same rows: i and j apart, as two sides of a product's block.

    At most one a row. Sides are told apart by shifting j, so that i < j need not hold here.
    """
    if len(links) < 2:
        return links
    shift = int(links.i.max()) + 1
    root = np.arange(shift + int(links.j.max()) + 1)
    join(root, Links(links.i, links.j + shift, links.similarity))
    rows = np.unique(np.concatenate([links.i, links.j + shift]))
    top = _find(root, rows)
    first_j = np.full(len(root), -1, np.int64)  # of each group, a column to tie its other rows to
    columns = rows[rows >= shift]
    first_j[_find(root, columns)[::-1]] = columns[::-1] - shift
    is_row = rows < shift
    i = np.concatenate([rows[is_row], top[~is_row]])
    j = np.concatenate([first_j[top[is_row]], rows[~is_row] - shift])
    return Links(i, j, np.ones(len(i)))

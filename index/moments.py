"""First and second moments of sets of embeddings, which add up, and the gap between two sets that they tell."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .frechet import frechet_to, root

Measure = Literal["fid", "mmd"]


@dataclass(frozen=True)
class Moments:
    """Of `n` rows x (d,): their sum, float64 (d,), and that of x x^T, float64 (d, d)."""

    n: int
    total: np.ndarray
    square: np.ndarray

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.n + other.n, self.total + other.total, self.square + other.square)

    @property
    def mean(self) -> np.ndarray:
        """float64 (d,)."""
        return self.total / self.n

    @property
    def covariance(self) -> np.ndarray:
        """float64 (d, d), divided by n - 1 as numpy.cov does; of one row 0."""
        return (self.square - np.outer(self.total, self.mean)) / max(self.n - 1, 1)


def of_blocks(blocks: Iterable[np.ndarray], dim: int) -> Moments:
    """Moments of unit rows, blocks of (m, d); rows of zeros have no direction and are not counted."""
    n, total, square = 0, np.zeros(dim), np.zeros((dim, dim))
    for block in blocks:
        rows = block.astype(np.float64)
        n += int(rows.any(axis=1).sum())
        total += rows.sum(axis=0)
        square += rows.T @ rows
    return Moments(n, total, square)


@dataclass(frozen=True)
class Gap:
    """How far a set is from the `target`, 0 for the same moments; NaN where one of them is empty.

    `fid`: the Fréchet distance (`index.frechet`). `mmd`: the squared maximum mean discrepancy (Gretton et al. 2012,
    with the means over all pairs, i = j included) under (1 + x·y)^2, whose features are x, twice, and x x^T.
    """

    target: Moments
    measure: Measure
    root: np.ndarray | None = None

    @classmethod
    def to(cls, target: Moments, measure: Measure) -> "Gap":
        return cls(target, measure, root(target.covariance) if measure == "fid" and target.n else None)

    def __call__(self, found: Moments) -> float:
        if not (found.n and self.target.n):
            return float("nan")
        if self.root is not None:
            return frechet_to(self.target.mean, self.root, found.mean, found.covariance)
        first = np.square(found.mean - self.target.mean).sum()
        second = np.square(found.square / found.n - self.target.square / self.target.n).sum()
        return float(2 * first + second)

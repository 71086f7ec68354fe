"""Cosines to the last bit, the same wherever a row stands in a block and whatever BLAS made the guess.

A matrix product in float32 finds the candidates; its error is below `margin`. Whatever lies that near
to a decision is decided by `dots`, in float64 and in one order of summation.
"""

import numpy as np

PAIRS = 4096  # at a time: 4096 x 768 doubles are 25 MB


def margin(dim: int) -> float:
    """A bound, doubled, on a float32 inner product's error for unit rows (Higham 2002: gamma_n = n u / (1 - n u))."""
    return (dim + 8) * 2.0**-23


def dots(a: np.ndarray, b: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """float64 (m,): the inner products of rows `a[i]` and `b[j]`, float32 (., d) each."""
    found = np.empty(len(i), np.float64)
    for at in range(0, len(i), PAIRS):
        part = slice(at, at + PAIRS)
        found[part] = np.multiply(a[i[part]], b[j[part]], dtype=np.float64).sum(axis=1)
    return found


def first_of(groups: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Positions of the first row of each group, groups ascending, rows ordered by `keys`, the first key first."""
    order = np.lexsort((*keys[::-1], groups))
    new = np.ones(len(order), bool)
    new[1:] = groups[order[1:]] != groups[order[:-1]]
    return order[new]

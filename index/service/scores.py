"""A column's histogram, and what lies on either side of a threshold."""

from typing import Any

import numpy as np

from .hits import hits, plain
from .pool import Snapshot


def histogram(snapshot: Snapshot, column: str, bins: int) -> dict[str, Any]:
    """`edges` (b + 1), `counts` (b) of all that has a value, `missing`, and the newest subset's `thresholds`.

    Whole numbers of fewer than `bins` values have a bin each, with edges halfway between.
    """
    key = ("histogram", column, bins, snapshot.kept_by)
    return snapshot.columns.cache.get(key, lambda: _histogram(snapshot, column, bins), lambda _: 32 * bins)


def _histogram(snapshot: Snapshot, column: str, bins: int) -> dict[str, Any]:
    stored = snapshot.columns.numbers(column)
    there = stored[np.isfinite(stored)] if stored.dtype.kind == "f" else stored
    values = there.astype(np.float64)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if stored.dtype.kind in "iub" and high - low < bins:
        edges = np.arange(low - 0.5, high + 1)
    else:
        edges = np.histogram_bin_edges([], bins, (low, high))
    counts = np.histogram(values, edges)[0]
    steps = snapshot.subsets[snapshot.kept_by].record["steps"] if snapshot.kept_by else []
    cuts = sorted({float(cut) for step in steps for cut in (step.get("thresholds") or {}).get(column, [])})
    return {
        "column": column,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "missing": len(stored) - len(values),
        "thresholds": cuts,
        "median": plain(np.median(values)) if len(values) else None,
    }


def edge(snapshot: Snapshot, column: str, at: float, n: int) -> dict[str, Any]:
    """The n samples just below `at` and the n just at or above it, nearest first; `keeps` are all >= `at`, `of` all."""
    values = snapshot.columns.numbers(column)
    cut: Any = at if values.dtype.kind != "f" else values.dtype.type(at)  # in the column's own precision, as rules do
    over = values >= cut
    under = values < cut  # not ~over: what has no value is on no side
    below, above = _nearest(values, under, n, highest=True), _nearest(values, over, n, highest=False)
    return {
        "below": hits(snapshot, below),
        "above": hits(snapshot, above),
        "keeps": int(over.sum()),
        "of": len(values),
    }


def _nearest(values: np.ndarray, side: np.ndarray, n: int, highest: bool) -> np.ndarray:
    """(m,) rows of `side`, m up to n: those of the highest or lowest values, ties by row."""
    rows = np.flatnonzero(side)
    found = values[rows]
    if len(rows) > n:
        place = len(rows) - n if highest else n - 1
        limit = np.partition(found, place)[place]
        near = found >= limit if highest else found <= limit
        rows, found = rows[near], found[near]
    order = np.lexsort((rows, -found.astype(np.float64) if highest else found))
    return rows[order[:n]]

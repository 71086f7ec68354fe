"""How a column's values lie, kept and dropped apart, and what its thresholds cut."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from .pool import Pool

BINS = 56
TOP = 12  # values of a text column that are told apart
OTHERS = 16  # score columns no rule uses that are still shown
NOT_SCORES = {"uid", "url", "text", "key", "sha256", "face_bboxes", "offset", "size", "uid_hi", "uid_lo"}


@dataclass(frozen=True)
class Cut:
    """A threshold's two sides: how many samples, and how many of them were kept in the end.

    A value equal to the threshold is on the side that is kept: above a lower bound, below an `upper` one.
    """

    value: float
    step: int
    upper: bool
    below: int
    below_kept: int
    above: int
    above_kept: int

    def good(self, values: np.ndarray) -> np.ndarray:
        """(n,) bool: the values (n,) on the side that is kept."""
        return values <= self.value if self.upper else values >= self.value

    @property
    def sides(self) -> list[tuple[str, int, int]]:
        """(name, samples, kept), from low to high."""
        below, above = ("at or below", "above") if self.upper else ("below", "at or above")
        return [(below, self.below, self.below_kept), (above, self.above, self.above_kept)]


@dataclass(frozen=True)
class Histogram:
    """edges (b + 1,) float64; kept, dropped (b,) int64. Values beyond the edges are in the outer bars.

    Of `whole` numbers, edges lie halfway between them.
    """

    column: str
    edges: np.ndarray
    kept: np.ndarray
    dropped: np.ndarray
    missing: int
    beyond: int
    median: float
    cuts: list[Cut]
    used: bool
    whole: bool

    def at(self, cut: Cut) -> float:
        """Where the threshold's line stands on the axis: between whole numbers, not on one."""
        if not self.whole:
            return cut.value
        return float(np.floor(cut.value) + 0.5 if cut.upper else np.ceil(cut.value) - 0.5)


@dataclass(frozen=True)
class Category:
    """A text column's commonest values: (value, kept, dropped)."""

    column: str
    values: list[tuple[str, int, int]]

    @property
    def most(self) -> int:
        """Samples of the commonest value, at least 1."""
        return max((kept + dropped for _, kept, dropped in self.values), default=1)


def numeric_columns(pool: Pool) -> tuple[list[str], list[str]]:
    """(columns the rules look at, other float score columns), numbers only."""
    used = list(dict.fromkeys(c for step in pool.steps for c in (*step.thresholds, *step.columns)))
    kinds = {name: _kind(pool, name) for name in pool.table.columns}
    ours = [c for c in used if c in kinds and c not in NOT_SCORES and kinds[c].is_numeric()]
    drawn = {c for step in pool.steps for c, values in step.thresholds.items() if values}
    ours.sort(key=lambda c: (c not in drawn, not kinds[c].is_float()))
    others = sorted(c for c, kind in kinds.items() if kind.is_float() and c not in ours and c not in NOT_SCORES)
    return ours, others[:OTHERS]


def text_columns(pool: Pool) -> list[str]:
    """Text columns that rules look at, such as a language."""
    used = dict.fromkeys(c for step in pool.steps for c in step.columns)
    return [c for c in used if c in pool.table.columns and c not in NOT_SCORES and _kind(pool, c) == pl.String]


def _kind(pool: Pool, column: str) -> pl.DataType:
    stems = pool.table.stems
    return pool.table.read([column], stems[0])[column].dtype if stems else pl.Null()


def histogram(pool: Pool, column: str, values: np.ndarray, used: bool) -> Histogram:
    """`values` (n,) float of the column; thresholds are those of the pool's rules on it."""
    good = np.isfinite(values) & pool.well
    cuts = [
        _cut(pool, values, good, step, float(value))
        for step, rule in enumerate(pool.steps)
        for value in rule.thresholds.get(column, [])
    ]
    whole = bool((values[good] == np.round(values[good])).all())
    edges = _edges(values[good], [cut.value for cut in cuts], whole)
    inside = np.clip(values[good].astype(np.float64), edges[0], edges[-1])
    keep = pool.keep[good]
    kept, dropped = (np.histogram(inside[side], edges)[0] for side in (keep, ~keep))
    beyond = int(((values[good] < edges[0]) | (values[good] > edges[-1])).sum())
    median = float(np.median(values[good])) if good.any() else float("nan")
    return Histogram(column, edges, kept, dropped, int(pool.well.sum() - good.sum()), beyond, median, cuts, used, whole)


def _cut(pool: Pool, values: np.ndarray, good: np.ndarray, step: int, value: float) -> Cut:
    kept = pool.keep & good
    upper = int((kept & (values < value)).sum()) > int((kept & (values > value)).sum())
    above = good & ((values > value) if upper else (values >= value))
    below = good & ~above
    counts = [int(side.sum()) for side in (below, below & kept, above, above & kept)]
    return Cut(value, step, upper, *counts)


def _edges(values: np.ndarray, thresholds: list[float], whole: bool) -> np.ndarray:
    """Even bins over the middle 99.8 % and the thresholds; the first threshold lies on an edge.

    Whole numbers get bins of a whole number of them, with edges halfway between.
    """
    if not len(values):
        return np.linspace(0.0, 1.0, BINS + 1)
    low, high = (float(v) for v in np.quantile(values, [0.001, 0.999]))
    finite = [t for t in thresholds if np.isfinite(t)]
    low, high = min([low, *finite]), max([high, *finite])
    if whole:
        low, high = np.floor(low) - 0.5, np.ceil(high) + 0.5
        finite = [np.ceil(t) - 0.5 for t in finite]
        width = float(max(1, np.ceil((high - low) / BINS)))
    else:
        width = (high - low) / (BINS - 2) or max(abs(low) * 0.01, 1e-6)
    anchor = finite[0] if finite else low
    first, last = np.floor((low - anchor) / width + 1e-9), np.ceil((high - anchor) / width - 1e-9)
    return anchor + width * np.arange(first - (not whole), last + 1 + (not whole))


def category(pool: Pool, column: str) -> Category:
    frame = pl.DataFrame({"value": pool.series(column).cast(pl.String), "keep": pool.keep}).filter(pool.well)
    counts = (
        frame.group_by("value")
        .agg(kept=pl.col("keep").sum(), read=pl.len())
        .sort(["read", "value"], descending=[True, False], nulls_last=True)
    )
    rows = [(value or "(none)", kept, read - kept) for value, kept, read in counts.iter_rows()]
    if len(rows) > TOP:
        rest = rows[TOP - 1 :]
        rows = [*rows[: TOP - 1], (f"{len(rest)} others", sum(r[1] for r in rest), sum(r[2] for r in rest))]
    return Category(column, rows)

"""What sets of samples are made of, side by side: languages, sizes, scores, concepts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from .table import Table

Weights = Mapping[str, np.ndarray]
"""Set -> (n,) int64: how often each of the pool's samples is in it, 0 where it is not."""

SIDES = (64, 128, 200, 320, 512, 1024)  # px, where the classes of the shorter side part; 200 is DataComp's bound
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TOP = 12  # languages that are told apart
MOST = 16  # score columns that are told
NOT_SCORES = {"uid", "url", "text", "key", "sha256", "face_bboxes", "offset", "size"}


@dataclass(frozen=True)
class Source:
    """`series` reads a column (n,) of the pool; `columns` are all it has, `scores` the float ones among them."""

    series: Callable[[str], pl.Series]
    columns: frozenset[str]
    scores: tuple[str, ...]


def source_of(table: Table) -> Source:
    """Of a pool's table (`Table.whole`), read a column at a time."""
    names = sorted(set(table.columns) - NOT_SCORES)
    first = table.read(names, table.stems[0]) if table.stems else pl.DataFrame()
    scores = [name for name in names if name in first.columns and first[name].dtype.is_float()]
    return Source(lambda name: table.read([name])[name], frozenset(table.columns), tuple(scores[:MOST]))


def compose(pool: Source, weights: Weights) -> dict[str, Any]:
    """Plain values: `samples` by set, and where the pool has the columns `languages`, `sides`, `scores`, `concepts`.

    `languages` and `sides` are rows of value and counts by set; `scores` maps column -> set -> mean, quantiles (the
    least value that at least so much of the set does not exceed) and missing; `concepts` set -> clusters that are
    hit, their share of the pool's, entropy in nats and its exponential, over the column `cluster_id`.
    """
    found: dict[str, Any] = {"samples": {name: int(w.sum()) for name, w in weights.items()}}
    if "language" in pool.columns:
        found["languages"] = languages(pool.series("language"), weights)
    if {"original_width", "original_height"} <= pool.columns:
        width, height = (_floats(pool.series(f"original_{side}")) for side in ("width", "height"))
        found["sides"] = sides(np.minimum(width, height), weights)
    found["scores"] = {name: spread(_floats(pool.series(name)), weights) for name in pool.scores}
    if "cluster_id" in pool.columns:
        cluster = pool.series("cluster_id").cast(pl.Int64).fill_null(-1).to_numpy()
        found["concepts"] = concepts(cluster, weights)
    return found


def _floats(values: pl.Series) -> np.ndarray:
    kind = pl.Float32 if values.dtype == pl.Float32 else pl.Float64
    return values.cast(kind, strict=False).fill_null(float("nan")).to_numpy()


def languages(values: pl.Series, weights: Weights) -> list[dict[str, Any]]:
    """The commonest values over all sets, and the rest of them in one row."""
    frame = pl.DataFrame({"value": values.cast(pl.String).fill_null(""), **{f"n{i}": w for i, w in _numbered(weights)}})
    rows = frame.group_by("value").agg(pl.exclude("value").sum()).rows()
    rows.sort(key=lambda row: (-max(row[1:], default=0), row[0]))
    told = [{"value": row[0] or "(none)", "counts": dict(zip(weights, row[1:], strict=True))} for row in rows[:TOP]]
    if rest := rows[TOP:]:
        counts = {name: sum(row[i + 1] for row in rest) for i, name in enumerate(weights)}
        told.append({"value": f"{len(rest)} others", "counts": counts})
    return told


def _numbered(weights: Weights) -> list[tuple[int, np.ndarray]]:
    return list(enumerate(weights.values()))


def sides(shorter: np.ndarray, weights: Weights) -> list[dict[str, Any]]:
    """Samples by class of the `shorter` side (n,) in px, of the classes that hold any; NaN is unknown."""
    unknown = ~np.isfinite(shorter)
    place = np.where(unknown, len(SIDES) + 1, np.digitize(shorter, SIDES))
    names = [f"under {SIDES[0]} px", *(f"{a} to {b - 1} px" for a, b in pairwise(SIDES))]
    names += [f"{SIDES[-1]} px or more", "unknown"]
    counts = {name: _binned(place, w, len(names)) for name, w in weights.items()}
    return [
        {"value": value, "counts": {name: int(n[i]) for name, n in counts.items()}}
        for i, value in enumerate(names)
        if any(n[i] for n in counts.values())
    ]


def _binned(place: np.ndarray, weight: np.ndarray, bins: int) -> np.ndarray:
    return np.bincount(place, weight, bins).astype(np.int64)


def spread(values: np.ndarray, weights: Weights) -> dict[str, dict[str, Any]]:
    """Mean, quantiles and missing of `values` (n,) in each set; None where a set has no finite value."""
    order = np.argsort(values, kind="stable")
    order = order[np.isfinite(values[order])]
    ordered = values[order].astype(np.float64)
    return {name: _spread(ordered, w[order], int(w.sum())) for name, w in weights.items()}


def _spread(values: np.ndarray, weight: np.ndarray, whole: int) -> dict[str, Any]:
    below = np.cumsum(weight)
    total = int(below[-1]) if len(below) else 0
    if not total:
        return {"mean": None, "quantiles": [None] * len(QUANTILES), "missing": whole}
    at = np.searchsorted(below, np.maximum(np.ceil(np.multiply(QUANTILES, total) - 1e-9), 1))
    return {
        "mean": float((values * weight).sum() / total),
        "quantiles": [float(v) for v in values[at]],
        "missing": whole - total,
    }


def concepts(cluster: np.ndarray, weights: Weights) -> dict[str, dict[str, Any]]:
    """How each set covers the clusters that the pool's `cluster` (n,) numbers; -1 is none."""
    there = cluster >= 0
    k = len(np.unique(cluster[there]))
    bins = int(cluster.max(initial=-1)) + 1
    found = {}
    for name, weight in weights.items():
        counts = _binned(cluster[there], weight[there], bins)
        share = counts[counts > 0] / max(counts.sum(), 1)
        entropy = max(float(-(share * np.log(share)).sum()), 0.0)
        hit = len(share)
        found[name] = {
            "hit": hit,
            "share": hit / k if k else None,
            "entropy": entropy,
            "effective": float(np.exp(entropy)) if hit else 0.0,
        }
    return found

"""kNN and linear probes: how well a pool's stored embeddings tell the values of a column.

Cheap signals of an encoder, and no zero-shot figures: they learn from labelled samples of the same pool.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mmfilter import storage
from mmfilter.allow import Allow
from mmfilter.errors import DataError, UsageError, nearest
from mmfilter.subset import sample_share

from .nearest import best, merge
from .pool import Pool
from .vectors import Vectors

ROWS = 8192
CLASSES = 10_000
QUERIES = 1024  # of them at once against a block of rows


@dataclass(frozen=True)
class ProbeOptions:
    """Which embeddings, which column (of the table, or of the parquet file `labels`), and how.

    `holdout` is the share of samples that are asked about, at most `queries` of them; both by a hash of
    seed and uid. `k` and `temperature` are those of Wu et al. 2018 (arXiv 1805.01978) as DINO uses them
    (arXiv 2104.14294). `ridge` is added to the mean squares of the rows; its default is a guess.
    """

    model: str
    column: str
    modality: str = "image"
    labels: str | None = None
    holdout: float = 0.2
    queries: int = 10_000
    k: int = 20
    temperature: float = 0.07
    ridge: float = 1e-4
    seed: int = 0


def probe(out: str, options: ProbeOptions, metadata: str | None = None, allow: Allow = Allow()) -> dict[str, Any]:
    """`probe_knn` and `probe_linear`, accuracies on held-out samples with 95 % intervals (Wilson's), and counts.

    `most_common` is what the commonest class alone would get. Samples without a label or a direction are
    left out. The figures hang on the samples alone, not on shards or their order, to the last bits of a
    float32 product. Raises UsageError, DataError.
    """
    pool = Pool(out, metadata, allow=allow)
    vectors = pool.vectors(options.model, options.modality)
    names, labels = _labels(pool, options)
    order = np.argsort(pool.uids, order=("f0", "f1"))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))  # a sample's place by uid, which decides between equals
    usable = (labels >= 0) & _directed(vectors)
    share = sample_share(pool.uids, options.seed)
    asked = np.flatnonzero(usable & (share < options.holdout))
    asked = asked[np.lexsort((rank[asked], share[asked]))][: options.queries]
    train = usable & (share >= options.holdout)
    if not len(asked) or not train.any():
        raise UsageError(f"--holdout {options.holdout:g}: it leaves no sample to ask about, or none to learn from")
    if len(np.unique(labels[train])) < 2:
        raise UsageError(
            f"column '{options.column}': the {int(train.sum()):,} samples to learn from are all of one class, "
            "and a probe would answer it always; give a smaller --holdout or another column"
        )
    truth, rows = labels[asked], vectors.take(asked)
    by_rank = labels[order]
    knn = _vote(_neighbours(vectors, rows, np.where(train, rank, -1), options.k), by_rank, len(names), options)
    linear = rows_and_one(rows) @ _ridge(vectors, np.where(train, labels, -1), len(names), options.ridge)
    common = np.bincount(labels[train], minlength=len(names)).argmax()
    found = {"probe_knn": knn == truth, "probe_linear": linear.argmax(axis=1) == truth, "most_common": common == truth}
    return {
        "column": options.column,
        "model": options.model,
        "modality": options.modality,
        "classes": len(names),
        "learned_from": int(train.sum()),
        "asked": len(asked),
        "left_out": int((~usable).sum()),
        **{name: {"accuracy": float(hits.mean()), "interval": wilson(hits)} for name, hits in found.items()},
        **pool.table.gaps(),
    }


def _labels(pool: Pool, options: ProbeOptions) -> tuple[list[Any], np.ndarray]:
    """The column's values, sorted, and (n,) int64 by position: which one a sample has; -1 for none."""
    frame = pool.read("uid") if options.labels else pool.read("uid", options.column)
    if options.labels:
        frame = frame.join(_from_file(options), on="uid", how="left", maintain_order="left")
    values = frame[options.column]
    if values.dtype.is_float():
        values = values.fill_nan(None)
    if values.dtype.is_nested():
        raise UsageError(f"column '{options.column}' holds {values.dtype}; words, numbers or true and false are wanted")
    names = values.drop_nulls().unique().sort().to_list()
    if not 2 <= len(names) <= CLASSES:
        raise UsageError(f"column '{options.column}' has {len(names):,} values; a probe wants 2 to {CLASSES:,} classes")
    number = pl.DataFrame({options.column: pl.Series(names, dtype=values.dtype), "n": np.arange(len(names))})
    joined = values.to_frame().join(number, on=options.column, how="left", maintain_order="left")
    return names, joined["n"].fill_null(-1).to_numpy()


def _from_file(options: ProbeOptions) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(io.BytesIO(storage.read_bytes(str(options.labels))))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{options.labels}: cannot be read as parquet ({' '.join(str(error).split())[:200]})"
        ) from error
    for name in ("uid", options.column):
        if name not in frame.columns:
            hint = nearest(name, frame.columns)
            raise UsageError(f"{options.labels}: no column '{name}'{hint} It has: {', '.join(frame.columns)}")
    if frame["uid"].dtype != pl.String:
        raise DataError(f"{options.labels}: uid holds {frame['uid'].dtype}; 32 hex digits as text are wanted")
    return frame.select("uid", options.column).unique("uid", keep="first", maintain_order=True)


def _directed(vectors: Vectors) -> np.ndarray:
    """(n,) bool: rows that have a direction."""
    parts = [rows.any(axis=1) for _, rows in vectors.blocks(ROWS)]
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def _neighbours(vectors: Vectors, queries: np.ndarray, rank: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(ranks (q, k), similarities (q, k)) of the nearest rows; those of rank -1 are none."""
    empty = np.empty((len(queries), 0))
    found = best(empty, empty.astype(np.int64), k)
    for start, rows in vectors.blocks(ROWS):
        here = rank[start : start + len(rows)]
        each = [best(queries[i : i + QUERIES] @ rows.T, here, k) for i in range(0, len(queries), QUERIES)]
        found = merge([found, tuple(np.concatenate(side) for side in zip(*each, strict=True))], k)  # type: ignore[list-item]
    return found


def _vote(found: tuple[np.ndarray, np.ndarray], by_rank: np.ndarray, classes: int, options: ProbeOptions) -> np.ndarray:
    """(q,) the class with the most weight exp(similarity / temperature) among the neighbours; of equals the first."""
    ranks, similarity = found
    weight = np.where(ranks >= 0, np.exp((similarity.astype(np.float64) - 1) / options.temperature), 0)
    voted = by_rank[np.maximum(ranks, 0)]
    answer = np.empty(len(ranks), np.int64)
    for i in range(len(ranks)):
        answer[i] = np.bincount(voted[i], weight[i], classes).argmax()
    return answer


def rows_and_one(rows: np.ndarray) -> np.ndarray:
    """float64 (n, d + 1): the rows and a one, for the intercept."""
    return np.concatenate([rows.astype(np.float64), np.ones((len(rows), 1))], axis=1)


def _ridge(vectors: Vectors, labels: np.ndarray, classes: int, ridge: float) -> np.ndarray:
    """float64 (d + 1, classes): least squares on one-hot classes with an L2 penalty, in closed form.

    The sums are taken block by block, so memory does not grow with the pool. The intercept is not penalised.
    """
    d = vectors.dim
    square, cross = np.zeros((d + 1, d + 1)), np.zeros((classes, d + 1))
    for start, rows in vectors.blocks(ROWS):
        mine = labels[start : start + len(rows)]
        kept = np.argsort(mine, kind="stable")[int((mine < 0).sum()) :]
        x = rows_and_one(rows[kept])
        square += x.T @ x
        if len(kept):
            here, first = np.unique(mine[kept], return_index=True)
            cross[here] += np.add.reduceat(x, first, axis=0)
    n = square[-1, -1]
    penalty = np.append(np.full(d, ridge), 0)
    return np.linalg.solve(square / n + np.diag(penalty), cross.T / n)


def wilson(hits: np.ndarray) -> list[float]:
    """[low, high] of a share, 95 %, of (n,) bool (Wilson 1927)."""
    n, p, z = len(hits), float(hits.mean()), 1.959964
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [float(min(max(middle - half, 0), p)), float(max(min(middle + half, 1), p))]

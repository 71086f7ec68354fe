"""Subsets of a pool side by side: what they share, are made of, cover, and how far they are from other sets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfilter.composition import compose, source_of
from mmfilter.errors import UsageError, nearest
from mmfilter.overlaps import overlaps
from mmfilter.plugs import Run
from mmfilter.subset import Subset, later_repeats

from .measures import fid, gather, mmd_cosine, vendi
from .moments import Moments, of_blocks
from .pool import Pool
from .reference import Asked, Reference, read_reference
from .transport import EPSILON, bandwidth, draw, mmd, sinkhorn
from .vectors import Vectors, embedded

POOL, TARGET = "pool", "target"
MOVED = 1000  # rows of each side in Sinkhorn's divergence: its cost matrix has as many squared
BLOCK = 8192
DIGITS = 8


@dataclass(frozen=True)
class Wanted:
    """`model` "" is the only one that there is; `target` a set as the score `target` reads it; `sample` rows of each
    set, drawn by `seed`, stand for it where a measure looks at pairs.
    """

    model: str = ""
    modality: str = "image"
    target: str = ""
    sample: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Side:
    """A set as the measures see it: all of it as moments, and some of its unit rows (m, d), at `positions` (m,) of the
    pool; -1 where they are not of the pool.
    """

    moments: Moments
    rows: np.ndarray
    positions: np.ndarray


def compare(subsets: Mapping[str, Subset], pool: Pool, wanted: Wanted, run: Run) -> dict[str, Any]:
    """`overlap`, `composition` and, where the pool is embedded, `measures`, of the subsets and of the whole pool.

    `absent` counts by subset the uids that the pool does not hold: they are in `overlap` alone. A row whose uid
    stood in the pool before counts for nothing, as in `select`. Raises UsageError, DataError.
    """
    if POOL in subsets or TARGET in subsets:
        raise UsageError(
            f"a subset is called '{POOL}' or '{TARGET}', which are names of their own here; rename its file"
        )
    weights = weigh(pool.uids, subsets)
    absent = {name: len(subset) - int(weights[name].sum()) for name, subset in subsets.items()}
    source = source_of(table := pool.table.whole())
    found = {"absent": absent, "overlap": overlaps(subsets), "composition": compose(source, weights)}
    model = chosen(pool, wanted)
    return {**found, "measures": measure(pool, weights, wanted, model, run) if model else None, **table.gaps()}


def weigh(uids: np.ndarray, subsets: Mapping[str, Subset]) -> dict[str, np.ndarray]:
    """Set -> int64 (n,): how often each of the pool's rows is in it, the whole pool first."""
    well = np.ones(len(uids), np.int64)
    well[later_repeats(uids["f0"], uids["f1"])] = 0
    return {POOL: well, **{name: subset.counts(uids) * well for name, subset in subsets.items()}}


def chosen(pool: Pool, wanted: Wanted) -> str:
    """The model whose embeddings are measured; "" where there are none. Raises UsageError."""
    models = embedded(pool.table, wanted.modality)
    if wanted.model and wanted.model not in models:
        known = f"{nearest(wanted.model, models)} It has: {', '.join(models) or 'none'}"
        raise UsageError(f"{pool.out}: no {wanted.modality} embeddings of '{wanted.model}'{known}")
    if not wanted.model and len(models) > 1:
        raise UsageError(f"{pool.out}: it was embedded by several models ({', '.join(models)}); say which with --model")
    return wanted.model or (models[0] if models else "")


def measure(pool: Pool, weights: Mapping[str, np.ndarray], wanted: Wanted, model: str, run: Run) -> dict[str, Any]:
    """`sets`: for each set `rows`, `vendi`, and its distances `to` the pool and to the target."""
    vectors = pool.vectors(model, wanted.modality)
    found = gather(vectors, list(weights.values()), run)
    sides = {
        name: _side(vectors, pool.uids, w, total, (wanted.sample, wanted.seed))
        for (name, w), total in zip(weights.items(), found, strict=True)
    }
    # another draw: the pool's own line then tells what chance does
    again = (wanted.sample, wanted.seed + 1)
    against = {POOL: _side(vectors, pool.uids, weights[POOL], sides[POOL].moments, again)}
    if wanted.target:
        reference = read_reference(wanted.target, Asked(pool, model, wanted.modality))
        against[TARGET] = _reference(reference, vectors.dim, wanted)
    widths = {name: bandwidth(side.rows) for name, side in against.items()}
    # as many rows of every set: fewer lie further from anything
    moved = min([MOVED, *(len(side.rows) for side in sides.values() if len(side.rows))])
    rows = [(name, side, list(against)) for name, side in sides.items()]
    rows += [(name, side, [POOL]) for name, side in against.items() if name == TARGET]
    return {
        "model": model,
        "modality": wanted.modality,
        "sample": wanted.sample,
        "moved": moved,
        "epsilon": EPSILON,
        "seed": wanted.seed,
        "squared_bandwidth": widths,
        "sets": {
            name: {
                "rows": side.moments.n,
                "vendi": vendi(side.moments),
                "to": {other: _apart(side, against[other], widths[other], moved) for other in others},
            }
            for name, side, others in rows
        },
    }


def _side(
    vectors: Vectors, uids: np.ndarray, weights: np.ndarray, total: Moments, sample_seed: tuple[int, int]
) -> Side:
    positions = draw(uids, weights, *sample_seed)
    rows = vectors.take(positions)
    there = rows.any(axis=1)
    return Side(total, rows[there], positions[there])


def _reference(reference: Reference, dim: int, wanted: Wanted) -> Side:
    """All items as moments, and a draw of them in the order of their names."""
    total = of_blocks((reference.block(at, at + BLOCK) for at in range(0, len(reference), BLOCK)), dim)
    order = np.array(sorted(range(len(reference)), key=lambda i: reference.names[i]), np.int64)
    few = order[np.random.default_rng(wanted.seed).permutation(len(order))[: wanted.sample]]
    rows = np.concatenate([reference.block(i, i + 1) for i in few.tolist()])
    rows = rows[rows.any(axis=1)]
    return Side(total, rows, np.full(len(rows), -1))


def _apart(side: Side, other: Side, squared_width: float, moved: int) -> dict[str, Any]:
    """The distances of two sets; all are smaller where they are more alike."""
    inside = bool((side.positions >= 0).any() and (other.positions >= 0).any())
    uids, counts = np.unique(other.positions, return_counts=True)
    at = np.searchsorted(uids, side.positions).clip(max=max(len(uids) - 1, 0))
    shared = int(counts[at][uids[at] == side.positions].sum()) if inside else 0
    divergence, iterations = sinkhorn(side.rows[:moved], other.rows[: moved if inside else MOVED])
    found = {
        "fid": fid(side.moments, other.moments),
        "mmd": mmd(side.rows, other.rows, squared_width, shared),
        "mmd_cosine": mmd_cosine(side.moments, other.moments, side.moments.n if inside else 0),
        "sinkhorn": divergence,
    }
    # what is further behind is the rounding of the sums, which hangs on how the samples lie in shards
    told = {name: None if value is None else round(value, DIGITS) + 0.0 for name, value in found.items()}
    return {**told, "iterations": iterations}

"""SemDeDup's comparison (Abbas et al. 2023, arXiv 2303.09540): rows of one cluster nearer than 1 - eps.

Rows stand in order of rank, the one that is kept first. Greedy, as the authors' code: j is a duplicate when
max over earlier i of cos(i, j) > 1 - eps. Groups, as their paper: of rows that are linked, over others or
directly, the first is kept. n^2 similarities are looked at, never held: a block of a product at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from mmfilter.plugs import Run

from . import gpu
from .exact import dots, margin
from .groups import Links, stars
from .vectors import Vectors

Mode = Literal["greedy", "groups"]
ROWS = 32_768  # of a task's side: 64 MB at 512 dimensions
BLOCK = 1024
GPU_BLOCK = 4096
SPARSE = 0.01  # of a block's pairs: above it, the pairs are cheaper together than one by one
WIDTHS = (32, 64, 128)
PAIR_COST = 40  # of an exact cosine, in those of a product's


@dataclass(frozen=True)
class Near:
    """What counts as near: cos > `floor`; and a `sieve` (d, m) of orthonormal columns, or None.

    By Cauchy and Schwarz cos(x, y) <= Px·Py + |Rx| |Ry|, with P onto the columns and R the rest. So most
    pairs are ruled out in m + 1 dimensions, and none wrongly: the sieve has no part in the answer.
    """

    floor: float
    mode: Mode
    sieve: np.ndarray | None = None

    def sketch(self, rows: np.ndarray) -> np.ndarray | None:
        """float32 (n, m + 1) whose inner products bound the rows' from above."""
        if self.sieve is None:
            return None
        short = rows @ self.sieve
        rest = 1 - np.einsum("ij,ij->i", short, short, dtype=np.float64)
        rest = np.sqrt(np.maximum(rest, 0) + 4 * margin(rows.shape[1]))  # |Rx|, errors included
        return np.concatenate([short, rest[:, None].astype(np.float32)], axis=1)


def compare(vectors: Vectors, clusters: list[np.ndarray], near: Near, run: Run) -> Iterator[tuple[int, Links]]:
    """(which cluster, links between rows of it by their place) of clusters of positions (m,) in order of rank.

    Small clusters share a task; a large one is many, a task for each pair of its parts.
    """
    tasks: list[list[tuple[int, int, int]]] = []
    room = 0
    for number, rows in enumerate(clusters):
        parts = range(0, len(rows), ROWS)
        for a, b in ((a, b) for b in parts for a in parts if a <= b):
            size = min(ROWS, len(rows) - b)
            if len(rows) > ROWS or size > room:
                tasks.append([])
                room = ROWS
            tasks[-1].append((number, a, b))
            room -= size
    ready = [[(n, a, b, clusters[n][a : a + ROWS], clusters[n][b : b + ROWS]) for n, a, b in task] for task in tasks]
    for found in run(partial(_task, vectors, near), ready):
        yield from found


def _task(vectors: Vectors, near: Near, task: list) -> list[tuple[int, Links]]:
    found = []
    blocks = iter(gather(vectors, [side for _, a, b, *sides in task for side in sides[: 1 + (a != b)]]))
    for number, a, b, *_ in task:
        x = next(blocks)
        links = linked(x, x if a == b else next(blocks), near)
        found.append((number, Links(links.i + a, links.j + b, links.similarity)))
    return found


def gather(vectors: Vectors, parts: list[np.ndarray]) -> list[np.ndarray]:
    """float32 unit rows at each of `parts`, positions: each shard is gone to once for all of them."""
    rows = vectors.take(np.concatenate(parts)) if parts else np.empty((0, vectors.dim), np.float32)
    return np.split(rows, np.cumsum([len(part) for part in parts])[:-1]) if parts else []


def linked(x: np.ndarray, y: np.ndarray, near: Near) -> Links:
    """Links i -> j between unit rows `x` (n, d), the earlier, and `y` (m, d); `y is x`: among themselves, i < j.

    Greedy: for each j that has an earlier one near, the nearest, and of several the first. Groups: links
    that join what is joined, not all there are.
    """
    same = y is x
    if gpu.there():
        return _linked_on_gpu(x, y, near)
    ux = near.sketch(x)
    uy = ux if same else near.sketch(y)
    room = np.empty(BLOCK * BLOCK, np.float32), np.empty(BLOCK * BLOCK, bool)  # written over by every block
    parts: list[Links] = []
    for b in range(0, len(y), BLOCK):
        stop = b + 1 if same else len(x)
        for a in range(0, stop, BLOCK):
            rows, columns = slice(a, a + BLOCK), slice(b, b + BLOCK)
            upper = same and a == b
            found = None
            if ux is not None and uy is not None:
                found = _sifted(x[rows], y[columns], ux[rows], uy[columns], near, upper, room)
            if found is None:
                found = _dense(x[rows], y[columns], near, upper)
            if len(found.i):
                parts.append(Links(found.i + a, found.j + b, found.similarity))
    links = Links.concat(parts)
    return links.best() if near.mode == "greedy" else links


def _linked_on_gpu(x: np.ndarray, y: np.ndarray, near: Near) -> Links:
    """`linked` without the sieve: there a product is cheaper than to look one over."""
    tx = gpu.put(x)
    ty = tx if y is x else gpu.put(y)
    parts: list[Links] = []
    for b in range(0, len(y), GPU_BLOCK):
        for a in range(0, b + 1 if y is x else len(x), GPU_BLOCK):
            rows, columns = slice(a, a + GPU_BLOCK), slice(b, b + GPU_BLOCK)
            found = gpu.pairs(tx[rows], ty[columns], *_edges(x.shape[1], near), y is x and a == b)
            links = _settled(x[rows], y[columns], found, near)
            parts.append(Links(links.i + a, links.j + b, links.similarity))
    links = Links.concat(parts)
    return links.best() if near.mode == "greedy" else links


def _edges(dim: int, near: Near) -> tuple[float, float]:
    """(floor, slack) of candidates: greedy, only what may be the nearest of its column."""
    return near.floor - margin(dim), 2 * margin(dim) if near.mode == "greedy" else np.inf


def _sifted(
    x: np.ndarray, y: np.ndarray, ux: np.ndarray, uy: np.ndarray, near: Near, upper: bool, room: tuple
) -> Links | None:
    """A block's links by way of the sieve; None where it lets too many pairs through."""
    bounds, may = (flat[: len(x) * len(y)] for flat in room)
    np.matmul(ux, uy.T, out=bounds.reshape(len(x), len(y)))
    np.greater(bounds, near.floor - margin(x.shape[1]), out=may)
    places = np.flatnonzero(may)
    i, j = np.divmod(places, len(y))
    if upper:
        later = i < j
        i, j = i[later], j[later]
    return None if len(i) > SPARSE * may.size else _decided(x, y, i, j, near)


def _dense(x: np.ndarray, y: np.ndarray, near: Near, upper: bool) -> Links:
    """A block's links by way of all its similarities."""
    return _settled(x, y, pairs(x, y, *_edges(x.shape[1], near), upper), near)


def pairs(
    x: np.ndarray, y: np.ndarray, floor: float, slack: float, upper: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`gpu.pairs` in numpy."""
    found = x @ y.T
    if upper:
        found[np.tril_indices(len(x), 0, len(y))] = -2
    best = found.max(axis=0, initial=-2)
    columns = np.flatnonzero(best >= floor)
    found = found[:, columns]
    i, j = np.nonzero(found >= np.maximum(best[columns] - slack, floor))
    return i, columns[j], found[i, j]


def _settled(x: np.ndarray, y: np.ndarray, found: tuple[np.ndarray, np.ndarray, np.ndarray], near: Near) -> Links:
    """Links of a block's candidates (i, j, product): of groups, only those near the floor need a closer look."""
    i, j, product = found
    if near.mode == "greedy":
        return _decided(x, y, i, j, near)
    sure = product > near.floor + margin(x.shape[1])
    certain = Links(i[sure], j[sure], np.ones(int(sure.sum())))
    return stars(Links.concat([certain, _decided(x, y, i[~sure], j[~sure], near)]))


def _decided(x: np.ndarray, y: np.ndarray, i: np.ndarray, j: np.ndarray, near: Near) -> Links:
    similarity = dots(x, y, i, j)
    links = Links(i, j, similarity)[similarity > near.floor]
    return links.best() if near.mode == "greedy" else links


def identical(vectors: Vectors, cluster: np.ndarray, similarity: np.ndarray, rank: np.ndarray) -> Links:
    """Links between positions whose rows are equal to the last bit, first of their rank -> each later one.

    Such rows have one cluster and one similarity to its centroid; n equal rows would else cost n^2.
    """
    order = np.lexsort((rank, similarity, cluster))
    order = order[cluster[order] >= 0]
    new = np.ones(len(order), bool)
    c, s = cluster[order], similarity[order]
    new[1:] = (c[1:] != c[:-1]) | (s[1:] != s[:-1])
    first = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    i, j = first[~new], order[~new]
    equal = np.zeros(len(i), bool)
    for at in range(0, len(i), ROWS):
        part = slice(at, at + ROWS)
        equal[part] = (vectors.take(i[part]) == vectors.take(j[part])).all(axis=1)
    return Links(i[equal], j[equal], np.ones(int(equal.sum())))


def choose_sieve(vectors: Vectors, clusters: list[np.ndarray], floor: float) -> np.ndarray | None:
    """The sieve that promises to be cheapest on pairs out of `clusters`: principal axes, or None.

    A look at few rows; a poor choice costs time and nothing else.
    """
    large = [rows for rows in clusters if len(rows) > 2 * WIDTHS[-1]][:: max(1, len(clusters) // 8)][:8]
    if not large:
        return None
    rows = [vectors.take(np.sort(c[:: max(1, len(c) // 512)][:512])) for c in large]
    together = np.concatenate(rows)
    axes = np.linalg.eigh(np.asarray(together.T @ together, np.float64))[1][:, ::-1].astype(np.float32)
    best, cheapest = None, float(vectors.dim)
    for width in (w for w in WIDTHS if w < vectors.dim // 2):
        near = Near(floor, "greedy", np.ascontiguousarray(axes[:, :width]))
        sketches = [near.sketch(part) for part in rows]
        passed = np.mean([np.triu(s @ s.T > floor, 1).mean() * 2 for s in sketches if s is not None])
        cost = width + PAIR_COST * vectors.dim * float(passed) + 16  # 16: to look a product over
        if passed < SPARSE / 2 and cost < cheapest:
            best, cheapest = near.sieve, cost
    return best

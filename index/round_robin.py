"""The pool score `round_robin`: in what turn a target's items take a pool's samples."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from mmfilter.plugs import Run

from .exact import dots, margin
from .pool import Pool
from .to_target import ToTarget, directed
from .vectors import Vectors

ITEMS = 1024  # of a task; with a block of the pool 32 MB of similarities
BLOCK = 8192
SPANS = 16  # parts of the pool, where the items alone make few tasks
SPARE = 2  # lists are so many times as long as an item's turns
LEAST = 16
HELD = 1 << 25  # entries, of 24 bytes, that the lists have together
SAMPLE = 1 << 16  # rows that tell how near the end of a list will be


class RoundRobin(ToTarget):
    """`round_robin_NAME_rank` (int64): 0 for the sample that is taken first, null for one that is not taken.

    The target's items take turns, in the order of their names; in its turn an item takes the sample most similar to
    it of those not yet taken, ties to the smaller uid, until `take` are taken: a number, or a share of the pool
    (round(take · n)). So each item has its say, where the greatest similarity would leave those far from the
    pool out. RDS+'s selection (Ivison et al. 2025, arXiv 2503.01807), whose items are a task's instances embedded by a
    language model; here they are images or captions, embedded as the pool was.

    Exact: each item has a list of its nearest, and when one has run out, lists are made anew of what is left.
    """

    take: int | float = Field(ge=0)

    @field_validator("take")
    @classmethod
    def _share(cls, value: float) -> float:
        if isinstance(value, float) and value > 1:
            raise ValueError("a number of samples is whole, a share is at most 1.0")
        return value

    @property
    def columns(self) -> tuple[str, ...]:
        return (f"round_robin_{self.name}_rank",)

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        vectors, uids = pool.vectors(self.model, self.modality), pool.uids
        names, items = directed(self.reference(pool))
        items = items[sorted(range(len(names)), key=names.__getitem__)]  # stable: equal names in the set's order
        tie = np.empty(len(uids), np.int64)
        tie[np.lexsort((uids["f1"], uids["f0"]))] = np.arange(len(uids))
        n = len(uids)
        wanted = round(self.take * n) if isinstance(self.take, float) else min(self.take, n)
        taken = take_turns(items, n, wanted, partial(nearest, vectors, tie, run))
        rank, without = np.zeros(n, np.int64), np.ones(n, bool)
        rank[taken], without[taken] = np.arange(len(taken)), False
        return {self.columns[0]: pa.array(rank, mask=without)}


def take_turns(items: np.ndarray, n: int, wanted: int, nearest_of: Any) -> np.ndarray:
    """int64 (wanted or fewer,): positions, of n, in the order in which the rows `items` (m, d) take them.

    `nearest_of(rows, length, taken)` is for each row the positions of its nearest that are not among `taken`, about
    `length` of them, and whether they are all that is left. Equal rows share a list. When a list has run out, all that
    are half taken are made anew, twice as long each time, so that the pool is gone through a few times, however the
    items crowd.
    """
    rows, which = np.unique(items, axis=0, return_inverse=True)
    turns = np.bincount(which.ravel(), minlength=len(rows))
    lists = [array("q") for _ in rows]  # the nearest last: it is popped
    made, whole = np.zeros(len(rows), np.int64), np.zeros(len(rows), bool)  # length at first; nothing lies beyond it
    order, taken, passes = array("q"), bytearray(n), 0
    for own in cycle(which.ravel().tolist()):
        if len(order) == wanted:
            break
        while lists[own] and taken[lists[own][-1]]:
            lists[own].pop()
        if not lists[own] and not whole[own]:
            short = np.flatnonzero(~whole & (2 * left_of(lists, taken) <= made))
            length = list_length(int(turns.max()) * -(-wanted // len(items)) << passes, len(short))
            passes += 1
            found, all_there = nearest_of(rows[short], length, np.array(order, np.int64))
            whole[short] = all_there
            for i, positions in zip(short.tolist(), found, strict=True):
                lists[i], made[i] = array("q", positions[::-1].tobytes()), len(positions)
        if not lists[own]:
            break  # what has a direction is taken, and so it is for every item
        order.append(lists[own].pop())
        taken[order[-1]] = 1
    return np.array(order, np.int64)


def left_of(lists: list[array], taken: bytearray) -> np.ndarray:
    """int64 (m,): how many entries of each list are not taken."""
    mask = np.frombuffer(taken, np.uint8)
    return np.array([len(entries) - mask[np.frombuffer(entries, np.int64)].sum(dtype=np.int64) for entries in lists])


def list_length(need: int, lists: int) -> int:
    """How long so many lists are made, for `need` turns: within `HELD` over all of them."""
    return min(max(LEAST, SPARE * need), max(1, HELD // lists))


@dataclass(frozen=True)
class _Part:
    """Items against the positions `start` to `stop` of the pool: what a worker does. What is less similar to an item
    than its floor (m,) is left out."""

    items: np.ndarray
    floors: np.ndarray
    start: int
    stop: int


def nearest(
    vectors: Vectors, tie: np.ndarray, run: Run, items: np.ndarray, length: int, taken: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """For each of `items` (m, d) up to `length` positions that are not among `taken`, the most similar first; and bool
    (m,), whether they are all there are. `tie` (n,) int64 orders equal similarities by position.

    A list is all that is as similar as a floor, which a sample of the pool says some `length` rows are: so each part
    of the pool gives its share of a list, and not one as long as the whole.
    """
    taken, floors = np.sort(taken), _floors(vectors, items, length, taken)
    parts = -(-len(items) // ITEMS)
    spans = max(1, SPANS // max(parts, 1))
    shards = np.unique(np.linspace(0, len(vectors.stems), spans + 1).round().astype(int))
    tasks = [
        _Part(items[at : at + ITEMS], floors[at : at + ITEMS], int(vectors.starts[a]), int(vectors.starts[b]))
        for at in range(0, len(items), ITEMS)
        for a, b in pairwise(shards)
    ]
    found = run(partial(_task, vectors, tie, length, taken), tasks)
    lists: list[np.ndarray] = []
    step = max(len(shards) - 1, 1)
    for at in range(0, len(found), step):
        best = _joined(found[at : at + step], tie, length)
        ends = np.searchsorted(best[0], np.arange(len(tasks[at].items) + 1))
        lists += [best[1][a:b] for a, b in pairwise(ends)]
    return lists, np.isneginf(floors) & (np.array([len(positions) for positions in lists]) < length)


def _floors(vectors: Vectors, items: np.ndarray, length: int, taken: np.ndarray) -> np.ndarray:
    """float64 (m,): a cosine that somewhat more than `length` rows reach, by rows that lie evenly over the pool; -inf
    where that may be all of them."""
    n = len(vectors)
    at = np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64))
    rows = vectors.take(at[~np.isin(at, taken, assume_unique=True)])
    rows = rows[rows.any(axis=1)]
    place = 8 + int(1.25 * length * len(rows) / max(n - len(taken), 1))
    if place >= len(rows):
        return np.full(len(items), -np.inf)
    blocks = (items[first : first + 64] @ rows.T for first in range(0, len(items), 64))
    nearest = [np.partition(block, -place, axis=1)[:, -place] for block in blocks]
    return np.concatenate(nearest).astype(np.float64) - margin(vectors.dim)


Found = list[np.ndarray]
"""[item int64 (c,), position int64 (c,), cosine float64 (c,)] of candidates."""


def _task(vectors: Vectors, tie: np.ndarray, length: int, taken: np.ndarray, part: _Part) -> Found:
    items = part.items
    best: Found = [np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)]
    waiting: list[Found] = []  # not sorted in before they are as many as what is sorted: a list is long, a block short
    floor = part.floors.copy()  # of each item's list, once it is full the last one's
    slack = 2 * margin(vectors.dim)
    for at, rows in vectors.blocks(BLOCK, part.start, part.stop):
        similar = items @ rows.T
        free: np.ndarray = np.asarray(rows.any(axis=1))
        low, high = np.searchsorted(taken, [at, at + len(rows)])
        free[taken[low:high] - at] = False
        similar[:, ~free] = -np.inf
        edge = floor - slack
        if length < len(rows) and np.count_nonzero(similar >= edge[:, None]) > 2 * length * len(items):
            edge = np.maximum(edge, np.partition(similar, -length, axis=1)[:, -length] - slack)
        i, j = np.nonzero(similar >= np.maximum(edge, -2)[:, None])
        if len(i):
            cosine = dots(items, rows, i, j)
            near = cosine >= part.floors[i]  # others may lack such as are as near
            waiting.append([i[near], at + j[near], cosine[near]])
        if sum(len(new[0]) for new in waiting) > len(best[0]):
            best, waiting = _joined([best, *waiting], tie, length), []
            ends = np.searchsorted(best[0], np.arange(len(items)), "right")
            full = np.bincount(best[0], minlength=len(items)) == length
            floor[full] = best[2][ends[full] - 1]
    return _joined([best, *waiting], tie, length)


def _joined(parts: Sequence[Found], tie: np.ndarray, length: int) -> Found:
    return _first([np.concatenate(sides) for sides in zip(*parts, strict=True)], tie, length)


def _first(found: Found, tie: np.ndarray, length: int) -> Found:
    """Of each item the first `length`, by cosine and then `tie`; items ascending."""
    item, position, cosine = found
    order = np.lexsort((tie[position], -cosine, item))
    item = item[order]
    order = order[np.arange(len(order)) - np.searchsorted(item, item) < length]
    return [side[order] for side in found]

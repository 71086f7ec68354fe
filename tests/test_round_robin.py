"""`round_robin`: items of a target take turns, against the plainest loop."""

import numpy as np
import pytest
from dedup_util import POOLS, embedded, here

from index import round_robin
from index.pool import Pool
from index.reference import Reference
from index.round_robin import RoundRobin
from mmfilter.errors import UsageError
from mmfilter.scores import build_score
from mmfilter.uids import format_uids


def plain(rows, uids, items, wanted):
    """uid -> turn: each item in turn takes the most similar that is left, ties to the smaller uid."""
    left = [i for i in range(len(rows)) if rows[i].any()]
    turns = {}
    while left and len(items) and len(turns) < wanted:
        cosines = rows[left] @ items[len(turns) % len(items)]
        best = min(range(len(left)), key=lambda place: (-cosines[place], uids[left[place]]))
        turns[uids[left.pop(best)]] = len(turns)
    return turns


def sets(folder, name, items, order=None, ends=(3, 200)):
    """(pool, path of the target, its items in the order of their names), both as they lie on the disk."""
    (folder / "set").mkdir(parents=True)
    path, _ = embedded(folder / "set", items, (2, len(items)))
    pool = Pool(embedded(folder / "pool", POOLS[name](), ends, order)[0])
    found = Pool(path).vectors("b32").take(np.arange(len(items))).astype(np.float64)
    return pool, path, found[found.any(axis=1)]


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("take", [0, 1, 7, 0.5, 1.0])
def test_turns_are_the_plainest_loops(name, take, tmp_path):
    width = POOLS[name]().shape[1]
    items = np.random.default_rng(0).normal(size=(6, width))
    items[3], items[4] = items[1], 0  # one twice, one without a direction
    if name in ("ties", "equal"):
        items = np.round(items)
    pool, path, seen = sets(tmp_path, name, items)
    n = len(pool.uids)
    found = RoundRobin(name="t", path=path, model="b32", take=take)(pool, here)["round_robin_t_rank"]
    assert found.type == "int64" and len(found) == n
    rows = pool.vectors("b32").take(np.arange(n)).astype(np.float64)
    wanted = round(take * n) if isinstance(take, float) else take
    turns = plain(rows, format_uids(pool.uids), seen, wanted)
    assert dict(zip(format_uids(pool.uids), found.to_pylist(), strict=True)) == {
        uid: turns.get(uid) for uid in format_uids(pool.uids)
    }


@pytest.mark.parametrize(("least", "held"), [(1, 1), (2, 30), (16, 1 << 25)])
@pytest.mark.parametrize(("spans", "sample"), [(1, 1 << 16), (16, 1 << 16), (16, 24)])
def test_short_lists_and_many_spans_change_nothing(least, held, spans, sample, tmp_path, monkeypatch):
    """Items that want the same samples run out of their lists, and lists are made of what is left."""
    items = np.random.default_rng(1).normal(size=(1, 12)) + np.random.default_rng(2).normal(size=(9, 12)) * 0.05
    order = np.random.default_rng(3).permutation(120)
    pool, path, seen = sets(tmp_path, "blobs", items, order, (20, 20, 25, 90, 120))
    rows = pool.vectors("b32").take(np.arange(120)).astype(np.float64)
    turns = plain(rows, format_uids(pool.uids), seen, 100)
    sizes = {"LEAST": least, "HELD": held, "SPANS": spans, "ITEMS": 4, "BLOCK": 16, "SAMPLE": sample}
    for constant, value in sizes.items():
        monkeypatch.setattr(round_robin, constant, value)
    found = RoundRobin(name="t", path=path, model="b32", take=100)(pool, here)["round_robin_t_rank"]
    assert {
        uid: rank for uid, rank in zip(format_uids(pool.uids), found.to_pylist(), strict=True) if rank is not None
    } == turns


def test_turns_go_by_the_items_names(tmp_path, monkeypatch):
    pool, path, seen = sets(tmp_path, "blobs", np.random.default_rng(0).normal(size=(5, 12)))
    found = []
    for order in ([0, 1, 2, 3, 4], [3, 1, 4, 0, 2]):
        names, empty = [f"item{i}" for i in order], np.zeros(5, np.uint64)
        reference = Reference(names, [""] * 5, empty, empty > 0, seen[order].astype(np.float32))
        monkeypatch.setattr(RoundRobin, "reference", lambda self, pool, reference=reference: reference)
        found.append(RoundRobin(name="t", path=path, model="b32", take=60)(pool, here)["round_robin_t_rank"])
    assert found[0].equals(found[1])


def test_a_share_is_at_most_one():
    with pytest.raises(UsageError, match=r"round_robin\.take: a number of samples is whole"):
        build_score({"round_robin": {"name": "t", "path": "x", "model": "b", "take": 1.5}}, "x")

"""Dataset Quantization against the authors' gain over all pairs, and an even draw from its bins."""

import numpy as np
import pytest
from dedup_util import POOLS, embedded, here

from index import quantization
from index.pool import Pool
from index.quantization import Quantization, even_parts, pack, quantize
from index.vectors import unit
from mmfilter.uids import format_uids


def oracle(rows, bins):
    """The bins, one sample after the other, by the gain of the graph cut over all pairs."""
    s = (1 + rows.astype(np.float64) @ rows.T.astype(np.float64)) / 2
    m, found = len(rows), np.full(len(rows), -1)
    for number in range(bins):
        of = np.flatnonzero(found < 0)
        for _ in range((number + 1) * m // bins - number * m // bins):
            inside, left = np.flatnonzero(found == number), np.flatnonzero(found < 0)
            gains = [s[of, x].sum() - 2 * s[inside, x].sum() for x in left]
            found[left[int(np.argmax(np.round(gains, 9)))]] = number
    return found.tolist()


@pytest.mark.parametrize("bins", [1, 3, 10])
@pytest.mark.parametrize("kind", ["random", "blobs", "equal", "one"])
def test_bins_are_those_of_the_graph_cut(kind, bins):
    rows = unit(POOLS[kind]())
    found = quantize(rows, bins)
    sizes = np.bincount(found, minlength=bins)
    assert sizes.max() - sizes.min() <= 1 and found.dtype == np.int32
    assert found.tolist() == oracle(rows, bins)


def test_by_the_papers_equation_too():
    """Sum of |f(p) - f(x)|² over the bin, minus that over what is in none: the greatest is taken."""
    rows = unit(POOLS["blobs"](40, 5)).astype(np.float64)
    apart = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    found, bins = np.full(40, -1), 4
    for number in range(bins):
        for _ in range(10):
            inside, left = found == number, np.flatnonzero(found < 0)
            gains = [apart[inside, x].sum() - apart[found < 0, x].sum() for x in left]
            found[left[int(np.argmax(np.round(gains, 9)))]] = number
    np.testing.assert_array_equal(quantize(rows.astype(np.float32), bins), found)


@pytest.mark.parametrize("kind", ["blobs", "odd", "nothing", "ties"])
def test_within_clusters(kind, tmp_path):
    rows = POOLS[kind]()
    folder, uids = embedded(tmp_path, rows, (len(rows) // 3, len(rows)))
    pool = Pool(folder)
    found = Quantization(model="b32", k=1, bins=3)(pool, here)["dq_bin"]
    assert format_uids(pool.uids) == uids
    stored = pool.vectors("b32").take(np.arange(len(rows)))
    there = stored.any(axis=1)
    assert (found[~there] == -1).all()
    assert found[there].tolist() == oracle(stored[there], 3)
    many = Quantization(model="b32", k=5, bins=3)(pool, here)["dq_bin"]
    assert (many[~there] == -1).all() and set(many[there].tolist()) <= {0, 1, 2}


def test_large_clusters_are_cut_into_even_parts(monkeypatch):
    monkeypatch.setattr(quantization, "MOST", 10)
    cluster = np.repeat([0, 1, -1, 2], [35, 10, 4, 1])
    share = np.random.default_rng(0).random(50)
    parts = even_parts(cluster, share)
    assert sorted(np.bincount(parts[:35]).tolist()) == [8, 9, 9, 9] and (parts[45:49] == -1).all()
    assert len(set(parts[35:45])) == 1 and len({*zip(cluster.tolist(), parts.tolist(), strict=True)}) == 7
    assert even_parts(cluster[:0], share[:0]).shape == (0,)
    monkeypatch.setattr(quantization, "ROWS", 25)
    groups = [np.arange(n) for n in (20, 5, 1, 30, 2)]
    assert [[len(rows) for rows in task] for task in pack(groups)] == [[20, 5], [1], [30], [2]]

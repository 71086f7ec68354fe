"""K-means over a pool that its sample does not stand for: Lloyd's passes from disk against the plain ones."""

import numpy as np
import pytest
from dedup_util import POOLS, embedded, here

from index import kmeans, lloyd
from index.kmeans import Plan, assign, train
from index.pool import Pool
from index.vectors import open_vectors


def plain(rows, centroids, passes):
    """Spherical Lloyd, the plainest."""
    for _ in range(passes):
        nearest = (rows @ centroids.T).argmax(axis=1)
        for c in range(len(centroids)):
            mine = rows[(nearest == c) & rows.any(axis=1)].sum(axis=0)
            if mine.any():
                centroids[c] = mine / np.linalg.norm(mine)
    return centroids


@pytest.mark.parametrize("kind", ["random", "blobs", "equal", "one"])
@pytest.mark.parametrize("passes", [0, 1, 4])
def test_passes_are_lloyds(tmp_path, kind, passes):
    rows = POOLS[kind]()
    vectors = open_vectors(embedded(tmp_path, rows, [7, 20, len(rows)])[0], "b32")
    start = vectors.take(np.arange(0, len(rows), 9))
    there = vectors.take(np.arange(len(rows)))
    expected = plain(there.astype(np.float64), start.astype(np.float64), passes)
    np.testing.assert_allclose(lloyd.refine(vectors, start, passes, here), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["odd", "nothing", "empty"])
def test_rows_without_a_direction_move_nothing(tmp_path, kind):
    rows = POOLS[kind]()
    vectors = open_vectors(embedded(tmp_path, rows, [3, len(rows)])[0], "b32")
    start = np.eye(vectors.dim, dtype=np.float32)
    found = lloyd.refine(vectors, start, 3, here)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    if kind != "odd":
        np.testing.assert_array_equal(found, start)


def test_neither_shards_nor_order_nor_tasks_have_a_say(tmp_path, monkeypatch):
    rows = POOLS["blobs"](300, 16)
    order = np.random.default_rng(3).permutation(300)
    found = []
    for name, ends, lie in (("a", [300], None), ("b", [31, 32, 180, 300], order)):
        pool = Pool(embedded(tmp_path / name, rows, ends, lie)[0])
        found.append(train(pool.vectors("b32"), pool.uids, Plan(20, 3, 0, passes=4), here))
        monkeypatch.setattr(lloyd, "SUMS", 1)
        monkeypatch.setattr(lloyd, "ROWS", 11)
    np.testing.assert_array_equal(*found)


def test_the_pool_is_gone_over_where_the_sample_is_small(tmp_path, monkeypatch):
    rows = POOLS["blobs"](600, 16)
    pool = Pool(embedded(tmp_path, rows, [200, 600])[0])
    vectors = pool.vectors("b32")
    asked = []
    monkeypatch.setattr(
        kmeans, "refine", lambda v, c, passes, run: asked.append(passes) or lloyd.refine(v, c, passes, run)
    )
    means = []
    for sample, passes in ((1 << 29, None), (16 * 4 * 60, None), (16 * 4 * 60, 0)):
        monkeypatch.setattr(kmeans, "SAMPLE_BYTES", sample)
        centroids = train(vectors, pool.uids, Plan(30, 5, 0, passes), here)
        means.append(np.nanmean(assign(vectors.take(np.arange(600)), centroids)[1]))
    assert asked == [0, kmeans.PASSES, 0]
    assert means[1] > means[2] + 0.01  # nearer to their rows than those of the small sample alone

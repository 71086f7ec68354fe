"""`caption_agreement`: the neighbours' captions, against all pairs."""

import numpy as np
import pytest
from dedup_util import POOLS, embedded, here
from space_util import by_uid

from index import agreement
from index.agreement import CaptionAgreement, near, neighbours
from index.kmeans import Plan, assign, train
from index.pool import Pool
from index.vectors import unit


def plain(pool, k, allowed=None):
    """Each caption's mean cosine to those of the k nearest images; `allowed` (n, n): which may be neighbours."""
    n = len(pool.uids)
    x, t = (pool.vectors("b32", side).take(np.arange(n)).astype(np.float64) for side in ("image", "text"))
    good = x.any(axis=1) & t.any(axis=1)
    rank = np.argsort(np.lexsort((pool.uids["f1"], pool.uids["f0"])))
    found = np.full(n, np.nan)
    for i in np.flatnonzero(good):
        others = [j for j in np.flatnonzero(good) if j != i and (allowed is None or allowed[i, j])]
        cosines = np.round(x @ x[i], 12)
        best = sorted(others, key=lambda j: (-cosines[j], rank[j]))[:k]
        if best:
            found[i] = (t[best] @ t[i]).mean()
    return found


def captions(rows):
    """Captions for `rows`: of another order, one without a direction."""
    texts = np.asarray(rows, float)[::-1] + 0.1
    texts[5:6] = 0
    return texts


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("k", [1, 4, 500])
@pytest.mark.parametrize("many", [0, 64])
def test_agreement_is_that_of_all_pairs(name, k, many, tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "MANY", many)
    monkeypatch.setattr(agreement, "BLOCK", 16)
    rows = POOLS[name]()
    pool = Pool(embedded(tmp_path, rows, (3, 200), texts=captions(rows))[0])
    found = CaptionAgreement(model="b32", k=k)(pool, here)["caption_agreement_b32"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain(pool, k), atol=1e-6)


def test_only_the_clusters_nearby_are_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "QUERIES", 7)
    rows = POOLS["blobs"]()
    pool = Pool(embedded(tmp_path, rows, (50, 120), texts=captions(rows))[0])
    found = CaptionAgreement(model="b32", k=5, clusters=9, probes=2)(pool, here)["caption_agreement_b32"]
    vectors = pool.vectors("b32")
    centroids = train(vectors, pool.uids, Plan(9, 20, 0), here)
    cluster = assign(vectors.take(np.arange(120)), centroids)[0]
    cosines = centroids @ centroids.T + 2 * np.eye(len(centroids))
    asked = {c: set(np.argsort(-cosines[c])[:2].tolist()) for c in range(len(centroids))}
    allowed = np.array([[b in asked[a] for b in cluster.tolist()] for a in cluster.tolist()])
    np.testing.assert_allclose(found, plain(pool, 5, allowed), atol=1e-6)
    assert near(centroids, 2)[:, 0].tolist() == list(range(len(centroids)))


def test_order_and_shards_change_nothing(tmp_path):
    rows, found = POOLS["ties"](), []
    for place, order in (("a", None), ("b", np.random.default_rng(1).permutation(150))):
        pool = Pool(embedded(tmp_path / place, rows, (7, 50, 150), order, captions(rows))[0])
        score = CaptionAgreement(model="b32", k=3, clusters=6, probes=3)
        found.append(by_uid(pool, score(pool, here)["caption_agreement_b32"]))
    assert found[0].keys() == found[1].keys()
    for uid, value in found[0].items():
        np.testing.assert_equal(found[1][uid], value)


def test_of_a_giant_cluster_an_even_part_is_asked(tmp_path, monkeypatch):
    """Every other row by uid; one that is asked is still not its own neighbour, one that is not has k neighbours."""
    monkeypatch.setattr(agreement, "ROWS", 60)
    rows = POOLS["blobs"]()
    pool = Pool(embedded(tmp_path, rows, (120,), texts=rows[::-1])[0])
    found = CaptionAgreement(model="b32", k=3)(pool, here)["caption_agreement_b32"]
    allowed = np.zeros((120, 120), bool)
    allowed[:, np.lexsort((pool.uids["f1"], pool.uids["f0"]))[::2]] = True
    np.testing.assert_allclose(found, plain(pool, 3, allowed), atol=1e-6)


def test_neighbours_of_identical_images_are_the_first():
    x = unit(np.ones((4, 3)))
    i, j = neighbours(x, x, np.arange(4), 2)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == [
        (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (3, 0), (3, 1)
    ]  # fmt: skip

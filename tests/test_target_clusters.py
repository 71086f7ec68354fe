"""`target_clusters`: hits, likeness and the union nearest to a target, against what is plainly computed of all rows."""

import numpy as np
import pytest
from dedup_util import POOLS, embedded, here
from space_util import by_uid

from index import target_clusters
from index.frechet import frechet, moments
from index.kmeans import Plan, assign, train
from index.moments import Gap, of_blocks
from index.pool import Pool
from index.target_clusters import TargetClusters
from mmfilter.rules import build_rule
from mmfilter.uids import format_uids


def plain_gap(rows, items, measure):
    """FID by numpy's mean and cov; or MMD^2 by all pairs."""
    if measure == "fid":
        return frechet(*moments(items), *moments(rows))
    means = [((1 + a @ b.T) ** 2).mean() for a, b in ((rows, rows), (items, items), (rows, items))]
    return means[0] + means[1] - 2 * means[2]


@pytest.mark.parametrize("measure", ["fid", "mmd"])
def test_moments_are_those_of_all_rows(measure):
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(n, 5)) + n / 50 for n in (40, 3))
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    found = of_blocks([x[:7], np.zeros((2, 5)), x[7:]], 5)
    assert found.n == 40
    np.testing.assert_allclose(found.covariance, np.cov(x.T), atol=1e-12)
    gap = Gap.to(of_blocks([y], 5), measure)
    assert gap(found) == pytest.approx(plain_gap(x, y, measure), abs=1e-7)
    assert gap(gap.target) == pytest.approx(0, abs=1e-7)
    assert np.isnan(gap(of_blocks([], 5))) and np.isnan(Gap.to(of_blocks([], 5), measure)(found))


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("held", [2, 6])
@pytest.mark.parametrize("measure", ["fid", "mmd"])
def test_columns_are_the_plainest_search(name, measure, held, tmp_path, monkeypatch):
    pool = Pool(embedded(tmp_path / "pool", POOLS[name](), (3, 200))[0])
    width = POOLS[name]().shape[1]
    items = np.random.default_rng(0).normal(size=(9, width))
    items[4] = 0
    path, _ = embedded(tmp_path / "set", items, (2, 9))
    monkeypatch.setattr(target_clusters, "HELD", 8 * width**2 * held)
    monkeypatch.setattr(target_clusters, "BLOCK", 4)
    monkeypatch.setattr(target_clusters, "TAKEN", 8)
    score = TargetClusters(name="t", path=path, model="b32", k=6, measure=measure)
    found = score(pool, here)
    assert tuple(found) == score.columns
    vectors, n = pool.vectors("b32"), len(pool.uids)
    rows, items = vectors.take(np.arange(n)), Pool(path).vectors("b32").take(np.arange(9))
    items = items[items.any(axis=1)]
    centroids = train(vectors, pool.uids, Plan(6, 20, 0), here)
    cluster, of_item = assign(rows, centroids)[0], assign(items, centroids)[0]
    hits = [int((of_item == c).sum()) if c >= 0 else None for c in cluster]
    assert found["target_t_hits"].to_pylist() == hits
    gaps = {c: plain_gap(rows[cluster == c], items, measure) for c in sorted(set(cluster.tolist()) - {-1})}
    expected = [-gaps.get(c, np.nan) for c in cluster.tolist()]
    np.testing.assert_allclose(found["target_t_likeness"], expected, atol=2e-6)
    order = sorted(gaps, key=gaps.__getitem__)
    unions = [plain_gap(rows[np.isin(cluster, order[: i + 1])], items, measure) for i in range(len(order))]
    inside = found["target_t_union"]
    assert inside.dtype == bool and not inside[cluster < 0].any()
    if order:  # of unions as near as each other either will do
        size = len(set(cluster[inside].tolist()))
        assert set(cluster[inside].tolist()) == set(order[:size])
        assert unions[size - 1] == pytest.approx(min(unions), abs=1e-6)


def test_order_and_shards_change_nothing(tmp_path):
    items = np.random.default_rng(0).normal(size=(9, 12))
    path, _ = embedded(tmp_path / "set", items, (9,))
    score, found = TargetClusters(name="t", path=path, model="b32", measure="fid"), []
    for place, order in (("a", None), ("b", np.random.default_rng(1).permutation(120))):
        pool = Pool(embedded(tmp_path / place, POOLS["blobs"](), (7, 50, 120), order)[0])
        found.append([by_uid(pool, values) for values in score(pool, here).values()])
    assert found[0] == found[1]


def test_clusters_with_the_fewest_hits_go_first(tmp_path):
    """DP4TL: the rule `fraction` over hits drops whole clusters, but for the one at the edge."""
    rows = POOLS["blobs"]()
    path, _ = embedded(tmp_path / "set", rows[::3], (40,))
    pool = Pool(embedded(tmp_path / "pool", rows, (120,))[0])
    hits = TargetClusters(name="t", path=path, model="b32", k=8)(pool, here)["target_t_hits"].to_numpy()
    import polars as pl

    table = pl.DataFrame({"target_t_hits": hits, "uid_hi": pool.uids["f0"], "uid_lo": pool.uids["f1"]})
    keep = build_rule({"fraction": {"score": "target_t_hits", "keep": 0.6}}, "x").fit(table).mask(table)
    ranked = sorted(zip((-hits).tolist(), format_uids(pool.uids), strict=True))
    assert {uid for uid, kept in zip(format_uids(pool.uids), keep, strict=True) if kept} == {u for _, u in ranked[:72]}

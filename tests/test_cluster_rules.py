"""Rules over clusters, ensembles and votes: each against the plainest reading of its definition."""

import math
from itertools import groupby

import numpy as np
import polars as pl
import pytest
from dedup_util import POOLS, embedded, here
from rules_util import kept, make_uids, record, run

from index.concepts import Clusters
from index.hierarchy import grow
from index.pool import Pool
from jobs.cluster import Width
from jobs.pool_scores import add_pool_scores
from mmfilter.errors import UsageError
from mmfilter.recipe import load_recipe
from mmfilter.rules import build_rule, walk
from mmfilter.rules.balanced import cut
from mmfilter.rules.density_based import project, whole
from mmfilter.scores import build_score
from mmfilter.uids import parse_uids


def table(n, seed=0, clusters=7, **columns):
    """n rows: cluster_id (-1 among them), cluster_id_1, centroid_similarity with ties and NaN, cluster_separation."""
    rng = np.random.default_rng(seed)
    uids = make_uids(n, seed)
    halves = parse_uids(uids)
    cluster = np.minimum(rng.geometric(0.3, n) - 2, clusters - 1).astype(np.int32)
    similarity = (rng.integers(2, 9, n) / 10).astype(np.float32)
    similarity[rng.random(n) < 0.1] = np.nan
    separation = np.random.default_rng(9).random(clusters + 1).astype(np.float32)
    return pl.DataFrame(
        {"uid": uids, "uid_hi": halves["f0"], "uid_lo": halves["f1"], "cluster_id": cluster}
        | {"cluster_id_1": np.where(cluster < 0, -1, cluster // 2), "centroid_similarity": similarity}
        | {"cluster_separation": separation[cluster], **columns}
    )


TABLES = {
    "random": table(400),
    "small": table(23, seed=2),
    "one cluster": table(90, seed=3, clusters=1),
    "equal": table(120, seed=4).with_columns(centroid_similarity=pl.lit(0.5)),
    "one row": table(400)[:1],
    "nan": table(40, seed=5).with_columns(centroid_similarity=pl.lit(math.nan)),
    "empty": table(400)[:0],
}


def rows_of(frame):
    """(cluster, uid, similarity, separation) of the rows that have all of them."""
    names = ("cluster_id", "uid", "centroid_similarity", "cluster_separation")
    rows = list(frame.select(names).iter_rows())
    return [row for row in rows if row[0] >= 0 and not math.isnan(row[2])]


def chosen(node, frame):
    mask = build_rule(node, "x").fit(frame).mask(frame)
    return set(frame["uid"].filter(pl.Series(mask, dtype=pl.Boolean)).to_list())


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("keep", "which", "balance"), [(0.3, "hardest", 0.5), (0.8, "easiest", 0), (0.2, "easiest", 1)]
)
def test_prototypes(name, keep, which, balance):
    frame = TABLES[name]
    rows = rows_of(frame)
    sign = 1 if which == "hardest" else -1
    ranked = sorted(rows, key=lambda row: (sign * row[2], row[1]))
    wanted = min(round(keep * frame.height), len(rows))
    want = set()
    clusters = {row[0] for row in rows}
    for cluster in clusters:
        inside = [row[1] for row in ranked if row[0] == cluster]
        want |= set(inside[: math.floor(balance * (wanted / len(clusters)))])
    want |= set([row[1] for row in ranked if row[1] not in want][: wanted - len(want)])
    found = chosen({"prototypes": {"keep": keep, "which": which, "balance": balance}}, frame)
    assert found == want and len(found) == wanted


def bounds(kind, rng):
    k = int(rng.integers(1, 30))
    upper = rng.integers(1, 50, k) if kind != "ones" else np.ones(k, np.int64)
    lower = np.minimum(rng.integers(0, 5, k), np.maximum(upper - 1, 0))
    total = {"least": lower.sum(), "most": upper.sum()}.get(kind, int(rng.integers(lower.sum(), upper.sum() + 1)))
    target = np.full(k, total / k) if kind == "equal" else rng.dirichlet(np.full(k, 0.3)) * total
    return target, lower, upper, int(total)


@pytest.mark.parametrize("kind", ["random", "equal", "least", "most", "ones"])
def test_the_projection_meets_its_kkt_conditions_and_is_made_whole(kind):
    rng = np.random.default_rng(3)
    for _ in range(40):
        target, lower, upper, total = bounds(kind, rng)
        x = project(target, lower, upper, total)
        assert (x >= lower).all() and (x <= upper).all() and x.sum() == pytest.approx(total, abs=1e-6)
        mu, inner = target - x, (x > lower) & (x < upper)  # one multiplier for all that is within its bounds
        some = float(mu[inner].mean()) if inner.any() else float(mu[x == upper].min(initial=np.inf))
        assert np.abs(mu[inner] - some).max(initial=0) < 1e-6
        assert (mu[x == upper] >= some - 1e-6).all()
        if inner.any():
            assert (mu[x == lower][(lower < upper)[x == lower]] <= some + 1e-6).all()
        found = whole(x, lower, upper, total)
        assert found.sum() == total and (found >= lower).all() and (found <= upper).all()
        assert np.abs(found - x).max() < 1 + 1e-6


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(("keep", "balance", "tau"), [(0.3, 0.5, 0.5), (0.7, 1, 0.05), (0.02, 0, 0.5), (0.5, 0, 0.1)])
def test_density_based(name, keep, balance, tau):
    frame = TABLES[name]
    rows = sorted(rows_of(frame))
    members = {c: sorted(part, key=lambda r: (r[2], r[1])) for c, part in groupby(rows, key=lambda r: r[0])}
    wanted = min(round(keep * frame.height), len(rows))
    found = chosen({"density_based": {"keep": keep, "balance": balance, "tau": tau}}, frame)
    assert len(found) == wanted
    if not rows:
        return
    complexity = [np.mean([1 - r[2] for r in part]) * part[0][3] for part in members.values()]
    p = np.exp(np.array(complexity) / tau)
    sizes = np.array([len(part) for part in members.values()])
    low = int(wanted / len(sizes) * balance) if balance else 1
    lower = np.minimum(low, sizes - 1) if np.minimum(low, sizes - 1).sum() <= wanted else 0 * sizes
    lower = np.maximum(lower, 0)
    target = p / p.sum() * wanted
    bends = np.sort(np.concatenate([target - lower, target - sizes]))  # between them the sum is a straight line in mu
    sums = [np.clip(target - mu, lower, sizes).sum() for mu in bends]
    mu = np.interp(wanted, sums[::-1], bends[::-1])
    x = np.clip(target - mu, lower, sizes)
    for share, low, part in zip(x, lower, members.values(), strict=True):
        got = [r[1] for r in part if r[1] in found]
        assert got == [r[1] for r in part[: len(got)]], "the furthest of each cluster"
        assert low <= len(got) and abs(len(got) - share) < 1.05


def test_a_row_without_a_separation_is_never_kept():
    frame = TABLES["random"].with_columns(cluster_separation=pl.lit(None, pl.Float32))
    assert not chosen({"density_based": {"keep": 0.9}}, frame)


def shared(sizes, target):
    """The cut by counting up, then one more for the largest."""
    c = max(c for c in range(max(sizes) + 1) if sum(min(c, s) for s in sizes) <= target)
    shares = [min(c, s) for s in sizes]
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if sum(shares) < min(target, sum(sizes)) and sizes[i] > c:
            shares[i] += 1
    return shares


@pytest.mark.parametrize("target", [0, 1, 5, 17, 60, 10_000])
def test_the_cut_meets_the_target(target):
    rng = np.random.default_rng(target)
    for _ in range(30):
        sizes = rng.integers(1, 30, rng.integers(1, 12))
        assert cut(sizes, target).tolist() == shared(sizes.tolist(), target)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(("levels", "within", "n"), [(1, "nearest", 40), (0, "furthest", 100), (1, "random", 7)])
def test_balanced(name, levels, within, n):
    frame = TABLES[name]
    rows = rows_of(frame)
    found = chosen({"balanced": {"n": n, "levels": levels, "within": within}}, frame)
    if within == "random":
        rows = [row for row in frame.select("cluster_id", "uid").iter_rows() if row[0] >= 0]
    assert len(found) == min(n, len(rows))
    tree: dict = {}
    for row in rows:
        tree.setdefault(row[0] // 2 if levels else 0, {}).setdefault(row[0], []).append(row)
    groups = [tree[group] for group in sorted(tree)]
    tops = shared([sum(map(len, g.values())) for g in groups], n) if levels and groups else [n] * len(groups)
    for group, top in zip(groups, tops, strict=True):
        clusters = [group[c] for c in sorted(group)]
        for part, share in zip(clusters, shared([len(part) for part in clusters], top), strict=True):
            assert sum(row[1] in found for row in part) == share
            if within != "random":
                part.sort(key=lambda row: (row[2] * (1 if within == "furthest" else -1), row[1]))
                assert {row[1] for row in part[:share]} <= found


def test_balanced_draws_by_seed_and_refuses_what_is_no_hierarchy():
    frame = TABLES["random"]
    draws = [chosen({"balanced": {"keep": 0.3, "seed": seed}}, frame) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2] and len(draws[2]) == round(0.3 * 400)
    with pytest.raises(UsageError, match="'cluster_id_1' is no group of 'cluster_id'"):
        chosen({"balanced": {"n": 9, "levels": 1}}, frame.with_columns(cluster_id_1=pl.Series(np.arange(400) % 3)))


@pytest.mark.parametrize("weights", [None, [3, 0.5]])
@pytest.mark.parametrize("name", ["random", "equal", "one row", "empty", "nan"])
def test_ensemble(name, weights):
    frame = TABLES[name].with_columns(s=pl.Series(np.random.default_rng(1).integers(0, 5, TABLES[name].height)))
    scores = ["centroid_similarity", "s"]

    def place(score, value):
        others = [v for v in frame[score].to_list() if not math.isnan(v)]
        return sum(v > value for v in others) + (sum(v == value for v in others) + 1) / 2

    ranked = []
    for uid, *values in frame.select("uid", *scores).iter_rows():
        if not any(map(math.isnan, values)):
            places = [place(score, value) for score, value in zip(scores, values, strict=True)]
            ranked.append((sum(w * p for w, p in zip(weights or [1, 1], places, strict=True)), uid))
    want = {uid for _, uid in sorted(ranked)[: round(0.4 * frame.height)]}
    assert chosen({"ensemble": {"scores": scores, "keep": 0.4, "weights": weights}}, frame) == want


def test_votes_count():
    frame = TABLES["random"]
    rules = [{"threshold": {"score": "centroid_similarity", "min": v}} for v in (0.3, 0.5, 0.7)]
    for m in (1, 2, 3):
        votes = sum(build_rule(rule, "x").mask(frame).astype(int) for rule in rules)
        mask = build_rule({"votes": {"at_least": m, "rules": rules}}, "x").fit(frame).mask(frame)
        np.testing.assert_array_equal(mask, votes >= m)
    paths = [path for path, _ in walk(build_rule({"all": [{"votes": {"at_least": 1, "rules": rules}}]}, "x"))]
    assert paths == [f"all[0].votes.rules[{i}].threshold" for i in range(3)]


def test_resampling_spreads_the_levels_and_repeats_itself():
    rng = np.random.default_rng(0)
    dense, sparse = rng.normal(size=(180, 8)) * 0.05 + np.eye(8)[0], rng.normal(size=(20, 8))
    rows = np.concatenate([dense, sparse]).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    inside = []
    for resamples in (0, 10):
        (group, above), (top, _) = grow(rows, (8, 2), resamples, (20, 0))
        again = grow(rows, (8, 2), resamples, (20, 0))
        assert np.array_equal(again[0][0], group) and np.array_equal(again[1][0], top)
        assert len(group) == 200 and len(top) == len(above) and set(top) <= {0, 1}
        assert (np.diff(np.bincount(group)) <= 0).all()
        inside.append(len(set(group[:180])))
    assert inside[1] < inside[0], "fewer groups lie where the rows are dense"


@pytest.mark.parametrize("recipe", ["ssp", "semdedup", "dbp", "hierarchical", "quantization"])
def test_packaged_recipes_end_to_end(recipe, tmp_path):
    """Their scores over a pool of rows, and their rules over those columns; again in other shards."""
    source = load_recipe(recipe).source
    rows, order, found = POOLS["blobs"](200, 8), np.random.default_rng(2).permutation(200), []
    for name, ends, how in (("a", (70, 200), None), ("b", (5, 5, 130, 200), order)):
        folder, _ = embedded(tmp_path / name, rows, ends, how, text=["a cat"] * 200)
        for node in source["scores"]:
            ((score, fields),) = node.items()
            few = {"k": 30, "levels": [6, 3, 2]} if "levels" in fields else {"k": 9} if "k" in fields else {}
            add_pool_scores([build_score({score: {**fields, "model": "b32", **few}}, "x")], folder, Width(local=True))
        selection = run(folder, source["select"])
        found.append(kept(selection))
        left = record(selection)["steps"][-1]["in"]
        last = next(iter(source["select"].values()))
        last = last[-1]["density_based"] if isinstance(last, list) else last
        if "keep" in last:
            assert selection.counts["kept"] == round(last["keep"] * left) > 0
    assert found[0] == found[1]


def test_levels_are_columns(tmp_path):
    folder, _ = embedded(tmp_path, POOLS["blobs"](150, 6), (150,))
    columns = Clusters(model="b32", k=40, levels=(9, 3))(Pool(folder), here)
    cluster, one, two = (columns[name] for name in ("cluster_id", "cluster_id_1", "cluster_id_2"))
    assert len({*zip(cluster.tolist(), one.tolist(), strict=True)}) == len(set(cluster.tolist()))
    assert len({*zip(one.tolist(), two.tolist(), strict=True)}) == len(set(one.tolist())) <= 9
    assert one.dtype == np.int32 and len(set(two.tolist())) <= 3

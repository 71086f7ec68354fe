"""SemDeDup in both modes against the plainest reading of it, on rows that are random, tied and degenerate."""

import numpy as np
import polars as pl
import pytest
from dedup_util import POOLS, embedded, greedy_oracle, grouped_oracle, groups, here, pairs_of

from index import gpu, semdedup
from index.duplicates import Duplicates
from index.kmeans import assign, sample
from index.perceptual import near_hashes
from index.pool import Pool
from mmfilter.scores import build_score
from mmfilter.uids import DTYPE


def dedup(folder, **fields):
    """duplicate_of by uid, similarity by uid, of a score over a pool in this process."""
    score = Duplicates(model="b32", exact=False, **fields)
    pool = Pool(str(folder))
    found = score(pool, here)
    uids = pool.read("uid")["uid"].to_list()
    return dict(zip(uids, found["duplicate_of"].to_pylist(), strict=True)), dict(
        zip(uids, found["duplicate_similarity"].tolist(), strict=True)
    )


@pytest.mark.parametrize("mode", ["greedy", "groups"])
@pytest.mark.parametrize("keep", ["furthest", "nearest", "random", "score"])
@pytest.mark.parametrize("kind", POOLS)
def test_the_same_as_the_plain_algorithm(tmp_path, kind, keep, mode):
    rows = POOLS[kind]()
    folder, uids = embedded(tmp_path, rows, [7, len(rows)])
    fields = {"eps": 0.1, "mode": mode, "keep": keep, "k": 3, "score": "s" if keep == "score" else None}
    score = Duplicates(model="b32", exact=False, **fields)
    pool = Pool(folder)
    cluster, similarity = score._clusters(pool, here)
    key = score._key(pool, similarity)
    oracle = greedy_oracle if mode == "greedy" else grouped_oracle
    expected = oracle(pool.vectors("b32").take(np.arange(len(rows))), cluster, key, uids, 0.1)
    of, near = dedup(folder, **fields)
    assert {uid for uid in uids if of[uid]} == set(expected)
    for uid, (kept, cosine) in expected.items():
        assert near[uid] == pytest.approx(cosine, abs=2e-6)
        if mode == "groups":
            assert of[uid] == kept
        assert of[of[uid]] == ""
    assert all(np.isnan(near[uid]) for uid in uids if not of[uid])


@pytest.mark.parametrize("mode", ["greedy", "groups"])
@pytest.mark.parametrize("width", [None, 4])
def test_blocks_parts_and_the_sieve_change_nothing(tmp_path, monkeypatch, mode, width):
    rows = POOLS["blobs"](400, 24)
    folder, _ = embedded(tmp_path, rows, [150, 400])
    whole = dedup(folder, k=2, mode=mode, eps=0.02)
    monkeypatch.setattr(semdedup, "ROWS", 64)
    monkeypatch.setattr(semdedup, "BLOCK", 16)
    monkeypatch.setattr(semdedup, "SPARSE", 0.2)
    if width:
        axes = np.linalg.qr(np.random.default_rng(0).normal(size=(24, 24)))[0][:, :width].astype(np.float32)
        monkeypatch.setattr("index.duplicates.choose_sieve", lambda *_: axes)
    parts = dedup(folder, k=2, mode=mode, eps=0.02)
    assert parts[0] == whole[0] and any(whole[0].values())
    np.testing.assert_array_equal(list(parts[1].values()), list(whole[1].values()))


@pytest.mark.parametrize("mode", ["greedy", "groups"])
def test_neither_shards_nor_order_have_a_say(tmp_path, mode):
    rows = POOLS["blobs"](200, 16)
    order = np.random.default_rng(3).permutation(200)
    fields = {"k": 4, "mode": mode, "eps": 0.05}
    a, _ = embedded(tmp_path / "a", rows, [200])
    b, _ = embedded(tmp_path / "b", rows, [31, 32, 180, 200], order)
    first, second = dedup(a, **fields), dedup(b, **fields)
    assert first[0] == second[0]
    for uid, value in first[1].items():
        np.testing.assert_equal(second[1][uid], value)


def test_published_rule_on_a_chain(tmp_path):
    """Three rows 10 degrees apart: the authors' code drops the third by the dropped second; so does the group."""
    angles = np.radians([0, 10, 20])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    folder, uids = embedded(tmp_path, rows, [3])
    eps = 1 - np.cos(np.radians(12))
    for mode in ("greedy", "groups"):
        of, near = dedup(folder, k=1, eps=eps, mode=mode, keep="score", score="s")
        assert [of[u] for u in uids] == ["", uids[0], uids[0]]
        assert near[uids[2]] == pytest.approx(np.cos(np.radians(10 if mode == "greedy" else 20)), abs=1e-3)


def test_assignment_is_exact_and_ties_go_to_the_lowest():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 20)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    centroids = np.concatenate([rows[:5], rows[:5], rng.normal(size=(3, 20)).astype(np.float32)])
    cluster, similarity = assign(np.concatenate([rows, np.zeros((1, 20), np.float32)]), centroids)
    exact = rows.astype(np.float64) @ centroids.astype(np.float64).T
    assert cluster[:5].tolist() == [0, 1, 2, 3, 4] or exact[:5, 10:].max() > 1
    np.testing.assert_allclose(similarity[:-1], exact.max(axis=1), atol=1e-12)
    assert not (set(cluster[:-1].tolist()) & set(range(5, 10)))
    assert cluster[-1] == -1 and np.isnan(similarity[-1])


def test_a_sample_hangs_on_uids_alone():
    uids = np.random.default_rng(0).integers(0, 2**63, (500, 2), dtype=np.uint64).view(DTYPE).ravel()
    order = np.random.default_rng(1).permutation(500)
    assert (uids[sample(uids, 50, 1)] == uids[order][sample(uids[order], 50, 1)]).all()
    assert len(sample(uids, 900, 1)) == 500 and len(sample(uids[:0], 0, 1)) == 0


@pytest.mark.parametrize("mode", ["greedy", "groups"])
@pytest.mark.parametrize("bits", [0, 3, 6])
def test_perceptual_is_every_pair_within_the_bits(bits, mode):
    rng = np.random.default_rng(bits)
    bases = rng.integers(0, 2**63, 40, dtype=np.uint64)
    hashes = np.concatenate([bases] * 4)
    for at in range(40, 160):
        for bit in rng.integers(0, 64, rng.integers(0, 6)):
            hashes[at] ^= np.uint64(1) << np.uint64(bit)
    rank = rng.permutation(160)
    column = pl.Series(hashes).scatter(7, None)
    links = near_hashes(column, rank, bits, mode, here)
    expected = pairs_of(hashes, rank, bits, 7)
    if mode == "greedy":
        best = links.best()
        assert dict(zip(best.j.tolist(), best.similarity.tolist(), strict=True)) == {
            j: max(s for s, _ in found) for j, found in expected.items()
        }
    else:
        found = {frozenset(pair) for pair in zip(links.i.tolist(), links.j.tolist(), strict=True)}
        direct = {frozenset((i, j)) for j, found in expected.items() for _, i in found}
        assert groups(found, 160) == groups(direct, 160)


def test_exact_copies_keep_the_largest_and_then_the_smaller_uid(tmp_path):
    sha = ["a", "a", "b", "a", "", ""]
    folder, uids = embedded(
        tmp_path,
        np.eye(6, dtype=np.float32),
        [2, 6],
        sha256=sha,
        original_width=[5, 9, 1, 9, 1, 1],
        original_height=[1] * 6,
    )
    found = build_score("duplicates", "x")(Pool(folder), here)
    assert found["duplicate_of"].to_pylist() == [uids[1], "", "", uids[1], "", ""]
    assert found["duplicate_kind"].to_pylist() == ["exact", "", "", "exact", "", ""]


@pytest.mark.parametrize("device", ["cpu:0", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("mode", ["greedy", "groups"])
@pytest.mark.parametrize("kind", POOLS)
def test_products_by_torch_change_nothing(tmp_path, monkeypatch, kind, mode, device):
    rows = POOLS[kind]()
    folder, _ = embedded(tmp_path, rows, [7, len(rows)])
    pool = Pool(folder)
    centroids = pool.vectors("b32").take(np.arange(0, len(rows), 3))
    mine, plain = dedup(folder, eps=0.1, mode=mode, k=3), assign(pool.vectors("b32").take(np.arange(20)), centroids)
    monkeypatch.setattr(gpu, "_device", device)
    monkeypatch.setattr(semdedup, "GPU_BLOCK", 16)
    theirs, again = (
        dedup(folder, eps=0.1, mode=mode, k=3),
        assign(pool.vectors("b32").take(np.arange(20)), centroids),
    )
    assert mine[0] == theirs[0]
    np.testing.assert_array_equal(list(mine[1].values()), list(theirs[1].values()))
    for a, b in zip(plain, again, strict=True):
        np.testing.assert_array_equal(a, b)

"""Measures without training, against their definitions over all pairs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dedup_util import POOLS, embedded, here
from report_util import Page

from index.compare import POOL, Wanted, compare, weigh
from index.measures import fid, gather, mmd_cosine, vendi, weighted
from index.moments import Moments
from index.pool import Pool
from index.transport import bandwidth, draw, mmd, sinkhorn
from index.vectors import unit
from mmfilter.errors import UsageError
from mmfilter.subset import Subset
from mmfilter.uids import parse_uids

RNG = np.random.default_rng(0)


def rows_of(name: str) -> np.ndarray:
    rows = unit(POOLS[name]().astype(np.float16))
    return rows[rows.any(axis=1)]


def whole(rows: np.ndarray) -> Moments:
    return weighted(rows, np.ones(len(rows), np.int64))


@pytest.mark.parametrize("name", POOLS)
def test_vendi_is_that_of_the_whole_kernel(name: str) -> None:
    rows = rows_of(name).astype(np.float64)
    found = vendi(whole(rows))
    if not len(rows):
        assert found is None
        return
    share = np.linalg.eigvalsh(rows @ rows.T / len(rows))
    share = share[share > 1e-9]
    assert found == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-5)
    assert 1 - 1e-6 <= found <= min(rows.shape) + 1e-6


def test_vendi_of_known_sets() -> None:
    assert vendi(whole(np.eye(5, dtype=np.float32))) == pytest.approx(5)
    assert vendi(whole(np.ones((7, 1), np.float32))) == pytest.approx(1)


def test_weights_are_copies() -> None:
    rows, times = unit(RNG.normal(size=(20, 4))), RNG.integers(0, 4, 20)
    a, b = weighted(rows, times), whole(np.repeat(rows, times, axis=0))
    assert a.n == b.n and np.allclose(a.total, b.total) and np.allclose(a.square, b.square)
    assert np.allclose(b.covariance, np.cov(np.repeat(rows, times, axis=0).T), atol=1e-12)


def test_fid_of_a_shift_and_of_a_set_and_itself() -> None:
    rows = unit(RNG.normal(size=(50, 4)))
    a, moved = whole(rows), whole(rows + np.float32(0.5))
    assert fid(a, a) == pytest.approx(0, abs=1e-9) and fid(a, moved) == pytest.approx(4 * 0.25, rel=1e-4)
    assert fid(a, whole(rows[:0])) is None and fid(whole(rows[:1]), whole(rows[:1])) == pytest.approx(0, abs=1e-9)


def mmd_oracle(a: np.ndarray, b: np.ndarray, kernel: Any, same: Any = ()) -> float:
    """The three means, pair by pair; `same` are the (i, j) of one sample in both."""
    xx = np.mean([kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    yy = np.mean([kernel(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    xy = np.mean([kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(b) if (i, j) not in same])
    return float(xx + yy - 2 * xy)


def test_mmd_is_its_three_means() -> None:
    a, b = unit(RNG.normal(size=(12, 3))), unit(RNG.normal(size=(9, 3)) + 1)
    b[:2] = a[3:5]
    width = bandwidth(a)
    gaps = [((x - y) ** 2).sum() for i, x in enumerate(a) for y in a[:i]]
    assert width == pytest.approx(np.median(gaps), rel=1e-5)

    def gaussian(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.exp(-((x - y) ** 2).sum() / (2 * width)))

    for same in ((), ((3, 0), (4, 1))):
        assert mmd(a, b, width, len(same)) == pytest.approx(mmd_oracle(a, b, gaussian, same), abs=1e-6)
        found = mmd_cosine(whole(a), whole(b), len(same))
        assert found == pytest.approx(mmd_oracle(a, b, np.dot, same), abs=1e-6)
    assert mmd(a, a, width, len(a)) == pytest.approx(0, abs=1e-9)
    assert mmd(a[:1], b, width) is None and mmd_cosine(whole(a[:1]), whole(b)) is None
    assert bandwidth(a[:1]) == bandwidth(a[[0, 0]]) == 1


def sinkhorn_oracle(a: np.ndarray, b: np.ndarray, epsilon: float) -> float:
    """The dual value by plain scaling of the kernel, a thousand times."""
    cost = np.maximum(1 - a.astype(float) @ b.T.astype(float), 0)
    kernel, u, v = np.exp(-cost / epsilon), np.ones(len(a)), np.ones(len(b))
    for _ in range(1000):
        u = 1 / len(a) / (kernel @ v)
        v = 1 / len(b) / (kernel.T @ u)
    plan = u[:, None] * kernel * v
    return float((plan * cost).sum() + epsilon * (plan * np.log(np.maximum(plan, 1e-300) * len(a) * len(b))).sum())


def test_sinkhorn_is_the_debiased_plain_one() -> None:
    a, b = unit(RNG.normal(size=(15, 3))), unit(RNG.normal(size=(11, 3)) + 1)
    plain = sinkhorn_oracle(a, b, 0.1) - (sinkhorn_oracle(a, a, 0.1) + sinkhorn_oracle(b, b, 0.1)) / 2
    found, steps = sinkhorn(a, b, 0.1)
    assert found == pytest.approx(plain, abs=1e-5) and 0 < steps <= 500
    assert sinkhorn(a, a[::-1])[0] == pytest.approx(0, abs=1e-5) and sinkhorn(a, b[:0]) == (None, 0)
    one, other = np.array([[1.0, 0]], np.float32), np.array([[0, 1.0]], np.float32)
    assert sinkhorn(one, other)[0] == pytest.approx(1, abs=1e-6)


def test_a_draw_hangs_on_the_uids_alone() -> None:
    uids = parse_uids([f"{i:032x}" for i in range(300)])
    weights = RNG.integers(0, 3, 300)
    found, order = draw(uids, weights, 40, 5), RNG.permutation(300)
    assert np.array_equal(order[draw(uids[order], weights[order], 40, 5)], found)
    assert np.array_equal(draw(uids, weights, 15, 5), found[:15]) and len(draw(uids, weights, 999, 5)) == weights.sum()
    assert np.array_equal(np.bincount(draw(uids, weights, 999, 5), minlength=300), weights)
    assert not np.array_equal(draw(uids, weights, 40, 6), found) and len(draw(uids, weights * 0, 40, 5)) == 0


@pytest.mark.parametrize("name", POOLS)
def test_a_pool_in_any_order_and_shards(name: str, tmp_path: Path) -> None:
    rows = POOLS[name]()
    n = len(rows)
    answers = []
    for folder, order, ends in (("a", np.arange(n), (n,)), ("b", RNG.permutation(n), (n // 3, n // 2, n))):
        path, uids = embedded(tmp_path / folder, rows, ends, order)
        sets = {"half": Subset.from_uids(uids[::2]), "none": Subset.from_uids([]), "twice": Subset.from_uids(uids * 2)}
        found = compare(sets, Pool(path), Wanted(sample=30), here)
        answers.append(json.dumps(found, default=str) and found)
    for key in ("absent", "overlap"):
        assert answers[0][key] == answers[1][key]
    first, second = (answer["measures"]["sets"] for answer in answers)
    for name_, row in first.items():
        assert row["rows"] == second[name_]["rows"]
        pairs = [(row["vendi"], second[name_]["vendi"])]
        pairs += [(value, second[name_]["to"][POOL][key]) for key, value in row["to"][POOL].items()]
        assert all(a == b or abs(a - b) < 1e-4 for a, b in pairs[:-1]), pairs
    assert first["none"]["vendi"] is None and first["none"]["to"][POOL]["fid"] is None


def test_gather_is_one_pass_over_all_sets(tmp_path: Path) -> None:
    rows = POOLS["blobs"]()
    path, uids = embedded(tmp_path / "p", rows, (10, 10, 50, 120))
    pool = Pool(path)
    weights = weigh(pool.uids, {"a": Subset.from_uids(uids[:40])})
    found = gather(pool.vectors("b32"), list(weights.values()), here)
    stored = unit(rows.astype(np.float16))
    assert found[0].n == 120 and np.allclose(found[0].square, stored.T.astype(float) @ stored)
    assert found[1].n == 40 and np.allclose(found[1].total, stored[:40].sum(axis=0), atol=1e-4)


def test_uids_that_are_absent_or_repeated_are_told(tmp_path: Path) -> None:
    rows = POOLS["blobs"]()
    path, _ = embedded(tmp_path / "p", rows, (120,), uid=["0" * 32] * 2 + [f"{i:032x}" for i in range(2, 120)])
    found = compare({"a": Subset.from_uids(["0" * 32, "f" * 32])}, Pool(path), Wanted(sample=20), here)
    assert found["absent"] == {"a": 1} and found["composition"]["samples"] == {"pool": 119, "a": 1}
    with pytest.raises(UsageError, match="names of their own"):
        compare({"pool": Subset.from_uids([])}, Pool(path), Wanted(), here)
    with pytest.raises(UsageError, match="no image embeddings of 'b3'; did you mean 'b32'"):
        compare({}, Pool(path), Wanted("b3"), here)


def test_the_command_writes_a_page_and_json(mmfilter: Any, tmp_path: Path) -> None:
    rows = POOLS["blobs"]()
    path, uids = embedded(tmp_path / "out", rows, (60, 120), language=["en", "fr"] * 60)
    other, _ = embedded(tmp_path / "target", rows[:30] + 0.5, (30,))
    for name, some in (("a", uids[:50]), ("b", uids[25:])):
        Subset.from_uids(some).write(f"{path}/subsets/{name}.npy")
    words = ("compare", "a", "b", "--out", path, "--target", other, "--sample", 40, "--local")
    code, said, error = mmfilter(*words)
    assert code == 0, error
    assert "50.0%" in said and "to target" in said and "by b32 (image)" in said
    found = json.loads((tmp_path / "out/compare.json").read_text())
    assert found["measures"]["sets"]["a"]["rows"] == 50 and found["measures"]["moved"] == 40
    text = (tmp_path / "out/compare.html").read_text()
    assert (
        Page(text).count("script") == 1 and 'data-set="a" data-to="target"' in text and 'data-made="Language"' in text
    )
    assert list(found["sha256"]) == ["a", "b"] and found["measures"]["sets"]["a"]["to"][POOL]["fid"] > 0
    code, _, error = mmfilter("compare", "c", "--out", path)
    assert code == 2 and "no such subset" in error

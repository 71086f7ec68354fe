"""Filters in embedding space, each against the plainest statement of its method."""

from importlib.resources import files

import numpy as np
import polars as pl
import pytest
from dedup_util import POOLS, embedded, here
from rules_util import make_uids
from space_util import by_uid, rows_of

from index import gpu
from index.exact import margin
from index.frechet import frechet, moments
from index.negclip import NegClip, log_sums
from index.norm_sim import NormSim
from index.pool import Pool
from index.target import Target
from index.vectors import unit
from jobs.score import score_pool
from jobs.select import select_subset
from mmfilter.errors import UsageError
from mmfilter.recipe import parse_recipe
from mmfilter.rules import build_rule
from mmfilter.subset import sample_share
from mmfilter.uids import parse_uids


def test_frechet_of_what_is_known():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(90, 6)), rng.normal(1, 2, size=(4, 6))  # b: fewer rows than dimensions
    (ma, ca), (mb, cb) = moments(a), moments(b)
    np.testing.assert_allclose(ca, np.cov(a.T))
    eigenvalues = np.linalg.eigvals(ca @ cb).astype(complex)
    plain = ((ma - mb) ** 2).sum() + np.trace(ca + cb) - 2 * np.sqrt(eigenvalues).real.sum()
    assert frechet(ma, ca, mb, cb) == pytest.approx(plain, abs=1e-5)
    assert frechet(mb, cb, ma, ca) == pytest.approx(plain, abs=1e-5)
    assert frechet(ma, ca, ma, ca) == pytest.approx(0, abs=1e-9)
    zero, one = np.zeros(6), np.eye(6)
    assert frechet(zero, one, zero + 2, 4 * one) == pytest.approx(6 * (4 + 1 + 4 - 4))
    assert moments(a[:1])[1].any() == np.False_
    with pytest.raises(ValueError, match="no row"):
        moments(a[:0])


def plain_negclip(x, y, tau):
    """The negated CLIP loss of each pair of one batch, in float64, as it is written."""
    s = x @ y.T / tau
    return tau * (np.diag(s) - (np.logaddexp.reduce(s, 1) + np.logaddexp.reduce(s, 0)) / 2)


@pytest.mark.parametrize("name", ["random", "blobs", "ties", "equal", "one", "odd", "nothing", "empty"])
@pytest.mark.parametrize("tau", [0.01, 0.5])
def test_negclip_of_one_batch(name, tau, tmp_path):
    (x, good), (y, _) = rows_of(name), rows_of(name)
    y = y[::-1].copy()
    good = good & y.any(axis=1)
    pool = Pool(embedded(tmp_path, x, (len(x),), texts=y)[0])
    found = NegClip(model="b32", tau=tau)(pool, here)["negclip_b32_score"]
    assert found.dtype == np.float32 and np.isnan(found[~good]).all()
    x, y = (pool.vectors("b32", m).take(np.flatnonzero(good)).astype(np.float64) for m in ("image", "text"))
    np.testing.assert_allclose(found[good], plain_negclip(x, y, tau), atol=2e-6)


def test_negclip_in_many_batches_and_rounds(tmp_path):
    """Batches by the hash; the last is filled with the first of the shuffle, and its own rows are scored there."""
    rows, order = POOLS["blobs"](), np.random.default_rng(3).permutation(120)
    score = NegClip(model="b32", batch=50, rounds=3, seed=4)
    found = []
    for place, permuted in (("a", None), ("b", order)):
        pool = Pool(embedded(tmp_path / place, rows, (30, 31, 120), permuted, rows[::-1])[0])
        found.append(by_uid(pool, score(pool, here)["negclip_b32_score"]))
    assert found[0] == found[1]
    x, y = (pool.vectors("b32", m).take(np.arange(120)).astype(np.float64) for m in ("image", "text"))
    total = np.zeros(120)
    for number in range(3):
        shuffle = np.argsort(sample_share(pool.uids, 4 + (number << 32)))
        for part in (shuffle[:50], shuffle[50:100], np.concatenate([shuffle[100:], shuffle[:30]])):
            values = plain_negclip(x[part], y[part], 0.01)
            own = 20 if part[0] == shuffle[100] else 50
            total[part[:own]] += values[:own]
    np.testing.assert_allclose(list(found[1].values()), total / 3, atol=2e-6)


def test_log_sums_in_blocks_of_any_height(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = (unit(rng.normal(size=(n, 8))) for n in (70, 33))
    expected = np.logaddexp.reduce(x.astype(np.float64) @ y.T.astype(np.float64) / 0.001, 1)
    for block in (1, 7, 512):
        monkeypatch.setattr("index.negclip.BLOCK", block)
        rows, columns = log_sums(x, y, 0.001)
        np.testing.assert_allclose(rows, expected, atol=1e-3)
        np.testing.assert_allclose(columns, log_sums(y, x, 0.001)[0], atol=1e-3)
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("name", ["random", "blobs", "ties", "equal", "one", "odd", "nothing", "empty"])
def test_norm_sim_is_the_norm(name, tmp_path):
    pool = Pool(embedded(tmp_path / "pool", POOLS[name](), (3, 200))[0])
    width = POOLS[name]().shape[1]
    other = np.random.default_rng(0).normal(size=(9, width))
    other[4] = 0
    (tmp_path / "set").mkdir()
    path, _ = embedded(tmp_path / "set", other, (2, 9))
    rows = pool.vectors("b32").take(np.arange(len(pool.uids))).astype(np.float64)
    items = Pool(path).vectors("b32").take(np.arange(9)).astype(np.float64)
    for p, norm in ((2, 2), ("inf", None)):
        score = NormSim(name="t", path=path, model="b32", p=p)
        found = score(pool, here)[f"norm_sim_t_{p}"]
        assert found.dtype == np.float32
        s = rows @ items[items.any(axis=1)].T
        expected = np.where(rows.any(axis=1), np.linalg.norm(s, norm, axis=1) if norm else s.max(axis=1), np.nan)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert NormSim(name="t", path=path, model="b32", p=float("inf")) == score
    target = Target(name="t", path=path, model="b32")(pool, here)["target_t_similarity"]
    np.testing.assert_array_equal(found, target)


@pytest.mark.parametrize("device", ["cpu:0", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", ["random", "blobs", "ties", "equal", "one", "odd", "nothing", "empty"])
def test_torch_multiplies_as_numpy_does(name, device, tmp_path, monkeypatch):
    """negclip and norm_sim by a device of torch, in blocks: the answers that numpy gives, as near as they promise."""
    rows = POOLS[name]()
    pool = Pool(embedded(tmp_path / "pool", rows, (3, len(rows)), texts=rows[::-1])[0])
    (tmp_path / "set").mkdir()
    path, _ = embedded(tmp_path / "set", np.random.default_rng(0).normal(size=(9, rows.shape[1])), (2, 9))
    scores = [NegClip(model="b32", tau=tau, batch=batch, rounds=2) for tau, batch in ((0.01, 50), (0.5, 7))]
    scores += [NormSim(name="t", path=path, model="b32", p=p) for p in (2, "inf")]
    plain = [score(pool, here)[score.columns[0]] for score in scores]
    monkeypatch.setattr(gpu, "_device", device)
    monkeypatch.setattr(gpu, "ROWS", 16)
    asked = []
    for function in (gpu.log_sums, gpu.norms):
        monkeypatch.setattr(gpu, function.__name__, lambda *a, f=function: asked.append(f.__name__) or f(*a))
    by_torch = [score(pool, here)[score.columns[0]] for score in scores]
    for mine, theirs in zip(plain[:2], by_torch[:2], strict=True):
        assert theirs.dtype == np.float32
        np.testing.assert_allclose(theirs, mine, atol=margin(rows.shape[1]))
    np.testing.assert_allclose(by_torch[2], plain[2], rtol=2.0**-23)
    np.testing.assert_array_equal(by_torch[3], plain[3])
    assert set(asked) == ({"log_sums", "norms"} if np.isfinite(plain[0]).any() else {"norms"} if len(rows) else set())


@pytest.mark.parametrize("device", ["cpu:0", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_log_sums_by_torch_at_a_batchs_width(device, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = (unit(rng.normal(size=(700, 512)) + 1) for _ in range(2))
    exact = x.astype(np.float64) @ y.T.astype(np.float64) / 0.01
    monkeypatch.setattr(gpu, "_device", device)
    monkeypatch.setattr(gpu, "ROWS", 256)
    rows, columns = log_sums(x, y, 0.01)
    np.testing.assert_allclose(0.01 * rows, 0.01 * np.logaddexp.reduce(exact, 1), atol=1e-6)
    np.testing.assert_allclose(0.01 * columns, 0.01 * np.logaddexp.reduce(exact, 0), atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 7, 1003, 1004, 1005, 1008])
def test_a_fraction_of_the_pool_inside_a_then(n):
    uids = parse_uids(make_uids(n))
    rng = np.random.default_rng(n)
    a, b = rng.permutation(n).astype(float), rng.permutation(n).astype(float)
    table = pl.DataFrame({"a": a, "b": b, "uid_hi": uids["f0"], "uid_lo": uids["f1"]})
    first = {"fraction": {"score": "a", "keep": 0.3}}
    last = {"fraction": {"score": "b", "keep": 0.2, "of": "pool"}}
    rule = build_rule({"then": [first, last]}, "x").fit(table)
    left = sorted(sorted(range(n), key=lambda i: -a[i])[: round(0.3 * n)], key=lambda i: -b[i])
    assert np.flatnonzero(rule.mask(table)).tolist() == sorted(left[: round(0.2 * n)])
    assert "20% of the pool" in rule.describe() or "0.2 of the pool" in rule.describe()
    nested = build_rule({"then": [first, {"all": [{"then": [last]}, {"not": {"not": last}}]}]}, "x").fit(table)
    np.testing.assert_array_equal(nested.mask(table), rule.mask(table))
    alone = build_rule(last, "x").fit(table)
    assert alone.mask(table).sum() == round(0.2 * n)


@pytest.mark.parametrize(
    ("recipe", "columns", "kept"),
    [
        ("negclip_normsim", ["negclip_b32_score", "norm_sim_target_inf"], 24),
        ("rds", ["round_robin_target_rank"], 12),
        ("dp4tl", ["target_target_hits"], 72),
        ("snp", ["target_target_hits", "target_target_likeness", "target_target_union"], None),
    ],
)
def test_recipes_by_their_public_door(recipe, columns, kept, tmp_path, monkeypatch):
    rows = POOLS["blobs"]()
    (tmp_path / "targets").mkdir()
    embedded(tmp_path / "targets" / "images", rows[:5], (5,))
    embedded(tmp_path / "out", rows, (30, 120), texts=rows[::-1])
    monkeypatch.chdir(tmp_path)
    text = files("mmfilter.recipes").joinpath(f"{recipe}.yaml").read_text().replace("l14", "b32").replace("50,", "5,")
    loaded = parse_recipe(text, f"recipe {recipe}")
    found = score_pool(loaded, str(tmp_path / "out"), str(tmp_path / "out"))
    assert found["columns"] == columns
    counts = select_subset(loaded, str(tmp_path / "out"), recipe)["counts"]
    assert counts["in"] == 120 and (0 < counts["kept"] < 120 if kept is None else counts["kept"] == kept)
    (tmp_path / "targets").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=rf"recipe {recipe}: .*nothing is at {tmp_path}/targets/images; put it there"):
        score_pool(loaded, str(tmp_path / "out"), str(tmp_path / "out"))


def test_a_target_that_is_not_there_is_missed_before_anything_is_embedded(tmp_path, mmfilter):
    (tmp_path / "0.tar").write_bytes(b"no tar")
    code, _, error = mmfilter("run", "rds", "--pool", tmp_path / "0.tar", "--local", cwd=tmp_path)
    assert code == 2 and f"nothing is at {tmp_path}/targets/images; put it there" in error
    assert not (tmp_path / "runs" / "run" / "run.json").exists()

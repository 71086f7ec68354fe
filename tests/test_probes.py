"""The probes against their plainest statement, and through the command line."""

import json

import numpy as np
import polars as pl
import pytest
from dedup_util import embedded

from index.probes import ProbeOptions, probe, wilson
from mmfilter.errors import DataError, UsageError
from mmfilter.subset import sample_share
from mmfilter.uids import parse_uids

CLASSES = np.array(["ant", "bee", "cow"])


def pool(folder, ends=(150,), order=None, n=150, noise=0.6, seed=0):
    """Three noisy directions, their names in a column; a null and a row without direction among them."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    rows = (np.eye(3, 6)[truth] + rng.normal(size=(n, 6)) * noise).astype(np.float16)
    rows[4] = 0
    names = [None if i == 7 else str(CLASSES[c]) for i, c in enumerate(truth)]
    return (*embedded(folder, rows, ends, order, animal=names), rows.astype(np.float64), truth)


def oracle(uids, rows, truth, k=20, ridge=1e-4):
    """(kNN accuracy, linear accuracy), one sample after the other."""
    there = np.array([i not in (4, 7) for i in range(len(rows))])
    x = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    held = sample_share(parse_uids(uids), 0) < 0.2
    train, asked = np.flatnonzero(there & ~held), np.flatnonzero(there & held)
    weights = [dict.fromkeys(range(3), 0.0) for _ in asked]
    for i, query in enumerate(asked):
        for j in sorted(train, key=lambda j: (-x[j] @ x[query], uids[j]))[:k]:
            weights[i][int(truth[j])] += np.exp(x[j] @ x[query] / 0.07)
    voted = np.array([max(w, key=w.get) for w in weights])
    one = np.c_[x, np.ones(len(x))]
    a, y = one[train], np.eye(3)[truth[train]]
    b = np.linalg.inv(a.T @ a / len(a) + ridge * np.diag([1.0] * 6 + [0])) @ (a.T @ y / len(a))
    linear = (one[asked] @ b).argmax(axis=1)
    return (voted == truth[asked]).mean(), (linear == truth[asked]).mean()


@pytest.mark.parametrize("k", [1, 20, 500])
def test_the_probes_are_what_they_say(tmp_path, k):
    folder, uids, rows, truth = pool(tmp_path / "p")
    found = probe(folder, ProbeOptions("b32", "animal", k=k), folder)
    knn, linear = oracle(uids, rows, truth, k)
    assert found["probe_knn"]["accuracy"] == pytest.approx(knn)
    assert found["probe_linear"]["accuracy"] == pytest.approx(linear)
    assert found["left_out"] == 2 and found["asked"] + found["learned_from"] + 2 == 150
    assert found["probe_linear"]["accuracy"] > found["most_common"]["accuracy"]


def test_neither_shards_nor_their_order_have_a_say(tmp_path):
    folder, *_ = pool(tmp_path / "a")
    order = np.random.default_rng(5).permutation(150)
    other, *_ = pool(tmp_path / "b", (20, 20, 90, 150), order)
    options = ProbeOptions("b32", "animal")
    assert probe(folder, options, folder) == probe(other, options, other)


def test_equal_rows_are_no_crash_and_no_better_than_chance(tmp_path):
    folder, _ = embedded(tmp_path / "p", np.ones((60, 4)), (60,), animal=[str(c) for c in np.tile(CLASSES, 20)])
    found = probe(folder, ProbeOptions("b32", "animal"), folder)
    assert found["probe_knn"]["accuracy"] < 0.8 and found["probe_linear"]["interval"][0] < 0.5


def test_labels_come_from_a_file_by_uid(tmp_path):
    folder, uids, _, truth = pool(tmp_path / "p")
    wanted = probe(folder, ProbeOptions("b32", "animal"), folder)
    table = pl.DataFrame({"uid": uids, "kind": [None if i == 7 else int(c) for i, c in enumerate(truth)]})
    table.sample(fraction=1, shuffle=True, seed=1).write_parquet(tmp_path / "labels.parquet")
    found = probe(folder, ProbeOptions("b32", "kind", labels=str(tmp_path / "labels.parquet")), folder)
    assert {**found, "column": "animal"} == wanted
    with pytest.raises(UsageError, match="did you mean 'kind'"):
        probe(folder, ProbeOptions("b32", "kid", labels=str(tmp_path / "labels.parquet")), folder)
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match=r"bad\.parquet"):
        probe(folder, ProbeOptions("b32", "kind", labels=str(tmp_path / "bad.parquet")), folder)
    pl.DataFrame({"uid": [1, 2], "kind": [0, 1]}).write_parquet(tmp_path / "numbers.parquet")
    with pytest.raises(DataError, match="uid holds Int64"):
        probe(folder, ProbeOptions("b32", "kind", labels=str(tmp_path / "numbers.parquet")), folder)


def test_samples_of_one_class_teach_nothing(tmp_path):
    """Of many samples one class and of the other a single one, which is held out."""
    folder, uids = embedded(tmp_path / "p", np.eye(40), (40,))[:2]
    held = uids[int(np.argmin(sample_share(parse_uids(uids), 0)))]
    pl.DataFrame({"uid": uids, "rare": [uid == held for uid in uids]}).write_parquet(tmp_path / "l.parquet")
    with pytest.raises(UsageError, match="all of one class"):
        probe(folder, ProbeOptions("b32", "rare", labels=str(tmp_path / "l.parquet")), folder)


@pytest.mark.parametrize("values", [["one"] * 30, [None] * 30])
def test_a_column_that_is_no_classes_is_refused(tmp_path, values):
    folder, _ = embedded(tmp_path / "p", np.random.default_rng(0).normal(size=(30, 4)), (30,), animal=values)
    with pytest.raises(UsageError, match="a probe wants 2 to"):
        probe(folder, ProbeOptions("b32", "animal"), folder)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_samples_are_refused(tmp_path, n):
    animals = ["ant", "bee"][:n]
    folder, _ = embedded(tmp_path / "p", np.ones((n, 4)), (n,), animal=animals)
    with pytest.raises(UsageError, match="holdout|a probe wants"):
        probe(folder, ProbeOptions("b32", "animal", holdout=1e-6), folder)


def test_wilsons_interval_holds_the_share():
    for hits in (np.zeros(5, bool), np.ones(5, bool), np.arange(50) < 20):
        low, high = wilson(hits)
        assert 0 <= low <= hits.mean() <= high <= 1 and high - low < 0.6
    assert wilson(np.arange(100) < 50) == pytest.approx([0.4038, 0.5962], abs=1e-4)


def test_the_command_line(tmp_path, mmfilter):
    folder, *_ = pool(tmp_path / "p")
    words = ("probe", folder, "--model", "b32", "--column", "animal", "--metadata", folder)
    code, out, err = mmfilter(*words)
    assert code == 0 and "Not a zero-shot figure" in out and "probe_linear" in out, err
    code, out, _ = mmfilter(*words, "--json")
    assert code == 0 and json.loads(out) == probe(folder, ProbeOptions("b32", "animal"), folder)
    assert mmfilter(*words, "--holdout", "1")[0] == 2

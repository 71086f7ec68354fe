"""The kNN index against brute force: by the command line, from Python, after additions, kills and damage."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from dedup_util import embedded, here
from hypothesis import given, settings
from hypothesis import strategies as st

import index.build
from index.build import IndexOptions, build_index
from index.factory import choose
from index.factory import given as given_factory
from index.knn import open_index
from index.nearest import best
from index.vectors import open_vectors, unit
from mmfilter.errors import ConflictError, DataError, UsageError
from mmfilter.uids import parse_uids

SMALL = {"IVF1,Flat": "", "IVF16,PQ8x4": "IVF16,PQ8x4", "IVF16,SQ8": "IVF16,SQ8", "IVF8,PQ4": "IVF8,PQ4"}


def rows_of(n=3000, d=16, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(40, d))[rng.integers(0, 40, n)] + 0.3 * rng.normal(size=(n, d))


def built(folder, rows, ends, **options):
    """(out, uids by row, index.json) of an index over the rows."""
    out, uids = embedded(folder, rows, ends)
    return out, uids, build_index(out, IndexOptions("b32", **options), here)


def exact(out, queries, k, among=None):
    """(uids' positions, similarities) by a product with every row."""
    vectors = open_vectors(out, "b32")
    near = unit(queries) @ vectors.take(np.arange(len(vectors))).T
    if among is not None:
        near[:, ~np.isin(np.arange(near.shape[1]), among)] = -np.inf
    return best(near, np.arange(near.shape[1]), k)


@pytest.mark.slow
@pytest.mark.parametrize("factory", SMALL.values(), ids=SMALL)
def test_searches_reach_the_recall_that_index_json_states(tmp_path, factory):
    rows = rows_of()
    rows[7] = rows[2900] = 0
    out, uids, info = built(tmp_path / "o", rows, [1000, 1700, 3000], factory=factory)
    assert info["met"] and info["recall"]["image"] >= 0.95 and info["recall"]["text"] is None
    assert (info["rows"], info["left_out"], info["did"]) == (2998, 2, "built")
    knn = open_index(out)
    queries = rows[::60] + 0.1 * np.random.default_rng(1).normal(size=(50, 16))
    found, near = knn.search(queries, 10)
    truth, similarity = exact(out, queries, 10)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)]) > 0.85
    same = found == truth
    assert np.allclose(near[same], similarity[same], atol=1e-5) and (np.diff(near, axis=1) <= 0).all()
    assert not np.isin(found, [7, 2900]).any()
    assert knn.positions(parse_uids([uids[5], "f" * 32, uids[2999]])).tolist() == [5, -1, 2999]


@pytest.mark.parametrize("few", [50_000, 10], ids=["looked at", "by selector"])
@pytest.mark.parametrize("factory", ["", "IVF16,PQ8x4"])
def test_a_restricted_search_never_comes_back_short(tmp_path, monkeypatch, factory, few):
    monkeypatch.setattr(index.knn, "FEW", few)
    out, _, _ = built(tmp_path / "o", rows_of(), [1500, 3000], factory=factory)
    knn, queries = open_index(out), rows_of(20, seed=2)
    for among in (np.arange(0, 3000, 7), np.arange(11), np.array([5]), np.arange(3000) < 400):
        found, near = knn.search(queries, 12, among)
        chosen = np.flatnonzero(among) if among.dtype == bool else among
        k = min(12, len(chosen))
        assert (found[:, :k] >= 0).all() and np.isin(found[:, :k], chosen).all()
        assert (found[:, k:] == -1).all() and np.isneginf(near[:, k:]).all()
        truth, _ = exact(out, queries, k, chosen)
        assert np.mean([len(set(a) & set(b)) / k for a, b in zip(found[:, :k], truth, strict=True)]) > 0.9
    assert (knn.search(queries, 3, np.empty(0, np.int64))[0] == -1).all()


def test_a_floor_finds_what_is_above_it(tmp_path):
    out, _, _ = built(tmp_path / "o", rows_of(), [3000])
    knn, query = open_index(out), rows_of(1, seed=3)[0]
    truth = exact(out, query[None], 3000)[1][0]
    for floor in (0.9, 0.5, -1.0):
        found, near = knn.above(query, floor, 3000)
        assert len(found) == (truth >= floor).sum() and (near >= floor).all()
    assert len(knn.above(query, -1.0, 25)[0]) == 25


def test_shards_that_come_later_are_added_wherever_their_names_fall(tmp_path):
    rows = rows_of()
    out, _, first = built(tmp_path / "o", rows[:2000], [1000, 2000], factory="IVF16,SQ8")
    reader = open_index(out)
    before = reader.search(rows[:5], 10)
    assert build_index(out, IndexOptions("b32"), here)["did"] == "nothing"
    stood = {name: os.stat(tmp_path / f"o/{name}.npz") for name in ("00000000", "00000001")}
    embedded(tmp_path / "o", rows, [1000, 2000, 3000])
    for ending in ("npz", "parquet"):
        os.rename(tmp_path / f"o/00000002.{ending}", tmp_path / f"o/00000000-a.{ending}")
    for name, was in stood.items():
        os.utime(tmp_path / f"o/{name}.npz", ns=(was.st_atime_ns, was.st_mtime_ns))
    info = build_index(out, IndexOptions("b32"), here)
    assert (info["did"], info["rows"], info["factory"]) == ("added", 3000, first["factory"])
    knn = open_index(out)
    assert knn.vectors.stems == ("00000000", "00000001", "00000000-a")
    assert knn.search(rows[2500:2510], 5)[0][:, 0].tolist() == list(range(2500, 2510))
    assert sorted(knn.uids.tolist()) == sorted(open_vectors(out, "b32").all_uids().tolist())
    assert np.array_equal(reader.search(rows[:5], 10)[0], before[0]), "a reader keeps the version that it has open"
    assert build_index(out, IndexOptions("b32", target=0.5), here)["did"] == "tuned"


@pytest.mark.slow
def test_bytes_hang_on_the_pool_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(index.parts, "PART", 500)
    rows = rows_of()
    out, _, info = built(tmp_path / "a", rows, [700, 1500, 2200, 3000], factory="IVF16,PQ8x4")

    def backwards(function, tasks):
        return [function(task) for task in reversed(tasks)][::-1]

    again = build_index(out, IndexOptions("b32", factory="IVF16,PQ8x4", fresh=True), backwards)
    assert again["files"] == info["files"] and again["nprobe"] == info["nprobe"]


class Stop(Exception):
    pass


@pytest.mark.slow
def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(index.parts, "PART", 500)
    out, _, info = built(tmp_path / "o", rows_of(), [700, 1500, 2200, 3000], factory="IVF16,PQ8x4")
    done = []

    def dies(function, tasks):
        for task in tasks:
            if len(done) == 2:
                raise Stop
            done.append(function(task))

    options = IndexOptions("b32", factory="IVF16,PQ8x4", fresh=True)
    with pytest.raises(Stop):
        build_index(out, options, dies)
    assert open_index(out).info["files"] == info["files"], "the version before goes on"
    asked = []

    def counts(function, tasks):
        asked.extend(not os.path.exists(f"{task.path}.npz") for task in tasks)
        return [function(task) for task in tasks]

    again = build_index(out, options, counts)
    assert asked.count(False) == 2 and again["files"] == info["files"]
    assert not list((tmp_path / "o/index/b32-image").glob("building-*"))


@pytest.mark.slow
def test_codes_that_do_not_fit_are_mapped_from_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(index.factory, "FEW", 100)
    rows = rows_of()
    out, _, info = built(tmp_path / "o", rows, [1000, 3000], memory=1000.0)
    assert info["on_disk"] and info["met"] and info["files"]["lists.bin"]["bytes"] > 0
    found, _ = open_index(out).search(rows[:20], 10)
    assert found[:, 0].tolist() == list(range(20))


def test_fault_30_two_models_are_not_mixed(tmp_path):
    rows = rows_of(300)
    out, _, _ = built(tmp_path / "o", rows, [300], name="x")
    vectors = {name: np.asarray(rows, np.float16) for name in ("b32_img", "l14_img")}
    np.savez(tmp_path / "o/00000000.npz", **vectors)
    with pytest.raises(UsageError, match="holds b32 image embeddings"):
        build_index(out, IndexOptions("l14", name="x"), here)
    with pytest.raises(ConflictError, match="made anew"):
        open_index(out)
    build_index(out, IndexOptions("b32", name="x"), here)
    with pytest.raises(UsageError, match="16 numbers, not 8"):
        open_index(out).search(np.ones(8), 3)


def test_fault_31_a_truncated_or_crafted_file_is_not_read(tmp_path):
    out, _, _ = built(tmp_path / "o", rows_of(300), [300])
    file = tmp_path / "o/index/b32-image/v0001/knn.faiss"
    sound = file.read_bytes()
    file.write_bytes(sound[:-100])
    with pytest.raises(DataError, match=r"knn\.faiss: \d+ bytes where \d+ were written"):
        open_index(out)
    file.write_bytes(sound[:50] + b"\xff" * 50 + sound[100:])
    with pytest.raises(DataError, match="sha256 differs"):
        open_index(out)
    file.write_bytes(sound)
    (tmp_path / "o/index/b32-image/v0001/index.json").write_text("{}")
    with pytest.raises(DataError, match="is damaged"):
        open_index(out)
    (tmp_path / "o/index/b32-image/current").write_text("../../etc")
    with pytest.raises(DataError, match="should name a version"):
        open_index(out)


def test_fault_50_a_new_version_while_queries_run(tmp_path):
    rows = rows_of(600)
    out, _, _ = built(tmp_path / "o", rows, [600])
    code = f"""
import sys, time, numpy as np
from index.knn import open_index
rng, seen, end = np.random.default_rng(0), set(), time.monotonic() + 6
while time.monotonic() < end and len(seen) < 3:
    knn = open_index({out!r})
    found, _ = knn.search(knn.vectors.take(np.arange(10)), 3)
    assert found[:, 0].tolist() == list(range(10)), found
    seen.add(knn.folder)
print(len(seen))
"""
    reader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    while reader.poll() is None:
        build_index(out, IndexOptions("b32", fresh=True), here)
        time.sleep(0.1)
    assert reader.returncode == 0 and int(reader.communicate()[0]) > 1


def test_fault_50_two_new_versions_before_the_first_query(tmp_path):
    rows = rows_of(600)
    out, _, _ = built(tmp_path / "o", rows, [600])
    reader = open_index(out)
    for _ in range(2):
        build_index(out, IndexOptions("b32", fresh=True), here)
    assert not os.path.exists(reader.folder)
    assert reader.search(rows[:10], 3)[0][:, 0].tolist() == list(range(10))


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 10**10), st.integers(1, 2048), st.floats(1e6, 1e13))
def test_the_factory_fits_the_pool_and_the_memory(rows, dim, memory):
    factory = choose(rows, dim, memory)
    assert given_factory(factory.text, rows, dim, 1e18).text == factory.text, "what is chosen could be given"
    assert factory.lists <= max(rows, 1) and (factory.on_disk or rows * factory.row_bytes <= memory or rows <= 20_000)


@pytest.mark.parametrize(
    ("text", "says"),
    [("HNSW32", "give IVF<lists>"), ("IVF64,PQ7", "do not part into 7"), ("IVF4096,Flat", "4,096 lists for 300 rows")],
)
def test_a_factory_that_does_not_do_says_why(tmp_path, text, says):
    out, _ = embedded(tmp_path / "o", rows_of(300), [300])
    with pytest.raises(UsageError, match=says):
        build_index(out, IndexOptions("b32", factory=text), here)


def test_nothing_to_index(tmp_path):
    out, _ = embedded(tmp_path / "o", np.zeros((5, 4)), [5])
    with pytest.raises(UsageError, match="nothing to index"):
        build_index(out, IndexOptions("b32"), here)


def test_by_the_command_line_and_on_ray(tmp_path, mmfilter, ray_here):
    from jobs.cluster import Width
    from jobs.index import index_pool

    embedded(tmp_path / "o", rows_of(900), [300, 600, 900])
    code, said, _ = mmfilter("index", tmp_path / "o", "--model", "b32", "--local", "--json")
    info = json.loads(said)
    assert code == 0 and info["rows"] == 900 and info["shards"] == 3 and info["did"] == "built"
    over_ray = index_pool(str(tmp_path / "o"), IndexOptions("b32", fresh=True), Width(workers=2))
    assert over_ray["files"] == info["files"]
    code, said, _ = mmfilter("index", tmp_path / "o", "--model", "b32", "--local")
    assert code == 0 and "nothing to do" in said and "recall@10" in said
    code, _, error = mmfilter("index", tmp_path / "o", "--model", "l14", "--local")
    assert code == 2 and "no embeddings 'l14_img'" in error
    assert Path(info["path"]).is_dir()

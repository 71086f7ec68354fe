"""Pools and runs on an object store: the same bytes as on a disk, in any weather (FAULTS 45, 46)."""

import io
import json
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from jobs_util import recipe_text, results
from store_util import served, store
from tars import sample, tar, write_pool

from jobs.cluster import Width
from jobs.driver import Crash, guarded
from jobs.outdir import count_attempt, forget_attempts, load_run, read_attempts
from jobs.run import RunOptions, run_recipe
from mmfilter import patterns, remote, storage
from mmfilter.errors import ConflictError, MMFilterError, StoreError, UsageError
from mmfilter.recipe import parse_recipe
from mmfilter.sidecar import metadata_path, write_commit

__all__ = ["served", "store"]  # fixtures

LOCAL = Width(local=True)
STORM = ("busy", "lost", "cut", "short", "slow")


@pytest.fixture
def pool(tmp_path):
    paths = write_pool(tmp_path / "pool", 3, 7)
    rows = [m for n in range(14, 21) for m in sample(n, text=f"a picture number {n}")]
    Path(paths[2]).write_bytes(tar(rows[1:]))  # a sample without its image
    return paths


def run(model, paths, out, keep=0.5, **fields):
    scores = ["language", {"duplicates": {"model": "b32"}}, {"clip_similarity": {"model": "b32"}}]
    recipe = parse_recipe(recipe_text(model, keep=keep, scores=scores, **fields), "recipe t")
    return run_recipe(recipe, paths, RunOptions(out, "t", LOCAL))


def bytes_of(out):
    """Each result's hash; of added columns the table's, as beside it stands what tells the pool: dates or etags."""
    found = {name: digest for name, digest in results(out).items() if not name.startswith("columns")}
    tables = sorted(Path(out).glob("columns/*/*.parquet"))
    return found | {str(path.relative_to(out)): repr(pq.read_table(path).to_pydict()) for path in tables}


@pytest.mark.slow
def test_fault_45_a_whole_run_in_a_storm_gives_the_bytes_of_a_disk(store, pool, tmp_path, tiny_model):
    near = run(tiny_model, pool, str(tmp_path / "near"))
    store.put(tmp_path / "pool", "pool")
    paths = storage.expand(f"{store.root}/pool")
    assert [storage.stem(p) for p in paths] == [storage.stem(p) for p in pool]
    store.weather.storm(0.15, *STORM)
    far = run(tiny_model, paths, f"{store.root}/out")
    assert all(store.weather.seen[kind] for kind in STORM), store.weather.seen
    again = run(tiny_model, paths, f"{store.root}/out")
    changed = run(tiny_model, paths, f"{store.root}/out", keep=0.25)  # other shards in the old ones' place
    store.weather.calm()
    assert far["counts"] == near["counts"] == again["counts"] and near["counts"]["failed"] == 1
    assert again["embed"]["shards_done_before"] == 3
    assert changed["counts"] == run(tiny_model, pool, str(tmp_path / "near"), keep=0.25)["counts"]
    found = bytes_of(store.get("out", tmp_path / "far"))
    assert found == bytes_of(tmp_path / "near") and len(found) > 12
    assert not storage.exists(f"{store.root}/out/.lock")


@pytest.mark.slow
def test_the_command_on_ray_over_a_store(store, pool, tmp_path, tiny_model, mmfilter_process):
    store.put(tmp_path / "pool", "pool")
    (tmp_path / "t.yaml").write_text(recipe_text(tiny_model))
    words = ("run", tmp_path / "t.yaml", "--pool", f"{store.root}/pool", "--workers", 2, "--gpus", 0, "--json")
    code, out, said = mmfilter_process(*words, "--out", f"{store.root}/out")
    assert code == 3, said  # a sample without its image
    near = run_recipe(parse_recipe(recipe_text(tiny_model), "t"), pool, RunOptions(str(tmp_path / "near"), "t", LOCAL))
    assert json.loads(out)["counts"] == near["counts"]
    assert results(store.get("out", tmp_path / "far")) == results(tmp_path / "near")
    code, out, _ = mmfilter_process("inspect", f"{store.root}/out/shards/t", "--local", "--json")
    assert code == 0 and json.loads(out)["samples"] == near["counts"]["kept"]


@pytest.mark.slow
def test_fault_45_a_store_that_stays_away_is_no_absence(store, pool, tmp_path, tiny_model):
    """Nothing is committed as lost, unreadable or not there because the store did not answer."""
    store.put(tmp_path / "pool", "pool")
    path = f"{store.root}/pool/{storage.stem(pool[0])}.tar"
    store.weather.storm(1.0, "busy")
    for ask in (storage.exists, storage.isdir, storage.identity_or_none, storage.read_bytes, storage.remove):
        with pytest.raises(StoreError, match="failed 8 times"):
            ask(path)
    with pytest.raises(StoreError):
        patterns.glob(f"{store.root}/pool/*.tar")
    with pytest.raises(StoreError):
        storage.write_atomic(path, b"")
    with pytest.raises(StoreError, match="The same command goes on from here"):
        run(tiny_model, [path], f"{store.root}/out")
    store.weather.calm()
    assert patterns.glob(f"{store.root}/out/**/*.json") == []
    assert run(tiny_model, [path], f"{store.root}/out")["counts"]["in"] == 7
    assert isinstance(guarded(lambda _: remote.retrying(_refused, path), None), Crash)


def _refused():
    raise PermissionError("access denied")


def test_what_no_waiting_mends_is_said_at_once(monkeypatch):
    calls = []

    def call(error):
        calls.append(error)
        raise error

    monkeypatch.setattr(remote.time, "sleep", lambda _: pytest.fail("waited"))
    for error, raised in (
        (PermissionError("denied"), StoreError),
        (FileNotFoundError("x"), FileNotFoundError),
        (ValueError("x"), StoreError),
    ):
        with pytest.raises(raised):
            remote.retrying(lambda e=error: call(e), "s3://a/b")
    assert len(calls) == 3


def test_waits_are_random_and_grow_to_a_limit(monkeypatch):
    waits = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    for _ in range(50):
        with pytest.raises(StoreError):
            remote.retrying(lambda: (_ for _ in ()).throw(OSError("away")), "s3://a/b")
    waits = np.array(waits).reshape(50, remote.TRIES - 1)
    limit = np.minimum(remote.MAX_WAIT, remote.FIRST_WAIT * 2.0 ** np.arange(remote.TRIES - 1))
    assert (waits <= limit).all() and (waits.std(0) > limit / 10).all()


def test_fault_45_an_answer_that_hangs_is_asked_again(store, monkeypatch):
    import fsspec

    storage.write_atomic(f"{store.root}/x", b"here")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 0.3}})
    store.weather.storm(0.5, "hang")
    for _ in range(20):  # of a few requests by chance none may hang
        assert storage.read_bytes(f"{store.root}/x") == b"here"
        if store.weather.seen["hang"]:
            break
    assert store.weather.seen["hang"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["short", "cut"])
def test_fault_45_partial_reads_are_found_by_their_length(store, kind):
    data = np.random.default_rng(0).bytes(3_000_000)
    path = f"{store.root}/x.bin"
    storage.write_atomic(path, data)
    store.weather.storm(0.2, kind)
    assert storage.read_bytes(path) == data
    with storage.open_read(path) as stream:
        rng = np.random.default_rng(1)
        for at, n in zip(rng.integers(0, len(data), 30), rng.integers(1, 200_000, 30), strict=True):
            stream.seek(at)
            assert stream.read(n) == data[at : at + n]
        assert stream.seek(0, io.SEEK_END) == len(data) and stream.read(5) == b""
    assert store.weather.seen[kind]


def test_reads_are_ranges_small_after_a_seek_and_larger_in_order(store):
    path = f"{store.root}/x.bin"
    storage.write_atomic(path, bytes(20_000_000))
    store.weather.calm()
    with storage.open_read(path) as stream:
        stream.seek(15_000_000)
        assert len(stream.read(1000)) == 1000
    (span,) = [r for method, _, r in store.weather.asked if method == "GET"]
    assert span == f"bytes=15000000-{15_000_000 + remote.SPAN - 1}"
    store.weather.calm()
    with storage.open_read(path) as stream:
        while stream.read(10_000):
            pass
    asked = [r for method, _, r in store.weather.asked if method == "GET"]
    spans = [int(r[6:].split("-")[1]) - int(r[6:].split("-")[0]) + 1 for r in asked]
    assert sum(spans) == 20_000_000 and len(spans) < 12 and max(spans) == remote.MAX_SPAN


def test_an_object_that_changes_while_it_is_read_is_not_mixed(store):
    path = f"{store.root}/x.bin"
    storage.write_atomic(path, bytes(1_000_000))
    with storage.open_read(path) as stream:
        stream.read(10)
        storage.write_atomic(path, b"\1" * 1_000_000)
        with pytest.raises(StoreError, match="changed while it was read"):
            stream.read()


def test_nothing_is_published_when_the_writer_fails(store):
    path = f"{store.root}/x.bin"
    with pytest.raises(ZeroDivisionError), storage.open_atomic(path) as stream:
        stream.write(bytes(100))
        raise ZeroDivisionError
    assert not storage.exists(path)
    with pytest.raises(MMFilterError, match="cannot be written"):
        storage.write_atomic("s3://no-such-bucket/x", b"")


@pytest.mark.parametrize("root", ["store", "disk", "memory"])
def test_create_writes_only_where_nothing_is(store, tmp_path, root):
    folder = {"store": store.root, "disk": str(tmp_path), "memory": f"memory://{tmp_path.name}"}[root]
    path = storage.join(folder, "a")
    assert storage.create(path, b"first") and not storage.create(path, b"second")
    assert storage.read_bytes(path) == b"first" and storage.names(folder) == ["a"]
    storage.remove(path)
    storage.remove(path)
    assert not storage.exists(path) and storage.create(path, b"third")


def test_one_of_many_creators_wins_though_answers_are_lost(store):
    store.weather.storm(0.3, "lost", "busy")
    path, won = f"{store.root}/a", []
    body = [f"owner {n}".encode() for n in range(8)]
    threads = [threading.Thread(target=lambda b=b: won.append(b) if storage.create(path, b) else None) for b in body]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [storage.read_bytes(path)]


def test_globs_find_what_a_disk_has(store, tmp_path):
    import glob

    for name in ("a/1.tar", "a/2.tar", "a/b/3.tar", "a/.x.tar", "c/1.tar", "c/1.json", "[d]/1.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    store.put(tmp_path, "g")
    for pattern in ("a/*.tar", "*/1.*", "*/*/*.tar", "a/[12].tar", "a/?.tar", "*", "z/*", "c/1.tar", "a/z*"):
        want = [p.removeprefix(f"{tmp_path}/") for p in sorted(glob.glob(f"{tmp_path}/{pattern}"))]
        found = [p.removeprefix(f"{store.root}/g/") for p in patterns.glob(f"{store.root}/g/{pattern}")]
        assert found == want, pattern
    assert len(patterns.glob(f"{store.root}/g/**/*.tar")) == 6
    with pytest.raises(UsageError, match="no shard matches"):
        storage.expand(f"{store.root}/nothing/*.tar")


def test_a_commit_is_put_if_absent(store):
    out = f"{store.root}/out"
    commit = {"parts": {"a": 1}, "counts": {"read": 1, "ok": 1}, "input": None, "seconds": {"a": 1.0}}
    commit["counts"]["failed"] = {}
    write_commit(out, "s", commit, first=True)
    write_commit(out, "s", {**commit, "seconds": {"a": 2.0}}, first=True)  # the same work: the first stands
    assert json.loads(storage.read_bytes(metadata_path(out, "s", "json")))["seconds"] == {"a": 1.0}
    with pytest.raises(ConflictError, match="from something else meanwhile"):
        write_commit(out, "s", {**commit, "parts": {"a": 2}}, first=True)
    write_commit(out, "s", {**commit, "parts": {"a": 2}})
    assert json.loads(storage.read_bytes(metadata_path(out, "s", "json")))["parts"] == {"a": 2}


def test_attempts_and_runs_are_found_on_a_store(store):
    out = f"{store.root}/runs/mine"
    assert [count_attempt(out, "s", "x"), count_attempt(out, "s", "y")] == [1, 2]
    forget_attempts(out, "s")
    assert read_attempts(out, "s")["attempts"] == 0
    storage.write_atomic(f"{out}/run.json", b"{}")
    with pytest.raises(UsageError, match="did you mean 'mine'"):
        load_run(f"{store.root}/runs/mind")

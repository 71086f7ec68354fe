"""A disk that is full or read-only (FAULTS 44): one sentence, no half file, no attempt counted, and it goes on."""

import errno
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
from dedup_util import embedded, here
from jobs_util import leftovers, recipe_text, results
from tars import write_pool

import index.factory
import index.parts
from index.build import IndexOptions, build_index
from index.parts import write_index
from jobs.cluster import Width
from jobs.driver import Refusal, guarded
from jobs.run import RunOptions, run_recipe
from mmfilter.errors import MMFilterError
from mmfilter.recipe import parse_recipe

HERE = Path(__file__).parent


def recipe(tmp_path):
    (tmp_path / "t.yaml").write_text(recipe_text("x", embed={}, scores=["phash"], select="everything"))
    return parse_recipe((tmp_path / "t.yaml").read_text(), "t")


@pytest.mark.slow
def test_fault_44_a_full_and_a_read_only_disk(tmp_path):
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no mount of one's own here (unshare -rm)")
    loaded, paths = recipe(tmp_path), write_pool(tmp_path / "pool", 8, 40)
    words = ["unshare", "-rm", sys.executable, HERE / "disk_util.py", tmp_path, tmp_path / "pool", tmp_path / "t.yaml"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    quiet = run_recipe(loaded, paths, RunOptions(str(tmp_path / "quiet"), "t", Width(local=True)))
    assert quiet["counts"]["kept"] == 320 and told.pop("results") == results(tmp_path / "quiet")
    for stage, (code, said, left) in told.items():
        why = "Read-only file system" if stage == "read-only" else "No space left on device"
        assert code == 1 and said.startswith(f"mmfilter: {tmp_path}/out") and why in said, (stage, said)
        assert left == [], stage


@pytest.mark.slow
def test_fault_44_a_write_that_fails_half_way(tmp_path, mmfilter):
    """Where nothing can be mounted: files may not grow beyond a limit, so the resharded tar breaks off."""
    loaded, paths = recipe(tmp_path), write_pool(tmp_path / "pool", 4, 40)
    words = ("-m", "jobs", "run", "t.yaml", "--pool", "pool", "--out", "out", "--name", "t", "--local")
    limit = (150_000, resource.RLIM_INFINITY)

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, preexec_fn=small_files
    )
    said = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and said.startswith(
        f"mmfilter: {tmp_path}/out/shards/t/00000000.tar: cannot be written"
    )
    assert "Traceback" not in done.stderr and leftovers(tmp_path / "out") == []
    run_recipe(loaded, paths, RunOptions(str(tmp_path / "out"), "t", Width(local=True)))
    run_recipe(loaded, paths, RunOptions(str(tmp_path / "quiet"), "t", Width(local=True)))
    assert results(tmp_path / "out") == results(tmp_path / "quiet")


@pytest.mark.parametrize(("number", "name"), [(errno.ENOSPC, "/tmp/x"), (errno.EROFS, None)])
def test_fault_44_a_worker_without_room_stops_the_job_and_counts_no_attempt(number, name):
    def call(_):
        raise OSError(number, "no room", name)

    result = guarded(call, "shard")
    assert isinstance(result, Refusal) and str(result.error).startswith(
        f"{name or 'a temporary file (TMPDIR)'}: cannot"
    )


def rows_of(n, d=16):
    return np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)


def test_fault_44_an_index_whose_last_bytes_do_not_fit_is_not_taken_for_whole(tmp_path):
    """FAISS's own writer says nothing of a last flush that failed."""
    whole = faiss.index_factory(16, "Flat")
    whole.add(rows_of(3000))
    path = str(tmp_path / "knn.faiss")
    size = len(faiss.serialize_index(whole))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 10, before[1]))
    try:
        with pytest.raises(MMFilterError, match=rf"{path}: cannot be written \(File too large, EFBIG\)"):
            write_index(whole, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
    write_index(whole, path)
    assert Path(path).read_bytes() == faiss.serialize_index(whole).tobytes()


@pytest.mark.slow
def test_fault_44_lists_that_do_not_fit_on_disk_are_not_mapped(tmp_path, monkeypatch):
    """They are written through a map of their file, where a full disk kills the process."""
    monkeypatch.setattr(index.factory, "FEW", 100)
    out, _ = embedded(tmp_path / "o", rows_of(3000), [1000, 3000])
    with monkeypatch.context() as full:
        full.setattr(index.parts.shutil, "disk_usage", lambda _: SimpleNamespace(free=3000 * 8))
        with pytest.raises(MMFilterError, match=r"lists\.bin: cannot be written \(No space left on device, ENOSPC\)"):
            build_index(out, IndexOptions("b32", memory=1000.0), here)
    info = build_index(out, IndexOptions("b32", memory=1000.0), here)
    assert info["on_disk"] and info["rows"] == 3000

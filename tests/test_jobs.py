"""The main job through its doors: one process or Ray, once or again, undisturbed or killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from jobs_util import Killer, leftovers, recipe_text, results
from tars import sample, tar, write_pool

from jobs.cluster import Width
from jobs.embed import embed_pool
from jobs.outdir import only_driver
from jobs.run import RunOptions, run_recipe
from mmfilter.errors import ConflictError, MMFilterError
from mmfilter.recipe import parse_recipe
from mmfilter.subset import Subset

pytestmark = pytest.mark.slow  # together, not each

LOCAL = Width(local=True)


def load(model, **fields):
    return parse_recipe(recipe_text(model, **fields), "recipe t")


@pytest.fixture
def pool(tmp_path):
    """Four shards of nine samples, and one sample without an image."""
    paths = write_pool(tmp_path / "pool", 4, 9)
    rows = [m for n in range(27, 36) for m in sample(n, text=f"a picture number {n}")]
    Path(paths[3]).write_bytes(tar(rows[1:]))
    return paths


@pytest.mark.slow
def test_one_process_and_ray_give_the_same_bytes(pool, tmp_path, tiny_model, ray_here):
    recipe = load(tiny_model)
    here = run_recipe(recipe, pool, RunOptions(str(tmp_path / "a"), "t", LOCAL))
    there = run_recipe(recipe, pool, RunOptions(str(tmp_path / "b"), "t", Width(workers=2, gpus=0)))
    assert results(tmp_path / "a") == results(tmp_path / "b")
    assert here["counts"] == there["counts"]
    counts = here["counts"]
    assert counts["in"] == 36 == counts["kept"] + counts["dropped"] + counts["failed"]
    assert counts["failed"] == 1 and here["embed"]["failed"] == {"missing_image": 1}
    assert len(Subset.read(str(tmp_path / "a/subsets/t.npy"))) == counts["kept"] == here["reshard"]["samples"]


def test_a_second_run_does_no_work_and_a_changed_rule_needs_no_model(pool, tmp_path, tiny_model):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    out = tmp_path / "out"
    first = run_recipe(load(model), pool, RunOptions(str(out), "t", LOCAL))
    before, stamps = results(out), {p: p.stat().st_mtime_ns for p in (out / "metadata").iterdir()}
    again = run_recipe(load(model), pool, RunOptions(str(out), "t", LOCAL))
    assert again["counts"] == first["counts"] and again["embed"]["shards_done_before"] == 4
    assert again["reshard"]["shards_done_before"] == again["reshard"]["shards"]
    assert results(out) == before
    shutil.rmtree(model)
    changed = run_recipe(load(model, keep=0.25), pool, RunOptions(str(out), "t", LOCAL))
    assert changed["counts"]["kept"] < first["counts"]["kept"]
    assert changed["reshard"]["samples"] == changed["counts"]["kept"]
    assert {p: p.stat().st_mtime_ns for p in (out / "metadata").iterdir()} == stamps


@pytest.mark.slow
def test_fault_37_the_driver_is_killed_at_twenty_moments(pool, tmp_path, monkeypatch):
    """SIGKILL, then resume: the same bytes each time, and nothing half-written."""
    text = recipe_text("x", embed={}, scores=["phash"], select="everything")
    (tmp_path / "t.yaml").write_text(text)
    monkeypatch.setattr("jobs.look.report_run", lambda *_, **__: "")
    recipe, rng, stopped = parse_recipe(text, "t"), random.Random(7), 0
    command = [sys.executable, str(Path(__file__).parent / "forked_drivers.py"), str(tmp_path / "t.yaml"), *pool]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as drivers:

        def driver(out, seconds):
            print(out, seconds, file=drivers.stdin, flush=True)
            code, lasted = drivers.stdout.readline().split()
            return int(code), float(lasted)

        code, lasts = driver(tmp_path / "whole", 120)
        want = results(tmp_path / "whole")
        assert code == 0 and len(want) > 12
        for trial in range(20):
            out = tmp_path / f"killed{trial}"
            stopped += driver(out, rng.uniform(0, lasts))[0] == -signal.SIGKILL
            run_recipe(recipe, pool, RunOptions(str(out), "t", LOCAL))
            assert results(out) == want, f"trial {trial}"
            assert leftovers(out) == []
        drivers.stdin.close()
    assert stopped >= 10, "the kills came too late to disturb anything"


@pytest.mark.slow
def test_fault_37_the_driver_of_a_ray_job_is_killed(pool, tmp_path):
    """Without a model: workers are there sooner. With one: benchmarks/chaos.py."""
    text = recipe_text("x", embed={}, scores=["phash", "language"], select={"language": {"is": "en"}})
    recipe = tmp_path / "t.yaml"
    recipe.write_text(text)
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "jobs",
        "run",
        str(recipe),
        "--pool",
        str(tmp_path / "pool"),
        "--out",
        str(out),
        "--workers",
        "2",
    ]
    driver = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("metadata/*.json")) and time.monotonic() < deadline and driver.poll() is None:
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    assert subprocess.run(command, capture_output=True).returncode == 3
    run_recipe(parse_recipe(text, "t"), pool, RunOptions(str(tmp_path / "whole"), "t", LOCAL))
    assert results(out) == results(tmp_path / "whole")


def test_fault_41_a_shard_that_kills_its_worker_is_set_aside(tmp_path, tiny_model, ray_here):
    paths = write_pool(tmp_path / "pool", 3, 4)
    Path(paths[1]).write_bytes(
        tar([m for n in range(4, 8) for m in sample(n, text="kill the worker" if n == 6 else "fine")])
    )
    recipe = replace(load(tiny_model), scores=(Killer(),), embed={}, select=None)
    out = str(tmp_path / "out")
    counts = embed_pool(recipe, paths, out, Width(workers=2, gpus=0))
    assert list(counts.set_aside) == ["00000001"]
    assert (counts.read, counts.ok, counts.failed) == (12, 8, {"shard_set_aside": 4})
    again = embed_pool(recipe, paths, out, LOCAL)
    assert again.set_aside.keys() == counts.set_aside.keys(), "the count of attempts outlives the driver"


def test_fault_46_two_drivers_on_one_output(pool, tmp_path, tiny_model):
    out = str(tmp_path / "out")
    with only_driver(out), pytest.raises(ConflictError, match="another mmfilter is working"), only_driver(out):
        pass


def test_fault_47_what_changed_is_refused_with_the_difference(pool, tmp_path, tiny_model):
    out = str(tmp_path / "out")
    embed_pool(load(tiny_model), pool, out, LOCAL)
    other = shutil.copytree(tiny_model, tmp_path / "other")
    with pytest.raises(ConflictError, match="embed:b32"):
        embed_pool(load(other), pool, out, LOCAL)
    os.utime(pool[0], ns=(1, 1))
    with pytest.raises(ConflictError, match="Its tar"):
        embed_pool(load(tiny_model), pool, out, LOCAL)
    arrays = [os.stat(path).st_mtime_ns for path in sorted(Path(out).glob("metadata/*.npz"))]
    assert embed_pool(load(tiny_model), pool, out, LOCAL, redo=True).ok == 35
    assert [os.stat(path).st_mtime_ns for path in sorted(Path(out).glob("metadata/*.npz"))] == arrays, "read alone"
    assert embed_pool(load(tiny_model), pool, out, LOCAL).done_before == len(pool)


def test_fault_49_offline_without_weights(pool, tmp_path, mmfilter_process):
    out = tmp_path / "out"
    code, _, said = mmfilter_process(
        "run", "laion2b", "--pool", tmp_path / "pool", "--out", out, "--local", env={"HF_HUB_OFFLINE": "1"}
    )
    assert code == 1 and "hf download" in said and "weights:" in said and "Traceback" not in said


@pytest.mark.slow
def test_a_worker_that_cannot_load_its_model_says_why(pool, tmp_path, tiny_model, ray_here):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "open_clip_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(MMFilterError, match="not the weights"):
        embed_pool(load(model), pool, str(tmp_path / "out"), Width(workers=1, gpus=0))


def test_repeated_uids_across_shards_are_kept_once(tmp_path, tiny_model):
    paths = write_pool(tmp_path / "pool", 2, 4)
    Path(paths[1]).write_bytes(tar([m for n in (2, 3, 8, 9) for m in sample(n, text="a picture again")]))
    result = run_recipe(load(tiny_model, select="everything"), paths, RunOptions(str(tmp_path / "out"), "t", LOCAL))
    assert result["counts"] == {"in": 8, "kept": 6, "dropped": 0, "failed": 2}
    assert result["selection"]["failed"] == {"uid_repeated": 2}
    decisions = pl.read_parquet(tmp_path / "out/subsets/t/00000001.parquet")
    assert decisions["dropped_by"].to_list() == ["uid_repeated", "uid_repeated", "", ""]


def test_an_output_of_our_own_is_a_pool_again(pool, tmp_path, tiny_model):
    """What was resharded can be embedded and resharded, and its members are the same bytes."""
    run_recipe(load(tiny_model), pool, RunOptions(str(tmp_path / "a"), "t", LOCAL))
    shards = sorted(map(str, (tmp_path / "a/shards/t").glob("*.tar")))
    recipe = load(tiny_model, select="everything")
    result = run_recipe(recipe, shards, RunOptions(str(tmp_path / "b"), "t", LOCAL))
    assert result["counts"]["failed"] == result["counts"]["dropped"] == 0
    names = [p.name for p in (tmp_path / "b/shards/t").glob("*.tar")]
    for name in names:
        assert (tmp_path / "a/shards/t" / name).read_bytes() == (tmp_path / "b/shards/t" / name).read_bytes()


@pytest.mark.slow
def test_fault_38_control_c_keeps_finished_shards(tmp_path, tiny_model):
    write_pool(tmp_path / "pool", 30, 9)
    recipe = tmp_path / "t.yaml"
    recipe.write_text(recipe_text(tiny_model))
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "jobs",
        "run",
        str(recipe),
        "--pool",
        str(tmp_path / "pool"),
        "--out",
        str(out),
        "--local",
    ]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(out.glob("metadata/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    driver.send_signal(signal.SIGINT)
    said = driver.communicate()[1]
    assert driver.returncode == 130, said
    assert "finished shards are kept" in said and "Traceback" not in said
    assert json.loads(next(out.glob("metadata/*.json")).read_text())["counts"]["ok"] == 9


def test_what_a_killed_driver_left_half_written_is_swept_and_nothing_else(tmp_path):
    half = [tmp_path / ".progress.0123abcd.tmp", tmp_path / "metadata" / "00000000.json.89abcdef.tmp"]
    theirs = [tmp_path / "notes.tmp", tmp_path / "metadata" / ".kept.tmp"]
    (tmp_path / "metadata").mkdir()
    (tmp_path / "run.json").write_text('{"pool": []}')
    for path in (*half, *theirs):
        path.write_text("x")
    with only_driver(str(tmp_path)):
        assert not any(path.exists() for path in half) and all(path.exists() for path in theirs)

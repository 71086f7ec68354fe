"""`status`: what a run's folder says of itself, against the run; while it runs, killed, resumed, or done."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jobs_util import Killer, recipe_text
from tars import sample, tar, write_pool

from jobs import beat
from jobs.cluster import Width
from jobs.embed import embed_pool
from jobs.outdir import only_driver, save_run
from jobs.run import RunOptions, run_recipe
from jobs.status import lines, status_of
from mmfilter.errors import UsageError
from mmfilter.recipe import parse_recipe
from mmfilter.sidecar import write_failures
from mmfilter.status import SILENT, run_status, speed, stragglers, write_progress

LOCAL = Width(local=True)
SCORES = json.dumps({"name": "t", "scores": ["phash"], "select": "everything"})


def commit(out, stem, ok, at, **failed):
    """A commit as `embed` leaves it, written at the time `at`."""
    path = Path(out, "metadata", f"{stem}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = {"read": ok + sum(failed.values()), "ok": ok, "failed": failed}
    path.write_text(json.dumps({"parts": {}, "counts": counts, "seconds": {"read": 1.5}}))
    os.utime(path, (at, at))


def test_a_finished_run_says_what_the_run_said(tmp_path):
    paths = write_pool(tmp_path / "pool", 3, 5)
    Path(paths[2]).write_bytes(tar([m for n in range(10, 15) for m in sample(n)][1:]))
    result = run_recipe(parse_recipe(SCORES, "t"), paths, RunOptions(str(tmp_path / "o"), "t", LOCAL))
    said = status_of(str(tmp_path / "o"))
    assert said["state"] == "done" and said["shards"] == {"of": 3, "done": 3, "set_aside": 0, "left": 0}
    assert said["samples"] == {"read": 15, "ok": 14, "failed": result["embed"]["failed"]}
    assert said["left_s"] is None and said["stragglers"] == {} and "read" in said["seconds"]
    assert said["driver"]["state"] == "ended" and said["driver"]["in_flight"] == {}
    assert "shards  3 = done 3 + set aside 0 + left 0" in lines(said)


def test_rate_and_time_to_go_are_those_of_the_last_commits():
    """Oracle: samples after the first commit, over the time from first to last."""
    when = {f"{n:08d}": 1000.0 + 10 * n for n in range(9)}
    assert speed(dict.fromkeys(when, 50), when, 0.0, 4) == {"samples_per_s": 5.0, "left_s": 40.0}
    # a run that was resumed a day later: the night does not count
    later = {**when, **{f"1{n:07d}": 90_000.0 + 5 * n for n in range(9)}}
    assert speed(dict.fromkeys(later, 50), later, 89_999.0, 4) == {"samples_per_s": 10.0, "left_s": 20.0}
    # ten minutes at most: it was slow before
    faster = {**{f"{n:08d}": 100.0 * n for n in range(20)}, **{f"1{n:07d}": 1900.0 + 1 * n for n in range(1, 601)}}
    assert speed(dict.fromkeys(faster, 7), faster, 0.0, 0)["samples_per_s"] == 7.0
    nothing = {"samples_per_s": None, "left_s": None}
    assert speed({}, {}, 0.0, 5) == nothing == speed({"a": 3}, {"a": 1.0}, 0.0, 5)
    assert speed({"a": 3, "b": 3}, {"a": 0.0, "b": 0.0}, 0.0, 5) == nothing  # a store that tells no times


def test_stragglers_take_three_times_as_long_as_others():
    note = {"typical_s": 60.0, "in_flight": {"a": 100.0, "b": 815.0, "c": 50.0, "d": 995.0}}
    assert stragglers(note, 1000.0) == {"c": 950.0, "a": 900.0, "b": 185.0}
    assert stragglers({"typical_s": None, "in_flight": {"a": 975.0, "b": 969.0}}, 1000.0) == {"b": 31.0}
    assert stragglers({}, 1000.0) == {}


def test_a_driver_that_was_killed_is_silent_and_what_it_was_at_is_named(tmp_path):
    out, now = str(tmp_path), time.time()
    for n in range(4):
        commit(out, f"{n:08d}", 9, now - 100 + 10 * n, missing_image=1)
    note = {"state": "running", "command": "run", "host": "h", "pid": 7, "started": now - 200, "time": now}
    note |= {"stage": "embed", "unit": "shards", "done": 4, "of": 7, "typical_s": 10.0}
    write_progress(out, {**note, "in_flight": {"00000004": now - 95, "00000005": now - 2}})
    stems = [f"{n:08d}" for n in range(7)]
    said = run_status(out, stems, now + 1)
    assert said["state"] == "running" and list(said["stragglers"]) == ["00000004"]
    assert said["shards"] == {"of": 7, "done": 4, "set_aside": 0, "left": 3}
    assert (said["samples_per_s"], said["left_s"]) == (1.0, 30.0)
    assert said["samples"] == {"read": 40, "ok": 36, "failed": {"missing_image": 4}}
    assert "rate    1 samples/s, 30 s to go" in lines(said)
    dead = run_status(out, stems, now + SILENT + 1)
    assert dead["state"] == "silent" and dead["left_s"] is None and list(dead["stragglers"]) == ["00000004"]
    assert "it was at shard 00000004, 00000005" in lines(dead)


def test_shards_set_aside_tried_and_damaged_are_told_apart(tmp_path):
    from mmfilter.records import Failure

    out = str(tmp_path)
    for stem, n in (("a", 3), ("b", 1), ("c", 3)):
        Path(out, "attempts").mkdir(exist_ok=True)
        Path(out, "attempts", f"{stem}.json").write_text(json.dumps({"attempts": n, "error": f"killed {n}\nmore"}))
    write_failures(out, "a", [Failure(str(n), "", "shard_set_aside", "") for n in range(6)])
    commit(out, "c", 5, 1.0)
    commit(out, "d", 5, 2.0)
    Path(out, "metadata", "d.json").write_text("{")
    said = run_status(out, ["a", "b", "c", "d", "e"])
    assert said["shards"] == {"of": 5, "done": 1, "set_aside": 1, "left": 3}
    assert said["samples"] == {"read": 11, "ok": 5, "failed": {"shard_set_aside": 6}}
    assert said["set_aside"] == ["a"] and said["damaged"] == ["d"]
    assert said["attempts"] == {"b": {"attempts": 1, "error": "killed 1"}} and said["state"] == "unfinished"
    told = "\n".join(lines(said))
    assert "set aside: shard a" in told and "tried: shard b, 1 times (killed 1)" in told and "damaged commit" in told


def test_the_set_aside_of_a_real_run(tmp_path):
    from dataclasses import replace

    paths = write_pool(tmp_path / "pool", 2, 4)
    out = str(tmp_path / "o")

    class Raiser(Killer):
        def __call__(self, batch):
            if "a picture" not in batch["text"][0]:
                raise RuntimeError("no")
            return super().__call__(batch)

    Path(paths[1]).write_bytes(tar([m for n in range(4, 8) for m in sample(n, text="other")]))
    save_run(out, pool=paths)
    recipe = replace(parse_recipe(SCORES, "t"), scores=(Raiser(),), select=None)
    counts = embed_pool(recipe, paths, out, LOCAL)
    said = status_of(out)
    assert list(counts.set_aside) == said["set_aside"] == ["00000001"]
    assert said["samples"] == {"read": counts.read, "ok": counts.ok, "failed": dict(counts.failed)}


def test_the_drivers_note_while_it_works(tmp_path):
    out = str(tmp_path)
    with only_driver(out):
        beat.at("embed", "shards", 1, 3)
        beat.sent("pool/00000001.tar")
        beat.sent(("task", 3))
        note = {"in_flight": {}}
        for _ in range(100):  # the thread's own first note may come after ours
            write_progress(out, beat.BEAT.record("running"))
            note = json.loads(Path(out, ".progress").read_text())
            if note["in_flight"]:
                break
            time.sleep(0.05)
        assert list(note["in_flight"]) == ["00000001"] and note["pid"] == os.getpid() and note["of"] == 3
        beat.back("pool/00000001.tar")
        assert beat.BEAT.record("running")["in_flight"] == {} and beat.BEAT.record("running")["typical_s"] >= 0
    assert json.loads(Path(out, ".progress").read_text())["state"] == "ended"
    with pytest.raises(ZeroDivisionError), only_driver(out):
        raise ZeroDivisionError
    assert json.loads(Path(out, ".progress").read_text())["state"] == "stopped"


def test_a_note_that_cannot_be_written_is_no_reason_to_stop(tmp_path):
    Path(tmp_path, "file").write_text("")
    write_progress(str(tmp_path / "file"), {"state": "running"})


def test_on_an_object_store(tmp_path):
    import fsspec

    out, fs = "memory://status/o", fsspec.filesystem("memory")
    paths = write_pool(tmp_path / "pool", 3, 4)
    run_recipe(parse_recipe(SCORES, "t"), paths, RunOptions(out, "t", LOCAL, reshard=False))
    said = status_of(out)
    assert said["state"] == "done" and said["shards"]["done"] == 3 and said["samples"]["ok"] == 12
    assert said["samples_per_s"] is None or said["samples_per_s"] > 0
    fs.rm("/status", recursive=True)


def test_the_command_while_a_run_is_killed(tmp_path, mmfilter_process):
    """SIGKILL the driver of a run, and the folder still tells."""
    write_pool(tmp_path / "pool", 40, 6)
    recipe, out = tmp_path / "t.yaml", tmp_path / "o"
    recipe.write_text(recipe_text("x", embed={}, scores=["phash"], select="everything"))
    words = ["run", recipe, "--pool", tmp_path / "pool", "--out", out, "--local"]
    driver = subprocess.Popen([sys.executable, "-m", "jobs", *map(str, words)], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while len(list(out.glob("metadata/*.json"))) < 3 and time.monotonic() < until and driver.poll() is None:
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    code, told, err = mmfilter_process("status", out, "--json")
    said = json.loads(told)
    assert code == 0 and said["shards"]["of"] == 40 and said["shards"]["done"] >= 3, err
    assert said["shards"]["done"] + said["shards"]["left"] == 40 and said["driver"]["state"] == "running"
    code, _, err = mmfilter_process("status", tmp_path / "nothing")
    assert code == 2 and "no run here" in err


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(UsageError, match=r"no run here"):
        status_of(str(tmp_path))
    save_run(str(tmp_path), pool=[])
    assert status_of(str(tmp_path))["shards"] == {"of": 0, "done": 0, "set_aside": 0, "left": 0}

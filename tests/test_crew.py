"""Workers on Ray that are killed, hang, or go with their node or head: the same bytes, and nothing lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from jobs_util import Blow, Hurdles, Killer, Pids, descendants, leftovers, recipe_text, results
from tars import sample, tar, write_pool

from jobs import beat, cluster, driver, resting
from jobs.cluster import Width
from jobs.crew import head_answers
from jobs.embed import embed_pool
from jobs.outdir import count_attempt, only_driver, read_attempts
from jobs.run import RunOptions, run_recipe
from jobs.status import lines, status_of
from mmfilter.errors import MMFilterError
from mmfilter.recipe import parse_recipe
from mmfilter.status import SLOW_AT_LEAST

HERE = Path(__file__).parent
EVERYTHING = recipe_text("x", embed={}, scores=[], select="everything")


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "marks").mkdir()
    return replace(parse_recipe(EVERYTHING, "t"), scores=(Blow(marks=str(tmp_path / "marks")),))


def struck(folder, blows, each=4):
    """A pool of a shard for every word; the second sample of a shard says what happens to its worker."""
    paths = write_pool(folder, len(blows), each)
    for s, word in enumerate(blows):
        texts = {s * each + 1: f"blow: {word}" if word else "quiet"}
        rows = [sample(n, text=texts.get(n, "quiet")) for n in range(s * each, (s + 1) * each)]
        Path(paths[s]).write_bytes(tar([member for row in rows for member in row]))
    return paths


def attempts(out):
    return sorted(path.name for path in Path(out).glob("attempts/*.json"))


def test_fault_34_35_36_a_worker_is_killed_mid_shard_before_and_after_its_commit(recipe, tmp_path, ray_here):
    paths = struck(tmp_path / "pool", ["mid-shard", "", "before-commit", "after-commit", ""])
    out = tmp_path / "out"
    said = run_recipe(recipe, paths, RunOptions(str(out), "t", Width(workers=2, gpus=0)))
    assert len(list((tmp_path / "marks").iterdir())) == 3
    assert said["counts"] == {"in": 20, "kept": 20, "dropped": 0, "failed": 0} and attempts(out) == []
    assert (
        run_recipe(recipe, paths, RunOptions(str(tmp_path / "quiet"), "t", Width(local=True)))["counts"]["kept"] == 20
    )
    assert results(out) == results(tmp_path / "quiet") and leftovers(out) == []


def test_fault_41_shards_beside_a_killer_are_not_set_aside(tmp_path, ray_here, monkeypatch):
    """Of two shards on one worker nobody knows which killed it: each is done again alone, and only then counted."""
    monkeypatch.setattr(cluster.Shape, "lanes", 2)
    paths = write_pool(tmp_path / "pool", 4, 3)
    Path(paths[1]).write_bytes(tar([m for n in range(3, 6) for m in sample(n, text="kill the worker")]))
    out = str(tmp_path / "out")
    count_attempt(out, "00000001", "an earlier run's")
    count_attempt(out, "00000001", "an earlier run's")
    recipe = replace(parse_recipe(EVERYTHING, "t"), scores=(Killer(),))
    counts = embed_pool(recipe, paths, out, Width(workers=1, gpus=0))
    assert list(counts.set_aside) == ["00000001"] and (counts.ok, counts.failed) == (9, {"shard_set_aside": 3})
    assert attempts(out) == ["00000001.json"]


@pytest.mark.slow
def test_fault_43_a_hung_worker_is_killed_and_counted(recipe, tmp_path, ray_here):
    paths = struck(tmp_path / "pool", ["", "hang", "hang always", ""])
    out = str(tmp_path / "out")
    count_attempt(out, "00000002", "an earlier run's")
    count_attempt(out, "00000002", "an earlier run's")
    counts = embed_pool(recipe, paths, out, Width(workers=2, gpus=0, patience=1))
    assert list(counts.set_aside) == ["00000002"] and "hung: nothing came back for" in counts.set_aside["00000002"]
    assert (counts.read, counts.ok, counts.failed) == (16, 12, {"shard_set_aside": 4})
    assert read_attempts(out, "00000001")["attempts"] == 0, "it hung once, and was done then"


def test_fault_43_what_is_overdue_hangs_on_what_shards_take(monkeypatch):
    monkeypatch.setattr(beat, "BEAT", beat.Beat())
    assert beat.overdue(0) == float("inf") and beat.overdue(3600) == 24 * 3600
    beat.BEAT.lasted.extend([500.0, 700.0, 900.0])
    assert beat.overdue(3600) == 7000 and beat.overdue(10_000) == 10_000


def test_fault_48_a_straggler_is_named(tmp_path, monkeypatch):
    """By the folder alone, while its worker is at it; what it takes is told against what others take."""
    out = str(tmp_path)
    paths = write_pool(tmp_path / "pool", 3, 2)
    (tmp_path / "run.json").write_text(json.dumps({"pool": paths}))
    with only_driver(out):
        while not (tmp_path / ".progress").exists():
            time.sleep(0.01)  # the next note comes after seconds
        beat.BEAT.flying = {"00000001": time.time() - SLOW_AT_LEAST - 5, "00000002": time.time() - 5}
        beat.BEAT.lasted.append(4.0)
        (tmp_path / ".progress").write_text(json.dumps(beat.BEAT.record("running")))
        said = status_of(out)
        assert list(said["stragglers"]) == ["00000001"] and "  straggler: shard 00000001, for 35 s" in lines(said)


def doubled(tmp_path, blows, well=0, tasks=4):
    """What comes of numbers, where workers meet `blows` when they start."""
    make = Hurdles(str(tmp_path / "marks"), blows, well)
    return sorted(driver.drive(range(tasks), make, Width(workers=2, gpus=0)))


@pytest.mark.slow
def test_workers_that_cannot_start_beside_one_that_works_are_followed_by_others(recipe, tmp_path, ray_here, capfd):
    blows = ("raise", "die", "raise")
    assert doubled(tmp_path, blows, well=1) == [(n, 2 * n) for n in range(4)]
    assert len(list((tmp_path / "marks").iterdir())) > len(blows)
    said = capfd.readouterr().err
    assert said.count("a worker could not start, another is tried") == 3 and "OSError: a folder is gone" in said


def test_killed_at_the_start_is_tried_again_a_few_times(recipe, tmp_path, ray_here):
    assert doubled(tmp_path, ("die", "die")) == [(n, 2 * n) for n in range(4)]


def test_where_no_worker_can_start_the_job_says_why(recipe, tmp_path, ray_here):
    with pytest.raises(MMFilterError, match="could not start: OSError: a folder is gone"):
        doubled(tmp_path, ("raise",) * 9)
    assert len(list((tmp_path / "marks").iterdir())) <= 2, "the first error is enough"
    with pytest.raises(MMFilterError, match="could not start"):
        doubled(tmp_path, ("die",) * 99)


@pytest.fixture
def pids(tmp_path, ray_here):
    """The processes that did three tasks, of as many workers."""

    def of(workers, decoders=None):
        marks = tmp_path / f"pids{len(list(tmp_path.iterdir()))}"
        marks.mkdir()
        width = Width(workers=workers, gpus=0, decoders=decoders)
        return {pid for _, pid in driver.drive(range(3), Pids(str(marks), workers), width)}

    return of


def test_workers_serve_the_next_job_of_their_kind(pids):
    first = pids(2)
    assert len(first) == 2 and pids(2) == first
    assert pids(1) < first and len(resting.RESTING) == 1, "the other one held a core"
    assert not pids(1, decoders=1) & first, "more tasks at a time are another kind"
    resting.RESTING[:] = [(replace(kind, ray="another"), actor) for kind, actor in resting.RESTING]
    assert pids(1) and len(resting.RESTING) == 1


@pytest.mark.slow
def test_workers_of_a_ray_that_ended_do_not_serve_the_next(tmp_path):
    """In a process of its own, as this one has one Ray for all tests."""
    script = """
import sys
from jobs.cluster import Width, start_ray
from jobs.driver import drive
from jobs_util import Pids
for _ in range(2):
    ray = start_ray(None)
    assert len(list(drive(range(3), Pids(sys.argv[1], 1), Width(workers=1, gpus=0)))) == 3
    ray.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_workers_of_a_job_that_failed_do_not_rest(pids, recipe, tmp_path):
    pids(2)
    with pytest.raises(MMFilterError):
        doubled(tmp_path, ("die",) * 99)
    assert resting.RESTING == []


@pytest.mark.slow
def test_a_machine_short_of_memory_goes_on_with_fewer_workers(recipe, tmp_path):
    """What Ray kills for memory is done again alone; only what is killed alone is blamed."""
    struck(tmp_path / "pool", ["", "memory", "memory always", "", ""])
    out, marks = str(tmp_path / "out"), str(tmp_path / "marks")
    count_attempt(out, "00000002", "an earlier run's")
    count_attempt(out, "00000002", "an earlier run's")
    command = [sys.executable, HERE / "memory_util.py", out, marks, tmp_path / "pool"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "RAY_ADDRESS": ""})
    assert done.returncode == 0, done.stderr[-4000:]
    assert "running low on memory" in done.stderr and "1 of 2 workers go on" in done.stderr
    said = json.loads(done.stdout)
    assert said["failed"] == {"shard_set_aside": 4} and said["read"] == 20
    assert "running low on memory" in said["aside"]["00000002"] and attempts(out) == ["00000002.json"]


def test_nobody_answers_for_a_head_that_is_gone():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert head_answers(address)
    assert not head_answers(address)


@pytest.fixture
def spare(ray_here):
    """Another node of one core in the tests' Ray, whose workers know that they are on it."""
    resting.dismiss()  # they would have done all before a worker is there
    address = ray_here.get_runtime_context().gcs_address
    command = [Path(sys.executable).parent / "ray", "start", "--address", address, "--num-cpus", "1", "--block"]
    env = {**os.environ, "SPARE_NODE": "1"}
    node = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until, before = time.monotonic() + 60, ray_here.cluster_resources()["CPU"]
    while ray_here.cluster_resources()["CPU"] == before and time.monotonic() < until:
        time.sleep(0.1)
    yield node
    node.terminate()
    node.wait()


@pytest.mark.slow
def test_fault_39_a_node_is_lost_and_no_shard_is_blamed(recipe, spare, tmp_path, ray_here):
    paths = struck(tmp_path / "pool", [f"node {n} always" for n in range(31)])
    out = tmp_path / "out"
    here = int(ray_here.cluster_resources()["CPU"])
    counts = embed_pool(recipe, paths, str(out), Width(workers=here, gpus=0))
    assert (counts.read, counts.ok, counts.set_aside) == (124, 124, {}) and attempts(out) == []
    quiet = embed_pool(recipe, paths, str(tmp_path / "quiet"), Width(local=True))
    assert quiet.ok == 124 and results(out) == results(tmp_path / "quiet")
    assert spare.wait(60) is not None, "the node's raylet is gone"


@pytest.mark.slow
def test_fault_40_the_head_is_lost(tmp_path):
    """The driver ends with a message, and the same command goes on to the same bytes."""
    paths = write_pool(tmp_path / "pool", 200, 6)
    (tmp_path / "t.yaml").write_text(recipe_text("x", embed={}, scores=["phash"], select="everything"))
    out = tmp_path / "out"
    start = "from jobs import cli, crew; crew.HEAD = 3; cli.main()"
    words = ["run", tmp_path / "t.yaml", "--pool", tmp_path / "pool", "--out", out, "--workers", "1"]
    command = [sys.executable, "-c", start, *map(str, words)]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    until = time.monotonic() + 120
    while not list(out.glob("metadata/*.json")) and time.monotonic() < until and driver.poll() is None:
        time.sleep(0.02)
    started = descendants(driver.pid)
    (head,) = [pid for pid, command in started.items() if "gcs_server" in command.split("\0")[0]]
    (worker,) = [pid for pid, command in started.items() if command.startswith("ray::Worker")]
    os.kill(worker, signal.SIGSTOP)  # else it would be done before anybody noticed
    os.kill(head, signal.SIGKILL)
    said = driver.communicate(timeout=120)[1]
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
    assert driver.returncode == 1 and "Traceback" not in said and attempts(out) == []
    assert said.splitlines()[-1].startswith("mmfilter: the head of the Ray cluster is lost"), said
    recipe = parse_recipe((tmp_path / "t.yaml").read_text(), "t")
    for folder in (out, tmp_path / "quiet"):
        run_recipe(recipe, paths, RunOptions(str(folder), "t", Width(local=True)))
    assert results(out) == results(tmp_path / "quiet") and leftovers(out) == []

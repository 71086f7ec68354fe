"""What a disk, a mount or a machine fails at is never the data's: no sample is lost, and the same command goes on."""

import errno
import json
import os
import shutil
import threading
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
from command import command
from fault_util import FOREVER, fault
from jobs_util import recipe_text, results
from tars import write_pool

from jobs.outdir import count_attempt, forget_machine
from mmfilter import narrow, patience
from mmfilter.sidecar import read_failures

PASSING = [errno.EIO, errno.ESTALE, errno.ETIMEDOUT]
STOPPING = [errno.EACCES, errno.EROFS, errno.ENOSPC]
SHORT = [errno.EMFILE, errno.ENFILE, errno.ENOMEM]
BOTH = ["language", "phash"]
RUN = ("run", "t.yaml", "--pool", "pool", "--out", "out", "--name", "t", "--local")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a pool of three shards, a recipe, and what comes of them undisturbed."""
    folder = tmp_path_factory.mktemp("made")
    write_pool(folder / "pool", 3, 10)
    (folder / "t.yaml").write_text(recipe_text("x", embed={}, scores=["phash"], select="everything"))
    before = os.getcwd()
    os.chdir(folder)
    try:
        done = command(*RUN)
    finally:
        os.chdir(before)
    assert done.code == 0, done.err
    return folder, results(folder / "out")


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of the pool and the recipe to work in, without pauses."""
    shutil.copytree(made[0] / "pool", tmp_path / "pool")
    shutil.copy(made[0] / "t.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(patience, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(narrow, "PAUSE", 0.0)
    monkeypatch.setattr(narrow._State, "halved", 0)
    return tmp_path


def nothing_lost(folder):
    """No commit tells of a sample that failed: the pool is sound."""
    for path in Path(folder, "out", "metadata").glob("*.json"):
        assert json.loads(path.read_text())["counts"]["failed"] == {}, path


def mended(folder, quiet):
    """The fault is gone: the same command ends with the bytes of an undisturbed run."""
    done = command(*RUN)
    assert done.code == 0, done.err
    nothing_lost(folder)
    assert results(folder / "out") == quiet


PLACES = [("pool", kind, n) for kind, n in (("open", 3), ("read", 2), ("read", 9), ("stat", 6))]
PLACES += [("out", kind, n) for kind, n in (("open", 3), ("read", 3), ("write", 6), ("fsync", 3), ("rename", 4))]


def each(*groups):
    """Every place with an errno of each group, by turns."""
    cases = [(*place, group[i % len(group)]) for group in groups for i, place in enumerate(PLACES)]
    names = [f"{where}-{kind}-{n}-{errno.errorcode[number]}" for where, kind, n, number in cases]
    return pytest.mark.parametrize(("where", "kind", "n", "number"), cases, ids=names)


@each(PASSING, SHORT)
def test_fault_57_what_fails_once_costs_nothing(here, made, monkeypatch, number, where, kind, n):
    with fault(monkeypatch, kind, here / where, number, n) as told:
        done = command(*RUN)
    assert told.failed == 1 and done.code in (0, 1) and "Traceback" not in done.err
    if done.code:
        assert (where, kind) == ("out", "fsync") and errno.errorcode[number] in done.err
    nothing_lost(here)
    mended(here, made[1])


@each(PASSING, STOPPING, SHORT)
def test_fault_57_what_fails_for_long_loses_nothing(here, made, monkeypatch, number, where, kind, n):
    with fault(monkeypatch, kind, here / where, number, n, FOREVER) as told:
        done = command(*RUN)
    assert told.failed and done.code in (1, 3) and "Traceback" not in done.err
    nothing_lost(here)
    if done.code == 1:
        said = done.err.splitlines()[-1]
        assert said.startswith("mmfilter: ") and errno.errorcode[number] in said and str(here) in said, done.err
    mended(here, made[1])
    assert not list(Path("out/attempts").glob("*"))


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize(("kind", "n"), [("open", 1), ("read", 4)])
def test_fault_57_a_shard_that_cannot_be_read_for_now_is_set_aside_for_now(here, made, monkeypatch, number, kind, n):
    tar = here / "pool/00000001.tar"
    with fault(monkeypatch, kind, tar, number, n, FOREVER):
        done = command(*RUN)
    commits = sorted(path.stem for path in Path("out/metadata").glob("*.json"))
    named = errno.errorcode[number]
    if number in PASSING:
        assert done.code == 3 and commits == ["00000000", "00000002"]
        record = json.loads(Path("out/attempts/00000001.json").read_text())
        assert (record["attempts"], record["of_machine"]) == (3, 3)
        assert str(tar) in record["error"] and named in record["error"]
    else:
        assert done.code == 1 and str(tar) in done.err and named in done.err
        assert not Path("out/attempts").exists() and commits in ([], ["00000000"])
    mended(here, made[1])


def test_fault_57_a_shard_set_aside_that_was_valid_before_counts_once(here, monkeypatch):
    """While a score is added one shard cannot be read: its commit is withdrawn, and in = kept + dropped + failed."""
    one, two = (recipe_text("x", embed={}, scores=scores, select="everything") for scores in (["language"], BOTH))
    for out in ("out", "quiet"):
        Path("t.yaml").write_text(one)
        assert command(*RUN[:5], out, *RUN[6:]).code == 0
        Path("t.yaml").write_text(two)
        with fault(monkeypatch, "read", here / "pool/00000001.tar", errno.EIO, 1, FOREVER if out == "out" else 0):
            assert command(*RUN[:5], out, *RUN[6:]).code == (3 if out == "out" else 0)
    counts = json.loads(Path("out/subsets/t.json").read_text())["counts"]
    assert (counts["in"], counts["kept"], counts["dropped"], counts["failed"]) == (30, 20, 0, 10)
    rows = read_failures("out", "00000001")
    assert len(rows) == 10 and {row.status for row in rows} == {"shard_set_aside"}
    assert all("EIO" in row.error and "00000001.tar" in row.error and row.key and row.uid for row in rows)
    done = command("select", "t.yaml", "--out", "out", "--name", "t", "--json")
    assert json.loads(done.out)["counts"] == counts
    done = command("explain", rows[0].uid, "--out", "out")
    assert "shard_set_aside" in done.out and "EIO" in done.out
    done = command(*RUN)
    assert done.code == 0 and results("out") == results("quiet")
    assert json.loads(Path("out/subsets/t.json").read_text())["counts"]["kept"] == 30


def test_fault_57_attempts_that_were_no_machines_fault_stay(here):
    for n in range(3):
        count_attempt("out", "00000001", f"crash {n}")
    done = command(*RUN)
    assert done.code == 3 and json.loads(Path("out/attempts/00000001.json").read_text())["attempts"] == 3
    count_attempt("out", "00000002", "crash")
    count_attempt("out", "00000002", "EIO", of_machine=True)
    assert forget_machine("out", "00000002")
    assert json.loads(Path("out/attempts/00000002.json").read_text()) == {"attempts": 1, "error": "EIO"}
    count_attempt("out", "00000003", "EIO", of_machine=True)
    assert not forget_machine("out", "00000003") and not Path("out/attempts/00000003.json").exists()


def short_of(monkeypatch, times):
    """The next `times` pictures that are decoded find no memory."""
    from PIL.ImageFile import ImageFile

    load, left = ImageFile.load, [times]

    def short(self):
        left[0] -= 1
        if left[0] >= 0:
            raise MemoryError
        return load(self)

    monkeypatch.setattr(ImageFile, "load", short)
    monkeypatch.setattr("mmfilter.images.bytearray", lambda size: None, raising=False)  # to have it takes a while


@pytest.mark.parametrize("times", [1, 5, 12, FOREVER])
def test_fault_59_without_memory_the_threads_are_halved_and_then_it_stops(here, made, monkeypatch, times):
    with monkeypatch.context() as patch:
        short_of(patch, times)
        done = command(*RUN, "--threads", "4")
    nothing_lost(here)
    assert not Path("out/attempts").exists()
    if times == FOREVER:
        assert done.code == 1 and "no memory left" in done.err and "MemoryError" in done.err
        assert narrow._State.halved == 2 and not list(Path("out/metadata").glob("*"))
    else:
        assert done.code == 0 and results("out") == made[1], done.err
    mended(here, made[1])


def test_fault_59_several_tasks_at_once_become_fewer(monkeypatch):
    from jobs.cluster import Width
    from jobs.driver import drive

    monkeypatch.setattr(narrow, "PAUSE", 0.0)
    monkeypatch.setattr(
        "jobs.driver.settle", lambda *_: SimpleNamespace(workers=4, device="cpu", threads=1, batch_size=1)
    )
    busy, lock = [0], threading.Lock()

    def task(number):
        with lock:
            busy[0] += 1
        try:
            time.sleep(0.05)
            if busy[0] > 1:
                raise MemoryError
            return number
        finally:
            with lock:
                busy[0] -= 1

    done = list(drive(range(6), lambda setup: task, Width(local=True), threads=True))
    assert sorted(done) == [(n, n) for n in range(6)]


def test_fault_59_on_ray_half_the_workers_go_on(monkeypatch):
    """As the crew hears it, without Ray: a worker whose machine is short goes, and its task is done alone."""
    from jobs.crew import Crew, Hand
    from jobs.driver import Short
    from mmfilter.errors import ShortageError

    crew, sent = Crew.__new__(Crew), []
    crew.ray = SimpleNamespace(kill=sent.append, get=lambda reference: reference)
    crew.hands = [Hand(actor, ready=True) for actor in "abcd"]
    crew.wanted, crew.fewer, crew.suspects = 4, 0, deque()
    for allowed in (2, 1, 1):
        hand = crew.hands[0]
        hand.flying = {7: 0.0}
        answer = Short(ShortageError("no memory"))
        crew.calls = {answer: (hand, 7)}
        crew._wait = lambda a=answer: [a]
        assert list(crew._hear()) == [] and crew.wanted - crew.fewer == allowed
        assert crew.suspects.popleft() == 7
    hand.alone, hand.flying, crew.calls = True, {7: 0.0}, {answer: (hand, 7)}
    assert list(crew._hear()) == [(7, answer)], "the last one, and alone: the job stops"

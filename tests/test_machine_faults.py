"""What a disk, a mount or a machine fails at is never the data's: no sample is lost, and the same command goes on."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from command import command
from fault_util import FOREVER, fault
from jobs_util import recipe_text, results
from tars import write_pool

from mmfilter import narrow, patience

PASSING = [errno.EIO, errno.ESTALE, errno.ETIMEDOUT]
STOPPING = [errno.EACCES, errno.EROFS, errno.ENOSPC]
SHORT = [errno.EMFILE, errno.ENFILE, errno.ENOMEM]
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


@pytest.mark.parametrize("number", [*PASSING, *SHORT], ids=errno.errorcode.get)
@pytest.mark.parametrize(("where", "kind", "n"), PLACES)
def test_fault_48_what_fails_once_costs_nothing(here, made, monkeypatch, number, where, kind, n):
    with fault(monkeypatch, kind, here / where, number, n) as told:
        done = command(*RUN)
    assert told.failed == 1 and done.code in (0, 1) and "Traceback" not in done.err
    if done.code:
        assert (where, kind) == ("out", "fsync") and errno.errorcode[number] in done.err
    nothing_lost(here)
    mended(here, made[1])


@pytest.mark.parametrize("number", [*PASSING, *STOPPING, *SHORT], ids=errno.errorcode.get)
@pytest.mark.parametrize(("where", "kind", "n"), PLACES)
def test_fault_48_what_fails_for_long_loses_nothing(here, made, monkeypatch, number, where, kind, n):
    with fault(monkeypatch, kind, here / where, number, n, FOREVER) as told:
        done = command(*RUN)
    assert told.failed and done.code in (1, 3) and "Traceback" not in done.err
    nothing_lost(here)
    if done.code == 1:
        assert done.err.startswith("mmfilter: ") and errno.errorcode[number] in done.err and str(here) in done.err
    mended(here, made[1])
    assert not list(Path("out/attempts").glob("*"))


@pytest.mark.parametrize("number", [*PASSING, *STOPPING], ids=errno.errorcode.get)
@pytest.mark.parametrize(("kind", "n"), [("open", 1), ("read", 1), ("read", 4)])
def test_fault_48_a_shard_that_cannot_be_read_for_now_is_set_aside_for_now(here, made, monkeypatch, number, kind, n):
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


def test_fault_48_a_shard_set_aside_that_was_valid_before_counts_once(here, made, monkeypatch):
    assert command(*RUN).code == 0
    Path("t.yaml").write_text(recipe_text("x", embed={}, scores=["phash", "language", "image_text"][:1], select="everything"))
    both = recipe_text("x", embed={}, scores=["phash", {"content": {}}][:1], select="everything")
    assert both

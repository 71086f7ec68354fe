"""A shard that is named and does not exist, and a pool that cannot be read: found before any work, never recorded."""

import errno
import json
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from check_util import assert_matches, commits, work_in
from command import command
from jobs_util import results
from store_util import served, store  # noqa: F401

from jobs.shards import find_shards
from mmfilter import remote, storage
from mmfilter.errors import StoreError, UsageError
from mmfilter.subset import Subset


@pytest.fixture
def here(tmp_path, monkeypatch):
    return work_in(tmp_path, monkeypatch)


MISTAKES = [
    (
        "nope/{000..013}.tar",
        r"14 of 14 named shards do not exist: (\S+/nope/00\d\.tar, ){5}\.\.\..* folder \S+nope does",
    ),
    ("pol", "pol does not exist; did you mean 'pool'"),
    ("pool/00000007.tar", "00000007.tar does not exist"),
    ("pool/{00000000..00000003}.tar", "1 of 4 named shards do not exist: .*00000003.tar.*--allow-missing"),
    ("empty", "empty: no shard matches; give .tar files, a folder"),
    ("pool/*.tgz", "no shard matches"),
    ("t.yaml", "not a .tar file; give .tar files, a folder"),
    ("folder.tar", r"folder.tar is a folder.*folder.tar/\*.tar"),
]


@pytest.mark.parametrize(("pool", "says"), MISTAKES)
@pytest.mark.parametrize("verb", ["run", "embed", "dry", "inspect", "reshard"])
def test_a_path_that_names_no_shard_ends_before_any_work(here, pool, says, verb):
    (here / "empty").mkdir()
    (here / "folder.tar").mkdir()
    Subset.from_uids([]).write("s.npy")
    words = {
        "run": ("run", "t.yaml", "--pool", pool, "--local"),
        "embed": ("embed", "t.yaml", "--pool", pool, "--local"),
        "dry": ("run", "t.yaml", "--pool", pool, "--dry-run"),
        "inspect": ("inspect", pool),
        "reshard": ("reshard", "s.npy", "--pool", pool, "--out", "runs/new"),
    }[verb]
    code, out, said = command(*words)
    assert code == 2 and not out
    assert_matches(says, said)
    assert not (here / "runs").exists()


def test_allow_missing_goes_on_and_the_tar_that_comes_later_is_done(here):
    shutil.move("pool/00000001.tar", "late.tar")
    words = ("run", "t.yaml", "--pool", "pool/{00000000..00000002}.tar", "--out", "out", "--local")
    code, said, _ = command(*words, "--allow-missing", "--dry-run")
    assert (
        code == 0 and "2 of 2 shards to do" in said and "missing: 1 named shard does" in said and "00000001.tar" in said
    )
    code, said, _ = command(*words, "--allow-missing")
    assert code == 0 and "missing: 1 named shard does not exist" in said and "in 8 = kept 8" in said
    assert commits("out") == ["00000000.json", "00000002.json"] and not list(Path("out").glob("failures/*"))
    run = json.loads(Path("out/run.json").read_text())
    assert run["missing_shards"] == [str(here / "pool/00000001.tar")] and len(run["pool"]) == 2
    assert command(*words)[0] == 2
    shutil.move("late.tar", "pool/00000001.tar")
    code, said, _ = command(*words, "--json")
    assert code == 0 and json.loads(said)["missing"] == {"shards": 0, "first": []}
    assert json.loads(Path("out/run.json").read_text())["missing_shards"] == []
    assert command(*words[:-2], "whole", "--local")[0] == 0
    assert results("out") == results("whole")


def test_with_no_shard_left_allow_missing_is_no_cure(here):
    code, _, said = command("embed", "t.yaml", "--pool", "pool/{10..12}.tar", "--allow-missing", "--local")
    assert code == 2 and "3 of 3 named shards" in said and "--allow-missing goes on" not in said


def test_inspect_reports_what_is_missing(here):
    code, said, _ = command("inspect", "pool/{00000000..00000004}.tar", "--allow-missing", "--json")
    assert code == 0
    (found,) = [f for f in json.loads(said)["findings"] if f["what"] == "missing_shard"]
    assert found["count"] == 2 and "00000003.tar" in found["text"]


def test_a_shard_that_an_older_version_recorded_as_absent_is_done_when_it_is_there(here):
    from jobs.cluster import Width
    from jobs.embed import embed_pool
    from mmfilter.recipe import load_recipe

    shutil.move("pool/00000001.tar", "late.tar")
    paths = [str(here / f"pool/0000000{n}.tar") for n in range(3)]
    counts = embed_pool(load_recipe("t.yaml"), paths, str(here / "out"), Width(local=True))
    assert counts.failed and json.loads(Path("out/metadata/00000001.json").read_text())["input"] is None
    shutil.move("late.tar", "pool/00000001.tar")
    for out in ("out", "whole"):
        code, _, said = command("run", "t.yaml", "--pool", "pool", "--out", out, "--local")
        assert code == 0, said
    assert results("out") == results("whole")


LISTED = [(number, pool) for number in (errno.EIO, errno.ESTALE) for pool in ("pool/{0..2}.tar", "pool/*.tar")]


@pytest.mark.parametrize(("number", "pool"), [*LISTED, *((n, "pool") for n in (errno.EIO, errno.ESTALE, errno.EACCES))])
def test_what_cannot_be_read_is_not_taken_for_absent(here, monkeypatch, number, pool):
    """A dead mount, or no permission: exit 1, and no commit."""

    def refuse(path="."):
        raise OSError(number, os.strerror(number), path)

    if pool == "pool":  # a listing would have found them
        monkeypatch.setattr(storage, "open_read", refuse)
    else:
        monkeypatch.setattr(os, "scandir", refuse)
    code, _, said = command("run", "t.yaml", "--pool", pool, "--out", "out", "--local")
    assert code == 1 and os.strerror(number) in said and "check the mount" in said
    assert not Path("out").exists()


@pytest.mark.parametrize("status", [0, 503, 403, 404])
def test_a_web_server_that_does_not_answer_says_nothing_of_a_shard(monkeypatch, status):
    """fsspec's client takes a refused connection, like any status, for "no such file"."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(remote, "MAX_WAIT", 0.001)
    server = HTTPServer(("127.0.0.1", 0), type("Says", (BaseHTTPRequestHandler,), {}))
    for method in ("do_GET", "do_HEAD"):
        setattr(server.RequestHandlerClass, method, lambda request: request.send_error(status))
    url = f"http://127.0.0.1:{server.server_address[1]}/x.tar"
    if status:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    else:
        server.server_close()
    with pytest.raises(UsageError if status == 404 else StoreError):
        find_shards([url])
    if status:
        server.shutdown()
        server.server_close()


def test_a_link_that_leads_nowhere_is_missing(here):
    os.symlink("gone.tar", "pool/00000003.tar")
    code, _, said = command("run", "t.yaml", "--pool", "pool/{00000000..00000003}.tar", "--local")
    assert code == 2 and "1 of 4" in said


def test_on_a_store_folders_are_listed_and_shards_are_not_asked_for(store):  # noqa: F811
    for n in range(0, 300, 2):
        storage.write_atomic(f"{store.root}/pool/{n:05d}.tar", b"x")
    store.weather.asked.clear()
    shards = find_shards([f"{store.root}/pool/{{00000..00299}}.tar"], allow_missing=True)
    assert len(shards.paths) == len(shards.missing) == 150
    assert len(store.weather.asked) < 10
    with pytest.raises(UsageError, match="150 of 300 named shards"):
        find_shards([f"{store.root}/pool/{{00000..00299}}.tar"])
    with pytest.raises(UsageError, match="2 of 2 named shards"):
        find_shards([f"{store.root}/nothing/{{00000..00001}}.tar"])

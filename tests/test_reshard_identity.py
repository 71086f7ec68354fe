"""New shards are done when they are what was written: what is gone, emptied, cut or flipped is written anew."""

import json
import os
from pathlib import Path

import pytest
from command import command
from tars import uid, write_pool

from mmfilter.reshard_files import verify_shards
from mmfilter.subset import Subset

FILES = ("00000000.tar", "00000001.tar", "00000001_stats.json", "sizes.json", "sample_ids.npy", "meta.json")
DAMAGE = {
    "deleted": lambda data: None,
    "emptied": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + bytes(512),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    write_pool(folder / "pool", 2, 5)
    Subset.from_uids([uid(n) for n in (0, 2, 3, 6, 7)]).write(str(folder / "some.npy"))
    return folder


@pytest.fixture
def again(source, tmp_path):
    """The command, done once; `again()` is the same command again."""

    def reshard(*words):
        limits = ("--max-samples", 3, "--local", *words)
        return command("reshard", source / "some.npy", "--pool", source / "pool", "--out", tmp_path / "new", *limits)

    assert reshard().code == 0
    return reshard


def held(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", [*FILES, "reshard.files"])
def test_what_is_not_there_or_has_another_size_is_written_again(again, tmp_path, name, how):
    before, path = held(tmp_path / "new"), tmp_path / "new" / name
    assert set(FILES) | {"reshard.plan", "reshard.files", "00000000_stats.json"} == set(before)
    data = DAMAGE[how](before[name])
    path.unlink() if data is None else path.write_bytes(data)
    if (name, how) != ("reshard.files", "deleted"):  # without records it is a folder of an earlier version
        assert verify_shards(str(tmp_path / "new"))
    assert again().code == 0
    after = held(tmp_path / "new")
    if (name, how) == ("reshard.files", "deleted"):
        del before[name]
    assert after == before


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_by_deep_and_written_again(again, tmp_path, name):
    before, path = held(tmp_path / "new"), tmp_path / "new" / name
    data = bytearray(before[name])
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert verify_shards(str(tmp_path / "new")) == []
    ((where, what),) = verify_shards(str(tmp_path / "new"), deep=True)
    assert where == str(path) and "sha256" in what
    assert again("--deep").code == 0
    assert held(tmp_path / "new") == before


def test_only_what_is_damaged_is_written(again, tmp_path):
    untouched = tmp_path / "new/00000000.tar"
    stamp = untouched.stat().st_mtime_ns
    (tmp_path / "new/00000001.tar").unlink()
    done = again("--json")
    assert (
        json.loads(done.out)[0:0] == [] if done.out.startswith("[") else json.loads(done.out)["shards_done_before"] == 1
    )
    assert untouched.stat().st_mtime_ns == stamp
    assert json.loads(again("--json").out)["shards_done_before"] == 2


class Killed(BaseException):
    """What no code catches, as a kill would be."""


def test_killed_anywhere_the_same_command_ends_with_the_same_bytes(source, tmp_path, monkeypatch):
    words = ("reshard", source / "some.npy", "--pool", source / "pool", "--max-samples", 3, "--local", "--out")
    assert command(*words, tmp_path / "whole").code == 0
    for number in range(99):
        folder, done = tmp_path / f"killed-{number}", []

        def stopped(*paths, number=number, done=done, rename=os.replace):
            if len(done) >= number:
                raise Killed
            done.append(paths)
            rename(*paths)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", stopped)
            try:
                ended = command(*words, folder).code == 0
            except Killed:
                ended = False
        if not ended and number:  # the plan is there
            told = command("inspect", folder) if number > 2 else None
            assert told is None or told.code in (0, 1, 3)
            trained = command("train", "--pool", folder, "--out", tmp_path / "model", "--model", "demo", "--samples", 4)
            assert trained.code in (1, 2) and not (tmp_path / "model/train.json").exists()
            if number > 2:
                assert "its shards are not finished (meta.json is not there)" in trained.err
        assert command(*words, folder).code == 0
        assert held(folder) == held(tmp_path / "whole")
        if ended:
            break
    assert ended and number > 8


def test_a_pool_of_new_shards_that_are_not_whole_is_not_read(again, source, tmp_path):
    new = tmp_path / "new"
    (new / "00000001.tar").unlink()
    pools = {"folder": new, "pattern": new / "*.tar"}
    for pool in pools.values():
        done = command("train", "--pool", pool, "--out", tmp_path / "model", "--samples", 4)
        assert done.code == 1 and "00000001.tar: it is not there; run the same 'mmfilter reshard' again" in done.err
    (new / "00000000.tar").write_bytes((new / "00000000.tar").read_bytes()[:-512])
    named = command("embed", "demo", "--pool", new / "00000000.tar", "--out", tmp_path / "out", "--local")
    assert named.code == 1 and "00000000.tar: it has" in named.err
    assert again().code == 0 and not verify_shards(str(new), deep=True)


def test_other_ways_to_read_samples_are_another_folder(again, source, tmp_path):
    done = again("--captions", "txt;url")
    assert done.code == 1 and "made from something else" in done.err and "The read was" in done.err


def test_a_folder_of_an_earlier_version_is_gone_on_with(again, source, tmp_path):
    new = tmp_path / "new"
    before = held(new)
    plan = json.loads((new / "reshard.plan").read_text())
    del plan["read"]
    (new / "reshard.plan").write_text(json.dumps(plan, sort_keys=True))
    (new / "reshard.files").unlink()
    assert again().code == 0 and "reshard.files" not in held(new)
    (new / "00000001.tar").write_bytes(b"")
    assert again().code == 0
    assert held(new) == before


def test_a_strangers_tar_beside_them_is_told_and_left(again, tmp_path):
    other = tmp_path / "new/00000007.tar"
    other.write_bytes(bytes(1024))
    assert verify_shards(str(tmp_path / "new")) == [(str(other), "it is none of this reshard's shards")]
    assert again("--deep").code == 0 and other.exists()


def test_a_damaged_plan_is_named(again, tmp_path):
    path = Path(tmp_path / "new/reshard.plan")
    path.write_bytes(path.read_bytes()[:9])
    done = again()
    assert done.code == 1 and "reshard.plan: is damaged" in done.err

"""A subset's record and its file are of one selection: killed anywhere, damaged anyhow, no verb mixes two."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import command
from report_util import RULES, make_out, rows_of
from rules_util import kept, make_uids, record, run, split, write_pool

from mmfilter.decisions import decision_paths, read_record, read_subset
from mmfilter.errors import MMFilterError
from mmfilter.json_file import encode
from mmfilter.subset import Subset

N = 60
LOW, HIGH = ({"threshold": {"score": "s", **limits}} for limits in ({"max": 0.495}, {"min": 0.495}))  # 30 samples each


@pytest.fixture
def out(tmp_path: Path) -> Path:
    columns = {"uid": make_uids(N), "text": ["a b c"] * N, "s": np.arange(N) / N}
    write_pool(tmp_path / "out" / "metadata", split(columns, 3))
    return tmp_path / "out"


class Killed(BaseException):
    """What no code catches, as a kill would be."""


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """The `number`-th file that is put in place or taken away is not, and nothing after it."""
    done: list[str] = []

    def counted(call: Any) -> Any:
        def stopped(*words: Any) -> Any:
            if len(done) >= number:
                raise Killed
            done.append(str(words[-1]))
            return call(*words)

        return stopped

    monkeypatch.setattr(os, "replace", counted(os.replace))
    monkeypatch.setattr(os, "unlink", counted(os.unlink))
    return done


def test_killed_anywhere_no_record_tells_of_other_uids(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = kept(run(out, LOW)), sorted(set(make_uids(N)) - set(kept(run(out, LOW))))
    assert len(low) == len(high) and set(low).isdisjoint(high)
    for number in range(99):
        run(out, LOW)
        with monkeypatch.context() as patched:
            done = kill_at(patched, number)
            try:
                run(out, HIGH)
            except Killed:
                finished = False
            else:
                finished = True
        if not (out / "subsets/s.json").exists():
            assert not finished and number  # nothing vouches for what is there: the verbs say that nothing is selected
            assert command("explain", low[0], "--out", out).code == 2
            continue
        said = record_of(out)
        uids = read_subset(str(out), "s", said)[0].strings()
        assert uids == (low if said["rule"] == LOW else high)
        decided = pl.concat([pl.read_parquet(path) for path in decision_paths(str(out), "s").values()])
        assert sorted(decided.filter("keep")["uid"]) == uids
        if finished:
            break
    assert finished and len(done) > 5


def record_of(out: Path) -> dict[str, Any]:
    return read_record(str(out), "s")


def test_the_record_says_what_the_file_is(out: Path) -> None:
    selection = run(out, LOW)
    files = record(selection)["files"]
    assert files["npy"]["bytes"] == os.path.getsize(selection.path)
    assert list(files["decisions"]) == ["00000000", "00000001", "00000002"]
    assert record(run(out, LOW, decisions=False))["files"]["decisions"] == {}


DAMAGE = {
    "deleted": lambda data: None,
    "emptied": lambda data: b"",
    "truncated": lambda data: data[:-16],
    "longer": lambda data: data + data[-16:],
    "flipped": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
}
READERS: dict[str, tuple[str, ...]] = {
    "card": ("card", "{out}"),
    "report": ("report", "{out}"),
    "explain": ("explain", "{uid}", "--out", "{out}"),
    "subset": ("subset", "{npy}", "--show", "1"),
    "subset --sort": ("subset", "{npy}", "--sort"),
    "compare": ("compare", "{npy}"),
    "schedule": ("schedule", "{out}", "--kind", "rs2", "--epochs", "2", "--subset", "{npy}"),
    "reshard": ("reshard", "{npy}", "--pool", "{tars}", "--out", "{out}/shards/kept", "--local"),
}
BY_SIZE = {"explain"}  # it reads the record and the decisions, and the subset's file not at all


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_subset_is_named(tmp_path: Path, damage: str, reader: str) -> None:
    tars = tmp_path / "tars"
    made = make_out(tmp_path / "out", tars, {"000": rows_of(tars, "000")}, RULES, {})
    npy, uid = Path(made.out, "subsets/kept.npy"), next(uid for uid, by in made.dropped_by.items() if by == "")
    files = Subset.from_uids([uid for uid, by in made.dropped_by.items() if by == ""]).write(str(npy))
    told = json.loads(npy.with_suffix(".json").read_text())
    npy.with_suffix(".json").write_text(json.dumps({**told, "files": {"npy": files}}))
    data = DAMAGE[damage](npy.read_bytes())
    npy.unlink() if data is None else npy.write_bytes(data)
    words = [word.format(out=made.out, uid=uid, npy=npy, tars=tars) for word in READERS[reader]]
    done = command(*words)
    if damage == "flipped" and reader in BY_SIZE:
        assert done.code == 0
        return
    assert done.code in (1, 2) and "kept.npy" in done.err, done
    if damage != "deleted":
        assert "kept.json" in done.err and "run 'mmfilter select' again" in done.err


def test_a_record_without_files_is_of_an_earlier_version(out: Path) -> None:
    selection = run(out, LOW)
    path = out / "subsets/s.json"
    told = record(selection)
    del told["files"]
    path.write_bytes(encode(told))
    np.save(selection.path, np.load(selection.path)[:5])
    assert command("subset", selection.path).out.startswith("5 uids")
    assert read_record(str(out), "s") == {key: value for key, value in told.items() if key != "check"}


def test_a_stranger_s_json_beside_a_subset_is_no_record(out: Path, tmp_path: Path) -> None:
    selection = run(out, LOW)
    mine = tmp_path / "mine.npy"
    mine.write_bytes(Path(selection.path).read_bytes())
    for text in ("{", '{"files": ["a"]}', "[]", '{"files": {"tar": 1}}'):
        mine.with_suffix(".json").write_text(text)
        assert command("subset", mine).code == 0
    mine.with_suffix(".json").write_text('{"files": {"npy": 7}}')
    assert command("subset", mine).code == 1


def test_decisions_that_are_gone_or_flipped_are_named(out: Path) -> None:
    uid = kept(run(out, LOW))[0]
    path = out / "subsets/s/00000001.parquet"
    data = path.read_bytes()
    path.unlink()
    done = command("explain", uid, "--out", out)
    assert done.code == 1 and "00000001.parquet is not there" in done.err and "run 'mmfilter select' again" in done.err
    for at in range(0, len(data), 13):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        done = command("explain", make_uids(N)[10], "--out", out)
        assert done.code == 1 and "00000001.parquet: it is damaged" in done.err, (at, done)


def test_a_flipped_page_of_failures_is_named(out: Path) -> None:
    table = pa.table({"key": ["a"] * 9, "uid": make_uids(9), "status": ["lost"] * 9, "error": ["gone"] * 9})
    (out / "failures").mkdir()
    path = out / "failures/00000000.parquet"
    pq.write_table(table, path, compression="none", write_page_checksum=True)
    assert run(out, LOW).failed == {"lost": 9}
    data = path.read_bytes()
    path.write_bytes(data.replace(b"lost", b"mist"))
    with pytest.raises(MMFilterError, match=r"failures/00000000\.parquet: cannot be read"):
        run(out, LOW)


def test_a_file_of_no_bytes_is_no_subset(tmp_path: Path) -> None:
    (tmp_path / "a.npy").touch()
    done = command("subset", tmp_path / "a.npy")
    assert done.code == 1 and "a.npy: is empty" in done.err
    Subset.from_uids([]).write(str(tmp_path / "b.npy"))
    assert command("subset", tmp_path / "b.npy").out.startswith("0 uids")

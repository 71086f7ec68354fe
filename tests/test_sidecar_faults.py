"""What is beside a tar costs nothing and ends nothing, whatever it holds or is."""

import errno
import io
import json
import os
import shutil
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import command
from fault_util import FOREVER, fault
from jobs_util import recipe_text, results
from tars import sample, tar, uid, write_pool

from mmfilter import expected, patience

RUN = ("run", "t.yaml", "--pool", "pool", "--out", "out", "--name", "t", "--local")
STEM = "pool/00000001"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A pool of three shards without sidecars, and a recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(patience, "PAUSES", (0.0, 0.0))
    write_pool(tmp_path / "pool", 3, 5)
    for path in Path("pool").iterdir():
        if path.suffix != ".tar":
            path.unlink()
    Path("t.yaml").write_text(recipe_text("x", embed={}, scores=["phash"], select="everything"))
    return tmp_path


def parquet(keys=("000000005",), **more):
    """A parquet of keys, as img2dataset writes it."""
    stream = io.BytesIO()
    pq.write_table(pa.table({"key": list(keys), "status": ["success"] * len(keys), **more}), stream)
    return stream.getvalue()


def socket_at(path):
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(path.parent)  # its path may be no longer than 108 bytes
        listening.bind(path.name)
        os.chdir(path.parent.parent)


def sparse(size, tail):
    """A file of so many bytes, of which only the last take room."""

    def write(path):
        with path.open("wb") as stream:
            stream.seek(size - len(tail))
            stream.write(tail)

    return write


def bytes_of(data):
    return lambda path: path.write_bytes(data)


SMALL = parquet()
BESIDE = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "socket": socket_at,
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "empty": bytes_of(b""),
    "noise": bytes_of(bytes(range(256)) * 64),
    "10 GB": sparse(10 << 30, b"PAR1"),
    "10 GB that states a footer as large": sparse(10 << 30, b"\xff\xff\xff\x7fPAR1"),
    "cut": bytes_of(SMALL[: len(SMALL) // 2]),
    "cut in front": bytes_of(SMALL[8:]),
    "keys of numbers": bytes_of(parquet([5])),
    "keys of lists": bytes_of(parquet([["000000005"]])),
}
STATS = {
    "infinity": '{"successes": Infinity}',
    "1e11": '{"successes": 1e11}',
    "nan": '{"successes": NaN}',
    "word": '{"successes": "many"}',
    "digits": '{"successes": "' + "9" * 5000 + '"}',
    "nested": "[" * 100_000,
    "list": "[1]",
    "null": "null",
}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The results of the same pool without any sidecar."""
    folder, before = tmp_path_factory.mktemp("quiet"), os.getcwd()
    os.chdir(folder)
    try:
        write_pool(folder / "pool", 3, 5)
        for path in [path for path in Path("pool").iterdir() if path.suffix != ".tar"]:
            path.unlink()
        Path("t.yaml").write_text(recipe_text("x", embed={}, scores=["phash"], select="everything"))
        assert command(*RUN).code == 0
        return results("out")
    finally:
        os.chdir(before)


@pytest.mark.parametrize("what", BESIDE)
def test_fault_58_whatever_stands_beside_a_tar(here, quiet, what):
    for ending in (".parquet", "_stats.json"):
        BESIDE[what](here / f"{STEM}{ending}")
    done = command(*RUN)
    assert done.code == 0 and results("out") == quiet, done.err
    assert "Traceback" not in command("inspect", "pool", "--local").err


def test_fault_58_whatever_the_stats_state(here, quiet):
    for number, text in enumerate(STATS.values()):
        Path(f"{STEM}_stats.json").write_text(text)
        assert expected.stated_count(f"{STEM}.tar") is None, text
        if not number:
            assert command(*RUN).code == 0 and results("out") == quiet


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE], ids=errno.errorcode.get)
def test_fault_58_a_sidecar_that_cannot_be_read_is_absent_where_its_tar_is_sound(here, quiet, monkeypatch, number):
    for kind in ("open", "read"):
        shutil.rmtree("out", ignore_errors=True)
        Path(f"{STEM}.parquet").write_bytes(parquet([f"{n:09d}" for n in range(5, 10)]))
        with fault(monkeypatch, kind, here / f"{STEM}.parquet", number, 1, FOREVER) as told:
            done = command(*RUN)
        assert told.failed and done.code == 0 and results("out") == quiet, (kind, done.err)


def test_fault_58_of_a_damaged_tar_it_is_waited_for(here, monkeypatch):
    """The parquet alone tells what was lost: a commit without it would count too few."""
    members = [member for n in range(5, 10) for member in sample(n)]
    Path(f"{STEM}.tar").write_bytes(tar(members)[:-6000])
    Path(f"{STEM}.parquet").write_bytes(parquet([f"{n:09d}" for n in range(5, 10)], uid=[uid(n) for n in range(5, 10)]))
    with fault(monkeypatch, "read", here / f"{STEM}.parquet", errno.EIO, 1, FOREVER):
        assert command(*RUN).code == 3
    assert not Path("out/metadata/00000001.json").exists(), "it is set aside for now"
    assert command(*RUN).code == 3
    counts = json.loads(Path("out/metadata/00000001.json").read_text())["counts"]
    assert counts["read"] == 5 and counts["failed"] and not Path("out/attempts/00000001.json").exists()

"""Files that are named like a tar and are none, and tars without samples: said as what they are, with what to do."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs_util import recipe_text
from tars import entry, rows_of, sample, samples, tar, write_pool

from mmfilter.sidecar import read_failures
from mmfilter.tar import END

SOUND = tar(samples(3))


def parquet():
    out = io.BytesIO()
    pq.write_table(pa.table({"key": ["a"]}), out)
    return out.getvalue()


def zipped(data):
    """Stored as it is: the tar's headers stand in the archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        file.writestr("00000000.tar", data)
    return out.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 5\n" % (b"0" * 64)
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head>%s</html>"
FOREIGN = {
    "gzip": (gzip.compress(SOUND), "gzip -dc < FILE > NEW.tar"),
    "gzip that stores": (gzip.compress(SOUND, 0), "gzip -dc"),
    "bzip2": (bz2.compress(SOUND), "bzip2 -dc"),
    "xz": (lzma.compress(SOUND), "xz -dc"),
    "zstd": (pa.compress(SOUND, "zstd", asbytes=True), "zstd -dc"),
    "zip": (zipped(SOUND), "a zip archive"),
    "parquet": (parquet(), "a parquet file"),
    "git-LFS pointer": (POINTER, "git lfs pull"),
    "page": (PAGE % b"", "an HTML page"),
    "long page": (PAGE % (b"<p>words" * 500), "an HTML page"),
    "spaced page": (b"\xef\xbb\xbf\r\n <HTML>" + b" " * 3000, "an HTML page"),
    "store's message": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML document"),
    "words": (b"404: Not Found", "text that begins '404: Not Found'"),
    "json": (b'{"error": "Repository not f\xc3\xa4und"}' * 90, 'text that begins \'{"error"'),
    "escapes": ("Zug\u00e4nge\u202e gesperrt".encode(), ""),
    "noise": (bytes(range(1, 256)) * 20, "no tar header is in it"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_is_no_tar_is_said_as_what_it_is(tmp_path, name):
    """Nothing in it is taken for a sample; a head that is cut off is told too."""
    data, says = FOREIGN[name]
    path = tmp_path / "00000000.tar"
    path.write_bytes(data)
    valid, (failure,), _ = rows_of(path)
    assert not valid and (failure.status in ("not_a_tar", "truncated")) and says in failure.error
    assert failure.error.isascii() and "\n" not in failure.error
    if "noise" not in name and "escapes" not in name:
        path.write_bytes(data[:200])
        assert says in rows_of(path)[1][0].error


@pytest.mark.parametrize("before", [b"some words\n" * 60, PAGE % b"", b"x" * 512])
def test_a_tar_behind_text_is_read_on(tmp_path, before):
    path = tmp_path / "00000000.tar"
    path.write_bytes(before + SOUND)
    assert len(rows_of(path)[0]) == 3


OLD = bytes(8)  # in place of the magic, as in headers older than it
NAMES = [("BZhang_000", b"ustar\x0000"), ("PAR1S", b"ustar\x0000"), ("PK\x03\x04", b"ustar\x0000")]


@pytest.mark.parametrize(("name", "magic"), [*NAMES, ("BZhang_000", OLD), ("BZh9", OLD), ("PAR1", OLD)])
def test_a_damaged_first_header_costs_its_sample_alone_whatever_its_file_is_called(tmp_path, mmfilter, name, magic):
    """Names may begin as files of other formats do."""
    first = bytearray(tar([(f"{name}.jpg", b"x" * 600)])[:-1024])
    first[257:265] = magic
    first[150] ^= 1
    (tmp_path / "00000000.tar").write_bytes(bytes(first) + tar(sample(0) + samples(19, 1)))
    code, said, _ = mmfilter("inspect", tmp_path, "--json", "--local")
    found = json.loads(said)
    assert (code, found["samples"], found["failed"]) == (1, 20, {"corrupt_header": 1})


def test_a_run_and_inspect_say_it_and_go_on(tmp_path, mmfilter):
    pool = tmp_path / "pool"
    write_pool(pool, 4, 4)
    (pool / "00000001.tar").write_bytes(gzip.compress(SOUND))
    (pool / "00000002.tar").write_bytes(POINTER)
    (pool / "00000002_stats.json").unlink()
    code, said, _ = mmfilter("inspect", pool, "--local")
    assert code == 1 and "gzip -dc < FILE > NEW.tar" in said and "git lfs pull" in said and "8 samples are well" in said
    (tmp_path / "r.yaml").write_text(recipe_text("x", embed={}, scores=["phash"], select="everything"))
    out = tmp_path / "out"
    code, said, err = mmfilter("run", tmp_path / "r.yaml", "--pool", pool, "--out", out, "--local")
    assert code == 3, err
    assert "in 13 = kept 8 (61.5%) + dropped 0 + failed 5" in said
    lost, foreign = (read_failures(str(out), stem) for stem in ("00000001", "00000002"))
    assert Counter(row.status for row in lost) == Counter(lost=4) and "gzip -dc" in lost[0].error
    assert [row.status for row in foreign] == ["not_a_tar"] and "git lfs pull" in foreign[0].error


EMPTY = {
    "zeros": bytes(10240),
    "one block": bytes(512),
    "folders": entry("a/", b"", b"5") + END,
    "files without a key": entry(".hidden.jpg", b"x") + entry("README", b"x") + END,
    "a label": entry("label", b"", b"V") + END,
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_tar_without_samples_is_a_finding(tmp_path, mmfilter, name):
    pool = tmp_path / "pool"
    write_pool(pool, 2, 3, stats=False)
    (pool / "00000001.tar").write_bytes(EMPTY[name])
    code, said, _ = mmfilter("inspect", pool, "--json", "--local")
    found = json.loads(said)
    assert (code, found["samples"], found["failed"]) == (0, 3, {})
    assert ("warning", "no_samples", "00000001") in [(f["severity"], f["what"], f["shard"]) for f in found["findings"]]


@pytest.mark.parametrize(("bad", "code"), [([], 0), ([2], 3), (range(6), 1)])
def test_the_exit_code_of_inspect_tells_of_failed_samples(tmp_path, mmfilter, bad, code):
    rows = [row for n in range(6) for row in sample(n, image=b"" if n in bad else None)]
    (tmp_path / "00000000.tar").write_bytes(tar(rows))
    assert mmfilter("inspect", tmp_path, "--local")[0] == code

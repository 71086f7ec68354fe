"""Lists of urls: read, cut into pieces, and what of them failed."""

import gzip
from collections import Counter

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from tars import std_tar, uid
from url_util import write_list

from mmfilter import storage
from mmfilter.download_rows import list_failed, repeated_rows, standing
from mmfilter.errors import DataError, UsageError
from mmfilter.url_lists import Columns, find_lists, plan_lists, read_piece, rows


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "csv.gz", "txt", "txt.gz"])
def test_lists_of_every_kind(tmp_path, ending):
    frame = pl.DataFrame({"link": ["http://a/1", "http://a/2"], "text": ['one, "two"', "drei\nvier"]})
    path, kind = tmp_path / f"list.{ending}", ending.removesuffix(".gz")
    if kind == "tsv":  # it has no quotes, and so no line feed in a value
        frame = frame.with_columns(text=pl.Series(['one, "two"', '"drei'])).select("text", "link")
    if kind == "parquet":
        frame.write_parquet(path)
    else:
        text = (
            "http://a/1\n\nhttp://a/2\n"
            if kind == "txt"
            else frame.write_csv(separator="\t", quote_style="never")
            if kind == "tsv"
            else frame.write_csv()
        )
        path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    table = pa.concat_tables(rows(str(path), Columns(url="url" if kind == "txt" else "link")))
    assert table["url"].to_pylist() == ["http://a/1", "http://a/2"]
    assert table["caption"].to_pylist() == (["", ""] if kind == "txt" else frame["text"].to_list())
    assert all(len(u) == 32 for u in table["uid"].to_pylist()) and len(set(table["uid"].to_pylist())) == 2


def test_lists_that_are_wrong(tmp_path):
    good = write_list(tmp_path / "a.parquet", ["http://a"])
    with pytest.raises(UsageError, match="did you mean 'url'"):
        list(rows(good, Columns(url="uri")))
    with pytest.raises(UsageError, match="no list of urls"):
        find_lists([str(tmp_path / "a.docx")])
    with pytest.raises(UsageError, match=r"not there; did you mean 'a.parquet'"):
        find_lists([str(tmp_path / "aa.parquet")])
    with pytest.raises(UsageError, match="--keep sha256"):
        plan_lists(str(tmp_path / "o"), [good], Columns(keep=("sha256",)), 2, {})
    (tmp_path / "b.parquet").write_bytes(b"not a parquet file")
    with pytest.raises(DataError, match="cannot be read"):
        list(rows(str(tmp_path / "b.parquet"), Columns()))
    pl.DataFrame({"uid": ["x"], "url": ["u"], "text": ["t"]}).write_parquet(tmp_path / "c.parquet")
    with pytest.raises(DataError, match="32 hexadecimal digits"):
        list(rows(str(tmp_path / "c.parquet"), Columns()))
    (tmp_path / "d.txt").write_text("\n")
    with pytest.raises(UsageError, match="no url"):
        plan_lists(str(tmp_path / "o"), [str(tmp_path / "d.txt")], Columns(), 2, {})
    assert find_lists([str(tmp_path)])[0] == good


@pytest.mark.parametrize("seed", range(6))
def test_failed_rows_are_listed_once_whatever_came_when(tmp_path, seed):
    """Against the plainest statement: rows of done pieces whose uid never came and is not waiting."""
    rng, out = np.random.default_rng(seed), f"memory://{tmp_path.name}" if seed % 2 else str(tmp_path / "out")
    n = int(rng.integers(1, 30))
    numbers = rng.integers(0, 20, n)  # some uids twice
    table = {"uid": [uid(i) for i in numbers], "url": [f"u{i}" for i in numbers], "text": [""] * n}
    pl.DataFrame(table).write_parquet(tmp_path / "a.parquet")
    assert plan_lists(out, [str(tmp_path / "a.parquet")], Columns(), 4, {}) == n
    came, times = set(), Counter()
    for turn in range(3):
        done, pending = standing(out)
        for number in pending[: len(pending) - turn % 2]:
            uids = read_piece(out, number)["uid"].to_pylist()
            status = rng.choice(["success", "failed_to_download"], len(uids)).tolist()
            times.update(u for u, s in zip(uids, status, strict=True) if s == "success")
            came |= {u for u, s in zip(uids, status, strict=True) if s == "success"}
            held = [(f"{number:08d}{row:04d}.jpg", b"x") for row, s in enumerate(status) if s == "success"]
            storage.write_atomic(f"{out}/{number:08d}.tar", std_tar(held))
            storage.write_atomic(f"{out}/{number:08d}_stats.json", b"{}")
        stand = Counter(table["uid"])
        assert repeated_rows(out, n, 4) == sum(max(stand[u] - times[u], 0) for u in came)
        done, pending = standing(out)
        waiting = {u for p in pending for u in read_piece(out, p)["uid"].to_pylist()}
        want = {u for p in done for u in read_piece(out, p)["uid"].to_pylist()} - came - waiting
        assert list_failed(out, 4) == len(want)
        fresh = [u for p in standing(out)[1] if p not in pending for u in read_piece(out, p)["uid"].to_pylist()]
        assert len(fresh) == len(want) and set(fresh) == want
        assert list_failed(out, 4) == 0  # they wait now

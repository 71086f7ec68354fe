"""`download --keep` of columns of any type, lists that differ, and tars that hold something else than the stats say."""

import datetime as dt
import json
import subprocess
import sys
import tarfile
import threading
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import jpeg, uid
from url_util import write_list

from jobs import download as module
from jobs import polite
from jobs.fetcher import UNWRITTEN
from mmfilter.errors import DataError, UsageError
from mmfilter.kept_columns import plain_column
from mmfilter.url_lists import Columns, plan_lists, read_piece, rows

pytestmark = pytest.mark.slow  # together, not each

WHEN = dt.datetime(2026, 12, 1, 10, 30, 15)
KINDS = {
    "timestamp": (pa.array([WHEN], pa.timestamp("us")), "2026-12-01 10:30:15.000000"),
    "timestamp_ns": (pa.array([WHEN], pa.timestamp("ns")), "2026-12-01 10:30:15.000000000"),
    "zoned": (pa.array([WHEN], pa.timestamp("ms", "Europe/Paris")), "2026-12-01 10:30:15.000Z"),
    "date": (pa.array([WHEN.date()]), "2026-12-01"),
    "time": (pa.array([WHEN.time()], pa.time64("us")), "10:30:15.000000"),
    "duration": (pa.array([dt.timedelta(seconds=1.5)], pa.duration("ms")), 1.5),
    "binary": (pa.array([b"\xff\x00"]), "/wA="),
    "large_binary": (pa.array([b"\xff\x00"], pa.large_binary()), "/wA="),
    "fixed_binary": (pa.array([b"\xff\x00"], pa.binary(2)), "/wA="),
    "decimal": (pa.array([Decimal("1.50")]), "1.50"),
    "half": (pa.array(np.array([1.5], np.float16)), 1.5),
    "float": (pa.array([0.5], pa.float32()), 0.5),
    "not_a_number": (pa.array([float("nan")]), None),
    "infinite": (pa.array([float("-inf")]), None),
    "large": (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
    "large_string": (pa.array(["a"], pa.large_string()), "a"),
    "dictionary": (pa.array(["a"]).dictionary_encode(), "a"),
    "null": (pa.array([None]), None),
    "bool": (pa.array([True]), True),
    "list": (pa.array([[1, None]]), [1, None]),
    "times": (pa.array([[WHEN.date(), None]]), ["2026-12-01", None]),
    "fixed_list": (pa.array([[1.0, float("nan")]], pa.list_(pa.float64(), 2)), [1.0, None]),
    "struct": (pa.array([{"at": WHEN.date(), "raw": [b"x"]}]), {"at": "2026-12-01", "raw": ["eA=="]}),
    "map": (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), [{"key": "k", "value": 1}]),
}


class Picture(BaseHTTPRequestHandler):
    missing: ClassVar[set[str]] = set()  # paths that fail, for now

    def do_GET(self):
        if self.path in self.missing:
            self.send_error(404)
            return
        data = jpeg()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def web():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Picture)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture
def download(web, tmp_path, mmfilter):
    """The command into tmp_path/out: (exit code, stdout, stderr)."""
    pytest.importorskip("img2dataset", reason="img2dataset is not installed: pip install 'mmfilter[download]'")

    def call(*words):
        return mmfilter("download", *words, "--out", tmp_path / "out", "--retries", 0, "--local", "--allow-private")

    yield call
    polite.urllib.request.install_opener(None)


def jsons(folder):
    """uid -> a sample's json, strictly."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            told = [json.loads(tar.extractfile(m).read(), parse_constant=pytest.fail) for m in tar if "json" in m.name]
            found.update({meta["uid"]: meta for meta in told})
    return found


def test_columns_of_every_type_are_kept(web, download, tmp_path):
    table = {"uid": [uid(1)], "url": [f"{web}/1"], "text": ["one"]}
    pq.write_table(pa.table({**table, **{n: a for n, (a, _) in KINDS.items()}}), tmp_path / "a.parquet")
    code, said, err = download(tmp_path / "a.parquet", *[word for name in KINDS for word in ("--keep", name)])
    assert code == 0 and "rows 1 = ok 1 + failed 0" in said and "error" not in said and "Traceback" not in err
    meta = jsons(tmp_path / "out")[uid(1)]
    assert {name: meta[name] for name in KINDS} == {name: wanted for name, (_, wanted) in KINDS.items()}
    written = pl.read_parquet(tmp_path / "out" / "00000000.parquet").row(0, named=True)
    assert {name: written[name] for name in KINDS} == {name: wanted for name, (_, wanted) in KINDS.items()}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_column_is_plain_wherever_it_is_cut(data):
    name = data.draw(st.sampled_from(sorted(KINDS)))
    array, wanted = KINDS[name]
    null = pa.nulls(1, array.type) if name != "dictionary" else pa.array([None], pa.string()).dictionary_encode()
    picks = data.draw(st.lists(st.booleans(), min_size=1, max_size=6))
    chunks = [array if pick else null for pick in picks]
    whole = pa.chunked_array(chunks if name == "dictionary" else [pa.concat_arrays(chunks)])
    start, length = (data.draw(st.integers(0, 6)) for _ in range(2))
    found = plain_column(whole.slice(start, length), "x").to_pylist()
    assert found == [wanted if pick else None for pick in picks][start : start + length]


def test_what_json_has_no_form_for_is_refused():
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    for array in (pa.array([pa.MonthDayNano([1, 2, 3])]), pa.array([[pa.MonthDayNano([1, 2, 3])]]), twice):
        with pytest.raises(UsageError, match="--keep x: .* has no form in json"):
            plain_column(pa.chunked_array([array]), "x")


def test_lists_whose_columns_differ(web, download, tmp_path):
    write_list(tmp_path / "a.parquet", [f"{web}/1"], n=[1])
    pl.DataFrame({"n": [2.5], "text": ["two"], "extra": [1], "url": [f"{web}/2"], "uid": [uid(7)]}).write_parquet(
        tmp_path / "b.parquet"
    )
    (tmp_path / "c.csv").write_text(f"text,url,uid,n\n007,{web}/3,{uid(8)},\n")
    lists = [tmp_path / name for name in ("a.parquet", "b.parquet", "c.csv")]
    code, said, _ = download(*lists, "--keep", "n", "--shard-size", 3)
    found = jsons(tmp_path / "out")
    assert code == 0 and "rows 3 = ok 3" in said and found[uid(8)]["caption"] == "007"
    assert {u: meta["n"] for u, meta in found.items()} == {uid(0): 1.0, uid(7): 2.5, uid(8): None}
    write_list(tmp_path / "d.parquet", [f"{web}/1"], n=["many"])
    with pytest.raises(UsageError, match=r"it is int64 in .*a.parquet and string in .*d.parquet"):
        plan_lists(str(tmp_path / "o"), [str(lists[0]), str(tmp_path / "d.parquet")], Columns(keep=("n",)), 9, {})


def test_uids_of_digits_in_a_csv_stay_as_they_are(tmp_path):
    (tmp_path / "a.csv").write_text(f"url,text,uid\nhttp://a,1.50,{'0' * 31}1\nhttp://b,NA,{'1' * 32}\n")
    (table,) = rows(str(tmp_path / "a.csv"), Columns())
    assert table["uid"].to_pylist() == ["0" * 31 + "1", "1" * 32] and table["caption"].to_pylist() == ["1.50", "NA"]


def test_the_tar_is_believed_over_the_stats(web, download, tmp_path):
    out = tmp_path / "out"
    path = write_list(tmp_path / "a.parquet", [f"{web}/{i}" for i in range(6)])
    assert download(path, "--shard-size", 3)[0] == 0
    with tarfile.open(out / "00000001.tar") as tar:
        kept = [(m, tar.extractfile(m)) for m in tar if m.name.startswith("000000010001")]
        with tarfile.open(tmp_path / "less.tar", "w") as less:
            for member, data in kept:
                less.addfile(member, data)
    (tmp_path / "less.tar").rename(out / "00000001.tar")
    code, said, _ = download(path, "--shard-size", 3)
    assert code == 3 and "rows 6 = ok 4 + failed 2" in said
    assert "_stats.json tell of 6, their tars hold 4" in said and "inspect: error lost" in said
    (out / "00000000_stats.json").write_text("{")
    (out / "00000000.parquet").write_bytes(b"")
    code, said, _ = download(path, "--shard-size", 3, "--retry-failed", "--json")
    told = json.loads(said)
    assert (told["ok"], told["failed"], told["tried_again"]) == (6, 0, 2) and code == 0
    (out / "_lists" / "plan.json").write_text("{")
    code, _, err = download(path, "--shard-size", 3)
    assert code == 1 and "plan.json: is damaged" in err and "Traceback" not in err
    (out / "_lists" / "00000000.arrow").write_bytes(b"no")
    with pytest.raises(DataError, match="00000000.arrow"):
        read_piece(str(out), 0)


def test_what_img2dataset_could_not_write_is_no_success(web, download, tmp_path, monkeypatch):
    from img2dataset.writer import WebDatasetSampleWriter

    write = WebDatasetSampleWriter.write

    def fails(self, img_str, key, caption, meta):
        if img_str is not None and key.endswith("1"):
            raise TypeError("cannot be serialised")
        return write(self, img_str, key, caption, meta)

    monkeypatch.setattr(WebDatasetSampleWriter, "write", fails)
    path = write_list(tmp_path / "a.parquet", [f"{web}/{i}" for i in range(3)])
    code, said, _ = download(path)
    assert code == 3 and "rows 3 = ok 2 + failed 1" in said and f"1 x {UNWRITTEN}" in said and "error" not in said
    stats = json.loads((tmp_path / "out" / "00000000_stats.json").read_text())
    assert stats["successes"] == 2 and stats["status_dict"] == {"success": 2, UNWRITTEN: 1}
    monkeypatch.undo()
    assert download(path, "--retry-failed")[0] == 0 and len(jsons(tmp_path / "out")) == 3


def test_equal_rows_whose_image_came_late(web, download, tmp_path, monkeypatch):
    monkeypatch.setattr(Picture, "missing", {"/late", "/never"})
    urls = [f"{web}/{name}" for name in ("late", "1", "late", "2", "2", "never", "late")]
    pl.DataFrame({"url": urls, "text": ["one"] * 7}).write_csv(tmp_path / "a.csv")
    code, said, _ = download(tmp_path / "a.csv", "--shard-size", 2)
    assert code == 3 and "rows 7 = ok 3 + failed 4" in said
    monkeypatch.setattr(Picture, "missing", {"/never"})
    code, said, _ = download(tmp_path / "a.csv", "--shard-size", 2, "--retry-failed")
    assert code == 3 and "rows 7 = ok 4 + repeated 2 + failed 1" in said
    monkeypatch.setattr(Picture, "missing", set())
    code, said, _ = download(tmp_path / "a.csv", "--shard-size", 2, "--retry-failed", "--json")
    told = json.loads(said)
    assert (code, told["ok"], told["repeated"], told["failed"], told["tried_again"]) == (0, 5, 2, 0, 1)


def test_reasons_are_a_line_each_and_stats_may_be_nested_without_end(web, download, tmp_path):
    path = write_list(tmp_path / "a.parquet", [f"{web}/{i}" for i in range(2)])
    assert download(path, "--shard-size", 1)[0] == 0
    answers = {"success": 1, "OpenCV(4): error:\n(-215)\tok 9": 1}
    stats = json.dumps({"successes": 1, "status_dict": answers})
    (tmp_path / "out" / "00000000_stats.json").write_text(stats)
    code, said, _ = download(path, "--shard-size", 1)
    assert code == 0 and r"1 x OpenCV(4): error:\u000a(-215)\u0009ok 9" in said
    nested = tmp_path / "out" / "00000001_stats.json"
    nested.write_text("[" * 100_000)
    assert module._counts(str(tmp_path / "out"), [0, 1])["success"] == 1
    (tmp_path / "out" / "_lists" / "plan.json").write_text("[" * 100_000)
    code, _, err = download(path, "--shard-size", 1)
    assert code == 1 and "plan.json: is damaged" in err and "Traceback" not in err


RUN = """
import sys, img2dataset

if __name__ == "__main__":
    path, out = sys.argv[1:]
    columns = {"url_col": "url", "caption_col": "text", "save_additional_columns": ["uid"]}
    wide = {"processes_count": 1, "thread_count": 2, "number_sample_per_shard": 1, "oom_shard_count": 8}
    form = {"input_format": "parquet", "output_format": "webdataset", "incremental_mode": "incremental"}
    img2dataset.download(path, output_folder=out, **form, **columns, **wide)
"""


def test_img2dataset_itself_goes_on_in_the_folder(web, download, tmp_path):
    path = write_list(tmp_path / "a.parquet", [f"{web}/{i}" for i in range(3)])
    out = tmp_path / "out"
    assert download(path, "--shard-size", 1)[0] == 0
    names = [p.name for p in out.iterdir() if p.suffix == ".json"]
    assert sorted(names) == [f"0000000{n}_stats.json" for n in range(3)]
    (out / "00000001_stats.json").unlink()
    (tmp_path / "run.py").write_text(RUN)
    words = [sys.executable, tmp_path / "run.py", path, out]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert (out / "00000001_stats.json").exists() and len(jsons(out)) == 3
    code, said, _ = download(path, "--shard-size", 1)
    assert code == 0 and "rows 3 = ok 3" in said

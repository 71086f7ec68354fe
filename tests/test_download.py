"""`download` against a server on loopback whose answers are good, slow, broken, redirecting and hostile."""

import io
import json
import socket
import struct
import tarfile
import threading
import time
import zlib
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from store_util import served, store
from tars import jpeg, uid
from url_util import write_list

from jobs import download as module
from jobs import polite
from jobs.cluster import Width
from jobs.download import Asked, Fetching, download_lists
from mmfilter import storage
from mmfilter.errors import ConflictError, MissingDependency
from mmfilter.records import Sample
from mmfilter.samples import read_samples
from mmfilter.url_lists import Columns

pytestmark = pytest.mark.slow  # together, not each

__all__ = ["served", "store"]  # fixtures

LOCAL = Width(local=True)
QUICK = Fetching(timeout=2, retries=0, threads=16, max_bytes=1 << 20, allow_private=True)


def bomb():
    """A PNG of 65,500 x 65,500 pixels by its header, in 100 bytes."""
    head = struct.pack(">IIBBBBB", 65500, 65500, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


class Answers(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        with self.server.lock:
            self.server.asked.append(self.path)
        kind = self.path.split("/")[1].split("-")[0]
        try:
            getattr(self, f"_{kind}", self._missing)()
        except OSError:
            pass  # the other side had enough

    def _send(self, data, status=200, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(data)

    def _missing(self):
        self._send(b"no", 404)

    def _good(self):
        self._send(jpeg(size=(640, 480)))

    def _flaky(self):
        self.server.flaky += 1
        self._send(jpeg()) if self.server.flaky > 1 else self._send(b"busy", 503)

    def _slow(self):
        time.sleep(6)
        self._send(jpeg())

    def _redirect(self):
        self._send(b"", 302, Location="/good")

    def _loop(self):
        self._send(b"", 302, Location=self.path)

    def _local(self):
        self._send(b"", 302, Location="file:///etc/hostname")

    def _html(self):
        self._send(b"<html><script>alert(1)</script>", Content_Type="image/jpeg")

    def _bomb(self):
        self._send(bomb())

    def _short(self):
        self._send(jpeg()[:200], Content_Length=len(jpeg()))

    def _noai(self):
        self._send(jpeg(), X_Robots_Tag="noai")

    def _endless(self):
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(bytes(1 << 16))

    def _drip(self):
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b".")
            time.sleep(0.1)

    def _headers(self):
        while True:
            self.wfile.write(b"H")
            time.sleep(0.1)


@pytest.fixture(scope="module")
def web():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads, server.asked, server.lock, server.flaky = True, [], threading.Lock(), 0
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def fetching(monkeypatch):
    pytest.importorskip("img2dataset", reason="img2dataset is not installed: pip install 'mmfilter[download]'")
    monkeypatch.setattr("jobs.fetcher.PATIENCE", 2)
    yield
    polite.urllib.request.install_opener(None)


def found(out):
    """uid -> sample, over all shards."""
    samples = [s for path in storage.expand(str(out)) for s in read_samples(path)]
    assert all(isinstance(s, Sample) for s in samples)
    return {s.uid: s for s in samples}


KINDS = ["good", "redirect", "flaky", "missing", "slow", "loop", "local", "html", "bomb", "short", "noai"]
HOSTILE = ["endless", "drip", "headers"]


@pytest.mark.slow
def test_every_kind_of_answer_and_only_failures_are_asked_again(web, fetching, tmp_path):
    kinds = [*KINDS, *HOSTILE, "good-2"]
    urls = [f"{web.url}/{kind}" for kind in kinds] + ["file:///etc/hostname", "not a url", ""]
    path = write_list(tmp_path / "list.parquet", urls, licence=["cc"] * len(urls))
    asked = Asked((path,), str(tmp_path / "out"), Columns(keep=("licence",)), 7, QUICK)
    web.asked.clear()
    started = time.monotonic()
    first = download_lists(asked, LOCAL)
    assert time.monotonic() - started < 60
    assert (first["rows"], first["ok"], first["failed"], first["shards"]) == (18, 3, 15, 3)
    samples = found(tmp_path / "out")
    assert {kinds[int(u, 16)] for u in samples} == {"good", "redirect", "good-2"}
    one = samples[uid(0)]
    assert one.text == "picture 0" and one.meta["licence"] == "cc" and one.meta["original_width"] == 640
    assert one.key == "000000000000" and max(one.meta["width"], one.meta["height"]) == 512
    assert any("more than 1048576 bytes" in why for why in first["answers"])
    assert any("too long" in why or "timed out" in why for why in first["answers"])

    web.asked.clear()
    same = download_lists(asked, LOCAL)
    assert not web.asked and same["ok"] == 3 and same["shards_done_before"] == 3

    again = download_lists(replace(asked, retry_failed=True), LOCAL)
    assert again["tried_again"] == 15 and again["ok"] == 4 and again["failed"] == 14 and again["shards"] == 6
    assert not [path for path in web.asked if path.startswith("/good") and path != "/good"]
    assert set(found(tmp_path / "out")) == {uid(kinds.index(k)) for k in ("good", "redirect", "good-2", "flaky")}
    errors = [f for f in again["inspect"]["findings"] if f["severity"] == "error"]
    assert not errors


def test_an_interrupted_download_goes_on_with_what_is_not_done(web, fetching, tmp_path):
    path = write_list(tmp_path / "list.parquet", [f"{web.url}/good-{i}" for i in range(9)])
    asked = Asked((path,), str(tmp_path / "out"), Columns(), 3, QUICK)
    whole = download_lists(asked, LOCAL)
    (tmp_path / "out/00000001_stats.json").unlink()  # as a killed worker leaves it
    web.asked.clear()
    assert download_lists(asked, LOCAL)["ok"] == whole["ok"] == 9
    assert sorted(web.asked) == [f"/good-{i}" for i in (3, 4, 5)]
    with pytest.raises(ConflictError, match="its shard_size were 3 and are 4"):
        download_lists(Asked((path,), str(tmp_path / "out"), Columns(), 4, QUICK), LOCAL)


def test_to_an_object_store_and_again_what_failed(web, fetching, store, tmp_path):
    kinds = ("good", "good-2", "flaky", "good-3")
    path = write_list(tmp_path / "list.parquet", [f"{web.url}/{kind}" for kind in kinds])
    asked = Asked((path,), f"{store.root}/shards", Columns(), 2, QUICK)
    web.asked.clear()
    web.flaky = 0
    store.weather.storm(0.1, "busy", "lost", "slow")
    first = download_lists(asked, LOCAL)
    again = download_lists(replace(asked, retry_failed=True), LOCAL)
    store.weather.calm()
    assert (first["ok"], first["failed"], again["ok"], again["failed"]) == (3, 1, 4, 0)
    assert set(found(f"{store.root}/shards")) == {uid(n) for n in range(4)}
    assert again["shards"] == len(storage.expand(f"{store.root}/shards")) == 3
    assert not [f for f in again["inspect"]["findings"] if f["severity"] == "error"]


def test_private_addresses_are_not_asked(web, fetching, tmp_path):
    path = write_list(tmp_path / "list.parquet", [f"{web.url}/good"])
    web.asked.clear()
    closed = Fetching(timeout=1, retries=0, threads=2)
    result = download_lists(Asked((path,), str(tmp_path / "out"), Columns(), 3, closed), LOCAL)
    assert result["ok"] == 0 and not web.asked
    assert any("not on the open network" in why for why in result["answers"])


def test_the_command(web, fetching, tmp_path, mmfilter):
    path = write_list(tmp_path / "list.parquet", [f"{web.url}/good", f"{web.url}/missing"])
    words = ("download", path, "--out", tmp_path / "out", "--retries", 0, "--timeout", 2, "--local", "--json")
    code, out, _ = mmfilter(*words, "--allow-private")
    told = json.loads(out)
    assert code == 3 and (told["rows"], told["ok"], told["failed"]) == (2, 1, 1)
    with tarfile.open(tmp_path / "out/00000000.tar") as tar:
        assert sorted(tar.getnames()) == [f"000000000000.{e}" for e in ("jpg", "json", "txt")]


def test_nothing_is_waited_for_beyond_its_time():
    """A socket that is overdue is shut, whatever its reader waits for."""
    here, there = socket.socketpair()
    watch = polite._Watch()
    watch.add(here, time.monotonic() + 0.1)
    here.settimeout(10)
    started = time.monotonic()
    assert here.recv(1) == b"" and time.monotonic() - started < 5
    there.close()


class _Answer(io.BytesIO):
    length = 0


def test_bounded_reads():
    soon = time.monotonic() + 60
    assert polite.Bounded(_Answer(b"x" * 100), 100, soon).read() == b"x" * 100
    with pytest.raises(OSError, match="more than 99 bytes"):
        polite.Bounded(_Answer(b"x" * 100), 99, soon).read()
    with pytest.raises(TimeoutError):
        polite.Bounded(_Answer(b"x"), 99, time.monotonic() - 1).read()
    short = _Answer(b"x")
    short.length = 9
    with pytest.raises(OSError, match="1 of 10 bytes came"):
        polite.Bounded(short, 99, soon).read()


def test_an_absent_img2dataset_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(MissingDependency, match=r"mmfilter\[download\]"):
        download_lists(Asked((str(tmp_path),), str(tmp_path / "o"), Columns()), LOCAL)

"""Which URLs are opened, and that an address is known to be public before anything is sent to it."""

import json
import socket
import threading
import urllib.request
from itertools import pairwise

import pytest
from tars import samples, tar

from index.service import fetch as fetching
from index.service.fetch import public
from jobs import polite
from mmfilter import storage
from mmfilter.errors import UsageError
from mmfilter.schemes import check_scheme

REFUSED = [
    "sftp://host/x", "ssh://host/x", "smb://host/x", "github://o:r@/x", "git://x", "zip://x.zip", "tar://a.tar",
    "simplecache::s3://b/x", "filecache::http://h/x", "blockcache::s3://b/x", "reference://x.json", "hdfs://h/x",
    "webhdfs://h/x", "dask://x", "libarchive://x", "jupyter://h/x", "dbfs://h/x", "oci://b/x", "abfs://c/x",
    "ftp://h/x", "s3://b/x::zip://y", "zip://a.tar::s3://b/x", "dir::s3://b/x", "root://h/x", "S3://b/x", "data://x",
    "generic://x", "box://x", "lakefs://x", "hg+ssh://h/x",
]  # fmt: skip


@pytest.mark.parametrize("path", REFUSED)
def test_other_schemes_are_refused_in_a_sentence(path, monkeypatch):
    monkeypatch.setattr("fsspec.filesystem", lambda *_, **__: pytest.fail("a driver was asked for"))
    with pytest.raises(UsageError, match="no storage is known|in a chain"):
        check_scheme(path)
    if storage.is_remote(path):
        for call in (storage.exists, storage.read_bytes, storage.list_files, storage.size):
            with pytest.raises(UsageError):
                call(path)


def test_what_is_opened_and_local_paths_are_taken():
    for path in ("s3://b/x", "gs://b", "hf://datasets/a/b", "http://h/x", "file:///x", "memory://x", "a::b", "/x/a://b",
                 "a b://c", "x", "C:/x", "s3://b/a::b"):  # fmt: skip
        check_scheme(path)


@pytest.mark.parametrize(
    "words",
    [
        ("embed", "demo", "--pool", "{}", "--out", "out"), ("embed", "demo", "--pool", "pool", "--out", "{}"),
        ("select", "demo", "--out", "{}"), ("reshard", "{}", "--pool", "{}", "--out", "out"), ("inspect", "{}"),
        ("download", "{}.csv", "--out", "out"), ("report", "{}"), ("index", "{}", "--model", "demo"), ("serve", "{}"),
        ("train", "--pool", "{}", "--out", "out"), ("status", "{}"),
        ("select", "demo", "--out", "o", "--metadata", "{}"),
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("url", ["sftp://127.0.0.1:9/x", "simplecache::s3://b/x"])
def test_every_verb_says_so(words, url, mmfilter, tmp_path):
    if "::" in url and (words[0] == "inspect" or ("--pool", "{}") in pairwise(words)):
        pytest.skip("'::' joins several pools there")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "0.tar").write_bytes(tar(samples(2)))
    plain = {word: str(tmp_path / word) for word in ("pool", "out", "o")}
    code, _, err = mmfilter(*(plain.get(word, word.format(url)) for word in words))
    assert code in (1, 2) and "Traceback" not in err and ("no storage is known" in err or "in a chain" in err), err
    assert not any("::" in path.name for path in tmp_path.iterdir())


def test_a_commits_tar_at_a_foreign_scheme_reaches_no_driver(tmp_path, monkeypatch):
    monkeypatch.setattr("fsspec.filesystem", lambda *_, **__: pytest.fail("a driver was asked for"))
    path = json.loads(json.dumps({"path": "sftp://127.0.0.1/0.tar"}))["path"]
    with pytest.raises(UsageError, match="no storage is known"):
        storage.open_read(path)


@pytest.mark.parametrize(
    "address",
    [
        "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "::127.0.0.1", "::10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1",
        "2002:7f00:1::1", "2001:0:7f00:1::1", "2001:db8::1", "fec0::1", "fd00::1", "2606:2800:220:1:0:5efe:7f00:1",
        "2606:2800:220:1:200:5efe:7f00:1", "192.88.99.1", "198.18.0.1", "240.0.0.1", "0x7f.1", "2130706433", "",
    ],
)  # fmt: skip
def test_addresses_that_lead_elsewhere_are_not_public(address):
    assert not public(address)
    assert public("2606:2800:220:1:248:1893:25c8:1946") and public("8.8.8.8") and public("2a00:1450:4001::200e")


class Listener:
    """Counts connections, and answers each with the same bytes."""

    def __init__(self, address, answer=b""):
        self.socket, self.count, self.answer = socket.create_server((address, 0)), 0, answer
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            client, _ = self.socket.accept()
            self.count += 1
            client.recv(1 << 16)
            client.sendall(self.answer)
            client.close()


@pytest.fixture
def opener():
    polite.install(1 << 20, 5, private=False)
    yield urllib.request.urlopen
    urllib.request.install_opener(None)


def test_no_private_address_is_connected_to(opener, monkeypatch):
    server = Listener("127.0.0.1", b"HTTP/1.0 200 OK\r\n\r\nsecret")
    for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0", "[::ffff:127.0.0.1]"):
        with pytest.raises(OSError, match="not on the open network|refused|not known|invalid|unreachable"):
            opener(f"http://{host}:{server.port}/")
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, server.port)) for a in ("93.184.216.34", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(OSError, match="not on the open network"):
        opener(f"http://rebinding.example:{server.port}/")
    assert server.count == 0


def test_nor_after_a_redirect_and_the_address_is_looked_up_once(opener, monkeypatch):
    inside = Listener("127.0.0.2", b"HTTP/1.0 200 OK\r\n\r\nsecret")
    away = f"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.2:{inside.port}/\r\n\r\n".encode()
    outside, plain = Listener("127.0.0.1", away), Listener("127.0.0.1", b"HTTP/1.0 200 OK\r\n\r\npicture")
    monkeypatch.setattr(fetching, "public", lambda address: address == "127.0.0.1")
    with pytest.raises(OSError, match="not on the open network"):
        opener(f"http://127.0.0.1:{outside.port}/")
    assert (outside.count, inside.count) == (1, 0)
    real, asked = socket.getaddrinfo, []

    def changing(host, port, *words, **options):  # a name that leads inside at the second look
        asked.append(host)
        if host != "changing.example":
            return real(host, port, *words, **options)
        address = "127.0.0.1" if asked.count(host) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", changing)
    assert opener(f"http://changing.example:{plain.port}/").read() == b"picture"
    assert asked.count("changing.example") == 1 and inside.count == 0

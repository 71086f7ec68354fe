"""The service against bad days and bad people: faults 51 to 55, tokens, headers, fuzz."""

import asyncio
import http.server
import json
import socket
import threading
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from serve_util import ExactIndex, copied_out, serving
from vouching import record_again

from index.knn import KnnIndex
from index.service import fetch as fetching
from index.service.app import create_app
from index.service.fetch import fetch, public
from index.service.settings import Refused, Settings
from mmfilter.json_file import encode

POSTS = ("/api/search", "/api/preview", "/api/export", "/knn-service", "/metadata")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return copied_out(tmp_path_factory)


@pytest.fixture(scope="module")
def client(out):
    with TestClient(create_app([str(out)], Settings(models=False)), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def website():
    """A web server on the loopback that counts who asks; its URL."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/redirect":
                self.send_response(302)
                self.send_header("Location", "/image")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * (5000 if self.path == "/large" else 10))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.asked = asked
    yield server
    server.shutdown()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1", "localhost",
    ],
)  # fmt: skip
def test_fault_51_addresses_that_are_not_public(address):
    assert not public(address)
    assert public("93.184.216.34") and public("2606:2800:220:1:248:1893:25c8:1946")


def test_fault_51_nothing_is_fetched_that_was_not_allowed(client, website):
    port = website.server_address[1]
    for url in (
        f"http://127.0.0.1:{port}/image", f"http://localhost:{port}/", "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd", "ftp://example.org/a", "gopher://127.0.0.1/", "//127.0.0.1/", "http://", "http://[::1]/",
        "http://[", "javascript:alert(1)", "https://example.org/a.jpg", "http://example.org:99999999/",
    ):  # fmt: skip
        answer = client.post("/knn-service", json={"image_url": url})
        assert answer.status_code in (400, 403), url
    assert not website.asked


def test_fault_51_an_allowed_host_must_be_public_and_is_asked_once(website, monkeypatch):
    port = website.server_address[1]
    hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(Refused, match="not public"):
            fetch(f"http://{host}:{port}/image", hosts, 1000)
    with pytest.raises(Refused, match="not allowed"):
        fetch(f"http://user@localhost:{port}/image", hosts, 1000)
    both = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in ("93.184.216.34", "127.0.0.1")]
    with monkeypatch.context() as patch:  # a name with a public and a private address
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        with pytest.raises(Refused, match="not public"):
            fetch(f"http://localhost:{port}/image", hosts, 1000)
    assert not website.asked
    monkeypatch.setattr(fetching, "public", lambda address: address == "127.0.0.1")
    here = f"http://localhost:{port}"
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [both[1]])
    assert fetch(f"{here}/image", hosts, 1000) == b"x" * 10
    with pytest.raises(Refused, match="302"):
        fetch(f"{here}/redirect", hosts, 1000)
    with pytest.raises(Refused, match="over 1,000 bytes"):
        fetch(f"{here}/large", hosts, 1000)
    with pytest.raises(Refused, match="percent"):
        fetch(f"{here}/a b", hosts, 1000)
    assert website.asked == ["/image", "/redirect", "/large"]


def test_fault_52_oversize_bodies(out):
    import httpx

    def chunks():
        for _ in range(64):
            yield b" " * 1024

    with (
        serving(create_app([str(out)], Settings(body=10_000, models=False))) as url,
        httpx.Client(base_url=url) as client,
    ):
        for content in (b" " * 10_001, chunks()):
            answer = client.post("/api/search", content=content, headers={"content-type": "application/json"})
            assert answer.status_code == 413 and "10,000 bytes" in answer.json()["error"]
        with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
            raw.sendall(b"POST /api/search HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999\r\n\r\n")
            assert b" 413 " in raw.recv(1000)
        assert client.post("/api/search", json={"k": 2}).status_code == 200


def test_fault_52_a_body_that_does_not_come(out):
    app = create_app([str(out)], Settings(body_seconds=0.2, models=False))
    with serving(app) as url, socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as raw:
        raw.sendall(b"POST /api/search HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        assert b" 408 " in raw.recv(1000)


@pytest.mark.parametrize("k", [10**9, 10_001, 0, -1, 2**70, "many", None, 1.5])
def test_fault_53_k_without_measure(client, k):
    for path, body in (
        ("/api/search", {"k": k}),
        ("/knn-service", {"num_images": k}),
        ("/knn-service", {"num_result_ids": k}),
    ):
        if path == "/knn-service" and k is None:
            continue  # its client sends null where it has nothing to say
        body |= {"embedding_input": [1.0] * 128} if path == "/knn-service" else {"vector": [1.0] * 128}
        assert client.post(path, json=body).status_code in (400, 422), body


def test_fault_54_load_past_capacity_is_shed_and_the_service_stays_up(out, monkeypatch):
    import httpx

    slow = threading.Event()
    search = KnnIndex.search
    monkeypatch.setattr(KnnIndex, "search", lambda *a, **k: slow.wait(10) and search(*a, **k))
    body = {"vector": [1.0] * 128, "k": 3}

    async def many(url):
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            asked = [asyncio.ensure_future(client.post("/api/search", json=body)) for _ in range(40)]
            while sum(task.done() for task in asked) < 36:
                await asyncio.sleep(0.01)
            assert (await client.get("/metrics")).status_code == 200  # told even now
            slow.set()
            return await asyncio.gather(*asked)

    with serving(create_app([str(out)], Settings(concurrency=4, models=False))) as url:
        answers = asyncio.run(many(url))
        statuses = [answer.status_code for answer in answers]
        assert sorted(set(statuses)) == [200, 503] and statuses.count(200) == 4
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert refused.headers["retry-after"] == "1" and "ask again" in refused.json()["error"]
        assert httpx.post(f"{url}/api/search", json=body).status_code == 200
        assert "mmfilter_shed_total 36.0" in httpx.get(f"{url}/metrics").text


def test_fault_55_a_script_in_a_caption_is_text(out, tmp_path):
    import shutil

    import pyarrow as pa
    import pyarrow.parquet as pq

    evil = '</script><script>alert("x")</script><img src=x onerror=alert(1)>&\u2028\x00'
    copy = shutil.copytree(out, tmp_path / "out")
    path = copy / "metadata" / "00000000.parquet"
    table = pq.read_table(path)
    rows = table.num_rows
    for name in ("text", "url"):
        table = table.set_column(table.column_names.index(name), name, pa.array([evil] * rows))
    pq.write_table(table, path)
    record_again(copy, "00000000")
    uid = table["uid"][0].as_py()
    with TestClient(create_app([str(copy)], Settings(models=False))) as client:
        row = ExactIndex(str(copy), "demo-image").rows[0].tolist()
        answers = [
            client.post("/api/search", json={"uid": uid, "k": 1}),
            client.get(f"/api/sample/{uid}"),
            client.get(f"/api/sample/{quote(evil)}"),
            client.get("/api/histogram/<script>alert(1)<%2Fscript>"),
            client.post("/knn-service", json={"embedding_input": row, "num_images": 1}),
            client.post("/metadata", json={"ids": [0]}),
            client.post("/api/search", json={"where": evil, "<script>": 1}),
        ]
    for answer in answers:
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert not set(answer.text) & set("<>&\u2028\x00")
    assert answers[0].json()["hits"][0]["text"] == evil == answers[1].json()["text"]
    assert answers[4].json()[0]["caption"] == evil == answers[5].json()[0]["metadata"]["caption"]


def test_files_that_are_no_pictures_are_bytes(out, tmp_path, client):
    """What stands in a tar is never shown as a page, whatever it is."""
    from index.service.images import _type

    assert _type(b"<html><script>") == _type(b"<svg xmlns=") == "application/octet-stream"
    assert _type(b"\xff\xd8\xff\xe0") == "image/jpeg"


def test_a_token_is_asked_for_everywhere_but_on_the_page(out):
    app = create_app([str(out)], Settings(token="séc ret", models=False))
    with TestClient(app) as client:
        for path in ("/api/info", "/metrics", "/docs", "/openapi.json", "/indices-list", "/page", "//page/../api/info"):
            assert client.get(path).status_code == 401, path
        for path in POSTS:
            assert client.post(path, json={}).status_code == 401
        for wrong in ("Bearer wrong", "séc ret", "Basic séc ret", "Bearer séc ret ", ""):
            assert client.get("/api/info", headers={"Authorization": wrong.encode()}).status_code == 401
        assert client.get("/").status_code == 200
        token = {"Authorization": "Bearer séc ret".encode()}
        assert client.get("/api/info", headers=token).status_code == 200
        answer = client.post("/api/session", headers=token)
        assert "HttpOnly" in answer.headers["set-cookie"] and "SameSite=strict" in answer.headers["set-cookie"]
        assert "ret" not in answer.headers["set-cookie"].split(";")[0].partition("=")[2]
        assert client.get("/api/info").status_code == 200  # by the cookie, as an image is asked for
        client.cookies.clear()
        client.cookies.set("mmfilter_session", "0" * 64)
        assert client.get("/api/info").status_code == 401


def test_a_tar_that_is_gone_costs_its_pictures(tmp_path_factory):
    copy = copied_out(tmp_path_factory)
    told = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_bytes(encode({**told, "pool": ["/nowhere/00000000.tar", *told["pool"][1:]]}))
    with TestClient(create_app([str(copy)], Settings(models=False))) as client:
        hit = client.post("/api/search", json={"k": 1, "among": {"where": "original_width > 0"}}).json()["hits"][0]
        uids = [hit["uid"] for hit in client.post("/api/search", json={"k": 240}).json()["hits"]]
        statuses = {client.get(f"/api/image/{uid}").status_code for uid in uids}
    assert hit and statuses == {200, 404}

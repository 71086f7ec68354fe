"""What strangers may not do to the service: each fault by its number, and the token."""

import http.server
import socket
import threading
import time

import httpx
import pytest
from fastapi.testclient import TestClient
from serve_util import serving, shared_out
from tars import jpeg, uid

from index.service import fetch as fetching
from index.service.app import create_app
from index.service.settings import Refused, Settings
from mmfilter import errors

BODY = 1 << 20


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return shared_out(tmp_path_factory)


@pytest.fixture(scope="module")
def client(out):
    app = create_app([str(out)], Settings(models=False, body=BODY))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


class Site:
    """A local web server that counts what it is asked."""

    def __init__(self):
        site = self
        self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                site.asked.append(self.path)
                status = 302 if self.path == "/away" else 200
                data = {"/big": b"x" * (BODY + 1)}.get(self.path, jpeg())
                self.send_response(status)
                self.send_header("Location", "/image.jpg")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def site():
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def test_fault_51_nothing_is_fetched_by_default(client, site):
    here = f"{site.port}/image.jpg"
    urls = [f"http://{host}:{here}" for host in ("127.0.0.1", "localhost", "[::1]", "0x7f000001", "2130706433", "0")]
    urls += ["http://169.254.169.254/latest/meta-data", "http://10.0.0.1/", "file:///etc/passwd", "gopher://x/", "//x"]
    urls += [f"http://allowed.example@127.0.0.1:{here}", "http://[", "http://x:99999/", "http://\u2488.com/", "data:,x"]
    for url in urls:
        answer = client.post("/knn-service", json={"image_url": url})
        assert answer.status_code in (400, 403), url
    assert site.asked == []


def test_fault_51_an_allowed_host_at_a_private_address_is_refused(site, monkeypatch):
    with pytest.raises(Refused, match="not public") as refusal:
        fetching.fetch(f"http://localhost:{site.port}/", (f"localhost:{site.port}",), BODY)
    assert refusal.value.status == 403
    both = [(0, 0, 0, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(Refused, match="not public"):  # one bad address of several is enough
        fetching.fetch("http://images.example/", ("images.example",), BODY)
    with pytest.raises(Refused, match="not allowed"):  # the port is part of what was allowed
        fetching.fetch("http://images.example:8080/", ("images.example",), BODY)
    assert site.asked == []


NOT_PUBLIC = """127.0.0.1 127.9.9.9 0.0.0.0 10.1.1.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 224.0.0.1
255.255.255.255 ::1 :: fe80::1 fe80::1%eth0 fc00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1
2002:7f00:1:: 2001:0:7f00:1:: 192.0.2.1 2001:db8::1 not-one"""


def test_fault_51_addresses():
    assert [address for address in NOT_PUBLIC.split() if fetching.public(address)] == []
    assert fetching.public("93.184.216.34") and fetching.public("2606:4700::1111")


def test_fault_51_redirects_are_not_followed_and_sizes_are_bounded(site, monkeypatch):
    monkeypatch.setattr(fetching, "public", lambda _: True)  # as if the test's own server were on the open network
    here, hosts = f"http://localhost:{site.port}", (f"localhost:{site.port}",)
    assert fetching.fetch(f"{here}/image.jpg", hosts, BODY) == jpeg()
    with pytest.raises(Refused, match="302"):
        fetching.fetch(f"{here}/away", hosts, BODY)
    with pytest.raises(Refused, match="over"):
        fetching.fetch(f"{here}/big", hosts, BODY)
    with pytest.raises(Refused, match="percent-encoded"):
        fetching.fetch(f"{here}/a b", hosts, BODY)
    assert site.asked == ["/image.jpg", "/away", "/big"]


def test_fault_52_oversize_bodies(client):
    assert client.post("/api/search", content=b"x" * (BODY + 1)).status_code == 413
    assert client.post("/knn-service", content=iter([b"x" * 65536] * 20)).status_code == 413  # no length told
    assert client.post("/api/search", headers={"content-length": "9" * 30}, content=b"{}").status_code == 413
    assert client.post("/api/search", json={"k": 1}).status_code == 200


def test_fault_52_a_body_that_never_ends_is_given_up(out):
    app = create_app([str(out)], Settings(models=False, body_seconds=0.3))
    with serving(app) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as slow:
            slow.sendall(b"POST /api/search HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            assert b" 408 " in slow.recv(4096)
        assert httpx.get(f"{url}/api/info").status_code == 200


@pytest.mark.parametrize("k", [10**9, 1001, 10**40, 0, -1, 1.5, "many", None, [1]])
def test_fault_53_k(client, k):
    for path, body in (
        ("/api/search", {"k": k}),
        ("/api/search", {"k": k, "uid": uid(7), "floor": 0.0}),
        ("/knn-service", {"num_images": k, "embedding_input": [1.0]}),
        ("/knn-service", {"num_images": 1, "num_result_ids": k, "embedding_input": [1.0]}),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code in (400, 422) and answer.json()["error"], (path, answer.text)
    assert client.get("/api/duplicates?limit=1000000000").status_code == 422
    assert client.get("/api/histogram/language_score?bins=1000000000").status_code == 422


def test_fault_54_load_past_capacity_is_shed(out, monkeypatch):
    app = create_app([str(out)], Settings(models=False, concurrency=4))
    index = next(iter(app.state.service.first.snapshot.indices.values())).index
    gate, search = threading.Event(), index.search

    def held(*args, **more):
        gate.wait(20)
        return search(*args, **more)

    monkeypatch.setattr(index, "search", held)
    body, statuses = {"uid": uid(7), "k": 1}, []
    with serving(app) as url, httpx.Client(base_url=url, timeout=30, limits=httpx.Limits(max_connections=40)) as client:
        ask = lambda: statuses.append(client.post("/api/search", json=body).status_code)  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 10
        while "mmfilter_working 4.0" not in client.get("/metrics").text and time.monotonic() < until:
            time.sleep(0.02)
        refused = [client.post("/api/search", json=body) for _ in range(20)]
        assert {answer.status_code for answer in refused} == {503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert "mmfilter_shed_total 20.0" in client.get("/metrics").text
        gate.set()
        for thread in threads:
            thread.join(20)
        assert statuses == [200] * 4 and client.post("/api/search", json=body).status_code == 200


def test_a_token_is_wanted_where_one_is_set(out):
    client = TestClient(create_app([str(out)], Settings(models=False, token="sésame")))
    good = {"authorization": "Bearer sésame".encode()}
    for path in ("/api/info", "/metrics", "/indices-list", "/docs", "/openapi.json", f"/api/image/{uid(7)}"):
        for bad in (
            {},
            {"authorization": "Bearer"},
            {"authorization": "Bearer nope"},
            {"cookie": "mmfilter_session=x"},
        ):
            answer = client.get(path, headers=bad)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", path
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert client.get(path, headers=good).status_code == 200
    assert client.get("/").status_code == 200  # the page itself holds nothing
    assert client.post("/api/session", headers=good).status_code == 200
    assert client.get("/api/info").status_code == 200  # by the cookie now
    assert "sésame" not in str(client.cookies.items())


def test_without_the_extra_the_command_says_what_to_install(monkeypatch):
    import typer.testing

    from jobs import cli

    def absent(name):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(errors.importlib, "import_module", absent)
    if not cli.app.registered_commands:
        cli.register()
    done = typer.testing.CliRunner().invoke(cli.app, ["serve", "runs/none"])
    assert isinstance(done.exception, errors.MissingDependency) and "pip install 'mmfilter[serve]'" in str(
        done.exception
    )

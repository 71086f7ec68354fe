"""Connections and origins: half-sent requests, too many of them, clients that do not read, pages of other sites."""

import contextlib
import socket
import threading
import time

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from page_util import served
from serve_util import shared_out

from index.service import connections, guard
from index.service.app import create_app
from index.service.settings import Settings

HALF = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "


async def application(scope, receive, send):
    """Answers with what the path says: `/BYTES`."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    size = int(scope["path"][1:] or 2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(size).encode())]})
    await send({"type": "http.response.body", "body": b"x" * size})


@contextlib.contextmanager
def listening(monkeypatch, most=40, head=1.0, idle=1):
    """A server within these limits: its port."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", head)
    monkeypatch.setattr(connections, "IDLE_SECONDS", idle)
    monkeypatch.setattr(connections, "DRAIN_SECONDS", head)
    monkeypatch.setattr(connections, "OTHERS", 0)
    kind = type("Small", (connections.BoundedProtocol,), {"most": most})
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, log_level="critical", http=kind, ws="none", timeout_keep_alive=idle)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


def connect(port, data=b""):
    client = socket.create_connection(("127.0.0.1", port), 10)
    client.sendall(data)
    return client


def ended(client, seconds):
    """Whether the server closes the connection within `seconds`."""
    client.settimeout(seconds)
    try:
        while client.recv(1 << 16):
            pass
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize(
    "sent", [b"", b"G", HALF, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + HALF, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]
)
def test_a_request_that_does_not_come_is_not_waited_for(monkeypatch, sent):
    with listening(monkeypatch) as port, connect(port, sent) as client:
        assert ended(client, 5)


def test_bytes_now_and_then_win_no_time(monkeypatch):
    with listening(monkeypatch) as port, connect(port, HALF) as client:
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - begun < 8:
                client.sendall(b"a")
                time.sleep(0.1)
        assert time.monotonic() - begun < 4


def test_where_there_are_too_many_the_longest_waiting_are_closed_and_others_answered(monkeypatch):
    with listening(monkeypatch, most=40, head=60.0, idle=60) as port, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connect(port, HALF)) for _ in range(300)]
        time.sleep(0.3)
        for _ in range(5):
            assert httpx.get(f"http://127.0.0.1:{port}/5", timeout=5).text == "xxxxx"
        assert all(ended(client, 1) for client in waiting[:250]) and not ended(waiting[-1], 0.2)


def test_a_client_that_does_not_read_is_closed_and_one_that_reads_slowly_is_served(monkeypatch):
    request = b"GET /30000000 HTTP/1.1\r\nHost: a\r\n\r\n"
    with listening(monkeypatch) as port, connect(port, request) as idle, connect(port, request) as slow:
        got, begun = 0, time.monotonic()
        while time.monotonic() - begun < 5 and (part := slow.recv(1 << 18)):
            got += len(part)
            time.sleep(0.02)
        while part := slow.recv(1 << 20):
            got += len(part)
        assert got > 30_000_000 and ended(idle, 5)


@pytest.mark.slow
def test_the_service_answers_beside_two_thousand_half_sent_requests(tmp_path_factory, tmp_path):
    (tmp_path / "out").symlink_to(shared_out(tmp_path_factory))
    with served(tmp_path / "out", "--no-models", MMFILTER_TOKEN="secret") as address, contextlib.ExitStack() as stack:
        port, token = int(address.rpartition(":")[2]), {"Authorization": "Bearer secret"}
        for number in range(2000):
            with contextlib.suppress(OSError):
                stack.enter_context(connect(port, HALF))
            if number % 400 == 399:
                begun = time.monotonic()
                assert httpx.get(f"{address}/api/info", headers=token, timeout=10).status_code == 200
                assert time.monotonic() - begun < 3


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return str(shared_out(tmp_path_factory))


FRONT = "https://front.example"
ROUTES = [
    ("POST", "/api/search"), ("POST", "/api/preview"), ("POST", "/api/export"), ("POST", "/api/session"),
    ("POST", "/knn-service"), ("POST", "/metadata"), ("GET", "/api/info"), ("GET", "/indices-list"),
    ("GET", "/metrics"),
    ("GET", "/"), ("DELETE", "/api/info"),
]  # fmt: skip


def test_a_page_of_another_origin_asks_for_nothing(out):
    app = create_app([out], Settings(models=False, cors=(FRONT,), names=("pool.example", "localhost", "testserver")))
    with TestClient(app) as client:
        for method, path in ROUTES:
            for headers in (
                {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:9999"},
                {"Origin": "http://testserver.evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "x"},
                {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, {"Origin": "http://[::1"},
                {"Origin": "http://localhost:9999", "Sec-Fetch-Site": "same-site"},
            ):  # fmt: skip
                answer = client.request(method, path, headers=headers, content=b"{}")
                assert answer.status_code == 403 and "another origin" in answer.json()["error"], (path, headers)
            for headers in (
                {}, {"Origin": "http://testserver"}, {"Origin": FRONT}, {"Origin": "https://pool.example"},
                {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
            ):  # fmt: skip
                assert client.request(method, path, headers=headers, content=b"{}").status_code != 403, (path, headers)
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert client.get("/", headers=link).status_code == 200 and client.post("/", headers=link).status_code == 403


def test_who_knows_the_token_may_ask_from_anywhere_and_the_cookie_is_the_pages_own(out):
    with TestClient(create_app([out], Settings(models=False, token="secret"))) as client:
        token, other = {"Authorization": "Bearer secret"}, {"Origin": "https://evil.example"}
        assert client.post("/api/session", headers=token).status_code == 200
        assert client.get("/api/info", headers={**token, **other}).status_code == 200
        assert client.get("/api/info", headers=other).status_code == 403  # though the cookie came along
        assert client.get("/api/info").status_code == 200


def test_a_head_without_measure_is_refused(out, monkeypatch):
    with TestClient(create_app([out], Settings(models=False, token="secret"))) as client:
        for headers in ({f"X-{i}": "1" for i in range(200)}, {"X-Long": "a" * (1 << 17)}):
            assert client.get("/api/info", headers=headers).status_code == 431
        assert client.get("/api/info?a=" + "b" * 40_000, headers={"X-Long": "a" * 40_000}).status_code == 431


def test_a_piece_of_an_answer_that_is_not_read_holds_no_place():
    import asyncio

    from index.service.metrics import Metrics

    async def never(message):
        await asyncio.sleep(60)

    async def ask():
        guarded = guard.Guard(application, Settings(), Metrics())
        scope = {"type": "http", "method": "GET", "path": "/2", "headers": []}

        async def receive():
            return {"type": "http.request", "body": b""}

        with pytest.raises(TimeoutError):
            await guarded(scope, receive, never)
        return guarded.working

    before, guard.SEND_SECONDS = guard.SEND_SECONDS, 0.1
    try:
        assert asyncio.run(ask()) == 0
    finally:
        guard.SEND_SECONDS = before

"""Pages of other origins: nothing by default, what `--cors` names, and the token as before."""

import httpx
import pytest
from fastapi.testclient import TestClient
from page_util import served
from serve_util import shared_out

from index.service.app import create_app
from index.service.settings import Settings
from jobs.serve import origins
from mmfilter.errors import UsageError

FRONT, OTHER = "http://localhost:1235", "https://elsewhere.example"
ALLOWED = "access-control-allow-origin"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return shared_out(tmp_path_factory)


def preflight(client, origin, method="POST", headers="authorization, content-type"):
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return client.options("/knn-service", headers=asked)


@pytest.mark.slow
def test_by_default_no_page_of_another_origin_reads_an_answer(out):
    with TestClient(create_app([str(out)], Settings(models=False))) as client:
        assert preflight(client, FRONT).status_code == 405
        answer = client.get("/indices-list", headers={"Origin": FRONT})
        assert answer.status_code == 403 and ALLOWED not in answer.headers


@pytest.mark.slow
def test_an_origin_that_is_named_reads_answers_and_errors(out):
    with TestClient(create_app([str(out)], Settings(models=False, cors=(FRONT,)))) as client:
        answer = preflight(client, FRONT)
        assert answer.status_code == 200 and answer.headers[ALLOWED] == FRONT
        assert "authorization" in answer.headers["access-control-allow-headers"].lower()
        for origin in (OTHER, "null", FRONT + "5", "http://localhost", FRONT.upper()):
            assert ALLOWED not in preflight(client, origin).headers
            assert ALLOWED not in client.get("/indices-list", headers={"Origin": origin}).headers
        assert preflight(client, FRONT, method="DELETE").status_code == 400
        for answer in (
            client.get("/indices-list", headers={"Origin": FRONT}),
            client.get("http://testserver//indices-list", headers={"Origin": FRONT}),
            client.post("/knn-service", content=b"{", headers={"Origin": FRONT}),
            client.post("/knn-service", content=b" " * (9 << 20), headers={"Origin": FRONT}),
        ):
            assert answer.headers[ALLOWED] == FRONT and "origin" in answer.headers["vary"].lower()
            assert "x-mmfilter-note" in answer.headers["access-control-expose-headers"].lower()
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.slow
@pytest.mark.parametrize("cors", [(FRONT,), ("*",)])
def test_the_token_is_asked_for_whatever_the_origin(out, cors):
    with TestClient(create_app([str(out)], Settings(models=False, cors=cors, token="secret"))) as client:
        answer = preflight(client, FRONT)
        assert answer.status_code == 200 and set(answer.text) <= set("OK")  # nothing of the pool
        for path in ("/indices-list", "//indices-list", "///api/info", "//page/../api/info"):
            answer = client.get(f"http://testserver{path}", headers={"Origin": FRONT})
            assert answer.status_code in (401, 404) and answer.headers[ALLOWED] in (FRONT, "*")
        token = {"Authorization": "Bearer secret"}
        assert client.get("/indices-list", headers={"Origin": FRONT, **token}).status_code == 200
        assert client.post("/api/session", headers=token).status_code == 200  # the page's own cookie
        answer = client.get(
            "/api/info", headers={"Origin": OTHER}
        )  # a browser would not send it along, or not let read
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.slow
@pytest.mark.parametrize("token, said", [("", True), ("secret", False)])
def test_any_origin_without_a_token_is_said_at_the_start(out, tmp_path, token, said):
    (tmp_path / "out").symlink_to(out)
    with served(tmp_path / "out", "--no-models", "--cors", "*", MMFILTER_TOKEN=token):
        assert ("any web page" in (tmp_path / "serve.log").read_text()) == said


@pytest.mark.slow
def test_fault_55_another_name_for_this_machine_reads_nothing(out, tmp_path):
    (tmp_path / "out").symlink_to(out)

    def status(address, host, path="/api/info"):
        return httpx.get(f"{address}{path}", headers={"Host": host, "Origin": f"http://{host}"}).status_code

    with served(tmp_path / "out", "--no-models", "--name", "Pool.example.org", MMFILTER_TOKEN="") as address:
        port = address.rpartition(":")[2]
        for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", "[::1]:1", "10.0.0.7", "a.localhost",
                     "pool.example.org", f"POOL.example.org.:{port}"):  # fmt: skip
            assert status(address, host) == 200, host
        for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example",
                     "x.pool.example.org", "evil.example:80@localhost", "[evil.example]", "1", ""):  # fmt: skip
            for path in ("/api/info", "/", "/metrics", "/indices-list"):
                assert status(address, host, path) == 403, host
    with served(tmp_path / "out", "--no-models", MMFILTER_TOKEN="secret") as address:
        headers = {"Host": "proxy.example", "Authorization": "Bearer secret"}
        assert httpx.get(f"{address}/api/info", headers=headers).status_code == 200


@pytest.mark.parametrize("text", ["", "http://a", "a:80", "*.a", "a/b", "münchen.example"])
def test_what_is_no_host_is_a_usage_error(mmfilter, tmp_path, text):
    done = mmfilter("serve", tmp_path, f"--name={text}")
    assert done[0] == 2 and "a host's name alone" in done[2] and "Traceback" not in done[2]


def test_origins_are_written_as_browsers_send_them():
    assert origins(["http://LocalHost:1235/", "https://a.example:443", "http://a.example:80", "http://[::1]:8080"]) == (
        "http://localhost:1235", "https://a.example", "http://a.example", "http://[::1]:8080",
    )  # fmt: skip
    assert origins(["http://a.example", "*"]) == ("*",) and origins([]) == ()


@pytest.mark.parametrize(
    "text",
    ["localhost:1235", "http://", "", "null", "ftp://a", "http://a/front", "http://a?b", "http://u@a", "http://*.a",
     "http://a:port", "http://a:99999", "http://[::1", "http://münchen.example", "file:///front"],
)  # fmt: skip
def test_what_is_no_origin_is_a_usage_error(mmfilter, tmp_path, text):
    with pytest.raises(UsageError, match="SCHEME://HOST"):
        origins([text])
    done = mmfilter("serve", tmp_path, f"--cors={text}")
    assert done[0] == 2 and "SCHEME://HOST" in done[2] and "Traceback" not in done[2]

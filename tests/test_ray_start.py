"""Ray where it cannot be started or joined: a sentence within a minute, and no process left behind."""

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from job_util import cluster, free_port
from tars import write_pool

from jobs import ray_start
from mmfilter.errors import MMFilterError, UsageError


@pytest.fixture
def quick(monkeypatch):
    """Short waits, and nothing set."""
    monkeypatch.setattr(ray_start, "CONNECT_S", 0.2)
    monkeypatch.setattr(ray_start, "ANSWER_S", 0.5)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@contextmanager
def listening(answer):
    """The port of a socket that sends `answer` to the first who connects, and is silent then."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        held = []

        def serve():
            held.append(server.accept()[0])
            held[0].sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        for connection in held:
            connection.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [(b"", "no Ray head"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Ray head"), (b"\0\0\0\4\0\0\0\0\0", "")],
    ids=["silent", "http", "grpc"],
)
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_listens_is_asked_whether_it_is_ray(quick, answer, why, scheme):
    with listening(answer) as port:
        address = f"{scheme}127.0.0.1:{port}"
        if why:
            with pytest.raises(MMFilterError, match=f"the cluster at {address}: what listens there is {why}"):
                ray_start.look_for_cluster(address)
        else:
            assert ray_start.look_for_cluster(address) == f"the cluster at {address}"


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:8265", "127.0.0.1:0", "127.0.0.1:99999", "ray://x"])
def test_what_is_no_address_is_a_mistake_in_the_command(quick, address):
    with pytest.raises(UsageError, match="an address is HOST:PORT"):
        ray_start.look_for_cluster(address)


def test_an_old_ray_address_is_named(quick, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    with pytest.raises(MMFilterError, match=r"\(RAY_ADDRESS, which --address auto takes\): nothing answers there"):
        ray_start.look_for_cluster("auto")


def test_the_address_of_a_head_that_was_killed(quick, monkeypatch, tmp_path):
    """Ray notes the address of the last `ray start`, and a head that is killed leaves the note."""
    port = free_port()
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", lambda: set())
    with pytest.raises(MMFilterError, match=rf":{port} \(which --address auto found\): nothing answers there"):
        ray_start.look_for_cluster("auto")
    (tmp_path / "ray" / "ray_current_cluster").unlink()
    with pytest.raises(MMFilterError, match="no Ray runs on this machine"):
        ray_start.look_for_cluster("auto")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.9.1"),
            "Ray: 2.9.0",
        ),
        (ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379"), "RAY_AUTH_TOKEN_PATH"),
        (RuntimeError("InvalidAuthToken: Authentication token is missing or incorrect"), "RAY_AUTH_TOKEN_PATH"),
        (Exception("The current node timed out during startup."), "--local"),
        (OSError(28, "No space left on device"), "--local"),
        (ValueError(), "ValueError"),
    ],
)
def test_whatever_ray_raises_is_a_sentence(error, why):
    with pytest.raises(MMFilterError) as raised, ray_start.bounded("the cluster at 10.0.0.1:6379"):
        raise error
    assert why in str(raised.value) and "\n" not in str(raised.value)


def test_a_short_folder_is_found(monkeypatch, tmp_path):
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    assert ray_start.local_options() == {"include_dashboard": False}
    for folder in ("/" + "a" * ray_start.LONGEST, "/proc/none"):
        monkeypatch.setenv("TMPDIR", folder)
        found = ray_start.local_options()["_temp_dir"]
        assert os.path.isdir(found) and len(found) < ray_start.LONGEST and found in ray_start.REMOVED_AT_EXIT
    monkeypatch.setattr(ray_start, "SHARED", "/proc")
    assert ray_start.local_options()["_plasma_directory"]
    monkeypatch.setattr(ray_start, "_is_writable", lambda folder: False)
    with pytest.raises(MMFilterError, match="Set RAY_TMPDIR to a folder that can be written"):
        ray_start.local_options()
    ray_start._tidy()
    assert not os.path.exists(found)


@pytest.fixture
def words(tmp_path):
    """A small run on Ray."""
    (tmp_path / "t.yaml").write_text('{"name": "t", "scores": ["phash"], "select": "everything"}')
    write_pool(tmp_path / "pool", 2, 4)
    return ["run", tmp_path / "t.yaml", "--pool", tmp_path / "pool", "--out", tmp_path / "out"]


@pytest.mark.slow
def test_an_address_where_nothing_listens(words, mmfilter_process):
    started = time.monotonic()
    code, _, said = mmfilter_process(*words, "--address", f"127.0.0.1:{free_port()}")
    assert code == 1 and "nothing answers there (Connection refused)" in said and "Traceback" not in said
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_a_long_folder_for_temporary_files_is_no_obstacle(words, tmp_path, mmfilter_process):
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    env = {"TMPDIR": str(folder), "RAY_ADDRESS": "127.0.0.1:9"}  # an old address, and this Ray is a local one
    code, said, error = mmfilter_process(*words, "--workers", 1, env=env)
    assert code == 0 and "in 8 = kept 8" in said, error
    assert not list(folder.glob("mmfilter-*")), "nothing is left there"


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "code"), [("1", 1), ("soon", 2)])
def test_a_start_that_takes_too_long_ends_and_leaves_nothing(words, mmfilter_process, seconds, code):
    folder = ray_start._short_folder("x")
    env = {"RAY_TMPDIR": folder, "MMFILTER_RAY_START_S": seconds}
    ended, _, said = mmfilter_process(*words, "--workers", 1, env=env)
    assert ended == code and "MMFILTER_RAY_START_S" in said and "Traceback" not in said
    assert not [command for command in commands() if folder.encode() in command]
    ray_start._tidy()


def commands():
    """The command lines of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes()


VERSION = """import ray, sys
ray.__version__ = "2.9.0"
import jobs.cluster
jobs.cluster.start_ray(sys.argv[1])
"""


@pytest.mark.slow
def test_a_cluster_that_cannot_be_joined_says_why(tmp_path, mmfilter_process):
    """With another token, and from another version of Ray."""
    pytest.importorskip("aiohttp", reason="Ray's job server wants ray[default]: pip install 'mmfilter[cluster]'")
    write_pool(tmp_path / "pool", 2, 2)
    with cluster() as head:
        words = ["inspect", tmp_path / "pool", "--address", head.gcs]
        code, _, said = mmfilter_process(*words, env={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32})
        assert code == 1 and "RAY_AUTH_TOKEN_PATH" in said and "Traceback" not in said
        code, said, error = mmfilter_process(*words, env=head.env)
        assert code == 0 and "4 samples are well" in said, error
        done = subprocess.run([sys.executable, "-c", VERSION, head.gcs], env=head.env, capture_output=True, text=True)
    assert "Version mismatch: The cluster was started with: Ray: " in done.stderr.splitlines()[-1]


class Pages(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[1]" if self.path == "/list/api/version" else b"<html>")

    def log_message(self, *_):
        pass


def test_submit_to_what_is_no_job_server(monkeypatch):
    pytest.importorskip("aiohttp")
    from jobs import job_api

    monkeypatch.setattr(job_api, "ANSWER_S", 0.5)
    server = HTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for below in ("", "/list"):
        with (
            pytest.raises(MMFilterError, match="no job server of Ray's"),
            job_api.answers(f"http://127.0.0.1:{server.server_port}{below}"),
        ):
            pass
    server.shutdown()
    with listening(b"") as port, pytest.raises(MMFilterError, match="no answer within"):
        job_api._look_for_server(f"http://127.0.0.1:{port}")
    with pytest.raises(MMFilterError, match="Connection refused"):
        job_api._look_for_server(f"http://127.0.0.1:{free_port()}")
    for address in ("nonsense", "127.0.0.1:8265", "http://", "http://a:b"):
        with pytest.raises(UsageError, match="--address"), job_api.answers(address):
            pass

"""A Ray with its job server, in processes of its own, and a stand-in for its client."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from conftest import ROOT


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def cluster():
    """A Ray that asks for a token; it ends with the block. Yields address, gcs, metrics port, env with the token.

    Its ports are its own: where another Ray's agent has the usual one, jobs are not taken.
    """
    ports = {name: free_port() for name in ("port", "dashboard-port", "dashboard-agent-listen-port")}
    metrics = free_port()
    with tempfile.TemporaryDirectory(prefix="mmf", dir="/tmp", ignore_cleanup_errors=True) as folder:
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_worker_niceness": "0"}
        words = [Path(sys.executable).parent / "ray", "start", "--head", "--block", "--num-cpus", "2"]
        words += ["--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1", "--temp-dir", folder]
        words += [f"--{name}={port}" for name, port in ports.items()]
        words += [f"--metrics-export-port={metrics}", "--disable-usage-stats"]
        own = str(Path(sys.executable).parent)  # not activated: neither mmfilter nor this python is on PATH
        path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != own)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        head = subprocess.Popen(words, env={**env, "PATH": path}, cwd=ROOT, **quiet)
        running = SimpleNamespace(address=f"http://127.0.0.1:{ports['dashboard-port']}", metrics=metrics, env=env)
        running.gcs = f"127.0.0.1:{ports['port']}"
        try:
            until = time.monotonic() + 90
            while asked(running, "/api/version", env["RAY_AUTH_TOKEN"]) != 200:
                assert head.poll() is None and time.monotonic() < until, "no Ray with a job server could be started"
                time.sleep(0.3)
            yield running
        finally:
            head.terminate()
            try:
                head.wait(60)
            except subprocess.TimeoutExpired:
                head.kill()
                head.wait()


def asked(head, path, token=None):
    """The job server's HTTP status; 0 where nobody answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(head.address + path, headers=headers)) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


class Client:
    """What `submit` uses of Ray's client, over jobs in memory."""

    def __init__(self):
        self.jobs, self.sent = {}, []

    def list_jobs(self):
        return [*self.jobs.values(), SimpleNamespace(submission_id=None, status="RUNNING")]

    def submit_job(self, entrypoint, submission_id, runtime_env, metadata):
        if submission_id in self.jobs:
            raise RuntimeError("it is used already")
        recipe = Path(runtime_env["working_dir"], "recipe.yaml").read_text()
        self.sent.append((entrypoint, runtime_env, recipe))
        self.jobs[submission_id] = SimpleNamespace(submission_id=submission_id, status="RUNNING", metadata=metadata)

"""A Ray with its job server, in processes of its own, and a stand-in for its client."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from conftest import ROOT

HEAD = """
import os, sys, ray
ray.init(num_cpus=2, include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=int(sys.argv[1]),
         _metrics_export_port=int(sys.argv[2]), _temp_dir=sys.argv[3], log_to_driver=False)
with open(os.path.join(sys.argv[3], "ray_current_cluster"), "w") as file:  # as `ray start` does: jobs join this one,
    file.write(ray.get_runtime_context().gcs_address)  # whichever others the machine has
print("ready", flush=True)
sys.stdin.read()
ray.shutdown()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def cluster():
    """A Ray that asks for a token; it ends with the block. Yields address, metrics port, env with the token."""
    port, metrics = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="mmf", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = Path(folder, "bin", "mmfilter")  # as on a cluster's machines: on PATH
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m jobs "$@"\n')
        command.chmod(0o755)
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_worker_niceness": "0"}
        words = [sys.executable, "-c", HEAD, str(port), str(metrics), folder]
        path = os.pathsep.join([str(command.parent), os.environ["PATH"]])
        head = subprocess.Popen(
            words, env={**env, "PATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        try:
            assert head.stdout.readline().strip() == "ready", "no Ray with a job server could be started"
            yield SimpleNamespace(address=f"http://127.0.0.1:{port}", metrics=metrics, env=env)
        finally:
            try:
                head.communicate("", timeout=60)
            except subprocess.TimeoutExpired:
                head.kill()
                head.wait()


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

"""How a submitted job starts: by the interpreter of the cluster's workers; and what is said where it cannot."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from job_util import Client

from jobs import job_api
from jobs.entrypoint import ABSENT, ABSENT_CODE, entrypoint
from jobs.job_api import Job
from jobs.submit import _tell
from mmfilter.errors import MMFilterError
from mmfilter.recipe import parse_recipe

RECIPE = json.dumps({"name": "t", "scores": ["phash"], "select": "everything"})
JOB = Job(parse_recipe(RECIPE, "t"), "s3://b/o", ("run", "recipe.yaml"))


def shell(text, env=None):
    """Run an entrypoint as Ray's supervisor does, by the child of a process that has a raylet's command line."""
    supervisor = f"import subprocess, sys; sys.exit(subprocess.run({text!r}, shell=True).returncode)"
    raylet = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', sys.argv[1]]).returncode)"
    words = [sys.executable, "-c", raylet, supervisor, "--x", *(env or {}).pop("raylet", ())]
    return subprocess.run(words, env={"PATH": "/usr/bin:/bin", **(env or {})}, capture_output=True, text=True)


def test_the_entrypoint_is_run_by_the_workers_interpreter(tmp_path):
    """A virtual environment that is not activated: nothing on PATH has mmfilter."""
    paths = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    spaced = tmp_path / "a b" / "python"
    spaced.parent.mkdir()
    spaced.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    spaced.chmod(0o755)
    for worker in (sys.executable, f'"{spaced}"'):
        raylet = {"raylet": [f"--python_worker_command={worker} /x/default_worker.py --y=1", "--z=2"]}
        done = shell(entrypoint(["status", "/no/such $HOME"], {}), {**paths, **raylet})
        assert done.returncode == 2 and "/no/such $HOME" in done.stderr, done.stderr
    done = shell(entrypoint(["status", "x"], {}), {"raylet": ["--python_worker_command=/no/python x"]})
    assert done.returncode == ABSENT_CODE and done.stderr == ABSENT + "\n"
    (tmp_path / "mmfilter").write_text('#!/bin/sh\necho found "$@"\nexit 3\n')
    (tmp_path / "mmfilter").chmod(0o755)
    done = shell(entrypoint(["status", "a b"], {}), {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert done.returncode == 3 and done.stdout == "found status a b\n"


def test_a_job_that_found_no_mmfilter_says_so_afterwards(capsys):
    client = Client()
    status = SimpleNamespace(value="FAILED")
    info = SimpleNamespace(status=status, message="exit code 127\n", metadata={}, driver_exit_code=127)
    client.get_job_info = lambda _: info
    _tell(client, "j", False)
    assert capsys.readouterr().out == f"j FAILED  {ABSENT}\n"


def test_a_head_without_an_agent_for_jobs_is_said_to_be_one(capsys, monkeypatch):
    monkeypatch.setattr(job_api, "PAUSE", 0.0)
    client, tries = Client(), []
    real = client.submit_job

    def refuse(**given):
        tries.append(given)
        if len(tries) < 3 or given["submission_id"].endswith("-2"):
            raise RuntimeError("Request failed with status code 500: No available agent to submit job, try later.")
        real(**given)

    client.submit_job = refuse
    assert job_api.start(client, JOB) == (JOB.name, True) and len(tries) == 3
    assert capsys.readouterr().err.count("has no agent that takes jobs yet") == 2, "each time, at once"
    client.jobs[JOB.name].status = "SUCCEEDED"
    monkeypatch.setattr(job_api, "AGENT_WAIT_S", 0)
    with pytest.raises(MMFilterError, match="--dashboard-agent-listen-port") as error:
        job_api.start(client, JOB)
    assert "HOST:8265" not in str(error.value), "it is not the address"


def test_a_server_that_answered_is_not_blamed_on_the_address(monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda address: Client())
    monkeypatch.setattr(job_api, "_look_for_server", lambda address: None)  # it answered
    with pytest.raises(MMFilterError, match="look whether the head still runs") as error, job_api.answers("http://h:1"):
        raise ConnectionError("Remote end closed connection without response")
    assert "HOST:8265" not in str(error.value)

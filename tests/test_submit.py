"""`submit`: what a job is called, what is sent, and a whole job on a real Ray with a token."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import yaml
from job_util import Client, asked, cluster
from jobs_util import recipe_text, results
from tars import write_pool

from jobs import job_api, stopping
from jobs.cluster import Width
from jobs.job_api import Job
from jobs.run import RunOptions, run_recipe
from mmfilter.errors import MissingDependency, MMFilterError, UsageError
from mmfilter.recipe import load_recipe, parse_recipe
from mmfilter.subset import Subset
from mmfilter.synth import SynthOptions, generate

RECIPE = json.dumps({"name": "t", "scores": ["phash"], "select": "everything"})


def job(out="s3://b/o", text=RECIPE, **fields):
    return Job(parse_recipe(text, "t"), out, ("run", "recipe.yaml", "--pool", "a b/{0..3}.tar"), **fields)


def test_a_job_is_named_after_out_and_recipe():
    name = job().name
    assert name.startswith("mmfilter-t-") and name == job().name
    assert job("s3://b/p").name != name != job(text=RECIPE.replace("phash", "language")).name


def test_submitted_twice_it_attaches_and_after_an_end_it_goes_on():
    client, name = Client(), job().name
    assert job_api.start(client, job()) == (name, True)
    assert job_api.start(client, job()) == (name, False)
    for n in range(2, 13):  # ten is after nine
        client.jobs[name if n == 2 else f"{name}-{n - 1}"].status = ("FAILED", "STOPPED", "SUCCEEDED")[n % 3]
        assert job_api.start(client, job()) == (f"{name}-{n}", True)
    assert job_api.start(client, job()) == (f"{name}-12", False)
    assert job_api.start(client, job("s3://b/p"))[1], "another OUT is another job"
    client.jobs[f"{name}-extra"] = client.jobs[f"{name}0"] = client.jobs[name]
    assert [info.submission_id for info in job_api.earlier(client, name)][-1] == f"{name}-12"


def test_two_who_submit_at_once_share_the_job():
    client = Client()
    before = client.list_jobs()
    job_api.start(client, job())
    listed = iter([before])
    client.list_jobs = lambda: next(listed, list(client.jobs.values()))
    assert job_api.start(client, job()) == (job().name, False)


def test_what_is_sent(tmp_path, tiny_model):
    folder = tmp_path / "here"
    shutil.copytree(tiny_model, folder / "model")
    (folder / "t.yaml").write_text(recipe_text("./model"))
    recipe, client = load_recipe(str(folder / "t.yaml")), Client()
    env = {"pip": ["loud"], "env_vars": {"A": "1"}}
    job_api.start(client, Job(recipe, "s3://b/o", ("run", "--pool", "a b/{0..3}.tar"), env))
    ((entry, runtime_env, text),) = client.sent
    assert entry.startswith("set -- run --pool 'a b/{0..3}.tar'\n"), "no shell reads a pattern"
    assert 'for python in python3 python "$worker"' in entry, "pip's environment is on PATH"
    assert runtime_env["pip"] == ["loud"] and env["env_vars"] == {"A": "1"}
    assert runtime_env["env_vars"] == {"A": "1", "MMFILTER_JOB": Job(recipe, "s3://b/o").name}
    assert Path(yaml.safe_load(text)["embed"]["b32"]["model"]) == folder / "model", "it leaves its folder"
    assert parse_recipe(text, "t").embed == recipe.embed and parse_recipe(text, "t").select == recipe.select
    assert recipe.source["embed"]["b32"]["model"] == "./model"


def test_a_runtime_environment(tmp_path):
    path = tmp_path / "env.yaml"
    assert job_api.read_env(None) == {}
    for text, why in (("working_dir: .", "working_dir"), ("- a", "mapping"), ("{", "YAML"), ("env_vars: [1]", "env_")):
        path.write_text(text)
        with pytest.raises(UsageError, match=why):
            job_api.read_env(str(path))
    path.write_text("pip: [loud]")
    assert job_api.read_env(str(path)) == {"pip": ["loud"]}


def test_mistakes_and_what_is_absent(tmp_path, mmfilter_process, monkeypatch):
    (tmp_path / "t.yaml").write_text(RECIPE)
    words = ["submit", tmp_path / "t.yaml", "--address", "http://127.0.0.1:9", "--out", tmp_path / "o"]
    code, _, said = mmfilter_process(*words)
    assert code == 2 and "--pool" in said
    code, _, said = mmfilter_process(*words, "--stop", "--logs")
    assert code == 2 and "one at a time" in said

    def absent(module, pip):
        raise MissingDependency(f"{module} is not installed. Run: pip install '{pip}'")

    monkeypatch.setattr(job_api, "need", absent)
    with pytest.raises(MissingDependency, match=r"mmfilter\[cluster\]"), job_api.answers("http://h:8265"):
        pass


def test_no_server_there():
    pytest.importorskip("aiohttp")
    with pytest.raises(MMFilterError, match="http://HOST:8265"), job_api.answers("http://127.0.0.1:9"):
        pass


class Tail(Client):
    """A log that is sent from the start each time, by connections that break."""

    def __init__(self, *connections, ends="SUCCEEDED", code=0):
        super().__init__()
        self.connections, self.ends, self.code = list(connections), ends, code

    async def tail_job_logs(self, _):
        pieces, error = self.connections.pop(0)
        for piece in pieces:
            yield piece
        if error is not None:
            raise error

    def get_job_info(self, _):
        return SimpleNamespace(status="RUNNING" if self.connections else self.ends, driver_exit_code=self.code)


def test_a_log_goes_on_where_its_connection_broke(capsys, monkeypatch):
    aiohttp = pytest.importorskip("aiohttp")
    monkeypatch.setattr(job_api, "PAUSE", 0.0)
    broken = aiohttp.ClientPayloadError("gone")
    client = Tail(
        (["one\n", "tw"], broken), (["one\ntwo\n"], None), ([], RuntimeError()), (["one\n", "two\nthree\n"], None)
    )
    assert job_api.follow(client, "j") == 0
    assert capsys.readouterr().err == "one\ntwo\nthree\n"
    assert job_api.follow(Tail(([], None), ends="FAILED", code=3), "j") == 3
    assert job_api.follow(Tail(([], None), ends="FAILED", code=1), "j") == 1
    assert job_api.follow(Tail(([], None), ends="STOPPED", code=None), "j") == 1
    with pytest.raises(aiohttp.ClientError):
        job_api.follow(Tail(*[([], broken)] * 7), "j")


def test_control_c_leaves_the_job_alone(capsys, monkeypatch):
    pytest.importorskip("aiohttp")

    class Interrupted(Tail):
        async def tail_job_logs(self, _):
            yield "one\n"
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)
            yield "never"

    monkeypatch.setattr(stopping, "STATE", stopping._State())
    before = signal.signal(signal.SIGINT, stopping.on_signal)
    try:
        with pytest.raises(SystemExit) as stopped:
            job_api.follow(Interrupted(), "j")
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.code == 130 and "j goes on" in capsys.readouterr().err


def test_an_address_that_is_no_job_server():
    with pytest.raises(UsageError, match="http://"), job_api.answers("ray://head:10001"):
        pass


@pytest.fixture(scope="module")
def head():
    pytest.importorskip("aiohttp", reason="Ray's job server wants ray[default]: pip install 'mmfilter[cluster]'")
    import ray

    ray.shutdown()  # the session's own: of several Rays on a machine a job may be sent to the wrong one
    with cluster() as running:
        yield running


@pytest.mark.slow
def test_fault_56_without_the_token_ray_runs_nothing(head, tmp_path, mmfilter_process):
    """CVE-2023-48022: whoever reaches the job API runs code. With a token, whoever has it."""
    assert [asked(head, path) for path in ("/api/jobs/", "/api/version", "/api/cluster_status")] == [401] * 3
    assert asked(head, "/api/jobs/", "0" * 32) == 403
    assert asked(head, "/api/jobs/", head.env["RAY_AUTH_TOKEN"]) == 200
    (tmp_path / "t.yaml").write_text(RECIPE)
    words = ["submit", tmp_path / "t.yaml", "--address", head.address, "--out", tmp_path / "o", "--pool", tmp_path]
    for env in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32}):
        code, _, said = mmfilter_process(*words, env=env)
        assert code == 1 and "RAY_AUTH_MODE=token" in said and "Traceback" not in said
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_a_job_from_submit_to_done(head, tmp_path, mmfilter_process):
    paths = write_pool(tmp_path / "pool", 3, 5)
    (tmp_path / "t.yaml").write_text(RECIPE)
    out = tmp_path / "o"
    words = ["submit", tmp_path / "t.yaml", "--address", head.address, "--out", out]
    env = {**head.env, "RAY_ADDRESS": "http://127.0.0.1:9"}  # --address counts
    code, _, said = mmfilter_process(*words, "--status", env=env)
    assert code == 2 and "no job mmfilter-t-" in said
    code, told, said = mmfilter_process(*words, "--pool", tmp_path / "pool", "--json", env=env)
    assert code == 0, said
    first = json.loads(told)
    assert first["status"] == "SUCCEEDED" and first["out"] == str(out) and "in 15 = kept 15" in said
    run_recipe(parse_recipe(RECIPE, "t"), paths, RunOptions(str(tmp_path / "here"), "t", Width(local=True)))
    assert results(out) == results(tmp_path / "here")
    note = json.loads((out / ".progress").read_text())
    assert note["job"] == first["job"] and note["state"] == "ended"
    code, told, _ = mmfilter_process(*words, "--logs", env=env)
    assert code == 0 and "in 15 = kept 15" in told
    code, told, _ = mmfilter_process(*words, "--pool", tmp_path / "pool", "--no-reshard", env=env)
    assert code == 0 and f"{first['job']}-2 SUCCEEDED" in told, "it goes on, and finds all done"
    counted = f"http://127.0.0.1:{head.metrics}/metrics"
    until = time.monotonic() + 30
    text = ""
    while "mmfilter_samples_total" not in text and time.monotonic() < until:
        text = urllib.request.urlopen(counted).read().decode()
        time.sleep(1)
    assert 'stage="decode"' in text and "mmfilter_samples_total" in text


@pytest.mark.slow
def test_a_job_is_attached_to_and_stopped(head, tmp_path, mmfilter_process):
    write_pool(tmp_path / "pool", 1500, 6)
    (tmp_path / "t.yaml").write_text(RECIPE)
    out = tmp_path / "o"
    words = ["submit", tmp_path / "t.yaml", "--address", head.address, "--out", out]
    code, told, said = mmfilter_process(*words, "--pool", tmp_path / "pool", "--no-follow", env=head.env)
    assert code == 0 and " submitted" in said
    code, _, said = mmfilter_process(*words, "--pool", tmp_path / "pool", "--no-follow", env=head.env)
    assert code == 0 and "runs already" in said
    until = time.monotonic() + 60
    while not list(Path(out).glob("metadata/*.json")) and time.monotonic() < until:
        time.sleep(0.1)
    assert mmfilter_process(*words, "--stop", env=head.env)[0] == 0
    while "STOPPED" not in told and time.monotonic() < until + 30:
        told = mmfilter_process(*words, "--status", env=head.env)[1]
    assert "STOPPED" in told
    done = len(list(Path(out).glob("metadata/*.json")))
    assert 0 < done < 1500, "finished shards are kept"


@pytest.mark.slow
def test_trainings_as_a_job_on_a_cluster(head, tmp_path, mmfilter_process):
    """By Ray's own command, as docs/rank.md has it. The board is that of the same trainings without a cluster."""
    pool = tmp_path / "pool"
    generate(str(pool), SynthOptions(samples=60, per_shard=30, size=64))
    uids = pl.read_parquet(pool / "labels/labels.parquet").filter(pl.col("kind") == "clean")["uid"].to_list()
    Subset.from_uids(uids).write(f"{pool}/clean.npy")
    rank = [
        sys.executable,
        "-m",
        "jobs",
        "rank",
        f"{pool}/clean.npy",
        "--pool",
        str(pool),
        "--scale",
        "micro",
        "--samples",
        "64",
    ]
    rank += ["--seeds", "1", "--out"]
    submit = [Path(sys.executable).parent / "ray", "job", "submit", "--address", head.address, "--"]
    done = subprocess.run(
        [*submit, *rank, str(tmp_path / "there"), "--address", "auto"],
        env=head.env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "64 pairs seen (micro" in done.stdout, done.stdout + done.stderr
    code, _, said = mmfilter_process(*rank[3:], tmp_path / "here", "--local")
    assert code == 0, said
    there, here = (json.loads((tmp_path / place / "leaderboard.json").read_text()) for place in ("there", "here"))
    outs = [board.pop("out") for board in there["boards"] + here["boards"]]
    assert outs == [str(tmp_path / "there"), str(tmp_path / "here")]
    assert there == here and len(here["boards"][0]["arms"]) == 3

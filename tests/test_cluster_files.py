"""The cluster's YAML against Ray's schema, KubeRay's manifest against its fields, and their commands against ours."""

import json
import shlex
import sys
from pathlib import Path

import jsonschema
import pytest
import typer
import yaml
from conftest import ROOT

from jobs import cli, cluster
from mmfilter.recipe import packaged

FILES = ROOT / "jobs/cluster_files"
JOB_FIELDS = {  # of ray.io/v1 RayJob's spec and below, as KubeRay's CRD of August 2026 has them
    "spec": {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"},
    "rayClusterSpec": {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"},
    "headGroupSpec": {"rayStartParams", "template"},
    "workerGroupSpecs": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}


def read(name):
    return yaml.safe_load((FILES / name).read_text())


def version(text):
    return tuple(int(part) for part in text.split(".")[:2])


def test_the_cluster_is_what_ray_takes():
    import ray

    config = read("cluster.yaml")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    types = config["available_node_types"]
    assert config["head_node_type"] in types and types["head"]["resources"]["CPU"] == 0
    assert types["gpu"]["resources"]["GPU"] == 1 and "GPU" not in types["cpu"]["resources"]
    workers = [kind for name, kind in types.items() if name != "head"]
    assert config["max_workers"] == sum(kind["max_workers"] for kind in workers)
    assert all(kind["min_workers"] <= kind["max_workers"] for kind in workers)


def test_fault_56_both_files_ask_for_a_token():
    config = read("cluster.yaml")
    starts = [c for kind in ("head", "worker") for c in config[f"{kind}_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2 and all(command.startswith("RAY_AUTH_MODE=token ") for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0] and "~/.ray/auth_token" in config["file_mounts"]
    made = read("rayjob.yaml")["spec"]["rayClusterSpec"]
    assert made["authOptions"] == {"mode": "token"} and version(made["rayVersion"]) >= (2, 52)


def test_the_manifest_has_fields_that_kuberay_knows():
    manifest = read("rayjob.yaml")
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    spec = manifest["spec"]
    made = spec["rayClusterSpec"]
    nodes = {"spec": spec, "rayClusterSpec": made, "headGroupSpec": made["headGroupSpec"]}
    for name, node in [*nodes.items(), *(("workerGroupSpecs", group) for group in made["workerGroupSpecs"])]:
        assert set(node) == JOB_FIELDS[name]
    groups = [made["headGroupSpec"], *made["workerGroupSpecs"]]
    containers = [c for group in groups for c in group["template"]["spec"]["containers"]]
    assert len({c["image"] for c in containers}) == 1 and len(containers) == 3
    assert made["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all(isinstance(v, str) for group in groups for v in group["rayStartParams"].values())
    assert all(c["resources"]["requests"] == c["resources"]["limits"] for c in containers)
    assert all(g["minReplicas"] <= g["replicas"] <= g["maxReplicas"] for g in made["workerGroupSpecs"])
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={made['rayVersion']}" in pins


def test_the_command_is_one_of_ours():
    if not cli.app.registered_commands:
        cli.register()
    name, verb, *words = shlex.split(read("rayjob.yaml")["spec"]["entrypoint"])
    command = typer.main.get_command(cli.app).commands[verb]
    asked = command.make_context(verb, words).params
    assert name == "mmfilter" and asked["recipe"] in packaged() and asked["address"] == "auto"


def test_the_files_are_in_the_wheel():
    import tomllib

    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["jobs"]
    assert {path.name for pattern in data for path in (ROOT / "jobs").glob(pattern)} == {"cluster.yaml", "rayjob.yaml"}


def test_fault_56_a_local_ray_asks_for_a_token(monkeypatch):
    env = {}
    monkeypatch.setattr(cluster.os, "environ", env)
    monkeypatch.setitem(sys.modules, "ray", object())
    cluster._ask_for_a_token()
    assert env == {}, "Ray has read the setting already"
    monkeypatch.delitem(sys.modules, "ray")
    cluster._ask_for_a_token()
    assert env["RAY_AUTH_MODE"] == "token" and len(env["RAY_AUTH_TOKEN"]) == 64
    env.clear()
    env["RAY_AUTH_MODE"] = "disabled"
    cluster._ask_for_a_token()
    assert env == {"RAY_AUTH_MODE": "disabled"}, "what the user set counts"


@pytest.mark.slow
def test_fault_56_nobody_joins_a_local_ray_without_its_token():
    import os
    import subprocess

    start = "from jobs.cluster import start_ray; r = start_ray(None); print(r.get_runtime_context().gcs_address)"
    join = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False)"
    code = (
        f"{start}\nimport os, subprocess, sys\nenv = {{k: v for k, v in os.environ.items() if 'RAY_AUTH' not in k}}\n"
    )
    code += f"words = [sys.executable, '-c', {join!r}, r.get_runtime_context().gcs_address]\n"
    code += "print([subprocess.run(words, env=e, capture_output=True).returncode for e in (env, dict(os.environ))])"
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=ROOT, timeout=240)
    assert done.stdout.splitlines()[-1] == "[1, 0]", done.stderr

"""Fixtures: one local Ray for the session, a tiny random model, the real pool where it is."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads of one process do not hold up the others
os.environ.setdefault("RAY_worker_niceness", "0")  # at Ray's 15 its workers wait for whatever else there is
os.environ.setdefault("MMFILTER_RAY_START_S", "240")  # beside other tests
if beside := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):  # each process its share of the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // beside)))
DATA = Path(os.environ.get("MMFILTER_DATA") or ROOT.parent / "shared" / "data")

NOT_FAST = {"slow", "browser", "gpu", "real", "ray_here", "ray_ends", "mmfilter_process", "trained"}
"""A test without any of these marks and fixtures, which starts no process and no training itself, is marked `fast`."""


def pytest_collection_modifyitems(items):
    absent = pytest.mark.skip(reason=f"the real pool is not at {DATA} (MMFILTER_DATA)")
    for item in items:
        if "real" in item.keywords and not (DATA / "pool").is_dir():
            item.add_marker(absent)
    for item in items:
        if NOT_FAST.isdisjoint((*item.keywords, *item.fixturenames)) and not starts_more(item.function):
            item.add_marker(pytest.mark.fast)
    long = {item.path for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: item.path not in long)  # of two processes none is left alone with them at the end


def starts_more(test):
    """Whether a test names `subprocess` or `mmfilter.train.train`, itself or through a helper of its module."""
    seen, ahead = set(), [test]
    while ahead:
        thing = ahead.pop()
        methods = [part for part in vars(thing).values() if callable(part)] if isinstance(thing, type) else [thing]
        for code in [method.__code__ for method in methods if hasattr(method, "__code__")]:
            for name in set(code.co_names) - seen:
                seen.add(name)
                found = test.__globals__.get(name)
                where = getattr(found, "__module__", "")
                if found is subprocess or (name == "train" and where == "mmfilter.train"):
                    return True
                ahead += [found] if where == test.__module__ else []
    return False


@pytest.fixture(autouse=True)
def fast_is_without_ray(request, monkeypatch):
    """A test that is marked `fast` fails where it starts Ray: it wants `ray_here`, `mmfilter_process` or --local."""
    start = subprocess.Popen.__init__

    def refuse(self, words, *args, **kwargs):
        assert "gcs_server" not in str(words), "a test without `ray_here` or `mmfilter_process` starts Ray"
        start(self, words, *args, **kwargs)

    if request.node.get_closest_marker("fast"):
        monkeypatch.setattr(subprocess.Popen, "__init__", refuse)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """A signal that a test notes in this process would stop what the tests after it do."""
    result = yield
    stopping = sys.modules.get("jobs.stopping")
    assert stopping is None or not (stopping.STATE.number or stopping.STATE.depth), "patch stopping.STATE"
    return result


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def data():
    """The folder of the real pool, clean pairs and tasks."""
    return DATA


@pytest.fixture(scope="session")
def ray_ends():
    """After the last test."""
    yield
    import ray

    ray.shutdown()


@pytest.fixture
def ray_here(ray_ends):
    """One local Ray for all tests that drive workers, no dashboard; another where test_submit has ended it."""
    from jobs.cluster import start_ray

    return start_ray(None)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A model folder with random weights: 24-dimensional embeddings of 32 px images."""
    from embed_util import tiny_folder

    return tiny_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory):
    """The folders that test_old_run.py tells of."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ROOT / "tests/fixtures/old_run.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def old(unpacked, tmp_path, monkeypatch):
    """A copy of the folders, dates kept, which is the working directory."""
    shutil.copytree(unpacked, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture
def mmfilter(monkeypatch):
    """Run a command line in this process, up to its exit code; returns (exit code, stdout, stderr)."""
    from command import command

    def run(*words, cwd=None, env=None):
        with monkeypatch.context() as patch:
            patch.chdir(cwd or ROOT)
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            return command(*words)

    return run


@pytest.fixture
def mmfilter_process():
    """Run a command line in a process of its own, as a user does; returns (exit code, stdout, stderr)."""

    def run(*words, cwd=None, env=None, timeout=300):
        done = subprocess.run(
            [sys.executable, "-m", "jobs", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=cwd or ROOT,
            env={**os.environ, **(env or {})},
            timeout=timeout,
        )
        return done.returncode, done.stdout, done.stderr

    return run

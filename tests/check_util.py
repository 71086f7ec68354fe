"""A working directory with a pool of three shards and a recipe without a model."""

import json
import re
from pathlib import Path

from tars import write_pool


def work_in(tmp_path, monkeypatch):
    """Make it the current one, and the report none."""
    monkeypatch.chdir(tmp_path)
    write_pool(tmp_path / "pool", 3, 4)
    write("t.yaml", scores=["phash"], select={"threshold": {"score": "phash", "min": 0}})
    monkeypatch.setattr("jobs.look.report_run", lambda *_, **__: "")
    return tmp_path


def write(path, **fields):
    Path(path).write_text(json.dumps({"name": "t", **fields}))


def commits(out):
    return sorted(path.name for path in Path(out).glob("metadata/*.json"))


def assert_matches(pattern, said):
    assert re.search(pattern, said), said

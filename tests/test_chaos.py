"""A small storm on a cluster of several nodes (benchmarks/chaos.py): a worker, a node and the driver are killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from jobs_util import recipe_text

ROOT = Path(__file__).resolve().parent.parent
WORDS = "--repeats 1 --samples 300 --per-shard 10 --every 0.5 --blows worker node driver --recipe"


@pytest.mark.slow
def test_chaos_gives_the_bytes_of_a_quiet_run(tmp_path):
    """A cluster of its own, in a process of its own: the tests' Ray is in this one. No model, so that workers that
    follow those that were killed are there at once."""
    (tmp_path / "t.yaml").write_text(recipe_text("x", embed={}, scores=["phash", "language"], select="everything"))
    command = [sys.executable, str(ROOT / "benchmarks/chaos.py"), *WORDS.split(), str(tmp_path / "t.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "RAY_ADDRESS": ""})
    assert done.returncode == 0, done.stderr[-4000:]
    cells = [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")]
    assert cells[5:10] == ["30", "300", "0", "0", "yes"] and sum(map(int, cells[2:5])) >= 1, done.stdout

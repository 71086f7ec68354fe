"""The README and docs/ as a new user walks through them: tests/walk.py; and one run on a terminal."""

import os
import pty
import re
import subprocess
import sys

import pytest
import walk
from tars import write_pool

REASONS = {  # why a block cannot run on a machine without network, cluster and GPU
    "pip installs into an environment of its own",
    "fetches images from the network",
    "fetches evaluation sets from the network",
    "needs evaluation sets",
    "needs evaluations of models that train for days",
    "trains models for hours",
    "needs a Keras model",
    "needs a Ray cluster",
    "needs a Ray cluster and an object store",
    "needs a service with a token",
    "needs GPUs",
}
MOST = 20
"""Blocks that are not run, in all pages together; most of those that can only run elsewhere."""


def test_few_blocks_are_left_out_and_each_says_why():
    left = [block for page in walk.all_pages() for block in walk.blocks(page) if block.skipped]
    assert {block.skipped for block in left} == REASONS, "a reason is new, or no block has it any more"
    assert len(left) <= MOST and sum(block.page == walk.README for block in left) <= 4


def test_comments_above_blocks_are_understood():
    """A comment that is misspelt would run what cannot run, or leave a file out."""
    for page in walk.all_pages():
        for line in page.read_text(encoding="utf-8").splitlines():
            assert not line.startswith("<!--") or walk.COMMENT.fullmatch(line), f"{page.name}: {line}"


@pytest.mark.slow
def test_the_walk():
    """Every block of the README and of docs/ in one folder, as `make walk` runs them."""
    done = subprocess.run([sys.executable, walk.__file__, "--one-process"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_on_a_terminal_run_shows_bars_and_a_summary(tmp_path):
    write_pool(tmp_path / "pool", 2, 8)
    (tmp_path / "r.yaml").write_text("name: r\nscores: [phash]\nselect: {caption: {min_words: 3}}\n")
    words = ["run", tmp_path / "r.yaml", "--pool", tmp_path / "pool", "--out", tmp_path / "out", "--local"]
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    command = [sys.executable, "-m", "jobs", *map(str, words)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 65536)
        except OSError:  # EIO: the other end is closed
            break
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode("utf-8"))
    assert process.wait(60) == 0, text
    assert "━" in text and "2/2" in text and "{" not in text
    summary = text[text.index("in 16 = ") :].replace("\r", "").splitlines()
    assert summary[0] == "in 16 = kept 16 (100.0%) + dropped 0 + failed 0" and "words >= 3" in summary[1]
    assert [line.split()[0] for line in summary[2:]] == ["subset", "shards", "report", "seconds"]

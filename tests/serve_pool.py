"""A run's folder to serve, made once and copied for each module of tests."""

import shutil
import subprocess
import sys

from index.build import IndexOptions, build_index

MADE = []


def build(out, modality, fresh=False):
    """The index demo-MODALITY, as `mmfilter index` builds it."""
    options = IndexOptions("demo", modality, fresh=fresh)
    build_index(str(out), options, lambda function, tasks: [function(task) for task in tasks])


def _made(factory):
    if MADE:
        return MADE[0]
    folder = factory.mktemp("serve")
    for words in (["synth", "pool", "--samples", "240", "--per-shard", "120"], ["run", "demo", "--pool", "pool"]):
        more = ["--out", "out", "--local", "--no-reshard"] if words[0] == "run" else []
        subprocess.run([sys.executable, "-m", "jobs", *words, *more], cwd=folder, check=True, capture_output=True)
    for modality in ("image", "text"):
        build(folder / "out", modality)
    MADE.append(folder / "out")
    return MADE[0]


def embedded(factory):
    """A copy of a run over 240 synthetic samples in two shards, selected, with two indices."""
    out = factory.mktemp("served") / "out"
    return shutil.copytree(_made(factory), out)

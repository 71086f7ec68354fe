"""What stands beside a trained model's weights: train.json, how they were made, and recipe.yaml, how they are used."""

import json
import os
import platform
import shlex
import sys
from dataclasses import asdict
from typing import Any

import yaml

from . import pairs
from .checkpoint import WEIGHTS
from .json_file import FORMAT
from .storage import write_atomic
from .train_options import TrainOptions, TrainReport
from .trained import TRAINED, weights_record
from .versions import versions

RECIPE = "recipe.yaml"
KEEP = 0.15
"""The share that recipe.yaml keeps, to be changed: DFN-2B kept 15.6 % of its pool (arXiv 2309.17425)."""


def record(report: TrainReport, options: TrainOptions, source: pairs.Source, **more: Any) -> None:
    """Write both files into the model's folder, train.json last; `more` are further fields of it."""
    row = {
        "format": FORMAT,
        "command": shlex.join(sys.argv),
        "options": asdict(options),
        "data": pairs.describe(source),
        "failed": report.failed,
        "versions": versions(),
        "machine": {"processor": platform.machine(), "device": options.device},
        "steps": report.steps,
        "parameters": report.parameters,
        "seconds": report.seconds,
        "auc": report.auc,
        "weights": weights_record(options.out, WEIGHTS),
        **more,
        "loss": report.loss,
    }
    write_atomic(os.path.join(options.out, RECIPE), recipe(report, options).encode())
    write_atomic(os.path.join(options.out, TRAINED), (json.dumps(row, indent=1) + "\n").encode())


def recipe(report: TrainReport, options: TrainOptions) -> str:
    """A recipe that scores a pool with the model it stands beside, and keeps the best: a data filtering network's."""
    measured = "" if report.auc is None else f", AUC {report.auc:.3f} on pairs held out"
    source = {
        "name": "own_dfn",
        "paper": "Data Filtering Networks (arXiv 2309.17425)",
        "about": f"The best {KEEP:.0%} by the model in this folder ({report.parameters:,} parameters, "
        f"{options.samples:,} pairs seen, seed {options.seed}{measured}; train.json has the rest).",
        "embed": {"dfn": {"model": "."}},
        "scores": [{"clip_similarity": {"model": "dfn"}}],
        "select": {"fraction": {"score": "clip_dfn_similarity_score", "keep": KEEP}},
    }
    return yaml.safe_dump(source, sort_keys=False, allow_unicode=True, width=120)

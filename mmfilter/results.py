"""What a task measured, and `eval_results.jsonl`, which DataComp's scripts write and read."""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import storage
from .errors import DataError

RESULTS = "eval_results.jsonl"


@dataclass(frozen=True)
class TaskResult:
    """`key` is DataComp's for its tasks (``vtab/caltech101``), `dataset` the name that people read.

    `metrics` holds ``main_metric`` beside the others, NaN where a task has none. `outcomes` (n,) float64
    is each sample's own part of the main metric (1 or 0 for right or wrong), for the bootstrap: its mean
    is the main metric where that is a mean, and it is None where a metric has no parts. `samples` is how
    many were measured, `failed` what could not be, by status.
    """

    key: str
    dataset: str
    metrics: dict[str, float]
    outcomes: np.ndarray | None = field(default=None, compare=False)
    samples: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)

    @property
    def main(self) -> float:
        """The main metric; NaN where the task has none."""
        return self.metrics.get("main_metric", float("nan"))


def write_results(folder: str, results: Iterable[TaskResult]) -> None:
    """Add lines to the folder's eval_results.jsonl; a key that is there already is replaced.

    Each: ``{"key", "dataset", "metrics": {..., "main_metric": x or null}}``, as DataComp's evaluate.py
    writes it. `outcomes` go to ``outcomes/{key, / as __}.npy`` before it.
    """
    have = _rows(folder)
    for result in results:
        path = outcomes_path(folder, result.key)
        if result.outcomes is not None:
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(result.outcomes, np.float64), allow_pickle=False)
            storage.write_atomic(path, buffer.getvalue())
        metrics = {name: _number(value) for name, value in result.metrics.items()}
        have[result.key] = {"key": result.key, "dataset": result.dataset, "metrics": metrics}
        have[result.key]["metrics"].setdefault("main_metric", None)
    lines = "".join(json.dumps(row) + "\n" for row in have.values())
    storage.write_atomic(storage.join(folder, RESULTS), lines.encode())


def read_results(folder: str) -> dict[str, TaskResult]:
    """Key -> result, in the file's order; also of a file that DataComp's evaluate.py wrote. {} without one.

    Of a key that stands twice the last line counts. Raises DataError.
    """
    return {key: _result(folder, row) for key, row in _rows(folder).items()}


def outcomes_path(folder: str, key: str) -> str:
    return storage.join(folder, "outcomes", key.replace("/", "__") + ".npy")


def _result(folder: str, row: dict[str, Any]) -> TaskResult:
    metrics = {k: float("nan") if v is None else float(v) for k, v in row["metrics"].items()}
    path = outcomes_path(folder, row["key"])
    outcomes = None
    if storage.exists(path):
        outcomes = np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False)
    return TaskResult(row["key"], row["dataset"], metrics, outcomes, 0 if outcomes is None else len(outcomes))


def _rows(folder: str) -> dict[str, dict[str, Any]]:
    path = storage.join(folder, RESULTS)
    if not storage.exists(path):
        return {}
    lines = storage.read_bytes(path).split(b"\n")
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines):
        try:
            if line.strip():
                row = json.loads(line)
                rows[row["key"]] = {"key": row["key"], "dataset": row["dataset"], "metrics": dict(row["metrics"])}
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines) - 1:  # no newline behind it: an appending writer was killed in this line
                continue
            raise DataError(
                f"{path}: line {number + 1} is no result ({error!r}): wanted are key, dataset and metrics"
            ) from error
    return rows


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)

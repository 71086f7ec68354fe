"""What a task measured, and `eval_results.jsonl`, which DataComp's scripts write and read."""

import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import storage
from .errors import DataError, MMFilterError, short_reason
from .json_file import COUNT, misfit, optional_object
from .records import Failure

RESULTS = "eval_results.jsonl"
AGAIN = "measure anew with `mmfilter evaluate --redo`"
SAMPLES = {
    "samples": COUNT,
    "outcomes": bool,
    "failures?": [{"key": str, "status": str, "error": str, "n": COUNT}],
    "notes?": [str],
}
ROW = {"key": str, "dataset": str, "metrics": dict}
MAX_FAILURES = 10_000_000


@dataclass(frozen=True)
class TaskResult:
    """`key` is DataComp's for its tasks (``vtab/caltech101``), `dataset` the name that people read.

    `metrics` holds ``main_metric`` beside the others, NaN where a task has none. `outcomes` (n,) float64
    is each sample's own part of the main metric (1 or 0 for right or wrong), for the bootstrap: its mean
    is the main metric where that is a mean, and it is None where a metric has no parts. `samples` is how
    many were measured, `failures` what could not be. `notes` are sentences without which the figures are misread.
    """

    key: str
    dataset: str
    metrics: dict[str, float]
    outcomes: np.ndarray | None = field(default=None, compare=False)
    samples: int = 0
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> float:
        """The main metric; NaN where the task has none."""
        return self.metrics.get("main_metric", float("nan"))

    @property
    def failed(self) -> dict[str, int]:
        """How many failed, by status."""
        return dict(sorted(Counter(failure.status for failure in self.failures).items()))


def write_results(folder: str, results: Iterable[TaskResult]) -> None:
    """Add lines to the folder's eval_results.jsonl; a key that is there already is replaced.

    Each: ``{"key", "dataset", "metrics": {..., "main_metric": x or null}}``, as DataComp's evaluate.py
    writes it. Before it go its `outcomes` to ``outcomes/{key, / as __}.npy``, and how many samples were
    measured and which failed to the ``.json`` beside.
    """
    have = _rows(folder)
    for result in results:
        _write_samples(folder, result)
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


def _write_samples(folder: str, result: TaskResult) -> None:
    path = outcomes_path(folder, result.key)
    if result.outcomes is not None:
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(result.outcomes, np.float64), allow_pickle=False)
        storage.write_atomic(path, buffer.getvalue())
    told = Counter((f.key, f.status, f.error) for f in result.failures)
    rows = [{"key": key, "status": status, "error": error, "n": n} for (key, status, error), n in told.items()]
    record: dict[str, Any] = {"samples": result.samples, "outcomes": result.outcomes is not None, "failures": rows}
    record |= {"notes": result.notes} if result.notes else {}
    storage.write_atomic(path.removesuffix(".npy") + ".json", json.dumps(record, indent=1).encode())


def _result(folder: str, row: dict[str, Any]) -> TaskResult:
    try:
        return _read_result(folder, row)
    except MMFilterError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        path = outcomes_path(folder, str(row["key"])).removesuffix(".npy")
        raise DataError(
            f"{path}.json, .npy: the samples of '{row['key']}' cannot be read ({type(error).__name__}: "
            f"{str(error)[:120]}). Measure anew with `mmfilter evaluate --redo`"
        ) from error


def _read_result(folder: str, row: dict[str, Any]) -> TaskResult:
    metrics = {k: float("nan") if v is None else float(v) for k, v in row["metrics"].items()}
    path = outcomes_path(folder, row["key"])
    beside = path.removesuffix(".npy") + ".json"
    record = optional_object(beside, AGAIN, SAMPLES) or {}
    outcomes = _outcomes(path) if record.get("outcomes") else None
    rows = record.get("failures", ())
    if sum(row["n"] for row in rows) > MAX_FAILURES:
        raise ValueError("it tells of more failures than any task has samples")
    failures = [Failure(f["key"], "", f["status"], f["error"]) for f in rows for _ in range(f["n"])]
    samples, notes = record.get("samples", 0), tuple(record.get("notes", ()))
    return TaskResult(row["key"], row["dataset"], metrics, outcomes, samples, tuple(failures), notes)


def _outcomes(path: str) -> np.ndarray:
    data = storage.read_bytes(path)
    try:
        outcomes: np.ndarray = np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    except Exception as error:  # numpy's parser of headers raises whatever it pleases, also EOFError
        raise ValueError(f"no array: {error}") from error
    if outcomes.ndim != 1 or outcomes.dtype != np.float64 or not np.isfinite(outcomes).all():
        raise ValueError(f"an array {outcomes.dtype} of shape {outcomes.shape}, not one finite number a sample")
    return outcomes


def _rows(folder: str) -> dict[str, dict[str, Any]]:
    path = storage.join(folder, RESULTS)
    if not storage.exists(path):
        return {}
    try:
        lines = storage.read_bytes(path).split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); {AGAIN}") from error
    if lines == [b""]:
        raise DataError(f"{path}: is empty; delete it, or {AGAIN}")
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines):
        try:
            if line.strip():
                row = json.loads(line)
                if wrong := misfit(row, ROW):
                    raise ValueError(wrong)
                rows[row["key"]] = {name: row[name] for name in ROW}
        except (ValueError, RecursionError) as error:
            if number == len(lines) - 1 and line.startswith(b"{"):
                continue  # no newline behind it: an appending writer was killed in this line
            raise DataError(
                f"{path}: line {number + 1} is no result ({short_reason(error)}); each has key, dataset and metrics. "
                f"Delete the line, or {AGAIN}"
            ) from error
    return rows


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)

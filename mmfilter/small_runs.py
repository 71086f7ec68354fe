"""The results of small runs: tables of them, and DataComp's evaluations."""

import csv
import io
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import storage
from .errors import DataError, nearest

COLUMNS = ("bucket", "samples_seen", "error")
EVALUATION = re.compile(r"(?P<bucket>[^=@]+)@(?P<samples>[0-9.eE+_]+)=(?P<path>.+)")


@dataclass(frozen=True)
class Result:
    """One small run: a model trained on `bucket` until it had seen `samples`, and its error, 0 to 1."""

    bucket: str
    samples: float
    error: float


def read_results(words: Iterable[str], metric: str = "imagenet1k") -> list[Result]:
    """Results of files: rows of bucket, samples_seen and error (.csv, .jsonl), or ``BUCKET@SAMPLES=PATH`` of one of
    DataComp's eval_results.jsonl, whose error is 1 - the main metric of the task `metric` (``average``: of the mean
    over all that have one). Raises UsageError, DataError.
    """
    found: list[Result] = []
    for word in words:
        match = EVALUATION.fullmatch(word)
        if match and not storage.exists(word):
            found.append(_evaluation(match["bucket"], match["samples"], match["path"], metric))
        else:
            rows = [_result(row, f"{word}: row {i}") for i, row in enumerate(_rows(word), 1)]
            if not rows:
                raise DataError(f"{word}: holds no result; each is a row of {', '.join(COLUMNS)}")
            found += rows
    return found


def _read(path: str) -> str:
    try:
        return storage.read_bytes(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); results are .csv or .jsonl, as docs/advise.md says"
        ) from error


def _rows(path: str) -> list[dict[str, Any]]:
    text = _read(path)
    if path.endswith(".csv"):
        return [dict(row) for row in csv.DictReader(io.StringIO(text))]
    return _json_lines(path, text)


def _json_lines(path: str, text: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("it is another value")
                rows.append(row)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}: line {number} is no JSON object ({error}); write one a line") from error
    return rows


def _result(row: dict[str, Any], where: str) -> Result:
    if lacking := [name for name in COLUMNS if row.get(name) in (None, "")]:
        raise DataError(f"{where}: no {' and no '.join(lacking)}; a result has {', '.join(COLUMNS)}")
    return _checked(str(row["bucket"]), row["samples_seen"], row["error"], where)


def _checked(bucket: str, samples: Any, error: Any, where: str) -> Result:
    try:
        seen, wrong = float(samples), float(error)
    except (TypeError, ValueError):
        raise DataError(f"{where}: samples_seen {samples!r} and error {error!r} must both be numbers") from None
    if not (0 < seen < math.inf and 0 < wrong <= 1):
        raise DataError(f"{where}: samples_seen {seen:g} must be above 0, and error {wrong:g} above 0 and at most 1")
    return Result(bucket, seen, wrong)


def _evaluation(bucket: str, samples: str, path: str, metric: str) -> Result:
    scores: dict[str, float] = {}
    for row in _json_lines(path, _read(path)):  # a task that was run again is appended: the last line counts
        metrics = row.get("metrics")
        value = metrics.get("main_metric") if isinstance(metrics, dict) else None
        if isinstance(value, int | float) and math.isfinite(value):
            scores[str(row.get("key"))] = float(value)
    if metric != "average" and metric not in scores:
        known = f"{nearest(metric, scores)} It has: {', '.join(sorted(scores)) or 'none'}"
        raise DataError(f"{path}: no main_metric of '{metric}'{known}")
    if not scores:
        raise DataError(f"{path}: no task in it has a main_metric; run the evaluation again")
    value = float(np.mean(list(scores.values()))) if metric == "average" else scores[metric]
    return _checked(bucket, samples, 1 - value, path)

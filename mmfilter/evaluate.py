"""Run tasks on a model: the embedder is loaded once, and each result is written as it comes."""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from . import storage
from .checkpoint import read_config
from .embed import load
from .errors import ConflictError, DataError, MMFilterError
from .json_file import FORMAT, read_object
from .model_identity import changed, identity
from .narrow import with_less
from .plug_names import named, renamed
from .plugs import Task
from .provenance import fingerprint
from .results import AGAIN, RESULTS, TaskResult, read_results, write_results
from .tasks import TASKS
from .versions import versions
from .weights import ModelSpec, resolve

RECORD = "evaluate.json"


def evaluate(
    model: ModelSpec,
    tasks: Sequence[Task],
    out: str,
    device: str = "cpu",
    aside: dict[str, str] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[TaskResult]:
    """The tasks' results, in their order; those that OUT already has are read, not run again.

    A task that fails, whatever it raises, is noted in `aside` (key -> why) and the others go on; without `aside` its
    error is raised. `say` hears of each task before it is run. Embeddings are float32 here, on a GPU too unless
    `model.precision` says otherwise. Raises ConflictError when OUT's results are another model's or were
    made from other samples, and what `embed.load` raises.
    """
    if model.precision == "auto":
        model = model.model_copy(update={"precision": "fp32"})
    have = read_results(out)
    record = _record(out, model, have)
    made: dict[str, dict[str, Any]] = {}
    for task in tasks:
        with _noted(task.key, aside):
            made[task.key] = made_from(task)
            _same(out, task, made[task.key], record["tasks"].get(task.key), task.key in have)
    todo = [task for task in tasks if task.key in made and task.key not in have]
    embedder = load("model", model, device) if todo else None
    for number, task in enumerate(todo):
        assert embedder is not None
        embedder.full = True
        say(f"{number + 1} of {len(todo)}: {task.dataset}")
        with _noted(task.key, aside):
            have[task.key] = _measured(task, embedder)
        if task.key in have:
            record["model"] |= embedder.info()
            record["tasks"][task.key] = made[task.key]
            _save(out, record)  # before the result: one that is there has its record
            write_results(out, [have[task.key]])
    return [have[task.key] for task in tasks if task.key in have]


def _measured(task: Task, embedder: Any) -> TaskResult:
    """The task's result. Raises DataError where its main metric is no number."""
    result = with_less(lambda: task.run(embedder), task.key)
    if task.main_metric and math.isnan(result.main):
        given = ", ".join(name for name, value in result.metrics.items() if not math.isnan(value)) or "none"
        raise DataError(f"of {result.samples:,} samples '{task.main_metric}' is no number; metrics that are: {given}")
    return result


@contextmanager
def _noted(key: str, aside: dict[str, str] | None) -> Iterator[None]:
    """What fails is written into `aside`, where there is one; a conflict is the whole run's."""
    try:
        yield
    except ConflictError:
        raise
    except Exception as error:  # sets are strangers' files, tasks may be another package's: either raises anything
        known = isinstance(error, MMFilterError)
        why = str(error) if known else f"it cannot be measured ({type(error).__name__}: {str(error)[:200]})"
        if aside is None:
            if known:
                raise
            raise DataError(f"{key}: {why}") from error
        aside[key] = why


def made_from(task: Task) -> dict[str, Any]:
    """What a task's result hangs on beside the model: its plug, its fields, its files as `storage.identity` has them.

    Not where they lie: a set that was moved is the same set. Raises DataError.
    """
    fields = {k: v for k, v in task.model_dump(mode="json").items() if k not in ("root", "pairs")}
    inputs = [[os.path.basename(path), storage.identity_or_none(path)] for path in task.inputs]
    return {**named(task, TASKS), "fields": fields, "files": len(inputs), "inputs": fingerprint(inputs)}


def forget(out: str) -> None:
    """Take the results from OUT, so that all is measured anew. Raises ConflictError for another program's."""
    if storage.exists(storage.join(out, RESULTS)) and not storage.exists(storage.join(out, RECORD)):
        raise ConflictError(
            f"{out}: its {RESULTS} is another program's, as no {RECORD} is beside it, and is not replaced; give "
            "another --out"
        )
    for name in (RESULTS, RECORD):
        storage.remove(storage.join(out, name))


def _record(out: str, model: ModelSpec, have: dict[str, TaskResult]) -> dict[str, Any]:
    """OUT's evaluate.json, or a new one. Raises ConflictError."""
    path = storage.join(out, RECORD)
    now = _identity(model)
    if not storage.exists(path):
        if have:
            raise ConflictError(f"{out}: holds results, and no {RECORD} tells of which model; give another --out")
        return {"format": FORMAT, "model": now, "tasks": {}, "versions": versions()}
    record = _read_record(path)
    was = record["model"]
    other = changed({key: was[key] for key in now if key in was and key != "model"}, now)
    if other:
        raise ConflictError(
            f"{out}: its results are of {was['model']} (weights {was['sha256'][:12] or 'random'}), not of "
            f"{model.model} ({now['sha256'][:12] or 'random'}): another {', '.join(other)}; give another --out, or "
            "measure anew with --redo"
        )
    return record


def _read_record(path: str) -> dict[str, Any]:
    """Raises DataError where it is damaged."""
    return read_object(path, AGAIN, {"model": {"model": str, "sha256": str, "config?": str}, "tasks": {str: dict}})


def _identity(spec: ModelSpec) -> dict[str, Any]:
    """Which model it is, wherever it lies: its weights, and its configuration or open_clip's names of it."""
    found = resolve(spec)
    folder = found.name.removeprefix("local-dir:")
    told = read_config(folder) if folder != found.name else [found.name, found.tag]
    config = fingerprint([told, spec.decoder, spec.precision, spec.seed])
    told = identity(spec, found)
    return {"model": spec.model, "sha256": found.sha256, "config": config, "vocabulary": told["vocabulary"]}


def _same(out: str, task: Task, now: dict[str, Any], was: dict[str, Any] | None, there: bool) -> None:
    was = renamed(was, TASKS)
    if there and was is not None and was != now:
        told = ", ".join(f"{key}: {was.get(key)} was, {now[key]} is" for key in now if was.get(key) != now[key])
        raise ConflictError(
            f"{out}: '{task.key}' was measured on something else ({told}); give another --out, or --redo"
        )


def _save(out: str, record: dict[str, Any]) -> None:
    storage.write_atomic(storage.join(out, RECORD), json.dumps(record, indent=1).encode())

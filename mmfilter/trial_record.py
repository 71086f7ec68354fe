"""`rank.json`: what the trials of a folder are of, so that only the same are gone on with; and what is done of them."""

import json
import os
from typing import Any

from . import storage
from .errors import ConflictError, DataError, UsageError
from .json_file import COUNT, read_object
from .results import TaskResult, read_results
from .run_file import is_file_name
from .train_identity import check_trial, others

RECORD = "rank.json"
CURE = "delete it and run the same `mmfilter rank` again: trials that are done are kept"
SHAPE = {
    "scale": {"name": str, "samples": COUNT, "model": str, "batch?": COUNT, "vocabulary?": COUNT, "engine?": str},
    "pool": [list],
    "samples": COUNT,
    "tasks": {str: dict},
    "arms": [{"name": str, "path?": str, "kept": COUNT, "beside": str, "random": bool}],
    "seeds": [int],
}


def write_record(out: str, now: dict[str, Any]) -> None:
    """Write rank.json, with the arms and seeds that it had. Raises ConflictError where its trials are others."""
    path = os.path.join(out, RECORD)
    now = json.loads(json.dumps(now))
    if storage.exists(path):
        was = _checked(path)
        for name in ("scale", "pool", "tasks"):
            if was[name] != now[name]:
                raise ConflictError(f"{out}: its trials are of another {name}; give another --out")
        if changed := others(was.get("made_from") or {}, now.get("made_from") or {}):
            raise ConflictError(f"{out}: its trials are of another {', '.join(changed)}; give another --out")
        older = {arm["name"]: arm for arm in was["arms"]}
        for arm in now["arms"]:
            before = {"sha256": arm.get("sha256"), **older.get(arm["name"], arm)}
            if (before["kept"], before["sha256"]) != (arm["kept"], arm.get("sha256")):
                raise ConflictError(f"{out}: '{arm['name']}' has other samples now; rename it, or give another --out")
        now["arms"] = list({**older, **{arm["name"]: arm for arm in now["arms"]}}.values())
        now["seeds"] = sorted({*was["seeds"], *now["seeds"]})
    storage.write_atomic(path, (json.dumps(now, indent=1) + "\n").encode())


def _checked(path: str) -> dict[str, Any]:
    """A rank.json, whose arms' names are folders. Raises DataError."""
    record = read_object(path, CURE, SHAPE)
    for arm in record["arms"]:
        if not is_file_name(arm["name"]):
            raise DataError(f"{path}: is damaged (an arm cannot be called {arm['name'][:100]!r}); {CURE}")
    return record


def read_record(out: str) -> dict[str, Any]:
    """OUT's rank.json. Raises UsageError where there is none."""
    path = os.path.join(out, RECORD)
    if not storage.exists(path):
        raise UsageError(f"{out}: no trials here (there is no {RECORD}); `mmfilter rank` makes them")
    return _checked(path)


def results(out: str, record: dict[str, Any]) -> dict[str, dict[int, dict[str, TaskResult]]]:
    """Arm -> seed -> key -> result, of the trials that are done (all of rank.json's tasks). Raises DataError."""

    found: dict[str, dict[int, dict[str, TaskResult]]] = {}
    for arm in record["arms"]:
        for seed in record["seeds"]:
            folder = os.path.join(out, "trials", arm["name"], f"seed-{seed}")
            check_trial(folder, arm, os.path.join(out, RECORD))
            have = read_results(folder)
            if set(record["tasks"]) <= set(have):
                found.setdefault(arm["name"], {})[seed] = have
    if not found:
        raise DataError(f"{out}: no trial is done yet; go on with `mmfilter rank`")
    return found

"""How far a run is, from its folder alone: commits, failures, attempts and the driver's last note of itself."""

import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Any

from . import listings, storage
from .errors import DataError, MMFilterError
from .json_file import COUNT, optional_object, read_object
from .sidecar import read_commit, read_failures

EVERY = 5.0  # seconds between two notes of a driver
SILENT = 6 * EVERY  # a driver without a note for so long is taken for dead
WINDOW, FEWEST = 600.0, 8  # the rate is that of the last ten minutes, or of so many commits
SLOW, SLOW_AT_LEAST = 3.0, 30.0  # a straggler is in flight this many typical times, and so many seconds
READERS = 32  # commits read at once: on an object store each waits for an answer


NOTED = {
    "time": float,
    "state?": str,
    "command?": str,
    "host?": str,
    "pid?": int,
    "job?": str,
    "started?": float,
    "stage?": str,
    "done?": COUNT,
    "of?": COUNT,
    "unit?": str,
    "typical_s?": float,
    "in_flight?": {str: float},
}
"""What a driver's note holds; one that is damaged counts as none, as it is only shown."""
NOTE, OLD_NOTE = ".progress", "progress.json"  # not *.json: img2dataset takes every such file for a shard's stats


def progress_path(out: str) -> str:
    return storage.join(out, NOTE)


def write_progress(out: str, record: Mapping[str, Any]) -> None:
    """Write the driver's note. An error is passed over: a note is not worth a run."""
    try:
        storage.write_atomic(progress_path(out), json.dumps(record, indent=1).encode())
    except (OSError, MMFilterError):
        pass


def read_progress(out: str) -> dict[str, Any]:
    """The driver's last note; empty where there is none or it is damaged."""
    return _note(progress_path(out)) or _note(storage.join(out, OLD_NOTE))


def forget_old_note(out: str) -> None:
    """Remove the note of a version that called it progress.json; a file that is no such note stays."""
    path = storage.join(out, OLD_NOTE)
    if {"pid", "host", "in_flight"} <= _note(path).keys():
        with suppress(OSError, MMFilterError):
            storage.remove(path)


def _note(path: str) -> dict[str, Any]:
    try:
        return optional_object(path, "delete it", NOTED) or {}
    except MMFilterError:
        return {}


def run_status(out: str, stems: Sequence[str], now: float | None = None) -> dict[str, Any]:
    """Plain values that say how far the run in `out` over the shards `stems` is at `now` (seconds since 1970).

    In `shards`: of = done + set_aside + left; in `samples`: read = ok + the sum of failed, of done shards and
    those set aside. A shard is done when it has a commit, set aside when its attempts are used up.
    """
    now = time.time() if now is None else now
    wanted = set(stems)
    with ThreadPoolExecutor(READERS) as pool:
        when = {stem: at for stem, at in _listed(storage.join(out, "metadata"), ".json").items() if stem in wanted}
        commits, damaged = _commits(out, sorted(when), pool)
        attempts = _attempts(out, wanted - set(commits), pool)
        aside = _aside(out, sorted(attempts), pool)
    left = len(wanted) - len(commits) - len(aside)
    reads = {stem: commit["counts"]["read"] for stem, commit in commits.items()}
    note = read_progress(out)
    state = state_of(note, left, now)
    return {
        "out": out,
        "state": state,
        "shards": {"of": len(wanted), "done": len(commits), "set_aside": len(aside), "left": left},
        **_counts(commits, aside),
        **speed(reads, when, note.get("started", 0.0), left if state == "running" else 0),
        "set_aside": sorted(aside),
        "damaged": damaged,
        "attempts": {stem: said for stem, said in attempts.items() if stem not in aside},
        "driver": note,
        "stragglers": stragglers(note, now if state == "running" else note.get("time", now)),
    }


def state_of(note: Mapping[str, Any], left: int, now: float) -> str:
    """running, silent (killed, or its machine is gone), stopped, or done / unfinished where nobody works on it."""
    state = note.get("state")
    if state == "running":
        return "running" if now - note["time"] <= SILENT else "silent"
    return "done" if not left else "stopped" if state == "stopped" else "unfinished"


def speed(reads: Mapping[str, int], when: Mapping[str, float], started: float, left: int) -> dict[str, Any]:
    """`samples_per_s` of the last commits, and `left_s` to go at that rate; None where nothing can be said.

    `reads` and `when` are samples and time of each commit. Those since `started` count (a run that was
    resumed did not work in between), of these the last ten minutes. The first only starts the clock.
    """
    commits = sorted((when[stem], stem) for stem in reads if when[stem] >= started)
    recent = [commit for commit in commits if commit[0] >= commits[-1][0] - WINDOW]
    recent = recent if len(recent) >= FEWEST else commits[-FEWEST:]
    took = recent[-1][0] - recent[0][0] if recent else 0.0
    if took <= 0:
        return {"samples_per_s": None, "left_s": None}
    rate = sum(reads[stem] for _, stem in recent[1:]) / took
    samples = left * sum(reads.values()) / len(reads)
    return {"samples_per_s": round(rate, 2), "left_s": round(samples / rate, 1) if rate and left else None}


def stragglers(note: Mapping[str, Any], now: float) -> dict[str, float]:
    """Shard -> seconds in flight, of the shards that take three times as long as others did; longest first."""
    flying = {stem: round(now - since, 1) for stem, since in note.get("in_flight", {}).items()}
    limit = max(SLOW_AT_LEAST, SLOW * (note.get("typical_s") or 0.0))
    return dict(sorted(((s, t) for s, t in flying.items() if t > limit), key=lambda item: (-item[1], item[0])))


def _counts(commits: Mapping[str, Any], aside: Mapping[str, Counter[str]]) -> dict[str, Any]:
    failed: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for commit in commits.values():
        failed.update(commit["counts"]["failed"])
        seconds.update(commit.get("seconds", {}))
    for statuses in aside.values():
        failed.update(statuses)
    ok = sum(commit["counts"]["ok"] for commit in commits.values())
    return {
        "samples": {"read": ok + failed.total(), "ok": ok, "failed": dict(sorted(failed.items()))},
        "seconds": {stage: round(s, 2) for stage, s in sorted(seconds.items())},
    }


def _listed(folder: str, ending: str) -> dict[str, float]:
    """Stem -> when its file was written (seconds since 1970; 0 where the store does not say)."""
    if not storage.is_remote(folder):
        rows = list(os.scandir(folder)) if os.path.isdir(folder) else []
        return {storage.stem(row.name): row.stat().st_mtime for row in rows if row.name.endswith(ending)}
    return {
        storage.stem(row["name"]): _written(row) for row in listings.entries(folder) if row["name"].endswith(ending)
    }


def _written(row: Mapping[str, Any]) -> float:
    """The time in a row of a listing, under the name that its store has for it."""
    for key in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = row.get(key)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return 0.0


def _commits(out: str, stems: list[str], pool: ThreadPoolExecutor) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """(stem -> commit, stems whose commit is damaged)."""

    def read(stem: str) -> dict[str, Any] | None:
        try:
            return read_commit(out, stem)
        except DataError:
            return None

    found = dict(zip(stems, pool.map(read, stems), strict=True))
    return {s: c for s, c in found.items() if c is not None}, [s for s, c in found.items() if c is None]


def _attempts(out: str, wanted: set[str], pool: ThreadPoolExecutor) -> dict[str, dict[str, Any]]:
    """Shard -> {"attempts": n, "error": the last one's first line}, of shards that failed and are not done."""
    folder = storage.join(out, "attempts")
    stems = sorted(wanted & set(_listed(folder, ".json")))

    def read(stem: str) -> dict[str, Any]:
        try:
            said = read_object(storage.join(folder, f"{stem}.json"), "delete it", {"attempts": COUNT, "error": str})
            return {"attempts": said["attempts"], "error": (said["error"].splitlines() or [""])[0]}
        except (MMFilterError, FileNotFoundError):
            return {"attempts": 0, "error": "its record is damaged or just gone"}

    return dict(zip(stems, pool.map(read, stems), strict=True))


def _aside(out: str, stems: list[str], pool: ThreadPoolExecutor) -> dict[str, Counter[str]]:
    """Shard -> its failures by status, of the shards that were given up on."""

    def read(stem: str) -> Counter[str]:
        return Counter(failure.status for failure in read_failures(out, stem))

    found = dict(zip(stems, pool.map(read, stems), strict=True))
    return {stem: statuses for stem, statuses in found.items() if set(statuses) == {"shard_set_aside"}}

"""Where a report's numbers come from: the pool's shards, the dates, the times on the clock."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..dates import shown
from ..fields import uid_origins
from .pool import Pool

FOLDERS = 4  # of a pool that are named


@dataclass(frozen=True)
class Folder:
    """Shards of one folder: how many, the first and the last by name."""

    path: str
    shards: int
    first: str
    last: str


@dataclass(frozen=True)
class Origin:
    """The pool by folder (`more` others are not named), and dates as a reader sees them, empty where not recorded.

    `aside` is shard -> why it was set aside.
    """

    folders: list[Folder]
    more: int
    started: str
    selected: str
    set_aside: dict[str, str]
    uids: str = ""


@dataclass(frozen=True)
class Clock:
    """Wall-clock seconds by step, added up over the `runs` that had work to do; their dates, where recorded."""

    steps: list[tuple[str, float]]
    runs: int
    dates: list[str]


def origin(pool: Pool, run: Mapping[str, Any]) -> Origin:
    """From run.json and the subset's record; without run.json from the commits."""
    paths = [str(path) for path in run.get("pool") or []]
    paths = paths or [str(commit["path"]) for commit in pool.commits.values() if commit.get("path")]
    groups: dict[str, list[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        groups.setdefault(folder or ".", []).append(name)
    folders = [Folder(folder, len(names), min(names), max(names)) for folder, names in sorted(groups.items())]
    if not folders:
        stems = pool.table.stems
        folders = [Folder(pool.table.metadata, len(stems), stems[0], stems[-1])] if stems else []
    set_aside = (run.get("embed") or {}).get("shards_set_aside") or {}
    return Origin(
        folders[:FOLDERS],
        max(0, len(folders) - FOLDERS),
        shown(run.get("started")),
        shown(pool.record.get("selected")),
        {str(shard): str(why) for shard, why in sorted(set_aside.items())},
        derived(run),
    )


def derived(run: Mapping[str, Any]) -> str:
    """How many uids were not stated by the pool, and what they were made of; empty where all were."""
    return uid_origins((run.get("embed") or {}).get("uids") or {})


def clock(run: Mapping[str, Any]) -> Clock | None:
    """Of run.json; None where no run is recorded."""
    steps = [(str(name), float(spent)) for name, spent in (run.get("seconds") or {}).items()]
    runs = run.get("runs") or [{}]
    dates = [date for date in (shown(one.get("started")) for one in runs) if date]
    return Clock(steps, len(runs), dates) if steps else None


def commands(pool: Pool) -> dict[str, str]:
    """To paste: what asks why a sample was kept or dropped (UID is the reader's), and what applies the recipe again."""
    where = ["--out", pool.out, "--name", pool.name]
    return {
        "serve": shlex.join(["mmfilter", "serve", pool.out]),
        "explain": shlex.join(["mmfilter", "explain", "UID", *where]),
        "select": shlex.join(["mmfilter", "select", "recipe.yaml", *where]),
    }

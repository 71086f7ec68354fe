"""The numbers of a report, each from the files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from .. import storage
from ..run_file import named_shards
from .pool import Pool, Step
from .reasons import sentence
from .sheet import shorten

EXAMPLES = 4  # failures shown for each reason


def percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else 0.0


@dataclass(frozen=True)
class Counts:
    """in = kept + dropped + failed, from the decisions and the failures; `read` is the commits' own sum, and the
    samples of shards without one, which were set aside.
    """

    read: int
    kept: int
    dropped: int
    failed: int
    shards: int

    @property
    def conserved(self) -> bool:
        return self.read == self.kept + self.dropped + self.failed

    def share(self, part: int) -> float:
        """`part` of all that was read, in percent; 0 for an empty pool."""
        return percent(part, self.read)


@dataclass(frozen=True)
class Level:
    """One line of the waterfall: samples before and after a rule."""

    step: Step
    before: int
    after: int


@dataclass(frozen=True)
class Reason:
    status: str
    sentence: str
    count: int
    examples: list[dict[str, str]]


@dataclass(frozen=True)
class Stage:
    """Seconds added up over threads and workers; rate in samples a second of those."""

    name: str
    seconds: float
    rate: float
    share: float


def count(pool: Pool, failures: pl.DataFrame) -> Counts:
    kept, dropped = int(pool.keep.sum()), int((pool.blame >= 0).sum())
    read = sum(int(commit["counts"]["read"]) for commit in pool.commits.values())
    read += failures.filter(~pl.col("shard").is_in(list(pool.commits))).height  # of shards that were set aside
    if not pool.commits:
        read = kept + dropped + failures.height
    return Counts(read, kept, dropped, failures.height, len(pool.commits) or len(pool.table.stems))


def differences(pool: Pool, counts: Counts) -> list[str]:
    """Sentences on every number that two files tell differently; none is as it should be."""
    found = []
    if not counts.conserved:
        total = counts.kept + counts.dropped + counts.failed
        found.append(f"The shards hold {counts.read:,} samples and {total:,} are accounted for.")
    recorded = pool.record["counts"]
    for name in ("in", "kept", "dropped", "failed"):
        now = counts.read if name == "in" else getattr(counts, name)
        if name in recorded and int(recorded[name]) != now:
            found.append(f"The subset was recorded with {name} = {int(recorded[name]):,}; the files now say {now:,}.")
    return found


def waterfall(pool: Pool) -> list[Level]:
    """The rules in order, with what was left before and after each."""
    levels, left = [], int(pool.well.sum())
    for number, step in enumerate(pool.steps):
        dropped = int((pool.blame == number).sum())
        levels.append(Level(Step(**{**step.__dict__, "dropped": dropped}), left, left - dropped))
        left -= dropped
    return levels


def reasons(failures: pl.DataFrame) -> list[Reason]:
    """Failures by status, most frequent first, with the first few of each."""
    found = []
    for (status,), rows in failures.sort("status", "shard", "key").group_by("status", maintain_order=True):
        name = str(status)
        examples = [{k: shorten(v) for k, v in row.items()} for row in rows.head(EXAMPLES).to_dicts()]
        found.append(Reason(name, sentence(name), rows.height, examples))
    return sorted(found, key=lambda reason: (-reason.count, reason.status))


def stages(pool: Pool, counts: Counts) -> list[Stage]:
    """Time by stage over all shards, longest first."""
    seconds: dict[str, float] = {}
    for commit in pool.commits.values():
        for name, spent in (commit.get("seconds") or {}).items():
            seconds[name] = seconds.get(name, 0.0) + float(spent)
    longest = max(seconds.values(), default=0.0)
    return [
        Stage(name, spent, counts.read / spent if spent else 0.0, percent(spent, longest))
        for name, spent in sorted(seconds.items(), key=lambda item: (-item[1], item[0]))
    ]


def notes(pool: Pool) -> list[tuple[str, int]]:
    """What was worth counting and cost no sample, such as members that were there twice."""
    found: dict[str, int] = {}
    for commit in pool.commits.values():
        for name, n in (commit.get("notes") or {}).items():
            found[name] = found.get(name, 0) + int(n)
    return sorted(found.items())


def absent_shards(pool: Pool, run: Mapping[str, Any]) -> list[str]:
    """Shards the run was given that no file here speaks of: set aside, or not reached yet."""
    return [path for path in named_shards(run) if storage.stem(path) not in pool.commits]


def origins(pool: Pool) -> dict[str, list[tuple[str, str]]]:
    """What made the files: models, parts and packages, as (name, value) lines; several values are all told."""
    groups: dict[str, dict[str, dict[str, int]]] = {"models": {}, "parts": {}, "packages": {}}
    for commit in pool.commits.values():
        _gather(groups["models"], commit.get("models") or {})
        _gather(groups["parts"], commit.get("parts") or {})
        _gather(groups["packages"], commit.get("versions") or {})
    if not pool.commits:
        _gather(groups["packages"], pool.record.get("versions") or {})
    return {group: [(name, _told(values)) for name, values in sorted(lines.items())] for group, lines in groups.items()}


def _gather(into: dict[str, dict[str, int]], value: Mapping[str, Any], prefix: str = "") -> None:
    """Flatten nested mappings to dotted names, and count each value."""
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            _gather(into, inner, f"{name}.")
        else:
            counts = into.setdefault(name, {})
            counts[str(inner)] = counts.get(str(inner), 0) + 1


def _told(values: Mapping[str, int]) -> str:
    if len(values) == 1:
        return next(iter(values))
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{value} ({n} shards)" for value, n in ordered)

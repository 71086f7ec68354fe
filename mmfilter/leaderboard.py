"""Trials as a table: each arm's score with its interval, and who is better than whom where that holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from .bootstrap import Seeds, interval, kendall, points, sample_draws, totals
from .errors import UsageError
from .tasks.datacomp import groups
from .trial_record import read_record, results
from .trials import WHOLE


@dataclass(frozen=True)
class Figure:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def plain(self) -> list[float]:
        return [round(number, 6) for number in (self.value, self.low, self.high)]


@dataclass(frozen=True)
class Row:
    """An arm: `score` is the mean over tasks, `gain` its lead over no filter and `lead` over random of its size.

    `groups` are DataComp's, as far as all of a group's tasks were measured.
    """

    name: str
    kept: int
    fraction: float
    random: bool
    beside: str
    seeds: int
    score: Figure
    tasks: dict[str, Figure]
    groups: dict[str, Figure]
    gain: Figure | None = None
    lead: Figure | None = None


@dataclass(frozen=True)
class Board:
    """One folder's trials. `better` are the pairs (a, b) of which a is better; `draws` arm -> (draws,) of the score."""

    out: str
    scale: str
    model: str
    samples: int
    lr: float
    pool: int
    rows: list[Row]
    better: list[tuple[str, str]]
    draws: dict[str, np.ndarray]
    unfinished: dict[str, int]

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **{name: getattr(self, name) for name in ("out", "scale", "model", "samples", "lr", "pool", "unfinished")},
            "arms": [_plain(row) for row in self.rows],
            "better": [list(pair) for pair in self.better],
        }


def _plain(row: Row) -> dict[str, Any]:
    figures = {name: figure.plain() if figure else None for name, figure in _leads(row).items()}
    named = {name: getattr(row, name) for name in ("name", "kept", "fraction", "random", "beside", "seeds")}
    parts = {"groups": row.groups, "tasks": row.tasks}
    return {**named, **figures, **{part: {k: f.plain() for k, f in found.items()} for part, found in parts.items()}}


def _leads(row: Row) -> dict[str, Figure | None]:
    return {"score": row.score, "gain": row.gain, "lead": row.lead}


def board(out: str) -> Board:
    """The trials in OUT that are done. Raises UsageError, DataError."""
    record = read_record(out)
    done = results(out, record)
    keys = [key for key in record["tasks"] if _counts(done, key)]
    if not keys:
        raise UsageError(f"{out}: none of its tasks has a main metric")
    names = [arm["name"] for arm in record["arms"] if arm["name"] in done]
    everyone = Contest(done, keys)
    rows = [_row(next(a for a in record["arms"] if a["name"] == name), everyone, record["samples"]) for name in names]
    rows.sort(key=lambda row: (-row.score.value, row.name))
    better = []
    for a, b in combinations([row.name for row in rows], 2):
        difference = everyone.difference(a, b)
        if difference and difference.low > 0:
            better.append((a, b))
    lacking = {arm["name"]: len(record["seeds"]) - len(done.get(arm["name"], {})) for arm in record["arms"]}
    scale = record["scale"]
    return Board(
        out,
        scale["name"],
        scale["model"].rsplit("/", 1)[-1].removesuffix(".json"),
        scale["samples"],
        scale["lr"],
        record["samples"],
        rows,
        better,
        {name: everyone.total(name) for name in names},
        {name: count for name, count in lacking.items() if count},
    )


def _counts(done: Mapping[str, Seeds], key: str) -> bool:
    return not any(np.isnan(result[key].main) for seeds in done.values() for result in seeds.values())


class Contest:
    """Arms' results and the draws of their samples, the same for all."""

    def __init__(self, done: Mapping[str, Seeds], keys: Sequence[str]) -> None:
        self.done, self.keys = done, keys
        self.drawn = sample_draws(done, keys)

    def total(self, name: str) -> np.ndarray:
        """(draws,) of an arm's score."""
        return totals(self.drawn[name])

    def score(self, name: str) -> Figure:
        return _figure(float(points(self.done[name], self.keys).mean()), self.total(name))

    def part(self, name: str, keys: Sequence[str]) -> Figure:
        """An arm's mean over some of the tasks."""
        columns = [self.keys.index(key) for key in keys]
        value = float(points(self.done[name], self.keys)[:, columns].mean())
        return _figure(value, totals(self.drawn[name][:, :, columns]))

    def difference(self, a: str, b: str) -> Figure | None:
        """a's score less b's, over the seeds that both have, seed by seed; None with fewer than two of them."""
        both = sorted(set(self.done[a]) & set(self.done[b]))
        if len(both) < 2:
            return None
        rows = [[sorted(self.done[name]).index(seed) for seed in both] for name in (a, b)]
        apart = self.drawn[a][:, rows[0]] - self.drawn[b][:, rows[1]]
        here, there = (points(self.done[name], self.keys)[row] for name, row in zip((a, b), rows, strict=True))
        return _figure(float((here - there).mean()), totals(apart))


def _figure(value: float, draws: np.ndarray) -> Figure:
    return Figure(value, *interval(draws))


def _row(arm: dict[str, Any], contest: Contest, pool: int) -> Row:
    name, beside = arm["name"], arm["beside"]
    return Row(
        name,
        arm["kept"],
        round(arm["kept"] / max(pool, 1), 6),
        arm["random"],
        beside,
        len(contest.done[name]),
        contest.score(name),
        {key: contest.part(name, [key]) for key in contest.keys},
        {group: contest.part(name, keys) for group, keys in groups().items() if set(keys) <= set(contest.keys)},
        contest.difference(name, WHOLE) if name != WHOLE and WHOLE in contest.done else None,
        contest.difference(name, beside) if beside in contest.done else None,
    )


def agreement(proxy: Board, full: Board) -> Figure:
    """Kendall's tau-b between two boards' scores of the arms that both have, with a 95 % interval from the draws.

    Random subsets count as one arm each. Raises UsageError with fewer than three arms in common.
    """
    names = [row.name for row in full.rows if row.name in proxy.draws]
    if len(names) < 3:
        raise UsageError(f"{proxy.out} and {full.out} have {len(names)} arms in common; a ranking needs three")
    by = [{row.name: row.score.value for row in board.rows} for board in (proxy, full)]
    value = kendall(*(np.array([scores[name] for name in names]) for scores in by))
    drawn = [np.stack([board.draws[name] for name in names], axis=1) for board in (proxy, full)]
    return _figure(float(value), kendall(*drawn))

"""Intervals that hold: tasks' samples and seeds are drawn again, the same for every arm."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .results import TaskResult

DRAWS = 2000
T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""Student's t, 97.5 %, for 1 to 15 degrees of freedom."""

Seeds = Mapping[int, Mapping[str, TaskResult]]
"""Seed -> task's key -> result, of one arm."""


def points(seeds: Seeds, keys: Sequence[str]) -> np.ndarray:
    """(seeds, tasks) float64: main metrics, seeds in ascending order."""
    return np.array([[seeds[seed][key].main for key in keys] for seed in sorted(seeds)], np.float64)


def sample_draws(
    arms: Mapping[str, Seeds], keys: Sequence[str], draws: int = DRAWS, seed: int = 0
) -> dict[str, np.ndarray]:
    """Arm -> (draws, seeds, tasks) float64: main metrics on samples drawn again with replacement.

    In one draw every arm and seed has the same samples of a task, so that differences are paired. A main metric
    that is no mean of its outcomes moves by as much as their mean does; one without outcomes does not move.
    """
    found = {name: np.repeat(points(seeds, keys)[None], draws, axis=0) for name, seeds in arms.items()}
    for column, key in enumerate(keys):
        sizes = {_size(result[key]) for seeds in arms.values() for result in seeds.values()}
        for size in sorted(sizes - {0}):
            rng = np.random.default_rng([seed, column, size])
            counts = rng.multinomial(size, np.full(size, 1 / size), draws) / size
            for name, seeds in arms.items():
                for row, number in enumerate(sorted(seeds)):
                    outcomes = seeds[number][key].outcomes
                    if outcomes is not None and len(outcomes) == size:
                        found[name][:, row, column] += counts @ (outcomes - outcomes.mean())
    return found


def _size(result: TaskResult) -> int:
    return 0 if result.outcomes is None else len(result.outcomes)


def widening(seeds: int) -> float:
    """What a bootstrap over so few seeds lacks: the spread's small-sample factor, and Student's t for the normal's.

    With two seeds 9.2, with three 2.7, with many 1. Without it three trainings would seem to be many.
    """
    t = T975[seeds - 2] if seeds - 2 < len(T975) else 1.96 + 2.5 / (seeds - 1)
    return t / 1.96 * math.sqrt(seeds / (seeds - 1))


def totals(drawn: np.ndarray, seed: int = 0) -> np.ndarray:
    """(draws,) of (draws, seeds, tasks): the mean over tasks and seeds, samples and seeds drawn again.

    With one seed only the samples vary: how far another training would lie from it, it cannot tell.
    """
    by_seed = drawn.mean(axis=2)
    found = by_seed.mean(axis=1)
    count = by_seed.shape[1]
    if count < 2:
        return found
    chosen = np.random.default_rng([seed, count]).integers(count, size=(len(drawn), count))
    centre = by_seed.mean(axis=0)  # over draws: the seeds' own values
    return found + widening(count) * (centre[chosen].mean(axis=1) - centre.mean())


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of (draws,)."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def kendall(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(...,) Kendall's tau-b between the last axes of two arrays (..., n); NaN where one is all ties.

    Pairs that agree less those that do not, over the root of both numbers of untied pairs (Kendall 1945).
    """
    i, j = np.triu_indices(a.shape[-1], 1)
    da, db = np.sign(a[..., i] - a[..., j]), np.sign(b[..., i] - b[..., j])
    whole = np.sqrt(np.abs(da).sum(-1) * np.abs(db).sum(-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (da * db).sum(-1) / whole

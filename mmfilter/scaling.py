"""The scaling law of repeated data of unequal quality: fitted to small runs, and read at a budget.

Goyal, Maini, Lipton, Raghunathan and Kolter 2024, "Scaling Laws for Data Filtering" (arXiv 2404.07177), as their
code has it (github.com/locuslab/scaling_laws_data_filtering, objective.py).
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

UNIT = 100_000  # samples are counted in these [code]
FLOOR = 0.1  # d of their fit to ImageNet error [code: results/parameter_values.jsonl at commit 251f695]
UTILITIES = -np.linspace(0.005, 0.5, 100)  # their grid of b, and of c below [code: grid_search.py]
HALF_LIVES = np.linspace(1.0, 10.0, 100)
FIRST_PASS = np.geomspace(0.5, 1e4, 60)  # grid of a·n1/1e5, ours; their fit's is 3.2
BOUNDS = np.log([[1e-4, 0.05], [5.0, 1e3]])  # of -b and c in the refinement: ours, only to keep it finite
STEPS = 60


@dataclass(frozen=True)
class Law:
    """Of k buckets of `size` samples: `scale` a and `floor` d are shared, `utilities` b (k,) below 0 and
    `half_lives` c (k,), in passes, are each bucket's own.
    """

    size: int
    scale: float
    floor: float
    utilities: np.ndarray
    half_lives: np.ndarray

    def error(self, samples: float, buckets: Sequence[int]) -> float:
        """The error after `samples` seen of the merged `buckets` (positions), passes taken in turn.

        y = ((a n_1 / 1e5)^b_0 + d) prod_j (n_{j+1} / n_j)^b_j; n_j is what was seen by the end of pass j, and
        b_j the mean over the k buckets of b 0.5^(j / (c k)). The floor decays with the rest [code].
        """
        chosen = np.asarray(buckets, np.int64)
        k = len(chosen)
        first, ratios = passes(np.array([samples], np.float64), self.size * k)
        utility, passed = self.utilities[chosen, None], np.arange(1, ratios.shape[1] + 1)
        decayed = (utility * 0.5 ** (passed / (self.half_lives[chosen, None] * k))).mean(axis=0)
        start = (self.scale * first[0] / UNIT) ** utility.mean() + self.floor
        return float(start * np.exp(ratios[0] @ decayed))


def passes(samples: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """(samples in the first pass (n,), log(n_{j+1} / n_j) (n, j) of the passes after it) of `samples` (n,) seen."""
    most = int(samples.max(initial=0) // size)
    ends = np.minimum(np.arange(1, most + 2) * float(size), samples[:, None])
    return ends[:, 0], np.diff(np.log(ends), axis=1)


@dataclass(frozen=True)
class Runs:
    """One bucket's results: `samples` (n,) seen and `error` (n,), of `size` samples a pass."""

    samples: np.ndarray
    error: np.ndarray
    size: int

    @cached_property
    def passes(self) -> tuple[np.ndarray, np.ndarray]:
        return passes(self.samples, self.size)

    def drawn(self, rng: np.random.Generator) -> "Runs":
        """As many results drawn with replacement, again while fewer than two different lengths come up."""
        while True:
            at = rng.integers(0, len(self.samples), len(self.samples))
            if len(np.unique(self.samples[at])) > 1 and (self.samples[at] > self.size).any():
                return replace(self, samples=self.samples[at], error=self.error[at])

    def decay(self, half_life: np.ndarray) -> np.ndarray:
        """(c, n): sum over later passes of 0.5^(j / c) log(n_{j+1} / n_j), for `half_life` (c,)."""
        ratios = self.passes[1]
        return 0.5 ** (np.arange(1, ratios.shape[1] + 1) / half_life[:, None]) @ ratios.T


def fit(runs: Sequence[Runs], floor: float = FLOOR, scale: float | None = None) -> Law:
    """Least squares over all results: each bucket's b and c on the authors' grid, then all refined together.

    `scale` is shared and fitted unless it is given. Their code takes the best of 100,000 drawn points of the grid;
    the refinement (Levenberg-Marquardt) is ours.
    """
    size = runs[0].size
    scales = np.array([scale]) if scale else FIRST_PASS * UNIT / size
    found = [[on_grid(run, a, floor) for run in runs] for a in scales]
    best = int(np.argmin([sum(loss for loss, _, _ in row) for row in found]))
    b, c = (np.array([bucket[i] for bucket in found[best]]) for i in (1, 2))
    return refine(runs, Law(size, float(scales[best]), floor, b, c), scale is None)


def on_grid(
    run: Runs, scale: float, floor: float, utilities: np.ndarray = UTILITIES, half_lives: np.ndarray = HALF_LIVES
) -> tuple[float, float, float]:
    """(squared error, b, c) of the grid's best point for one bucket."""
    start = (scale * run.passes[0] / UNIT) ** utilities[:, None] + floor  # (b, n)
    fitted = start[:, None] * np.exp(utilities[:, None, None] * run.decay(half_lives))
    loss = ((fitted - run.error) ** 2).sum(axis=2)
    b, c = np.unravel_index(int(loss.argmin()), loss.shape)
    return float(loss[b, c]), float(utilities[b]), float(half_lives[c])


def refine(runs: Sequence[Runs], law: Law, free_scale: bool = True) -> Law:
    """The law nearest to `law` that fits best: damped Gauss-Newton in log(-b), log(c) and log(a)."""
    k, damping = len(runs), 1e-3
    at = np.concatenate([np.log(-law.utilities), np.log(law.half_lives), [np.log(law.scale)]])
    low = np.concatenate([np.repeat(BOUNDS[0], k), [-60.0]])
    high = np.concatenate([np.repeat(BOUNDS[1], k), [60.0]])
    gap, slope = _residual(runs, law.floor, at)
    free = np.arange(len(at) - (not free_scale))
    for _ in range(STEPS):
        normal = slope[:, free].T @ slope[:, free]
        normal[np.diag_indices_from(normal)] += damping * np.maximum(normal.diagonal(), 1e-9)
        moved = at.copy()
        with suppress(np.linalg.LinAlgError):  # points that say nothing of a parameter: no step, and more damping
            moved[free] -= np.linalg.solve(normal, slope[:, free].T @ gap)
        moved = np.clip(moved, low, high)
        new_gap, new_slope = _residual(runs, law.floor, moved)
        if new_gap @ new_gap < gap @ gap:
            done = np.abs(moved - at).max() < 1e-10
            at, gap, slope, damping = moved, new_gap, new_slope, damping / 5
            if done:
                break
        elif damping > 1e12:
            break
        else:
            damping *= 8
    return replace(law, scale=float(np.exp(at[-1])), utilities=-np.exp(at[:k]), half_lives=np.exp(at[k:-1]))


def _residual(runs: Sequence[Runs], floor: float, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(fitted less measured (n,), its slope (n, 2 k + 1) in the logarithms `at`) over all results."""
    k, gaps, slopes = len(runs), [], []
    with np.errstate(over="ignore", invalid="ignore"):
        for i, run in enumerate(runs):
            b, c, scale = -np.exp(at[i]), np.exp(at[k + i]), np.exp(at[-1])
            first, ratios = run.passes
            passed = np.arange(1, ratios.shape[1] + 1)
            weight = 0.5 ** (passed / c)
            decay = ratios @ weight
            power, shrink = (scale * first / UNIT) ** b, np.exp(b * decay)
            fitted = (power + floor) * shrink
            slope = np.zeros((len(first), 2 * k + 1))
            slope[:, i] = b * (power * np.log(scale * first / UNIT) * shrink + fitted * decay)
            slope[:, k + i] = fitted * b * (ratios @ (weight * np.log(2) * passed / c))
            slope[:, -1] = b * power * shrink
            gaps.append(fitted - run.error)
            slopes.append(slope)
    return np.nan_to_num(np.concatenate(gaps), posinf=1e6), np.nan_to_num(np.concatenate(slopes), posinf=0, neginf=0)

"""How much of a ranked pool to keep at a budget: a law fitted to small runs, and its uncertainty."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import UsageError
from .scaling import FLOOR, Law, Runs, fit, refine
from .small_runs import Result

MOST_PASSES = 100_000
INTERVAL = 0.9  # of the bootstrap's answers, between its low and high


@dataclass(frozen=True)
class Asked:
    """The question: `budget` samples seen in training, over buckets of `size` samples each.

    `scale` None is fitted. `draws` of the bootstrap by `seed`; 0 draws give no interval. `ranked` merges the buckets
    as they stand in the results, not by their fitted utility.
    """

    budget: float
    size: int
    floor: float = FLOOR
    scale: float | None = None
    ranked: bool = False
    draws: int = 200
    seed: int = 0


def advise(results: list[Result], asked: Asked) -> dict[str, Any]:
    """How many buckets to merge at the budget, as plain values: keep, samples, passes, curve, buckets, fitted.

    `curve` has for each number of merged buckets the error, an interval of it, and the share of the bootstrap's
    draws in which it was the best. Raises UsageError where the results do not determine the law.
    """
    names = list(dict.fromkeys(result.bucket for result in results))
    runs = [_runs([r for r in results if r.bucket == name], name, asked.size) for name in names]
    unknowns = 2 * len(names) + (asked.scale is None)
    if not 0 < asked.budget <= MOST_PASSES * asked.size:
        raise UsageError(
            f"--budget {asked.budget:g}: samples seen in training, above 0 and at most {MOST_PASSES:,} passes over a "
            f"bucket, which has {asked.size:,} samples; is --bucket-size right?"
        )
    if len(results) < unknowns or not results:
        raise UsageError(
            f"{len(results)} results of {len(names)} buckets: {max(unknowns, 2)} are wanted for as many unknowns; add "
            "runs, or give --scale"
        )
    law = fit(runs, asked.floor, asked.scale)
    order = _order(law, asked)
    draws = _bootstrap(runs, law, asked)
    curve = merged(law, order, asked.budget)
    ways = np.array([merged(draw, _order(draw, asked), asked.budget) for draw in draws]).reshape(len(draws), len(names))
    best = int(curve.argmin())
    return {
        "budget": asked.budget,
        "bucket_size": asked.size,
        "keep": best + 1,
        "keep_buckets": [names[i] for i in order[: best + 1]],
        "samples": asked.size * (best + 1),
        "passes": asked.budget / (asked.size * (best + 1)),
        "scale": law.scale,
        "floor": law.floor,
        "rmse": float(np.sqrt(np.mean(np.concatenate(misfits(runs, law)) ** 2))),
        "in_rank_order": bool((np.diff(order) > 0).all()),
        "curve": _told(curve, ways, asked.size),
        "buckets": [_bucket(i, names, runs, law, draws) for i in order],
        "bootstrap": {"draws": asked.draws, "seed": asked.seed, "interval": INTERVAL},
    }


def _runs(results: list[Result], name: str, size: int) -> Runs:
    samples, error = (np.array([getattr(r, field) for r in results]) for field in ("samples", "error"))
    if len(np.unique(samples)) < 2 or samples.max() <= size:
        raise UsageError(
            f"bucket '{name}': its {len(samples)} results see up to {samples.max():,.0f} samples of {size:,} a pass; a "
            "utility and a half-life take two different lengths, one of them longer than a pass"
        )
    return Runs(samples, error, size)


def merged(law: Law, order: np.ndarray, budget: float) -> np.ndarray:
    """(k,): the error of the first 1, 2, ... k buckets of `order` together."""
    return np.array([law.error(budget, order[: k + 1].tolist()) for k in range(len(order))])


def misfits(runs: list[Runs], law: Law) -> list[np.ndarray]:
    """By bucket, the law's error less the measured one."""
    return [np.array([law.error(s, [i]) for s in run.samples]) - run.error for i, run in enumerate(runs)]


def _order(law: Law, asked: Asked) -> np.ndarray:
    return np.arange(len(law.utilities)) if asked.ranked else np.argsort(law.utilities, kind="stable")


def _bootstrap(runs: list[Runs], law: Law, asked: Asked) -> list[Law]:
    """Refits, from the law on, to each bucket's results drawn again with replacement (Efron and Tibshirani 1993)."""
    rng = np.random.default_rng(asked.seed)
    return [refine([run.drawn(rng) for run in runs], law, asked.scale is None) for _ in range(asked.draws)]


def _interval(values: np.ndarray) -> list[float] | None:
    if not len(values):
        return None
    return [float(v) for v in np.quantile(values, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])]


def _told(curve: np.ndarray, ways: np.ndarray, size: int) -> list[dict[str, Any]]:
    best = np.bincount(ways.argmin(axis=1), minlength=len(curve)) / len(ways) if len(ways) else None
    return [
        {
            "buckets": k + 1,
            "samples": size * (k + 1),
            "error": float(error),
            "interval": _interval(ways[:, k]),
            "best_share": None if best is None else float(best[k]),
        }
        for k, error in enumerate(curve)
    ]


def _bucket(i: int, names: list[str], runs: list[Runs], law: Law, draws: list[Law]) -> dict[str, Any]:
    return {
        "bucket": names[i],
        "utility": float(law.utilities[i]),
        "utility_interval": _interval(np.array([draw.utilities[i] for draw in draws])),
        "half_life": float(law.half_lives[i]),
        "half_life_interval": _interval(np.array([draw.half_lives[i] for draw in draws])),
        "results": [
            {"samples_seen": float(s), "error": float(e), "fitted": law.error(s, [i])}
            for s, e in zip(runs[i].samples, runs[i].error, strict=True)
        ],
    }

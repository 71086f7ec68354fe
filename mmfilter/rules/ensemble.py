"""Several scores as one: the mean of their ranks."""

from typing import Self

import numpy as np
import polars as pl
from pydantic import Field, PrivateAttr, model_validator

from ..plugs import Rule
from .fraction import Fraction
from .masks import numbers, sound


class Ensemble(Rule):
    """Keep the `keep` share with the best mean rank over `scores`, exactly as `fraction`: round(keep · n) of n rows.

    A sample's rank by a score is its place from the top of what the rule is fitted on, 1 for the highest; equal ones
    share the mean of their places (midranks, as in Wilcoxon's tests; the mean of ranks is Borda's count). `weights`,
    one a score, weigh the mean. A row that lacks one of the scores comes last: it counts in n and is never kept.
    Ties of the mean go to the smaller uid.
    """

    scores: tuple[str, ...] = Field(min_length=1)
    keep: float = Field(ge=0, le=1)
    weights: tuple[float, ...] | None = None
    _sorted: dict[str, np.ndarray] | None = PrivateAttr(None)  # fitted: by score its values, ascending
    _fraction: Fraction | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if len(set(self.scores)) < len(self.scores):
            raise ValueError("a score stands twice in 'scores'; give it a weight")
        weights = self.weights or (1.0,) * len(self.scores)
        if len(weights) != len(self.scores) or not all(0 < weight < float("inf") for weight in weights):
            raise ValueError("'weights' are as many as 'scores', each above 0")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({*self.scores, "uid_hi", "uid_lo"})

    def fit(self, table: pl.DataFrame) -> Self:
        columns = {score: numbers(table, score) for score in self.scores}
        fitted = self.model_copy()
        fitted._sorted = {score: np.sort(values[sound(values)]) for score, values in columns.items()}
        fitted._fraction = Fraction(score="rank", keep=self.keep).fit(fitted._ranks(table))
        return fitted

    def _ranks(self, table: pl.DataFrame) -> pl.DataFrame:
        """`rank`: minus the weighted sum of twice the ranks, whole numbers without weights; NaN where one lacks."""
        assert self._sorted is not None
        total = np.zeros(table.height)
        for score, weight in zip(self.scores, self.weights or (1.0,) * len(self.scores), strict=True):
            ordered = self._sorted[score]
            values, where = np.unique(numbers(table, score), return_inverse=True)  # sorted ones are found far sooner
            above = len(ordered) - np.searchsorted(ordered, values, "right")
            here = len(ordered) - np.searchsorted(ordered, values, "left")
            total -= weight * np.where(sound(values), above + here + 1, np.nan)[where]
        return table.select("uid_hi", "uid_lo").with_columns(rank=pl.Series(total))

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        if self._fraction is None:
            raise RuntimeError("an ensemble is fitted to the pool before it is asked for a mask")
        return self._fraction.mask(self._ranks(table))

    def describe(self) -> str:
        weights = f", weights {', '.join(f'{w:g}' for w in self.weights)}" if self.weights else ""
        return f"top {self.keep:.4g} by the mean rank of {', '.join(self.scores)}{weights}"

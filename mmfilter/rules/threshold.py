"""A score between fixed bounds."""

from typing import Self

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from ..plugs import Rule
from .masks import numbers, sound


class Threshold(Rule):
    """Keep `min <= score <= max`, either bound being optional; a missing value or NaN is dropped.

    DataComp's `clip_score` baseline by threshold is `min` alone.
    """

    score: str
    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give 'min' or 'max'")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"nothing is between a 'min' of {self.min:g} and a 'max' of {self.max:g}; swap them")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.score})

    @property
    def thresholds(self) -> dict[str, list[float]]:
        """The column's bounds, for the report."""
        return {self.score: [bound for bound in (self.min, self.max) if bound is not None]}

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        # In the column's own precision, as numpy and pandas compare: a float32 score equal to float32(0.7) is >= 0.7.
        values = numbers(table, self.score)
        keep = sound(values)
        if self.min is not None:
            keep &= values >= self.min
        if self.max is not None:
            keep &= values <= self.max
        return keep

    def describe(self) -> str:
        low = "" if self.min is None else f"{self.min:g} <= "
        high = "" if self.max is None else f" <= {self.max:g}"
        return f"{self.score} >= {self.min:g}" if not high else f"{low}{self.score}{high}"

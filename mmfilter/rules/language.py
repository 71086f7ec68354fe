"""The caption's language."""

from typing import Any

import numpy as np
import polars as pl
from pydantic import Field, field_validator

from ..plugs import Rule
from .masks import true_mask


class Language(Rule):
    """Keep captions whose `language` column is (one of) `is`, at `min_score` or more.

    The column is the score `language`'s; `column` names another, such as one computed with DataComp's
    own fastText model.
    """

    is_: str | tuple[str, ...] = Field(alias="is")
    min_score: float | None = None
    column: str = "language"

    @field_validator("is_", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if isinstance(value, bool) or (isinstance(value, (list, tuple)) and any(isinstance(v, bool) for v in value)):
            raise ValueError("YAML reads a bare `no` as false; write 'no', in quotes, for Norwegian")
        return value

    def model_post_init(self, _: Any) -> None:
        if not self.languages:
            raise ValueError("name at least one language")

    @property
    def languages(self) -> tuple[str, ...]:
        return (self.is_,) if isinstance(self.is_, str) else self.is_

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.column} | ({f"{self.column}_score"} if self.min_score is not None else set()))

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        keep = pl.col(self.column).is_in(list(self.languages))
        if self.min_score is not None:
            keep &= pl.col(f"{self.column}_score") >= self.min_score
        return true_mask(table, keep)

    def describe(self) -> str:
        sure = "" if self.min_score is None else f", score >= {self.min_score:g}"
        return f"{self.column} is {' or '.join(self.languages)}{sure}"

"""The image's size and shape."""

import numpy as np
import polars as pl
from pydantic import Field

from ..plugs import Rule
from .masks import true_mask


class Image(Rule):
    """Keep `min(w, h) >= min_side` and `max(w, h) / min(w, h) <= max_aspect`, in px, of the original.

    Source: DataComp's basic filter (min_side 200, max_aspect 3.0).
    """

    min_side: int = Field(default=0, ge=0)
    max_aspect: float | None = Field(default=None, ge=1)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"original_width", "original_height"})

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        small = pl.min_horizontal("original_width", "original_height")
        large = pl.max_horizontal("original_width", "original_height")
        keep = small >= self.min_side
        if self.max_aspect is not None:
            keep &= (small > 0) & (large.cast(pl.Float64) / small <= self.max_aspect)
        known = pl.col("original_width").is_not_null() & pl.col("original_height").is_not_null()
        return true_mask(table, keep & known)

    def describe(self) -> str:
        parts = [f"shortest side >= {self.min_side} px"] if self.min_side else []
        parts += [f"aspect <= {self.max_aspect:g}"] if self.max_aspect is not None else []
        return ", ".join(parts) or "any image"

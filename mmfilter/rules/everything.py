"""Keep every sample: DataComp's no_filter."""

import numpy as np
import polars as pl

from ..plugs import Rule


class Everything(Rule):
    """Keeps all rows (DataComp's baseline `no_filter`)."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        return np.ones(table.height, bool)

    def describe(self) -> str:
        return "everything"

"""Drop what the pool holds already, or what an evaluation set holds."""

from typing import Literal

import numpy as np
import polars as pl

from ..plugs import Rule
from .masks import true_mask


class NotDuplicate(Rule):
    """Keep a sample whose `column` is "": that is a duplicate of none.

    `column` is `duplicate_of` (score `duplicates`) or `overlap_of` (score `overlap`: decontamination). With
    `kinds` (of exact, perceptual, semantic) only such duplicates are dropped, by the column of that name
    with ``_kind`` for ``_of``.
    """

    column: str = "duplicate_of"
    kinds: tuple[Literal["exact", "perceptual", "semantic"], ...] = ()

    @property
    def kind_column(self) -> str:
        return f"{self.column.removesuffix('_of')}_kind"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.column, self.kind_column} if self.kinds else {self.column})

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        of = pl.col(self.column).cast(pl.String)
        if not self.kinds:
            return true_mask(table, of == "")
        other = ~pl.col(self.kind_column).cast(pl.String).is_in(list(self.kinds))  # null where the kind is
        return true_mask(table, ((of == "") | other) & of.is_not_null() & other.is_not_null())

    def describe(self) -> str:
        what = f"no {' or '.join(self.kinds)} duplicate" if self.kinds else "no duplicate"
        return what if self.column == "duplicate_of" else f"{what} by {self.column}"

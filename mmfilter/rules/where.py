"""Any expression over the columns, in SQL."""

import numpy as np
import polars as pl
from pydantic import field_validator

from ..plugs import Rule
from .masks import true_mask


class Where(Rule):
    """Keep rows for which a polars SQL expression is true; null counts as false.

    ``where: {sql: "clip_b32_similarity_score > 0.28 AND original_width < 2000"}``. It is an expression,
    not a query: it sees the columns of one row at a time, and nothing else.
    """

    sql: str

    @field_validator("sql")
    @classmethod
    def _parses(cls, sql: str) -> str:
        try:
            names = pl.sql_expr(sql).meta.root_names()
        except Exception as error:  # polars raises several kinds
            raise ValueError(f"not an SQL expression over columns: {str(error).splitlines()[0]}") from error
        if not names:
            raise ValueError("names no column")
        return sql

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(pl.sql_expr(self.sql).meta.root_names())

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        from ..errors import UsageError

        try:
            return true_mask(table, pl.sql_expr(self.sql).cast(pl.Boolean, strict=True))
        except pl.exceptions.PolarsError as error:
            raise UsageError(f"where: '{self.sql}' does not work on these columns: {str(error).splitlines()[0]}") from error

    def describe(self) -> str:
        return self.sql

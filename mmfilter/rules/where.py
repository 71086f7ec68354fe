"""Any expression over the columns, in SQL."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import polars as pl
from pydantic import field_validator

from ..errors import UsageError
from ..plugs import Rule
from .masks import true_mask
from .sql_size import TooLarge, expression_size

Evaluate = Callable[[str, pl.DataFrame], np.ndarray]
"""(n,) bool: the rows of a table for which an expression is true. Raises UsageError."""

_evaluate: ContextVar[Evaluate | None] = ContextVar("evaluate", default=None)


@contextmanager
def evaluated_by(evaluate: Evaluate) -> Iterator[None]:
    """Within this block expressions are worked out by `evaluate`: in a process that can be stopped, say."""
    token = _evaluate.set(evaluate)
    try:
        yield
    finally:
        _evaluate.reset(token)


def evaluate_here(sql: str, table: pl.DataFrame) -> np.ndarray:
    """`Evaluate` in this process."""
    return true_mask(table, pl.sql_expr(sql))


class Where(Rule):
    """Keep rows for which a polars SQL expression is true; null and NaN count as false.

    ``where: {sql: "clip_b32_similarity_score > 0.28 AND original_width < 2000"}``. It is an expression,
    not a query: it sees the columns of one row at a time, and nothing else, so that a row's verdict does
    not hang on the shard it stands in (no AVG, no RANK). What it becomes when it is parsed has at most
    `sql_size.NODES` parts.
    """

    sql: str

    @field_validator("sql")
    @classmethod
    def _one_row_at_a_time(cls, sql: str) -> str:
        try:
            expression_size(sql)  # before anything parses it
        except TooLarge as error:
            raise ValueError(f"not an SQL expression that is taken: {error}") from error
        try:
            expression = pl.sql_expr(sql)
        except Exception as error:  # polars raises several kinds
            raise ValueError(f"not an SQL expression over columns: {str(error).splitlines()[0]}") from error
        meta = expression.meta
        if meta.has_multiple_outputs():
            raise ValueError("names columns by a pattern; name each one")
        if not meta.root_names():
            raise ValueError("names no column")
        if not all(map(_row_by_row, _nodes(expression))):
            raise ValueError("looks at more than one row (an aggregate or a window), where a verdict is one row's own")
        return sql

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(pl.sql_expr(self.sql).meta.root_names())

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        try:
            return (_evaluate.get() or evaluate_here)(self.sql, table)
        except UsageError as error:
            raise UsageError(f"'{self.sql}' does not work on these columns: {error}") from error

    def describe(self) -> str:
        return self.sql


def _nodes(expression: pl.Expr) -> Iterator[pl.Expr]:
    """The expression and all expressions inside it."""
    ahead = [expression]
    while ahead:
        yield (node := ahead.pop())
        ahead += node.meta.pop()


def _row_by_row(node: pl.Expr) -> bool:
    """Polars answers for a node alone; for some, such as IN, it wants to know the columns: those are row by row."""
    try:
        return node.meta.is_literal() or node.meta.is_row_separable()
    except pl.exceptions.PolarsError:
        return True

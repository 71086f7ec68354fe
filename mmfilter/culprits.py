"""Which rows of a batch make a call raise an error, so that they alone are set aside."""

from collections.abc import Callable
from typing import TypeVar

from .errors import is_of_machine

R = TypeVar("R")


def culprits(call: Callable[[list[int]], R], n: int) -> tuple[R, dict[int, Exception]]:
    """(`call` of the rows of 0..n-1 that do not make it raise, row -> what each of the others raised).

    Raises the error where it is the machine's, or where no single row is why: all of several rows raise, or none.
    """
    rows = list(range(n))
    try:
        return call(rows), {}
    except Exception as error:
        raised = dict(_search(call, rows, error))
        if not raised or (n > 1 and len(raised) == n):
            raise
    return call([row for row in rows if row not in raised]), raised


def _search(call: Callable[[list[int]], R], rows: list[int], error: Exception) -> list[tuple[int, Exception]]:
    """The rows that raise alone: halves of a part that raises are tried, to the single row."""
    if is_of_machine(error):
        raise error
    if len(rows) == 1:
        return [(rows[0], error)]
    found = []
    for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        try:
            call(half)
        except Exception as inner:
            found += _search(call, half, inner)
    return found

"""From a table's columns to a keep mask: nothing that is missing is ever kept."""

import numpy as np
import polars as pl
import polars.selectors as cs

from ..errors import UsageError


def true_mask(table: pl.DataFrame, keep: pl.Expr) -> np.ndarray:
    """(n,) bool: where the expression is true; null counts as false, and a constant holds for every row.

    NaN is taken as null first: polars orders it above every number, so that `NaN >= 0.5` would hold.
    Raises UsageError for an expression that the columns' types do not allow.
    """
    if table.height == 0:
        return np.zeros(0, bool)
    try:
        looked_at = table.select(sorted(set(keep.meta.root_names()))).with_columns(cs.float().fill_nan(None))
        column = looked_at.select(keep.alias("keep"))["keep"]
    except pl.exceptions.PolarsError as error:
        raise UsageError(str(error).splitlines()[0]) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # polars' own, which is no Exception
            raise
        raise UsageError(f"polars cannot work it out ({str(error).splitlines()[0][:200]})") from error
    if column.dtype != pl.Boolean:
        raise UsageError(f"it gives {column.dtype}, not true or false")
    mask = np.array(column.fill_null(False).to_numpy(), dtype=bool)
    if len(mask) not in (1, table.height):
        raise UsageError(f"it gives {len(mask)} values for {table.height} rows")
    return mask if len(mask) == table.height else np.full(table.height, mask[0])


def numbers(table: pl.DataFrame, column: str) -> np.ndarray:
    """(n,) of a numeric column in its own precision, null as NaN. Raises UsageError on text and lists."""
    values = table[column]
    if values.dtype == pl.Int128:  # what int64 and uint64 shards become together; numpy has no such type
        values = values.cast(pl.Float64)
    if values.dtype == pl.Null:
        return np.full(len(values), np.nan)
    if not (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        raise UsageError(f"column '{column}' holds {values.dtype}, which is not a number and has no threshold")
    array = values.to_numpy()
    return array.astype(np.float64) if array.dtype == object else array  # booleans with nulls


def sound(values: np.ndarray) -> np.ndarray:
    """(n,) bool: which numbers are there, neither null nor NaN."""
    return ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), bool)

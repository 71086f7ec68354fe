"""From a polars expression to a keep mask."""

import numpy as np
import polars as pl


def true_mask(table: pl.DataFrame, keep: pl.Expr) -> np.ndarray:
    """(n,) bool: where the expression is true; null counts as false, and a constant holds for every row."""
    if table.height == 0:
        return np.zeros(0, bool)
    column = table.select(keep.fill_null(False).alias("keep"))["keep"]
    mask = column.to_numpy()
    return np.full(table.height, bool(mask[0])) if len(mask) != table.height else np.array(mask, dtype=bool)

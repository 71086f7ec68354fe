"""Pools with images and captions embedded, and sets beside them, for the tests of filters in embedding space."""

import numpy as np
from dedup_util import POOLS


def rows_of(name, seed=0):
    """float64 unit rows of one of `POOLS` as float16 keeps them; a row without a direction is zeros."""
    rows = np.asarray(POOLS[name](), np.float16).astype(np.float64)
    with np.errstate(invalid="ignore"):
        lengths = np.linalg.norm(rows, axis=1)
    good = np.isfinite(lengths) & (lengths > 0)
    return np.where(good[:, None], rows / np.where(good, lengths, 1)[:, None], 0.0), good


def by_uid(pool, values):
    """uid -> value of a column by position."""
    from mmfilter.uids import format_uids

    return dict(zip(format_uids(pool.uids), np.asarray(values).tolist(), strict=True))

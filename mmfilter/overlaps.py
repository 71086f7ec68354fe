"""How far subsets agree: what any two of them share, as matrices."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .subset import Subset, runs


def overlaps(subsets: Mapping[str, Subset]) -> dict[str, Any]:
    """names; samples and different uids of each; and (s, s) lists of rows: `intersection` |A & B|, `jaccard`
    |A & B| / |A | B| and `containment` |A & B| / |A|, A the row's and B the column's.

    Of multisets: & takes the smaller of two counts, | the larger. None where nothing is divided by nothing.
    """
    names, sets = list(subsets), list(subsets.values())
    once = [runs(subset.uids) for subset in sets]
    both = np.zeros((len(sets), len(sets)), np.int64)
    for i, (uids, starts) in enumerate(once):
        counts = np.diff(starts, append=len(sets[i]))
        both[i, i] = len(sets[i])
        for j in range(i + 1, len(sets)):
            both[i, j] = both[j, i] = np.minimum(counts, sets[j].counts(uids)).sum()
    sizes = np.array([len(subset) for subset in sets], np.int64)
    return {
        "names": names,
        "samples": sizes.tolist(),
        "different": [len(uids) for uids, _ in once],
        "intersection": both.tolist(),
        "jaccard": _shares(both, sizes[:, None] + sizes - both),
        "containment": _shares(both, np.broadcast_to(sizes[:, None], both.shape)),
    }


def _shares(part: np.ndarray, whole: np.ndarray) -> list[list[float | None]]:
    return [
        [p / w if w else None for p, w in zip(*row, strict=True)]
        for row in zip(part.tolist(), whole.tolist(), strict=True)
    ]

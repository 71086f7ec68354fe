"""A random share of the pool, the same wherever its samples stand."""

import numpy as np
import polars as pl
from pydantic import Field

from ..plugs import Rule
from ..subset import sample_share
from ..uids import DTYPE


class Random(Rule):
    """Keep a sample where a hash of (`seed`, uid), uniform in [0, 1), is below `keep`.

    So the share is `keep` up to chance (a standard deviation of sqrt(keep (1 - keep) / n)), resharding
    changes nothing, and a larger `keep` with the same seed holds the smaller one's samples.
    """

    keep: float = Field(ge=0, le=1)
    seed: int = 0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"uid_hi", "uid_lo"})

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        uids = np.empty(table.height, DTYPE)
        uids["f0"], uids["f1"] = table["uid_hi"].to_numpy(), table["uid_lo"].to_numpy()
        return sample_share(uids, self.seed) < self.keep

    def describe(self) -> str:
        return f"a random {self.keep:.6g} of the samples, seed {self.seed}"

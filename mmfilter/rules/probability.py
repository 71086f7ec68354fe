"""Keep each sample with a probability of its own."""

import numpy as np
import polars as pl

from ..plugs import Rule
from ..subset import sample_share
from ..uids import DTYPE
from .masks import numbers


class Probability(Rule):
    """Keep a sample where a hash of (`seed`, uid), uniform in [0, 1), is below the column `score`.

    At 1 or more it is always kept, at 0 or less, or without a value, never. Resharding changes nothing, and a greater
    probability with the same seed holds the smaller one's samples; the rule `random` draws by the same hash, so give
    one beside it another seed. MetaCLIP's balancing (arXiv 2309.16671) is this
    over `metaclip_probability`: their code keeps when one of a caption's entries is drawn, which has that probability.
    """

    score: str
    seed: int = 0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.score, "uid_hi", "uid_lo"})

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        uids = np.empty(table.height, DTYPE)
        uids["f0"], uids["f1"] = table["uid_hi"].to_numpy(), table["uid_lo"].to_numpy()
        return sample_share(uids, self.seed) < numbers(table, self.score)  # False beside NaN

    def describe(self) -> str:
        return f"with the probability {self.score}, seed {self.seed}"

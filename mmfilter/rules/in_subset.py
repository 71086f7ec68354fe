"""Keep what a subset's file names."""

import os

import numpy as np
import polars as pl
from pydantic import PrivateAttr, field_validator

from ..plugs import Rule
from ..subset import Subset
from ..uids import DTYPE


class InSubset(Rule):
    """Keep the samples whose uid stands in the subset at `path`, a sorted `.npy` of `u8,u8` (DataComp's format).

    What stands there more than once is kept once. A relative path is taken from the working directory.
    """

    path: str
    _subset: Subset | None = PrivateAttr(None)

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: str) -> str:
        return value if "://" in value else os.path.abspath(value)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.path,)

    def check(self) -> None:
        """Raise UsageError where the file does not exist, DataError where it is no subset."""
        super().check()
        Subset.read(self.path)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"uid_hi", "uid_lo"})

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        if self._subset is None:
            self._subset = Subset.read(self.path)
        uids = np.empty(table.height, DTYPE)
        uids["f0"], uids["f1"] = table["uid_hi"].to_numpy(), table["uid_lo"].to_numpy()
        return self._subset.contains(uids)

    def describe(self) -> str:
        return f"in the subset {os.path.basename(self.path)}"

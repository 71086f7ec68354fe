"""The shapes of the plugs. To add one: one file, and one line in its folder's table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict
from typing_extensions import Self

Batch = Mapping[str, Sequence[Any]]
"""n samples as columns, by the names a score lists in `needs`; see `Score`."""


class Plug(BaseModel):
    """Fields are the plug's parameters in a recipe; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Score(Plug):
    """Costs a model or a look at the pixels; runs once per pool.

    `columns` are what it writes. `needs` are what it reads, each a key of the batch:

    ``uid key text url sha256``        list of str
    ``original_width original_height`` int64 (n,)
    ``bytes``                          list of the image files' bytes
    ``image``                          list of PIL images, decoded, in their own mode
    ``img_emb:NAME txt_emb:NAME``      float16 (n, d), rows of unit length, of the recipe's model NAME
    any other column                   as stored
    """

    @property
    def columns(self) -> tuple[str, ...]:
        raise NotImplementedError

    @property
    def needs(self) -> frozenset[str]:
        raise NotImplementedError

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        """One array (n,) for each of `columns`, in the batch's order."""
        raise NotImplementedError


class Rule(Plug):
    """Arithmetic over the table; re-run in seconds. Higher is better and True is keep.

    `needs` are column names; `uid_hi` and `uid_lo` (uint64, the uid's two halves) are always there
    to be asked for.
    """

    @property
    def needs(self) -> frozenset[str]:
        raise NotImplementedError

    @property
    def fit_needs(self) -> frozenset[str]:
        """The columns that `fit` looks at: none for a local rule, so the pool is not read for it."""
        return frozenset() if type(self).fit is Rule.fit else self.needs

    def fit(self, table: pl.DataFrame) -> Self:
        """Look at the whole pool (a quantile, a quota); returns a fitted copy. Local rules return self."""
        return self

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        """(n,) bool, True = keep; for any slice of the pool, in the slice's order."""
        raise NotImplementedError

    def describe(self) -> str:
        """The rule in a line, with fitted values: ``clip_l14_similarity_score >= 0.2431``."""
        raise NotImplementedError

    @property
    def thresholds(self) -> dict[str, list[float]]:
        """Column -> the values it is cut at, for the report."""
        return {}

    @property
    def children(self) -> tuple["Rule", ...]:
        """The rules inside a rule of rules."""
        return ()

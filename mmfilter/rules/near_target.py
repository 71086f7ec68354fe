"""Keep what is near a set that one wants to be good at."""

from typing import Self

import numpy as np
import polars as pl
from pydantic import Field, PrivateAttr, model_validator

from ..plugs import Rule
from .fraction import Fraction
from .masks import true_mask
from .threshold import Threshold


class NearTarget(Rule):
    """Keep by what the score ``target: {name: NAME, ...}`` wrote.

    ``cluster: true``: the sample's nearest centroid is the nearest of some item of the target (DataComp's
    image_based, with ImageNet as target). `min`: the greatest cosine to an item is so much or more. `keep`: the
    share with the greatest (NormSim-inf, arXiv 2405.19547), exactly as `fraction`. Several are all asked.
    """

    target: str = Field(pattern=r"^\w+$")
    cluster: bool = False
    min: float | None = Field(default=None, allow_inf_nan=False)
    keep: float | None = Field(default=None, ge=0, le=1)
    _fitted: Fraction | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if not self.cluster and self.min is None and self.keep is None:
            raise ValueError("give 'cluster: true', 'min' or 'keep'")
        return self

    @property
    def _similarity(self) -> str:
        return f"target_{self.target}_similarity"

    @property
    def _fraction(self) -> Fraction | None:
        return None if self.keep is None else self._fitted or Fraction(score=self._similarity, keep=self.keep)

    @property
    def needs(self) -> frozenset[str]:
        needs = {f"target_{self.target}_cluster"} if self.cluster else set()
        needs |= {self._similarity} if self.min is not None else set()
        return frozenset(needs | (self._fraction.needs if self._fraction else set()))

    @property
    def fit_needs(self) -> frozenset[str]:
        return self._fraction.fit_needs if self._fraction else frozenset()

    @property
    def thresholds(self) -> dict[str, list[float]]:
        """Where the similarity is cut."""
        cuts = [] if self.min is None else [self.min]
        cuts += self._fraction.thresholds.get(self._similarity, []) if self._fraction else []
        return {self._similarity: cuts} if cuts else {}

    def fit(self, table: pl.DataFrame) -> Self:
        if not self._fraction:
            return self
        fitted = self.model_copy()
        fitted._fitted = self._fraction.fit(table)
        return fitted

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        keep = np.ones(table.height, bool)
        if self.cluster:
            keep &= true_mask(table, pl.col(f"target_{self.target}_cluster").cast(pl.Boolean))
        if self.min is not None:
            keep &= Threshold(score=self._similarity, min=self.min).mask(table)
        return keep & self._fraction.mask(table) if self._fraction else keep

    def describe(self) -> str:
        said = [f"in a cluster of {self.target}"] if self.cluster else []
        said += [] if self.min is None else [f"{self._similarity} >= {self.min:g}"]
        return ", ".join(said + ([self._fraction.describe()] if self._fraction else []))

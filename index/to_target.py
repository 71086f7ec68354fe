"""What the pool scores share that look from a pool at a target: a set that one wants to be good at."""

import os
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from mmfilter.plugs import PoolScore

from .pool import Pool
from .reference import Asked, Reference, read_reference


class ToTarget(PoolScore):
    """`path` is a folder of images, a wds set, a tar, a .txt with a caption a line, or an embedded OUT; from the
    working directory where it is relative. `name` becomes part of the columns' names.
    """

    name: str = Field(pattern=r"^\w+$")
    path: str
    model: str = Field(min_length=1)
    modality: Literal["image", "text"] = "image"

    @field_validator("path", "centroids", check_fields=False)
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        return value if value is None or "://" in value else os.path.abspath(value)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"{'img' if self.modality == 'image' else 'txt'}_emb:{self.model}"})

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.path,)

    def reference(self, pool: Pool) -> Reference:
        """The target, embedded as the pool was. Raises UsageError, ConflictError."""
        return read_reference(self.path, Asked(pool, self.model, self.modality))

    def items(self, pool: Pool) -> np.ndarray:
        """float32 (m, d) unit rows of the target, those without a direction left out."""
        return directed(self.reference(pool))[1]


def directed(reference: Reference) -> tuple[list[str], np.ndarray]:
    """(names, unit rows (m, d)) of the items that have a direction."""
    rows = reference.block(0, len(reference))
    good: Any = rows.any(axis=1)
    return [name for name, there in zip(reference.names, good, strict=True) if there], rows[good]

"""A pool as a pool score sees it: its table, its embeddings, and what they were made from."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from mmfilter import storage
from mmfilter.allow import Allow
from mmfilter.commit_file import optional_commit
from mmfilter.images import ImageLimits
from mmfilter.parts import read_limits
from mmfilter.sources import pool_content
from mmfilter.table import Table, open_table
from mmfilter.uids import DTYPE

from .vectors import Vectors, open_vectors


@dataclass(frozen=True)
class Pool:
    """A run's folder, or a folder of DataComp's metadata (`metadata`). Small and picklable.

    `weights` maps a model to the file or folder that its weights are read from, where one is given (`--weights`).
    `allow` says what may be missing or stale.
    """

    out: str
    metadata: str | None = None
    weights: Mapping[str, str] = field(default_factory=dict, compare=False)
    allow: Allow = Allow()

    @cached_property
    def table(self) -> Table:
        return open_table(self.out, self.metadata, *self.allow)

    def vectors(self, model: str, modality: str = "image") -> Vectors:
        """A model's embeddings, by position. Raises UsageError, DataError."""
        return open_vectors(self.out, model, modality, self.metadata, self.allow)

    def read(self, *columns: str) -> pl.DataFrame:
        """The columns over all shards, by position. Raises UsageError for one that is not there."""
        return self.table.read(columns)

    @cached_property
    def uids(self) -> np.ndarray:
        """(n,) of `uids.DTYPE` by position."""
        halves = self.read("uid_hi", "uid_lo")
        uids = np.empty(halves.height, DTYPE)
        uids["f0"], uids["f1"] = halves["uid_hi"].to_numpy(), halves["uid_lo"].to_numpy()
        return uids

    @cached_property
    def limits(self) -> ImageLimits:
        """What the run's images were read within, and a picture that is compared with them is."""
        stems = self.table.stems
        path = storage.join(self.table.metadata, f"{stems[0]}.json") if stems else ""
        return read_limits((optional_commit(path) if path else None) or {})

    def identity(self, needs: Collection[str]) -> str:
        """A digest of the content of the pool's samples, and of the columns and embeddings in `needs`."""
        return pool_content(self.table, self.table.stems, needs)

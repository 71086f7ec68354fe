"""The pool score `norm_sim`: the p-norm of a sample's similarities to a target's items."""

from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import field_validator

from mmfilter.plugs import Run

from . import gpu
from .kmeans import assign_pool
from .pool import Pool
from .reference import Reference
from .to_target import ToTarget
from .vectors import Vectors

BLOCK = 8192


class NormSim(ToTarget):
    """`norm_sim_NAME_P` (float32): NormSim_p (Wang et al. 2024, arXiv 2405.19547), the p-norm of a row of F·G^T, F the
    pool and G the target.

    ``p: inf`` is the greatest similarity, exactly as `target_NAME_similarity`. ``p: 2`` is the root of
    f^T (G^T G) f: the sum of squares over any number of items costs d x d, and G is read in blocks. It is worked out in
    float64 on either device, which may leave the last bit of the float32 to it.
    NaN for a row without a direction, and for all where no item has one.
    """

    p: Literal[2, "inf"] = "inf"

    @field_validator("p", mode="before")
    @classmethod
    def _infinite(cls, value: object) -> object:
        return "inf" if value == float("inf") else value  # YAML's .inf

    @property
    def columns(self) -> tuple[str, ...]:
        return (f"norm_sim_{self.name}_{self.p}",)

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        vectors = pool.vectors(self.model, self.modality)
        if self.p == "inf":
            return {self.columns[0]: assign_pool(vectors, self.items(pool), run)[1].astype(np.float32)}
        square = squares(self.reference(pool), vectors.dim)
        found = run(partial(_norms, vectors, square), range(len(vectors.stems)))
        return {self.columns[0]: np.concatenate([np.empty(0, np.float32), *found])}


def squares(reference: Reference, dim: int) -> np.ndarray:
    """float64 (d, d): G^T G of the target's unit rows."""
    total = np.zeros((dim, dim))
    for at in range(0, len(reference), BLOCK):
        rows = reference.block(at, at + BLOCK).astype(np.float64)
        total += rows.T @ rows
    return total


def _norms(vectors: Vectors, square: np.ndarray, shard: int) -> np.ndarray:
    start, stop = (int(end) for end in vectors.starts[shard : shard + 2])
    parts = [np.empty(0, np.float32)]
    for _, rows in vectors.blocks(BLOCK, start, stop):
        found = gpu.norms(rows, square) if gpu.there() else norms(rows, square)
        found[~rows.any(axis=1) | (not square.any())] = np.nan
        parts.append(found.astype(np.float32))
    return np.concatenate(parts)


def norms(rows: np.ndarray, square: np.ndarray) -> np.ndarray:
    """`gpu.norms` in numpy."""
    return np.asarray(np.sqrt(np.maximum(np.einsum("ij,ij->i", rows.astype(np.float64) @ square, rows), 0)))

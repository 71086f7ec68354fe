"""The pool score `target`: how near each sample is to a set that one wants to be good at."""

from typing import Any

import numpy as np
from pydantic import Field

from mmfilter import storage
from mmfilter.errors import DataError
from mmfilter.plugs import Run

from .kmeans import Plan, assign, assign_pool, train
from .pool import Pool
from .to_target import ToTarget
from .vectors import Vectors


class Target(ToTarget):
    """`target_NAME_similarity` (float32: the greatest cosine to an item of the set) and, with `k` or
    `centroids`, `target_NAME_cluster` (bool: its nearest centroid is the nearest of some item too).

    `path` is a folder of images, a wds set, a tar, a .txt with a caption a line, or an embedded OUT. The first
    column is NormSim-inf (Wang et al. 2024, arXiv 2405.19547). The second is DataComp's image_based (arXiv
    2304.14108), whose set is ImageNet's training images: centroids by inner product, as they are; `centroids` is
    a .npy (k, d), such as DataComp's own, and `k` trains as many on the pool by spherical k-means. NaN and
    False for a row without a direction.
    """

    k: int | None = Field(default=None, ge=1)
    centroids: str | None = None
    iterations: int = Field(default=20, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @property
    def columns(self) -> tuple[str, ...]:
        one = f"target_{self.name}_similarity"
        return (one, f"target_{self.name}_cluster") if self.k or self.centroids else (one,)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.path, *([self.centroids] if self.centroids else []))

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        vectors = pool.vectors(self.model, self.modality)
        items = self.items(pool)
        columns: dict[str, Any] = {self.columns[0]: assign_pool(vectors, items, run)[1].astype(np.float32)}
        if self.k or self.centroids:
            centroids = self._centroids(vectors, pool, run)
            hit = np.unique(assign(items, centroids)[0])
            columns[self.columns[1]] = np.isin(assign_pool(vectors, centroids, run)[0], hit[hit >= 0])
        return columns

    def _centroids(self, vectors: Vectors, pool: Pool, run: Run) -> np.ndarray:
        if not self.centroids:
            return train(vectors, pool.uids, Plan(self.k or 1, self.iterations, self.seed), run)
        try:
            with storage.open_read(self.centroids) as stream:
                found = np.asarray(np.load(stream, allow_pickle=False))
        except Exception as error:  # numpy's parser of headers raises whatever it pleases
            raise DataError(
                f"{self.centroids}: cannot be read as .npy ({error}); centroids are (k, d) floats"
            ) from error
        if (
            found.ndim != 2
            or not len(found)
            or found.shape[1] != vectors.dim
            or found.dtype.kind != "f"
            or not np.isfinite(found).all()
        ):
            raise DataError(
                f"{self.centroids}: {found.dtype} of shape {found.shape}; finite floats (k, {vectors.dim}) are wanted, "
                f"as '{self.model}' has {vectors.dim} dimensions"
            )
        return np.asarray(found, np.float32)

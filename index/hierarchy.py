"""Hierarchical k-means: centroids clustered, level over level, with resampling (Vo et al. 2024, arXiv 2405.15613)."""

from collections.abc import Sequence

import numpy as np

from .kmeans import assign, fit


def by_size(cluster: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cluster (n,) int32, centroids) numbered anew, the largest first; those without a row are gone."""
    sizes = np.bincount(cluster[cluster >= 0], minlength=len(centroids))
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    number = np.full(len(centroids) + 1, -1, np.int32)  # the last one is for -1
    number[order] = np.arange(len(order))
    return number[cluster], centroids[order]


def grow(
    centroids: np.ndarray, levels: Sequence[int], resamples: int, how: tuple[int, int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each of `levels`, so many groups of what is below: (group of each row below (m,) int32, centroids).

    A level is k-means on the centroids below, each counted once; then `resamples` times (10 in the paper above the
    first level) k-means on the `nearest` rows of each group, and every row assigned to what comes out. So its
    centroids spread over the space, not over where the rows are dense. As in the authors' code (repository
    facebookresearch/ssl-data-curation), but spherical, so by cosine, with FAISS's k-means and its seeds, and half
    the mean size of a group worked out where their settings write it down. `how` is (iterations, seed).
    """
    found = []
    rows = centroids
    for level in levels:
        iterations, seed = how
        above = fit(rows, level, iterations, seed)
        group, similarity = assign(rows, above)
        few = len(rows) // (2 * level)
        for step in range(1, resamples + 1 if few > 1 else 1):
            above = fit(rows[nearest(group, similarity, few)], level, iterations, (seed + step) % 2**31)
            group, similarity = assign(rows, above)
        group, above = by_size(group, above)
        found.append((group, above))
        rows = above
    return found


def nearest(group: np.ndarray, similarity: np.ndarray, few: int) -> np.ndarray:
    """int64, ascending: of each group the `few` rows most similar to its centroid, ties to the lower place."""
    order = np.lexsort((-similarity, group))
    starts = np.searchsorted(group[order], group[order])
    return np.sort(order[(np.arange(len(order)) - starts < few) & (group[order] >= 0)])

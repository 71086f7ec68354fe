"""The Fréchet distance of two normal distributions: FID, when they are fitted to a model's embeddings."""

import numpy as np


def frechet(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^1/2), never below 0; means (d,), covariances (d, d).

    Heusel et al. 2017, arXiv 1706.08500, eq. 6. The trace of the root is that of (S cov_b S)^1/2 with S the root
    of cov_a: symmetric, so real eigenvalues and no drift into complex numbers when a covariance is singular
    (fewer rows than d).
    """
    return frechet_to(mean_a, root(cov_a), mean_b, cov_b)


def frechet_to(mean_a: np.ndarray, root_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """`frechet` with `root(cov_a)` at hand, for one set that many are measured against."""
    inner = root_a @ np.asarray(cov_b, np.float64) @ root_a
    eigenvalues = np.linalg.eigvalsh((inner + inner.T) / 2)
    shared = float(np.sqrt(np.maximum(eigenvalues, 0)).sum())
    apart = np.asarray(mean_a, np.float64) - np.asarray(mean_b, np.float64)
    spread = float(np.square(root_a).sum() + np.trace(cov_b))  # |S|^2 is the trace of S S
    return max(float(apart @ apart) + spread - 2 * shared, 0.0)


def root(cov: np.ndarray) -> np.ndarray:
    """float64 (d, d): the symmetric root of a covariance (d, d); eigenvalues that rounding made negative are 0."""
    eigenvalues, vectors = np.linalg.eigh(np.asarray(cov, np.float64))
    return np.asarray((vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T)


def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean float64 (d,), covariance float64 (d, d)) of rows (n, d), divided by n - 1 as numpy.cov does; of one
    row the covariance is 0. Raises ValueError for no row.
    """
    if not len(rows):
        raise ValueError("no row has a mean")
    rows = np.asarray(rows, np.float64)
    mean = rows.mean(axis=0)
    centred = rows - mean
    return mean, centred.T @ centred / max(len(rows) - 1, 1)

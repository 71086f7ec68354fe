"""Centroids on a map: two coordinates in which what is near stays near."""

import numpy as np

STEPS = 400
LARGEST = 3000  # centroids that t-SNE is done for; k^2 numbers at each step


def flat_map(centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x, y), each (k,) in 0..1: t-SNE (van der Maaten and Hinton 2008) from the first two principal axes.

    With more than `LARGEST` centroids, the axes alone. The same for the same centroids: nothing is drawn.
    """
    k = len(centroids)
    if k < 3:
        return np.linspace(0.5 if k == 1 else 0, 1, k), np.full(k, 0.5)
    rows = centroids.astype(np.float64) - centroids.mean(axis=0, dtype=np.float64)
    axes = np.linalg.eigh(rows.T @ rows)[1][:, -2:][:, ::-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])  # eigh leaves the sign open
    places = rows @ axes
    if places.shape[1] < 2:
        places = np.column_stack([places, np.zeros(k)])
    if k <= LARGEST:
        places = _tsne(rows, places)
    low, high = places.min(axis=0), places.max(axis=0)
    places = (places - low) / np.maximum(high - low, 1e-12)
    return places[:, 0], places[:, 1]


def _tsne(rows: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(k, 2): gradient descent with momentum from `start` (k, 2), early exaggeration for a quarter of the steps."""
    k = len(rows)
    affinity = _affinity(rows, min(30.0, (k - 1) / 3))
    places = start / max(start[:, 0].std(), 1e-12) * 1e-2
    speed, gain = np.zeros_like(places), np.ones_like(places)
    rate = max(k / 12 / 4, 10.0)
    for step in range(STEPS):
        exaggerated = affinity * (12 if step < STEPS // 4 else 1)
        square = np.einsum("ij,ij->i", places, places)
        kernel = 1 / (1 + np.maximum(square[:, None] + square - 2 * places @ places.T, 0))
        np.fill_diagonal(kernel, 0)
        pull = (exaggerated - kernel / kernel.sum()) * kernel
        gradient = 4 * (pull.sum(axis=1)[:, None] * places - pull @ places)
        gain = np.maximum(np.where(np.sign(gradient) != np.sign(speed), gain + 0.2, gain * 0.8), 0.01)
        speed = (0.5 if step < STEPS // 4 else 0.8) * speed - rate * gain * gradient
        places = places + speed
        places -= places.mean(axis=0)
    return places


def _affinity(rows: np.ndarray, perplexity: float) -> np.ndarray:
    """(k, k) symmetric, summing to 1: Gaussian neighbours, each row's width by bisection to the perplexity."""
    square = np.einsum("ij,ij->i", rows, rows)
    apart = np.maximum(square[:, None] + square - 2 * rows @ rows.T, 0)
    np.fill_diagonal(apart, np.inf)
    apart -= apart.min(axis=1, keepdims=True)
    low, high = np.zeros(len(rows)), np.full(len(rows), np.inf)
    beta = np.ones(len(rows))
    finite = np.where(np.isfinite(apart), apart, 0)
    for _ in range(50):
        p = np.exp(-apart * beta[:, None])
        total = p.sum(axis=1)
        entropy = np.log(total) + beta * (finite * p).sum(axis=1) / total
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
        beta = np.where(np.isinf(high), beta * 2, (low + high) / 2)
    p = np.exp(-apart * beta[:, None])
    p /= p.sum(axis=1, keepdims=True)
    return (p + p.T) / (2 * len(rows))

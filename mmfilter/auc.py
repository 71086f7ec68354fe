"""How well a score tells two classes apart."""

import numpy as np


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a true sample scores above a false one, ties counting half.

    `scores` (n,) float, `labels` (n,) bool. Raises ValueError when a class is empty or a score is not finite.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not positive or not negative:
        raise ValueError("an AUC needs at least one sample of each class")
    if not np.isfinite(scores).all():
        raise ValueError("an AUC needs finite scores")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # the mean rank of each value, from 1
    above = ranks[inverse][labels].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))

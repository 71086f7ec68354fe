"""What is measured of a model's answers: plain numpy over scores and labels, as DataComp's scripts count.

Higher scores are better. Where two are equal the lower position comes first, as in a stable sort; the
scripts leave that to their library. A score that is NaN ranks last.
"""

from collections.abc import Mapping
from math import prod

import numpy as np

from .errors import DataError

MAX_GROUPS = 1 << 16


def ranks(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(n,) int64: how many columns of `scores` (n, c) come before column `target` (n,) of the row; 0 is the best."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    own = np.take_along_axis(scores, target[:, None], axis=1)
    before = np.arange(scores.shape[1])[None] < target[:, None]
    return ((scores > own) | ((scores == own) & before)).sum(axis=1)


def classification(scores: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """acc1, acc5 (NaN below five classes) and mean_per_class_recall of `scores` (n, c) for labels `target` (n,)."""
    rank = ranks(scores, target)
    return {
        "acc1": float((rank == 0).mean()),
        "acc5": float((rank < 5).mean()) if scores.shape[1] >= 5 else float("nan"),
        "mean_per_class_recall": float(per_class_recall(rank == 0, target).mean()),
    }


def per_class_recall(correct: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(n,) float64 whose mean is the mean recall over the classes that `target` (n,) holds.

    That is scikit-learn's balanced accuracy: each sample weighs n / (classes x samples of its class).
    """
    _, inverse, counts = np.unique(target, return_inverse=True, return_counts=True)
    return correct * (len(target) / (len(counts) * counts[inverse]))


def f1_macro(predicted: np.ndarray, target: np.ndarray) -> float:
    """Mean F1 over the classes that `target` (n,) holds, as WILDS has it; predictions of others are only wrong."""
    classes = np.unique(target)
    right = np.array([np.sum((predicted == c) & (target == c)) for c in classes])
    named = np.array([np.sum(predicted == c) + np.sum(target == c) for c in classes])
    return float((2 * right / named).mean())


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the columns of `scores` (n, c) of the average precision for `labels` (n, c) bool.

    Equal scores share the precision after the last of them. A class without a sample counts 0, as in
    CLIP_benchmark.
    """
    return float(np.mean([average_precision(scores[:, c], labels[:, c]) for c in range(scores.shape[1])]))


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the true samples of the precision among those that score as high or higher. (n,) each."""
    if not labels.any():
        return 0.0
    scores = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(labels[order])
    last = np.searchsorted(-scores[order], -scores[order], side="right") - 1  # of those that score the same
    return float((found[last] / (last + 1))[labels[order]].mean())


def retrieval_ranks(
    images: np.ndarray, texts: np.ndarray, owner: np.ndarray, rows: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """For each text (m,) the rank of its image, and for each image (n,) that of the first of its texts.

    `images` (n, d) and `texts` (m, d) are unit rows, `owner` (m,) the position of each text's image.
    """
    by_text = [ranks(texts[i : i + rows] @ images.T, owner[i : i + rows]) for i in range(0, len(texts), rows)]
    by_image = []
    for i in range(0, len(images), rows):
        scores = images[i : i + rows] @ texts.T
        own = owner[None] == np.arange(i, i + len(scores))[:, None]
        best = np.where(own, scores, -np.inf).argmax(axis=1)
        by_image.append(ranks(scores, best))
    return np.concatenate(by_text), np.concatenate(by_image)


def retrieval(by_text: np.ndarray, by_image: np.ndarray) -> dict[str, float]:
    """R@1, 5, 10 both ways of `retrieval_ranks`, as CLIP_benchmark names and counts them.

    image_retrieval: a text finds its image; text_retrieval: an image finds one of its texts, any of
    them. mean_recall@1 is DataComp's mean of the two at 1.
    """
    found = {f"image_retrieval_recall@{k}": float((by_text < k).mean()) for k in (1, 5, 10)}
    found |= {f"text_retrieval_recall@{k}": float((by_image < k).mean()) for k in (1, 5, 10)}
    found["mean_recall@1"] = (found["image_retrieval_recall@1"] + found["text_retrieval_recall@1"]) / 2
    return found


def jaccard(scores: np.ndarray, true: np.ndarray) -> float:
    """Overlap over union of `true` (n,) bool and as many of the highest `scores` (n,), as WinoGAViL counts."""
    chosen = np.zeros(len(true), bool)
    chosen[np.argsort(-scores, kind="stable")[: true.sum()]] = True
    return float((chosen & true).sum() / (chosen | true).sum())


def by_group(name: str, values: np.ndarray, fields: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean of `values` (n,) over all, in each group, and in the worst group that is not empty.

    Groups are the combinations of the whole numbers from 0 in `fields` ((n,) each), named as WILDS names
    them: ``{name}_avg``, ``{name}_{field}:{v}`` (of several fields the last comes first), ``count_...``,
    ``{name}_wg``. NaN where a group is empty. Raises DataError on negative or absurd numbers.
    """
    columns = [np.asarray(field, np.int64) for field in fields.values()]
    sizes = [int(column.max()) + 1 for column in columns]
    if prod(sizes) > MAX_GROUPS or any(column.min() < 0 for column in columns):
        raise DataError(f"groups by {', '.join(fields)}: numbers from 0 are wanted, {prod(sizes)} groups are not")
    group = np.ravel_multi_index(columns, sizes)
    counts = np.bincount(group, minlength=prod(sizes))
    sums = np.bincount(group, weights=values, minlength=prod(sizes))
    means = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    found = {f"{name}_avg": float(values.mean())}
    for number in range(len(counts)):
        place = np.unravel_index(number, sizes)
        label = "_".join(f"{field}:{v}" for field, v in reversed(list(zip(fields, place, strict=True))))
        found[f"{name}_{label}"], found[f"count_{label}"] = float(means[number]), float(counts[number])
    return {**found, f"{name}_wg": float(np.nanmin(means))}


def auc_parts(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n,) float64 whose mean is the AUC and whose spread is DeLong's (1988): a part for each sample.

    A sample's placement is the share of the other class on its right side, ties counting half; it weighs
    n / (samples of its class). Of `scores` (n,) and `labels` (n,) bool; both classes must be there.
    """
    placed = np.empty(len(scores))
    for side in (True, False):
        other = np.sort(scores[labels != side])
        below, through = (np.searchsorted(other, scores[labels == side], side=s) for s in ("left", "right"))
        share = (below + through) / (2 * len(other))
        placed[labels == side] = share if side else 1 - share
    area = placed[labels].mean()
    weight = np.where(labels, len(labels) / labels.sum(), len(labels) / (~labels).sum())
    return area + weight * (placed - area)

"""Sentences without which a measurement's figures are misread, and errors where they would mean nothing."""

from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import DataError

SHOWN = 5  # names in a sentence
SAME = 1e-10  # 1 - cosine below which two texts are one to the model: float32 cannot tell them apart
ROWS = 1024


def class_notes(classifier: np.ndarray, names: Sequence[str]) -> list[str]:
    """Classes whose vectors in `classifier` (c, d) are another's: of such the first is always the answer.

    Raises DataError where all are the same, or one is not finite.
    """
    if not np.isfinite(classifier).all():
        raise DataError("the model gives no finite embedding of a class; its weights are damaged")
    twins = _twins(classifier)
    if len(twins) == len(names) - 1 and not (twins == 0).any():
        raise DataError(
            f"all {len(names)} classes have the same text embedding, so no answer means anything: the model's "
            "vocabulary has none of their names, or its context ends before them in every template"
        )
    if not len(twins):
        return []
    which = f"{len(twins):,} of {len(names):,} classes {_have(len(twins))} the text embedding of an earlier class"
    return [f"{which}, which is always the answer: {_listed(names[int(i)] for i in twins)}"]


def _twins(rows: np.ndarray) -> np.ndarray:
    """The rows of (c, d) that point, to float32's precision, where an earlier row does."""
    rows = _unit(rows)
    found = []
    for start in range(0, len(rows), ROWS):
        same = rows[start : start + ROWS] @ rows.T > 1 - SAME
        earlier = np.arange(len(rows))[None] < np.arange(start, start + len(same))[:, None]
        found.append(np.flatnonzero((same & earlier).any(axis=1)) + start)
    return np.concatenate(found)


def label_notes(target: np.ndarray, names: Sequence[str]) -> list[str]:
    """Classes that no image of `target` (n,) has: they count in no mean over classes."""
    empty = np.flatnonzero(np.bincount(target, minlength=len(names)) == 0)
    if not len(empty):
        return []
    have = f"{len(empty):,} of {len(names):,} classes {_have(len(empty))} no image"
    return [f"{have}: {_listed(names[int(i)] for i in empty)}"]


def check_differ(rows: np.ndarray, what: str) -> None:
    """Raises DataError where all rows (n, d), which are embeddings of `what`, are the same: so is every answer then."""
    unit = _unit(rows)
    if len(unit) > 1 and (1 - unit @ unit[0] < SAME).all():
        raise DataError(
            f"all {len(rows):,} {what} have the same embedding, so no answer means anything: they are one to the "
            "model, or the set's files are copies of one"
        )


def row_notes(rows: np.ndarray, what: str, known: int = 0) -> list[str]:
    """How many of `what` have the embedding in `rows` (n, d) of another, where it is more than `known`.

    Rows are compared with their neighbour in the order of one projection, so that a few twins may be missed. Raises
    DataError where all are the same.
    """
    check_differ(rows, what)
    unit = _unit(rows)
    unit = unit[np.argsort(unit @ np.random.default_rng(0).standard_normal(unit.shape[1]), kind="stable")]
    twins = int((1 - np.einsum("nd,nd->n", unit[:-1], unit[1:]) < SAME).sum())
    if twins <= known:
        return []
    return [f"at least {twins:,} of {len(rows):,} {what} {_have(twins)} the embedding of an earlier one"]


def _unit(rows: np.ndarray) -> np.ndarray:
    """(n, d) float64 of unit length."""
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def caption_notes(texts: Sequence[str], images: int) -> list[str]:
    """Of a retrieval among `images` images, whose captions are `texts`. Raises DataError where it measures nothing."""
    if images < 2:
        raise DataError("one image alone is always found; a retrieval needs two or more")
    repeated = len(texts) - len(set(texts))
    if repeated == len(texts) - 1:
        raise DataError(f"all {len(texts):,} captions are {texts[0][:80]!r}, so no image can be found by them")
    notes = [f"among {images} images recall@10 is always 1"] if images <= 10 else []
    if repeated:
        notes.append(f"{repeated:,} of {len(texts):,} captions are an earlier caption's words")
    return notes


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _listed(names: Iterable[str]) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:SHOWN]) + (", ..." if len(shown) > SHOWN else "")

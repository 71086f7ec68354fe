"""A question to an index: words, pictures, samples and subsets, for and against, as one vector."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfilter.errors import DataError, UsageError
from mmfilter.images import decode
from mmfilter.records import failure_of
from mmfilter.rules import build_rule, check_columns
from mmfilter.subset import Subset
from mmfilter.uids import HALVES, format_uids, parse_uids

from .knn import KnnIndex
from .pool import Pool
from .reference import Asked, embedder, images
from .vectors import unit

AGAINST = 0.5  # the weight of what is asked against; a guess, no paper measures it
BLOCK = 65_536


@dataclass(frozen=True)
class Question:
    """What neighbours are asked of. `images` are files or folders, `likes` subsets that stand for their mean."""

    texts: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    uids: tuple[str, ...] = ()
    likes: tuple[Subset, ...] = ()
    minus: tuple[str, ...] = ()
    minus_uids: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.texts or self.images or self.uids or self.likes)


def vector(index: KnnIndex, pool: Pool, question: Question) -> np.ndarray:
    """float32 (d,): unit(mean of the unit vectors asked for - 0.5 x mean of those asked against).

    The model is loaded only for words and pictures, and must be the one that embedded the pool. Raises UsageError,
    DataError (a picture that cannot be decoded), ConflictError (other weights).
    """
    if not question:
        raise UsageError("nothing is asked; give words, --image, --uid or --like")
    model = _Model(pool, index.model)
    rows = [model.texts(question.texts), model.images(question.images), _samples(index, question.uids)]
    rows += [_mean(index, subset)[None] for subset in question.likes]
    against = [model.texts(question.minus), _samples(index, question.minus_uids)]
    wanted = unit(np.concatenate([r for r in rows if len(r)]).mean(axis=0, keepdims=True))[0]
    if any(len(r) for r in against):
        wanted = wanted - AGAINST * unit(np.concatenate([r for r in against if len(r)]).mean(axis=0, keepdims=True))[0]
    if not wanted.any():
        raise UsageError("what is asked for and against cancel out; ask for something")
    return unit(wanted[None])[0]


class _Model:
    """The pool's own model, loaded when something must be embedded."""

    def __init__(self, pool: Pool, name: str) -> None:
        self.asked, self.loaded = Asked(pool, name), None

    @property
    def model(self) -> Any:
        if self.loaded is None:
            self.loaded = embedder(self.asked)
        return self.loaded

    def texts(self, texts: tuple[str, ...]) -> np.ndarray:
        return unit(self.model.texts(list(texts))) if texts else np.empty((0, 0), np.float32)

    def images(self, paths: tuple[str, ...]) -> np.ndarray:
        rows = [self._image(name, data) for path in paths for name, data in _files(path)]
        return unit(np.concatenate(rows)) if rows else np.empty((0, 0), np.float32)

    def _image(self, name: str, data: bytes) -> np.ndarray:
        try:
            return np.asarray(
                self.model.images(np.array(self.model.prepare(decode(data, self.asked.pool.limits)))[None])
            )
        except Exception as error:  # whatever a picture raises
            raise DataError(f"{name}: {failure_of('', '', error).error}; give another picture") from error


def _files(path: str) -> Iterator[tuple[str, bytes]]:
    if not os.path.exists(path):
        raise UsageError(f"{path}: no such file or folder")
    return images(path)


def _samples(index: KnnIndex, uids: tuple[str, ...]) -> np.ndarray:
    positions = index.positions(parse_uids(uids)) if uids else np.empty(0, np.int64)
    for uid, position in zip(uids, positions.tolist(), strict=True):
        if position < 0:
            raise UsageError(f"uid {uid} is not in index {index.name}; `mmfilter explain {uid}` says what became of it")
    return index.vectors.take(positions)


def _mean(index: KnnIndex, subset: Subset) -> np.ndarray:
    """float32 (d,): the mean of a subset's rows, as far as the index has them."""
    positions = within(index, subset)
    if not len(positions):
        raise UsageError(f"none of the {len(subset):,} uids is in index {index.name}; is it a subset of this pool?")
    total = np.zeros(index.dim)
    for at in range(0, len(positions), BLOCK):
        total += index.vectors.take(positions[at : at + BLOCK]).sum(axis=0, dtype=np.float64)
    return unit(total[None].astype(np.float32))[0]


def within(index: KnnIndex, subset: Subset) -> np.ndarray:
    """int64 (m,): ascending positions of the subset's samples that the index has."""
    found = index.positions(subset.unique().uids)
    return np.sort(found[found >= 0])


def where(index: KnnIndex, sql: str) -> np.ndarray:
    """bool (n,) by position: where a polars SQL expression over the pool's columns holds. Raises UsageError."""
    rule = build_rule({"where": {"sql": sql}}, "--where")
    table = index.vectors.table
    check_columns(rule, [*table.columns, *HALVES], "--where")
    return rule.mask(table.read(rule.needs))


def hits(index: KnnIndex, positions: np.ndarray, similarity: np.ndarray) -> list[dict[str, Any]]:
    """uid, similarity (float) and text of each position, in their order; a shard's captions are read once."""
    uids = format_uids(index.uids[positions])
    texts = dict.fromkeys(positions.tolist(), "")
    table, starts = index.vectors.table, index.vectors.starts
    if "text" in table.columns:
        for i in np.unique(np.searchsorted(starts, positions, "right") - 1).tolist():
            here = positions[(positions >= starts[i]) & (positions < starts[i + 1])]
            column = table.read(["text"], table.stems[i])["text"]
            texts |= {p: column[p - int(starts[i])] or "" for p in here.tolist()}
    rows = zip(uids, similarity.tolist(), positions.tolist(), strict=True)
    return [{"uid": uid, "similarity": round(near, 6), "text": texts[p]} for uid, near, p in rows]

"""A set through a model: images as rows, labels beside them, and classifiers made of words."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from .. import narrow
from ..ahead import ahead
from ..embed import Embedder, bad_rows
from ..errors import DataError
from ..images import decode
from ..records import Failure, failure_of
from .sets import Item

L = TypeVar("L")
Label = Callable[[Item], L]
CLASSES = 32  # at once, so that 1,000 classes with 80 templates each are not in memory together
THREADS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def embed_items(
    embedder: Embedder, items: Iterable[Item | Failure], label: "Label[L]", failures: list[Failure]
) -> tuple[np.ndarray, list[L]]:
    """(float32 (n, d) of unit rows, n labels) of the items that are well, in their order.

    Images are decoded in threads ahead of the model. What cannot be read, decoded or embedded, and a
    label that raises BadLabel, goes to `failures`. Raises DataError when nothing is left.
    """
    rows: list[np.ndarray] = []
    keys: list[str] = []
    labels: list[L] = []
    flying: deque[Callable[[], np.ndarray]] = deque()
    for batch in ahead(_batches(embedder, items, label, failures)):
        flying.append(embedder.submit(np.stack([pixels for _, pixels, _ in batch])))
        keys += [key for key, _, _ in batch]
        labels += [value for _, _, value in batch]
        while len(flying) > 1:  # the device works on one while the next is queued
            rows.append(flying.popleft()())
    rows += [wait() for wait in flying]
    if not rows:
        told = "; ".join(sorted({f"{f.status}: {f.error}" for f in failures})[:3])
        raise DataError(f"no sample of it can be measured ({told or 'it holds none'})")
    return _well(np.concatenate(rows).astype(np.float32), keys, labels, failures)


def _well(rows: np.ndarray, keys: list[str], labels: list[L], failures: list[Failure]) -> tuple[np.ndarray, list[L]]:
    bad = bad_rows(rows)
    failures += [Failure(keys[i], "", "embedding_not_finite", "not finite or no length") for i in np.flatnonzero(bad)]
    if bad.all():
        raise DataError("the model gives no finite embedding of any image; its weights are damaged")
    return rows[~bad], [value for value, wrong in zip(labels, bad, strict=True) if not wrong]


def _batches(
    embedder: Embedder, items: Iterable[Item | Failure], label: "Label[L]", failures: list[Failure]
) -> Iterator[list[tuple[str, np.ndarray, L]]]:
    batch: list[tuple[str, np.ndarray, L]] = []
    for found in _prepared(embedder, items, label):
        if isinstance(found, Failure):
            failures.append(found)
            continue
        batch.append(found)
        if len(batch) == embedder.batch:
            yield batch
            batch = []
    if batch:
        yield batch


def _prepared(
    embedder: Embedder, items: Iterable[Item | Failure], label: "Label[L]"
) -> Iterator[tuple[str, np.ndarray, L] | Failure]:
    """In order, by a pool of threads that works two batches ahead."""

    def work(item: Item | Failure) -> tuple[str, np.ndarray, L] | Failure:
        if isinstance(item, Failure):
            return item
        try:
            return item.key, embedder.prepare(decode(item.image)), label(item)
        except Exception as error:  # whatever a picture or a label raises is its sample's
            return failure_of(item.key, "", error)

    pending: deque[Future[tuple[str, np.ndarray, L] | Failure]] = deque()
    with ThreadPoolExecutor(narrow.threads(THREADS), "decode") as pool:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= 2 * embedder.batch:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def embed_texts(embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
    """float32 (n, d) of unit rows. Raises DataError where one is not finite."""
    rows = embedder.texts(list(texts)).astype(np.float32)
    if bad_rows(rows).any():
        raise DataError(f"the model gives no finite embedding of {texts[int(bad_rows(rows).argmax())]!r}")
    return rows


def zero_shot(embedder: Embedder, classnames: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """(classes, d) float32: of each class the templates' unit embeddings, their mean, made a unit row again.

    Radford et al. 2021 (arXiv 2103.00020), as CLIP_benchmark does it. ``{c}`` in a template is the name.
    """
    found = []
    for i in range(0, len(classnames), CLASSES):
        names = classnames[i : i + CLASSES]
        rows = embed_texts(embedder, [template.replace("{c}", name) for name in names for template in templates])
        found.append(rows.reshape(len(names), len(templates), -1).mean(axis=1))
    means = np.concatenate(found)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def blocks(rows: np.ndarray, other: np.ndarray, size: int = 4096) -> Iterator[tuple[slice, Any]]:
    """(rows' slice, similarities (m, c)) of `rows` (n, d) with `other` (c, d), a block at a time."""
    for i in range(0, len(rows), size):
        yield slice(i, i + size), rows[i : i + size] @ other.T

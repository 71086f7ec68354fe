"""The checks of `mmfilter verify` for what this package writes: kNN indices and clusters."""

import json
import os
from collections.abc import Callable
from functools import partial

import numpy as np

from mmfilter import storage
from mmfilter.errors import DataError, MMFilterError
from mmfilter.file_record import difference
from mmfilter.verify_files import CONCEPTS, INDEX, Finding, attempt

from . import knn
from .vectors import open_vectors


def checks(out: str, deep: bool) -> list[Callable[[], list[Finding]]]:
    """A check for each index and each folder of clusters in OUT, which is a local folder; none on a store."""
    if storage.is_remote(out):
        return []
    home, concepts = storage.join(out, "index"), storage.join(out, "concepts")
    indices = [name for name in storage.names(home) if os.path.isdir(storage.join(home, name))]
    folders = [path for path in storage.list_files(concepts) if os.path.isdir(path)]
    return [
        *(partial(_check_index, out, name, deep) for name in indices),
        *(partial(_check_concepts, path, deep) for path in folders),
    ]


def _check_index(out: str, name: str, deep: bool) -> list[Finding]:
    """Findings of an index: `current`, index.json, each file, and whether its embeddings are still the pool's."""
    home = storage.join(out, "index", name)
    try:
        folder = knn.version_folder(out, name)
        info = knn.read_info(folder)
    except MMFilterError as error:
        return [Finding(INDEX, name, home, str(error).removeprefix(f"{home}: "))]
    found = []
    for file, record in info["files"].items():
        path = os.path.join(folder, file)
        whole = deep and "sha256" in record
        stated = {"sha256": "0" * 64, **record} if not whole else record
        if what := difference(path, stated, whole=whole):
            found.append(Finding(INDEX, name, path, what))
    if found:
        return found

    def current() -> None:
        vectors = open_vectors(out, info["model"], info["modality"])
        knn.reordered(vectors, info["shards"], out, name)

    return attempt(INDEX, name, os.path.join(folder, "index.json"), current)


def _parse(path: str) -> None:
    """Raise DataError unless the file holds JSON."""
    try:
        json.loads(storage.read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is damaged (not JSON: {error}); `mmfilter cluster` writes it again") from error


def _check_concepts(folder: str, deep: bool) -> list[Finding]:
    """Findings of a folder of clusters: its json files, and the array of centroids. Its columns vouch for the bytes."""
    name = os.path.basename(folder)
    found = []
    for path in storage.list_files(folder, ".json"):
        found += attempt(CONCEPTS, name, path, partial(_parse, path))
    path = storage.join(folder, "centroids.npy")

    def read() -> None:
        try:
            array = np.load(path, mmap_mode=None if deep else "r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise DataError(f"is no sound array ({error})") from error
        if array.ndim != 2 or not (np.isfinite(array).all() if deep else True):
            raise DataError("is no array of centroids")

    found += attempt(CONCEPTS, name, path, read)
    return found

"""Files outside the pool that a score reads: which they are, and what tells that they have changed."""

import os
from collections.abc import Collection

from mmfilter import storage
from mmfilter.provenance import fingerprint

from .pool import Pool


def files(path: str) -> list[str]:
    """The file at `path`, or all files under a folder, sorted."""
    if storage.is_remote(path):
        return storage.files_below(path) or [path]
    if not os.path.isdir(path):
        return [path]
    return storage.files_below(path)


def is_pool(path: str) -> bool:
    """Whether an embedded pool is here: an OUT, or a folder of metadata."""
    return storage.exists(storage.join(path, "metadata")) or bool(storage.list_files(path, ".npz"))


def identity(path: str, needs: Collection[str]) -> str:
    """A fingerprint of the names, sizes and times of `files(path)`; of a pool, its own for what it `needs`."""
    if is_pool(path):
        return Pool(path).identity(needs)
    return fingerprint([[name, storage.identity_or_none(name)] for name in files(path)])

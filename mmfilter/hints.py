"""What a message about a path that does not exist suggests: the nearest name beside it."""

import os
import posixpath

from . import listings, storage
from .errors import StoreError, nearest


def nearest_beside(path: str, ending: str = "", folders: bool = False) -> str:
    """How the sentence ends: ``"; did you mean 'x'?"``, or ``"."``. Of the names beside `path`, here or on a store,
    those with the `ending`, or only folders, are considered; nothing is suggested where they cannot be listed.
    """
    path = path.rstrip("/") if storage.is_remote(path) else os.path.abspath(path)
    parent, name = posixpath.split(path)
    try:
        beside = listings.listing(parent) if storage.is_remote(parent) else _local(parent)
    except (OSError, StoreError):
        return "."
    found = [(posixpath.basename(other), is_folder) for other, is_folder in beside]
    return nearest(name, [n for n, is_folder in found if n != name and n.endswith(ending) and is_folder >= folders])


def _local(folder: str) -> list[tuple[str, bool]]:
    return [(entry.path, entry.is_dir()) for entry in os.scandir(folder)]

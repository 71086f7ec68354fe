"""Which of the named shards exist, found by listing folders; an error that is not "no such file" is never absence."""

import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from . import listings, storage
from .errors import MachineError, unreadable
from .paths import NOTHING
from .patience import patiently

READERS = 32  # folders listed at once on an object store


def absent(paths: Iterable[str]) -> list[str]:
    """The paths that do not exist, in their order; a folder in place of a file counts as existing.

    Each distinct parent folder is listed once; a folder with a single path in question is not listed.
    Raises MMFilterError where a folder cannot be read, StoreError where a store does not answer.
    """
    paths = list(paths)
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_folder[posixpath.dirname(path)].append(path)
    groups = list(by_folder.items())
    if any(map(storage.is_remote, by_folder)):
        with ThreadPoolExecutor(READERS) as pool:
            results = list(pool.map(lambda group: _missing(*group), groups))
    else:
        results = [_missing(*group) for group in groups]
    missing = set().union(*results)
    return [path for path in paths if path in missing]


def _missing(folder: str, paths: list[str]) -> set[str]:
    if len(paths) == 1:
        return set() if storage.exists(paths[0]) else set(paths)
    names = set(_remote_names(folder) if storage.is_remote(folder) else _local_names(folder, paths))
    missing = {path for path in paths if posixpath.basename(path) not in names}
    if (
        not names and storage.is_remote(folder) and storage.exists(paths[0])
    ):  # a store that lists nothing, such as a web server
        return {path for path in paths if not storage.exists(path)}
    return missing


def _remote_names(folder: str) -> list[str]:
    return [posixpath.basename(path) for path, _ in listings.listing(folder)]


def _local_names(folder: str, paths: list[str]) -> Iterator[str]:
    """Names in a local folder; a symbolic link counts where it leads to something."""
    requested = {posixpath.basename(path) for path in paths}
    try:
        for entry in patiently(lambda: list(os.scandir(folder or ".")), folder or "."):
            if entry.name in requested and (not entry.is_symlink() or storage.exists(entry.path)):
                yield entry.name
    except MachineError:
        if os.access(folder or ".", os.R_OK):
            raise  # else it is a folder that may be entered and not listed
        yield from (posixpath.basename(path) for path in paths if storage.exists(path))
    except OSError as error:
        if error.errno not in NOTHING:
            raise unreadable(folder, error) from error

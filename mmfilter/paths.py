"""Paths that are local or fsspec URLs, taken as they are, whatever characters they have: what is at one, what is below.

No function here reads a pattern (`mmfilter.patterns` does). Of a remote path every function may also raise StoreError,
when the store does not answer.
"""

import errno
import os
import posixpath
import re
import stat
from contextlib import suppress

from . import folders, listings, remote
from .errors import ABSENT, unreadable
from .patience import patiently

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
NOTHING = ABSENT | {errno.ELOOP, errno.ENAMETOOLONG}  # of a local path: nothing is there


def is_remote(path: str) -> bool:
    """True for `scheme://...`; a plain path is local."""
    return "://" in path and SCHEME.match(path) is not None


class ShardPath(str):
    """The path of a shard in a folder below the pool's, which knows its name in OUT: `animals__00000012`."""

    name: str

    def __new__(cls, path: str, name: str) -> "ShardPath":
        """`path` and the shard's name."""
        made = super().__new__(cls, path)
        made.name = name
        return made

    def __reduce__(self) -> tuple[type["ShardPath"], tuple[str, str]]:
        """For pickle: it travels to workers."""
        return ShardPath, (str(self), self.name)


def join(folder: str, *names: str) -> str:
    """`folder/name/...`, for local paths and URLs alike."""
    return posixpath.join(folder, *names)


def stem(path: str) -> str:
    """The name of a shard (`a/00000012.tar` -> `00000012`) or of another file, without its ending; dots in it stay."""
    return path.name if isinstance(path, ShardPath) else posixpath.splitext(posixpath.basename(path.rstrip("/")))[0]


def exists(path: str) -> bool:
    """Whether something is at `path`. Raises MachineError where that cannot be known (a dead mount)."""
    return remote.info(path) is not None if is_remote(path) else _mode(path) is not None


def isdir(path: str) -> bool:
    """Whether `path` is a folder; on an object store: whether something is in it. Raises as `exists` does."""
    return bool(listings.listing(path)) if is_remote(path) else stat.S_ISDIR(_mode(path) or 0)


def _mode(path: str) -> int | None:
    """What kind of thing a local path is, or None where nothing is."""
    try:
        return patiently(lambda: os.stat(path), path).st_mode
    except ValueError:  # a NUL in it
        return None
    except OSError as error:
        if error.errno in NOTHING:
            return None
        raise unreadable(path, error) from error


def names(folder: str) -> list[str]:
    """The sorted names of what stands in `folder`; none where it does not exist.

    Raises MMFilterError where a local folder cannot be read: what it holds is not known then.
    """
    if is_remote(folder):
        return [posixpath.basename(path) for path, _ in listings.listing(folder)]
    try:
        return sorted(patiently(lambda: os.listdir(folder or "."), folder or "."))
    except OSError as error:
        if error.errno in NOTHING:
            return []
        raise unreadable(folder or ".", error) from error


def sizes(folder: str) -> dict[str, int]:
    """Name -> bytes of the files in `folder`, by one listing; none where it does not exist. Raises as `names`."""
    if is_remote(folder):
        files = [entry for entry in listings.entries(folder) if entry["type"] != "directory"]
        return {posixpath.basename(entry["name"]): int(entry["size"] or 0) for entry in files}
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except OSError as error:
        if error.errno in ABSENT:
            return {}
        raise unreadable(folder or ".", error) from error


def list_files(folder: str, ending: str = "") -> list[str]:
    """The sorted paths in `folder` whose names end with `ending` and do not begin with a dot; `names` says the rest."""
    return [join(folder, name) for name in names(folder) if name.endswith(ending) and not name.startswith(".")]


def files_below(folder: str) -> list[str]:
    """The sorted paths of all files in `folder` and in the folders below it, those behind links too."""
    if is_remote(folder):
        return listings.find(folder)
    return folders.files_below(folder)


def sizes_below(folder: str) -> dict[str, int]:
    """Path -> bytes of all files in `folder` and in the folders below it, sorted; of a link what it leads to.

    A file that disappears meanwhile is left out.
    """
    if is_remote(folder):
        return listings.sizes(folder)
    sizes = {}
    for path in folders.files_below(folder):
        with suppress(FileNotFoundError):
            sizes[path] = os.stat(path).st_size
    return sizes

"""Paths that are local or fsspec URLs (`s3://`, `gs://`, `hf://`): list, read, write atomically.

Of a remote path every function may also raise StoreError, when the store does not answer.
"""

import errno
import math
import os
import posixpath
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from . import remote
from .errors import UsageError, cannot_write
from .folders import files_below, is_tar


def is_remote(path: str) -> bool:
    """True for `scheme://...`; a plain path is local."""
    return "://" in path


MOST_SHARDS = 10_000_000  # of a brace pattern
RANGE = re.compile(r"\{(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.-?\d+)?\}")


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


def expand(patterns: str | Iterable[str]) -> list[str]:
    """Shard paths named by brace patterns, globs, folders (their `*.tar`) or plain paths, in order.

    ``shards/{000..007}.tar``, ``s3://bucket/pool/*.tar``, ``pool/``, several joined by ``::``. A folder without a tar
    of its own is searched below. Nothing is run and nothing is fetched: WebDataset's ``pipe:`` URLs are refused. A
    path that exists is that path, whatever characters it has. A glob or folder that matches nothing is an error; a
    plain path that does not exist is kept.

    A shard's name (`stem`) is its path below the pattern's fixed part without `.tar`, with ``__`` for ``/``.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    paths: list[str] = []
    for given in patterns:
        if isinstance(given, ShardPath):  # expanded before
            paths.append(given)
            continue
        for pattern in split(given):
            if pattern.startswith("pipe:"):
                raise UsageError(f"{pattern}: 'pipe:' runs a shell command and is never opened; mount or copy the data")
            root = _fixed_part(pattern)
            paths.extend(_named(path, root) for path in _of_pattern(pattern))
    if not paths:
        raise UsageError("the pool is empty: no pattern was given")
    return paths


def split(pattern: str) -> list[str]:
    """The patterns that WebDataset's `a::b` joins."""
    return [pattern] if _is_here(pattern) else pattern.split("::")


def _is_here(path: str) -> bool:
    return not is_remote(path) and os.path.exists(path)


def _of_pattern(pattern: str) -> Iterator[str]:
    from braceexpand import braceexpand

    if _is_here(pattern):
        yield from _matches(pattern, literal=True)
        return
    bounded(pattern)
    try:
        for path in braceexpand(pattern):
            yield from _matches(path)
    except ValueError as error:  # its UnbalancedBracesError
        raise UsageError(f"{pattern}: a brace is opened and not closed, or the other way round") from error


def bounded(pattern: str) -> None:
    """Raise UsageError on a brace pattern of more shards than any pool has: they would be listed in memory."""
    count = math.prod(abs(int(b) - int(a)) + 1 for a, b in RANGE.findall(pattern))
    if count > MOST_SHARDS:
        raise UsageError(f"{pattern}: names {count:,} shards, more than {MOST_SHARDS:,}; give a narrower pattern")


def _fixed_part(pattern: str) -> str:
    """The folder that a pattern's shards are below: what stands before its first special character, or itself."""
    if _is_here(pattern):
        return pattern if os.path.isdir(pattern) else posixpath.dirname(pattern)
    first = min((pattern.find(c) for c in "*?[{" if c in pattern), default=-1)
    if first < 0:
        return posixpath.dirname(pattern) if is_tar(pattern) else pattern.rstrip("/")
    return pattern[:first].rpartition("/")[0]


def _named(path: str, root: str) -> str:
    """`path`, which knows its name where that is not its file's."""
    folder = posixpath.dirname(path)
    below = _below(folder, root) if is_remote(path) else posixpath.relpath(folder or ".", root or ".")
    if below in (".", "") or below.startswith(".."):
        return path
    return ShardPath(path, f"{below.replace('/', '__')}__{stem(path)}")


def _below(folder: str, root: str) -> str:
    return folder[len(root) :].strip("/") if folder.startswith(root) else ""


def _matches(path: str, literal: bool = False) -> list[str]:
    if not literal and any(c in path for c in "*?["):
        found = [match for match in glob(path) if is_remote(match) or not os.path.isdir(match)]
    elif not is_tar(path) and isdir(path):
        found = tars(path)
    else:
        return [path]
    if not found:
        raise UsageError(f"{path}: no shard matches; give .tar files, a folder that holds them, or a pattern")
    return found


def tars(folder: str) -> list[str]:
    """The sorted tars in a folder, or, where it has none itself, in all folders below."""
    own = [join(folder, name) for name in names(folder) if is_tar(name)]
    if own:
        return own
    if is_remote(folder):
        return remote.glob(join(folder, "**", "*.[tT][aA][rR]"))
    return [path for path in files_below(folder) if is_tar(path)]


def glob(pattern: str) -> list[str]:
    """Sorted paths that match a glob; a remote one keeps its scheme."""
    if not is_remote(pattern):
        import glob as local

        return sorted(local.glob(pattern, recursive=True))
    return remote.glob(pattern)


def join(folder: str, *names: str) -> str:
    """`folder/name/...`, for local paths and URLs alike."""
    return posixpath.join(folder, *names)


def stem(path: str) -> str:
    """The name of a shard (`a/00000012.tar` -> `00000012`) or of another file, without its ending; dots in it stay."""
    return path.name if isinstance(path, ShardPath) else posixpath.splitext(posixpath.basename(path.rstrip("/")))[0]


def exists(path: str) -> bool:
    return remote.info(path) is not None if is_remote(path) else os.path.exists(path)


def isdir(path: str) -> bool:
    """Whether `path` is a folder; on an object store: whether something is in it."""
    return bool(remote.listing(path)) if is_remote(path) else os.path.isdir(path)


def names(folder: str) -> list[str]:
    """The sorted names of what stands in `folder`; none where it is not there."""
    if is_remote(folder):
        return [posixpath.basename(path) for path, _ in remote.listing(folder)]
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def size(path: str) -> int:
    """Bytes. Raises FileNotFoundError."""
    return int(_info(path)["size"]) if is_remote(path) else os.path.getsize(path)


def _info(path: str) -> dict:
    found = remote.info(path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return found


def identity(path: str) -> dict[str, int | str]:
    """What tells that an input changed without reading it: its size, and mtime or etag."""
    if not is_remote(path):
        stat = os.stat(path)
        return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    info = _info(path)
    tag = info.get("ETag") or info.get("etag") or info.get("md5Hash") or info.get("LastModified") or ""
    return {"bytes": int(info["size"]), "etag": str(tag)}


def identity_or_none(path: str) -> dict[str, int | str] | None:
    """`identity`, or None for a path that cannot be found."""
    try:
        return identity(path)
    except OSError:
        return None


def open_read(path: str) -> BinaryIO:
    """A binary stream. Raises FileNotFoundError; never runs or unpacks anything."""
    if not is_remote(path):
        return open(path, "rb")
    return remote.open_read(path)


def read_bytes(path: str) -> bytes:
    with open_read(path) as stream:
        return stream.read()


@contextmanager
def _writing(path: str) -> Iterator[None]:
    """An OSError in the block is an MMFilterError that names `path`."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def open_atomic(path: str) -> Iterator[BinaryIO]:
    """Write `path` under a temporary name and rename it when the block ends well.

    A reader sees the whole file or none. On an error the temporary file is removed. The file is
    flushed to disk before the rename, so that a commit that is there can be trusted after a crash.
    An object store has no rename: the temporary file is a local one, and is sent when it is whole.
    """
    if is_remote(path):
        with _writing(path), remote.upload(path) as stream:
            yield stream
        return
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with _writing(path):
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with open(temporary, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def write_atomic(path: str, data: bytes) -> None:
    """`open_atomic` for bytes that are at hand."""
    with open_atomic(path) as stream:
        stream.write(data)


def create(path: str, data: bytes) -> bool:
    """Write `path` if nothing is there; False, and nothing is written, when something else is."""
    if is_remote(path):
        return remote.create(path, data)
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    write_atomic(temporary, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    return True


def remove(path: str) -> None:
    """Delete a file; one that is not there is well."""
    if is_remote(path):
        remote.remove(path)
        return
    with _writing(path), suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)

"""Paths that are local or fsspec URLs (`s3://`, `gs://`, `hf://`): list, read, write atomically.

Of a remote path every function may also raise StoreError, when the store does not answer.
"""

import errno
import os
import posixpath
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from . import remote
from .errors import UsageError, cannot_write


def is_remote(path: str) -> bool:
    """True for `scheme://...`; a plain path is local."""
    return "://" in path


def expand(patterns: str | Iterable[str]) -> list[str]:
    """Shard paths named by brace patterns, globs, folders (their `*.tar`) or plain paths, in order.

    ``shards/{000..007}.tar``, ``s3://bucket/pool/*.tar``, ``pool/``. Nothing is run and nothing is
    fetched: WebDataset's ``pipe:`` URLs are refused. A glob or folder that matches nothing is an
    error; a plain path that does not exist is kept, so that it is reported as a shard that failed.
    """
    from braceexpand import braceexpand

    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    paths: list[str] = []
    for pattern in patterns:
        if pattern.startswith("pipe:"):
            raise UsageError(f"{pattern}: 'pipe:' runs a shell command and is never opened; mount or copy the data")
        for path in braceexpand(pattern):
            paths.extend(_matches(path))
    if not paths:
        raise UsageError("the pool is empty: no pattern was given")
    return paths


def _matches(path: str) -> list[str]:
    if any(c in path for c in "*?["):
        found = glob(path)
    elif not path.endswith(".tar") and isdir(path):
        found = glob(join(path, "*.tar"))
    else:
        return [path]
    if not found:
        raise UsageError(f"{path}: no shard matches; give .tar files, a folder that holds them, or a pattern")
    return found


def glob(pattern: str) -> list[str]:
    """Sorted paths that match a glob; a remote one keeps its scheme."""
    if not is_remote(pattern):
        import glob as local

        return sorted(local.glob(pattern))
    return remote.glob(pattern)


def join(folder: str, *names: str) -> str:
    """`folder/name/...`, for local paths and URLs alike."""
    return posixpath.join(folder, *names)


def stem(path: str) -> str:
    """The shard's name: the file name up to the first dot (`a/00000012.tar` -> `00000012`)."""
    return posixpath.basename(path.rstrip("/")).split(".", 1)[0]


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

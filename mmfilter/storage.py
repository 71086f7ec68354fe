"""Paths that are local or fsspec URLs (`s3://`, `gs://`, `hf://`): list, read, write atomically.

Of a remote path every function may also raise StoreError, when the store does not answer.
"""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from . import remote
from .errors import cannot_write
from .paths import ShardPath, exists, files_below, is_remote, isdir, join, list_files, names, sizes, stem
from .patterns import expand

__all__ = [
    "ShardPath",
    "create",
    "exists",
    "expand",
    "files_below",
    "identity",
    "identity_or_none",
    "is_remote",
    "isdir",
    "join",
    "list_files",
    "names",
    "open_atomic",
    "open_read",
    "read_bytes",
    "remove",
    "size",
    "sizes",
    "stem",
    "write_atomic",
]


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

"""Paths that are local or fsspec URLs (`s3://`, `gs://`, `hf://`): list, read, write atomically.

Of a remote path every function may also raise StoreError, when the store does not answer; of a local one
MachineError, when the environment keeps it from being read or written, in time after three tries (`mmfilter.patience`).
"""

import errno
import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from . import remote
from .errors import TransientError, cannot_write, check_environment
from .paths import ShardPath, exists, files_below, is_remote, isdir, join, list_files, names, sizes, sizes_below, stem
from .patience import PatientWriter, open_patiently, patiently
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
    "reading",
    "remove",
    "size",
    "sizes",
    "sizes_below",
    "stem",
    "write_atomic",
    "writing",
]


def size(path: str) -> int:
    """Bytes. Raises FileNotFoundError."""
    return int(_info(path)["size"]) if is_remote(path) else patiently(lambda: os.path.getsize(path), path)


def _info(path: str) -> dict:
    found = remote.info(path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return found


def identity(path: str) -> dict[str, int | str]:
    """What tells that an input changed without reading it: its size, and mtime or etag."""
    if not is_remote(path):
        found = patiently(lambda: os.stat(path), path)
        return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns}
    info = _info(path)
    tag = info.get("ETag") or info.get("etag") or info.get("md5Hash") or info.get("LastModified") or ""
    return {"bytes": int(info["size"]), "etag": str(tag)}


def identity_or_none(path: str) -> dict[str, int | str] | None:
    """`identity`, or None for a path where nothing is. Raises MachineError where that cannot be known."""
    try:
        return identity(path)
    except OSError:
        return None


def open_read(path: str) -> BinaryIO:
    """A binary stream of a file. Raises FileNotFoundError, NoFile for a pipe or a device; runs and unpacks nothing."""
    return remote.open_read(path) if is_remote(path) else open_patiently(path)


def read_bytes(path: str) -> bytes:
    with open_read(path) as stream:
        return stream.read()


@contextmanager
def reading(path: str) -> Iterator[None]:
    """An OSError in the block that is the environment's fault is a MachineError that names `path`."""
    try:
        yield
    except OSError as error:
        check_environment(path, error)
        raise


@contextmanager
def writing(path: str) -> Iterator[None]:
    """An OSError in the block is a MachineError that names `path`."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def open_atomic(path: str) -> Iterator[BinaryIO]:
    """Write `path` under a temporary name and rename it when the block ends well.

    A reader sees the whole file or none. On an error the temporary file is removed. The file is
    flushed to disk before the rename, so that a commit that is there can be trusted after a crash; a flush that fails
    is not tried again, since the system may have let go of what it could not write.
    An object store has no rename: the temporary file is a local one, and is sent when it is whole.
    """
    if is_remote(path):
        with writing(path), remote.upload(path) as stream:
            yield stream
        return
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with writing(path):
            patiently(lambda: os.makedirs(os.path.dirname(path) or ".", exist_ok=True), path, writes=True)
            with io.BufferedWriter(PatientWriter(temporary, path)) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            patiently(lambda: os.replace(temporary, path), path, writes=True)
    finally:
        with suppress(OSError):  # the next driver sweeps what cannot be removed now
            os.unlink(temporary)


def write_atomic(path: str, data: bytes | memoryview) -> None:
    """`open_atomic` for bytes that are at hand; what may pass is tried once more, from the start."""
    try:
        _write(path, data)
    except TransientError:
        _write(path, data)


def _write(path: str, data: bytes | memoryview) -> None:
    with open_atomic(path) as stream:
        stream.write(data)


def create(path: str, data: bytes) -> bool:
    """Write `path` if nothing is there; False, and nothing is written, when something else is."""
    if is_remote(path):
        return remote.create(path, data)
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    write_atomic(temporary, data)
    try:
        patiently(lambda: os.link(temporary, path), path, writes=True)
    except FileExistsError:
        return False
    finally:
        with suppress(OSError):
            os.unlink(temporary)
    return True


def remove(path: str) -> None:
    """Delete a file; one that is not there is well."""
    if is_remote(path):
        remote.remove(path)
        return
    with writing(path), suppress(FileNotFoundError, NotADirectoryError):
        patiently(lambda: os.unlink(path), path, writes=True)

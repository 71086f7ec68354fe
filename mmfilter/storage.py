"""Paths that are local or fsspec URLs (`s3://`, `gs://`, `hf://`): list, read, write atomically."""

import os
import posixpath
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from .errors import MMFilterError, UsageError, need

EXTRAS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp"}


def is_remote(path: str) -> bool:
    """True for `scheme://...`; a plain path is local."""
    return "://" in path


def filesystem(path: str) -> Any:
    """The fsspec filesystem of a remote `path`. Raises MissingDependency, UsageError."""
    import fsspec

    scheme = path.split("://", 1)[0]
    if scheme in EXTRAS:
        need(EXTRAS[scheme], EXTRAS[scheme])
    try:
        return fsspec.filesystem(scheme)
    except ValueError as error:
        raise UsageError(f"{path}: no storage is known for '{scheme}://'") from error


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
    remote = is_remote(path)
    if any(c in path for c in "*?["):
        found = glob(path)
    elif not path.endswith(".tar") and (filesystem(path).isdir(path) if remote else os.path.isdir(path)):
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
    fs = filesystem(pattern)
    return sorted(fs.unstrip_protocol(p) for p in fs.glob(pattern))


def join(folder: str, *names: str) -> str:
    """`folder/name/...`, for local paths and URLs alike."""
    return posixpath.join(folder, *names)


def stem(path: str) -> str:
    """The shard's name: the file name up to the first dot (`a/00000012.tar` -> `00000012`)."""
    return posixpath.basename(path.rstrip("/")).split(".", 1)[0]


def exists(path: str) -> bool:
    return bool(filesystem(path).exists(path)) if is_remote(path) else os.path.exists(path)


def size(path: str) -> int:
    """Bytes. Raises FileNotFoundError."""
    return int(filesystem(path).size(path)) if is_remote(path) else os.path.getsize(path)


def identity(path: str) -> dict[str, int | str]:
    """What tells that an input changed without reading it: its size, and mtime or etag."""
    if not is_remote(path):
        stat = os.stat(path)
        return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    info = filesystem(path).info(path)
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
    return filesystem(path).open(path, "rb")


def read_bytes(path: str) -> bytes:
    with open_read(path) as stream:
        return stream.read()


@contextmanager
def open_atomic(path: str) -> Iterator[BinaryIO]:
    """Write `path` under a temporary name and rename it when the block ends well.

    A reader sees the whole file or none. On an error the temporary file is removed. The file is
    flushed to disk before the rename, so that a commit that is there can be trusted after a crash.
    """
    if is_remote(path):
        with filesystem(path).open(path, "wb") as stream:  # object stores publish on close
            yield stream
        return
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise MMFilterError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def write_atomic(path: str, data: bytes) -> None:
    """`open_atomic` for bytes that are at hand."""
    with open_atomic(path) as stream:
        stream.write(data)

"""What one file says of another: how many bytes it has and what they hash to, written after it and checked later.

The other files are local or on a store. A record is written last, so that it vouches for a file that is whole.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, BinaryIO

from . import storage
from .errors import DataError

CHUNK = 1 << 22
CURE = "restore the file, or make it anew"
DAMAGED = "what was recorded of it is damaged"


def record_of(source: str | bytes) -> dict[str, Any]:
    """Return the ``bytes`` and ``sha256`` of a file (a path, read in chunks) or of what is about to be written (bytes).

    Raises FileNotFoundError, OSError.
    """
    if isinstance(source, bytes):
        return {"bytes": len(source), "sha256": hashlib.sha256(source).hexdigest()}
    with storage.open_read(source) as stream:
        size, digest = _read(stream)
    return {"bytes": size, "sha256": digest}


def sha256_file(path: str) -> str:
    """Return a file's sha256 in hex, read in chunks of 4 MiB."""
    with storage.open_read(path) as stream:
        return _read(stream)[1]


def _read(stream: BinaryIO) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


class Recording:
    """A stream that hands on what is written to it and keeps the record of that."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.size, self.digest = stream, 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.stream.write(data)

    @property
    def record(self) -> dict[str, Any]:
        """``bytes`` and ``sha256`` of what was written so far."""
        return {"bytes": self.size, "sha256": self.digest.hexdigest()}


def is_record(value: Any) -> bool:
    """Whether `value` is what `record_of` returns, as it may be read back from a damaged file."""
    return (
        isinstance(value, Mapping)
        and type(value.get("bytes")) is int
        and isinstance(value.get("sha256"), str)
        and len(value["sha256"]) == 64
    )


def difference(path: str, record: Any, whole: bool = False) -> str:
    """Say in a few words how the file differs from its record; "" where it is what was recorded.

    By its size, which costs one look; `whole` reads it as well. Raises OSError where it cannot be asked.
    """
    if not is_record(record):
        return DAMAGED
    try:
        size = storage.size(path)
        read = whole and size == record["bytes"]
        return _told(size, sha256_file(path) if read else record["sha256"], record)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return "it is not there"


def difference_of(data: bytes, record: Any) -> str:
    """`difference` of a file that was read already, whole: `data` are its bytes."""
    if not is_record(record):
        return DAMAGED
    return _told(len(data), hashlib.sha256(data).hexdigest(), record)


def _told(size: int, sha256: str, record: Mapping[str, Any]) -> str:
    if size != record["bytes"]:
        return f"it has {size:,} bytes, {record['bytes']:,} were written"
    return "" if sha256 == record["sha256"] else "its bytes are not those that were written (another sha256)"


def check_size(path: str, record: Any, cure: str = CURE) -> None:
    """Raise DataError, which ends with `cure`, unless the file is there and has the recorded size."""
    _raise(path, difference(path, record), cure)


def check_whole(path: str, record: Any, cure: str = CURE) -> None:
    """Raise DataError, which ends with `cure`, unless the file's bytes are those that were recorded; reads it all."""
    _raise(path, difference(path, record, whole=True), cure)


def check_bytes(path: str, data: bytes, record: Any, cure: str = CURE) -> None:
    """`check_whole` of a file that was read already: `data` are its bytes, `path` is what messages name."""
    _raise(path, difference_of(data, record), cure)


def _raise(path: str, what: str, cure: str) -> None:
    if what:
        raise DataError(f"{path}: is not the file that was recorded: {what}; {cure}")

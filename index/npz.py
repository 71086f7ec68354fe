"""An npz's arrays, read where they lie in the file: whole, or single rows; their headers are read once.

Of a local npz as numpy writes it rows are read where they lie: a scan maps an array for as long as it reads it, single
rows are read one by one, so a row costs the bytes of that row; a compressed or remote one is read whole. No file stays
mapped or open: of a mapped one a single row brings up to 2 MB into the process's memory (the page cache's folio), soon
the whole pool, and a file descriptor a shard.
"""

import os
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from mmfilter import storage
from mmfilter.errors import DataError, UsageError, nearest
from mmfilter.shard_record import CURE, check_blocks
from mmfilter.sidecar import read_arrays

DENSE = 8  # where one row in so many of a shard is taken, or more, it is mapped rather than read row by row
Header = tuple[int | None, tuple[int, ...], np.dtype]
"""(where the array's numbers start in the file, None when they are compressed; its shape; its dtype)."""


def read_array(path: str, name: str, rows: int) -> np.ndarray:
    """The array where it lies in the file; read whole when it is compressed or remote."""
    offset, shape, dtype = _checked(path, name, rows, read_header(path, name))
    if offset is not None and rows and not storage.is_remote(path):
        # A plain array: numpy's memmap class makes each slice five times dearer.
        return np.asarray(np.memmap(path, dtype, "r", offset, shape)).view(np.ndarray)
    return read_arrays(path, None, [name])[name]


def read_rows(
    path: str, name: str, rows: int, wanted: np.ndarray, record: Mapping[str, Any] | None = None
) -> np.ndarray:
    """(k, d): the array's rows at `wanted` (k,), in their order. Raises DataError for a file that is cut short.

    Where they are many the array is read whole, and compared with the checksums in `record`.
    """
    if len(wanted) * DENSE >= rows or storage.is_remote(path):
        array = read_array(path, name, rows)
        check_blocks(path, name, array, 0, record)
        return array[wanted]
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        stat = os.fstat(file)
        found = _parsed(path, name, (stat.st_size, stat.st_mtime_ns))
        offset, shape, dtype = _checked(path, name, rows, found)
        if offset is None:
            return read_array(path, name, rows)[wanted]
        size = dtype.itemsize * shape[1]
        read = b"".join([os.pread(file, size, at) for at in (offset + wanted * size).tolist()])
    finally:
        os.close(file)
    if len(read) != len(wanted) * size:
        raise DataError(f"{path}: ends before its {rows} rows do; it changed, run again")
    return np.frombuffer(read, dtype).reshape(len(wanted), shape[1])


def _checked(path: str, name: str, rows: int, header: Header) -> Header:
    if header[1][0] != rows:
        raise DataError(f"{path}: {name} has {header[1][0]} rows where {rows} are wanted; it changed, run again")
    return header


def read_header(path: str, name: str) -> Header:
    """Raises UsageError for a name that is not there, DataError for a damaged file."""
    return _parsed(path, name, tuple((storage.identity_or_none(path) or {}).values()))


@lru_cache(1 << 16)
def _parsed(path: str, name: str, identity: tuple[int | str, ...]) -> Header:
    """`read_header`, once for a file as long as it stays the same."""
    try:
        with storage.open_read(path) as stream, zipfile.ZipFile(stream) as archive:
            names = [entry.removesuffix(".npy") for entry in archive.namelist()]
            if name not in names:
                raise UsageError(f"{path}: no embeddings '{name}'{nearest(name, names)} It has: {', '.join(names)}")
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, dtype = read(member)
                inside = member.tell()
            if dtype.hasobject or (fortran and len(shape) > 1):
                raise DataError(f"{path}: {name} holds {dtype} that is not laid out row by row; it is not read")
            if info.compress_type != zipfile.ZIP_STORED:
                return None, shape, dtype
            stream.seek(info.header_offset + 26)  # PKZIP's local header: lengths of the name and extra fields
            lengths = stream.read(4)
            extra = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            return info.header_offset + 30 + extra + inside, shape, dtype
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: does not exist, and the embeddings stand in it; fetch it beside the parquet, or embed the pool"
        ) from error
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as npz ({' '.join(str(error).split())[:200]}). {CURE}") from error

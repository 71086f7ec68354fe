"""What a commit records of its shard's files, and the checks against it when they are read."""

import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from . import storage
from .errors import DataError
from .file_record import record_of
from .parquet import CURE as CURE
from .parquet import footer_range, names_of

BLOCK_ROWS = 4096
"""Rows of an array that share a checksum."""


def describe_parquet(data: bytes) -> dict[str, Any]:
    """The record of a parquet file: bytes, sha256, where its footer starts with a checksum, and each column's ranges.

    `columns` maps a name to [start, bytes, CRC-32] of its data in each row group.
    """
    footer = pq.read_metadata(io.BytesIO(data))
    names = sorted(names_of(footer), key=len, reverse=True)
    columns: dict[str, list[list[int]]] = {}
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            path = chunk.path_in_schema
            name = next(name for name in names if path == name or path.startswith(f"{name}."))
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            end = start + chunk.total_compressed_size
            columns.setdefault(name, []).append([start, end - start, zlib.crc32(data[start:end])])
    start, _ = footer_range(data, len(data))
    return {**record_of(data), "footer": [start, zlib.crc32(data[start:])], "columns": columns}


def describe_npz(data: bytes, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The record of an npz file: bytes, sha256, and of each array its type, shape and a CRC-32 of `BLOCK_ROWS` rows.

    `directory` is where the zip's directory starts, and its CRC-32: the checksums of all arrays are in it.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.start_dir
    described = {
        name: {"dtype": array.dtype.descr, "shape": array.shape, "crc32": block_checksums(array)}
        for name, array in sorted(arrays.items())
    }
    directory = [start, zlib.crc32(data[start:])]
    return {**record_of(data), "directory": directory, "block_rows": BLOCK_ROWS, "arrays": described}


def block_checksums(array: np.ndarray, rows: int = BLOCK_ROWS) -> list[int]:
    """The CRC-32 of each `rows` rows of an array (n, ...), the last block being shorter."""
    whole = np.ascontiguousarray(array)
    return [zlib.crc32(_bytes_of(whole[at : at + rows])) for at in range(0, len(whole), rows)]


def _bytes_of(array: np.ndarray) -> memoryview:
    """The bytes of a contiguous array, not copied."""
    return array.view(np.uint8).data.cast("B") if array.size else memoryview(b"")


def check_blocks(path: str, name: str, array: np.ndarray, first: int, record: Mapping[str, Any] | None) -> None:
    """Check the blocks that lie whole within `array`, the rows of the array `name` from row `first` on.

    Raises DataError that names the file. `record` is of `describe_npz`, None where there is none.
    """
    if record is None or name not in record["arrays"]:
        return
    rows, described = record["block_rows"], record["arrays"][name]
    stated = described["crc32"]
    if described["dtype"] != json.loads(json.dumps(array.dtype.descr)) or described["shape"][1:] != [*array.shape[1:]]:
        raise DataError(f"{path}: {name} is of another type than when it was written; the file was damaged. {CURE}")
    for block in range(-(-first // rows), len(stated)):
        start = block * rows - first
        last = block + 1 == len(stated)
        if start >= len(array) or (not last and start + rows > len(array)):
            return
        if zlib.crc32(_bytes_of(np.ascontiguousarray(array[start : start + rows]))) != stated[block]:
            raise DataError(
                f"{path}: {name}, rows {block * rows:,} to {block * rows + rows:,}: its checksum is another than when "
                f"it was written; the file was changed or damaged. {CURE}"
            )


def check_columns(path: str, record: Mapping[str, Any], columns: Iterable[str]) -> None:
    """Check size, footer and the data of `columns` of a local parquet file. Raises DataError that names the file."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist, though its commit tells of it. {CURE}") from error
    try:
        check_size(path, os.fstat(file).st_size, record)
        start, checksum = record["footer"]
        ranges = [(start, record["bytes"] - start, checksum)]
        ranges += [place for name in columns for place in record["columns"].get(name, [])]
        for start, size, checksum in ranges:
            if zlib.crc32(os.pread(file, size, start)) != checksum:
                raise DataError(
                    f"{path}: bytes {start:,} to {start + size:,} are not what was written; the file was changed or "
                    f"damaged. {CURE}"
                )
    finally:
        os.close(file)


def check_directory(path: str, record: Mapping[str, Any]) -> None:
    """Check the size of an npz, and on a disk the directory of its arrays. Raises DataError that names the file."""
    try:
        check_size(path, storage.size(path), record)
        if "directory" not in record or storage.is_remote(path):
            return
        start, checksum = record["directory"]
        with storage.open_read(path) as stream:
            stream.seek(start)
            if zlib.crc32(stream.read()) != checksum:
                raise DataError(f"{path}: holds other arrays than were written; it was replaced or damaged. {CURE}")
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist, though its commit tells of it. {CURE}") from error


def check_size(path: str, size: int, record: Mapping[str, Any]) -> None:
    """Raise DataError where a file has another size than its record."""
    if size != record["bytes"]:
        raise DataError(
            f"{path}: has {size:,} bytes, and {record['bytes']:,} were written; it was cut short, replaced or "
            f"changed. {CURE}"
        )


def unsound_files(
    paths: Mapping[str, str], commit: Mapping[str, Any], sizes: Mapping[str, int] | None = None
) -> list[str]:
    """The files that are gone or have another size than the commit says; none for a commit without records.

    `paths` maps the names in the commit's `files` to paths; `sizes` are those of a listing, path -> bytes.
    """
    records = commit.get("files") or {}
    found = []
    for name, path in paths.items():
        if name in records and _size(path, sizes) != records[name]["bytes"]:
            found.append(path)
    return found


def _size(path: str, sizes: Mapping[str, int] | None) -> int | None:
    if sizes is not None:
        return sizes.get(path)
    try:
        return storage.size(path)
    except (FileNotFoundError, NotADirectoryError):
        return None

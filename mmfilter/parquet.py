"""Parquet files that can be checked: written with checksums, and verified when they are read.

Parquet has a checksum for each page of data. The footer (names, types, where each page stands) has none, so it gets
one here: eight hex digits under the key `mmfilter.footer`, the CRC-32 of the footer with zeros in their place. Files
of other programs have no such key, and pages without checksums; they are read as they are.
"""

import io
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from . import storage
from .errors import DataError, nearest

FOOTER_KEY = b"mmfilter.footer"
MAGIC = b"PAR1"
TAIL_BYTES = 1 << 16  # read at once from the end of a file: more than most footers
CURE = "`mmfilter verify OUT` names all such files, and with --repair makes them again"
_EMPTY = b"00000000"
_MARK = FOOTER_KEY + b"\x18\x08"  # Thrift's compact protocol: a string of eight bytes follows


def encode(table: pa.Table, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a parquet file of `table`. `metadata` are further keys of the footer."""
    stream = io.BytesIO()
    with pq.ParquetWriter(stream, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({**(metadata or {}), FOOTER_KEY.decode(): _EMPTY.decode()})
    data = bytearray(stream.getbuffer())
    start, end = footer_range(data, len(data))
    at = data.index(_MARK, start, end) + len(_MARK)
    data[at : at + 8] = f"{zlib.crc32(data[start:end]):08x}".encode()
    return bytes(data)


def write(path: str, table: pa.Table, metadata: Mapping[str, str] | None = None) -> bytes:
    """Write `table` atomically; returns the file's bytes. Raises MMFilterError where it cannot be written."""
    data = encode(table, metadata)
    storage.write_atomic(path, data)
    return data


def read(path: str, columns: Iterable[str] | None = None, record: Mapping[str, Any] | None = None) -> pa.Table:
    """Return the named columns (default: all) of a file, each page and the footer checked where they can be.

    `record` is what a commit says of the file (mmfilter/shard_record.py); a file of another size or footer is an error.
    Raises FileNotFoundError, and DataError that names the file where it is damaged or lacks a column.
    """
    return _read(path, _open(path, record), columns)


def parse(path: str, data: bytes, columns: Iterable[str] | None = None) -> pa.Table:
    """`read` of a file's bytes; `path` is what messages name."""
    check_footer(path, data, len(data))
    return _read(path, io.BytesIO(data), columns)


def _read(path: str, source: Any, columns: Iterable[str] | None) -> pa.Table:
    try:
        with source, pq.ParquetFile(source, page_checksum_verification=True) as file:
            have = file.schema_arrow.names
            wanted = None if columns is None else list(columns)
            if absent := [name for name in wanted or () if name not in have]:
                hint = f"{nearest(absent[0], have)} It has: {', '.join(have)}"
                raise DataError(f"{path}: no column '{absent[0]}'{hint}")
            return file.read(wanted, use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def read_footer(path: str) -> pq.FileMetaData:
    """Return the footer of a file, checked where it can be. Raises as `read`."""
    source = _open(path)
    try:
        with source:
            return pq.read_metadata(source)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def names_of(footer: pq.FileMetaData) -> list[str]:
    """The names of the columns."""
    return list(footer.schema.to_arrow_schema().names)


def damaged(path: str, error: Exception | str) -> DataError:
    """The error that is raised for a file that is no sound parquet."""
    return DataError(f"{path}: cannot be read as parquet ({' '.join(str(error).split())[:200]})")


def _open(path: str, record: Mapping[str, Any] | None = None) -> Any:
    """A stream of the file whose footer was checked."""
    if storage.is_remote(path):
        data = storage.read_bytes(path)
        check_footer(path, data, len(data), record)
        return io.BytesIO(data)
    stream = storage.open_read(path)
    try:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(-min(size, TAIL_BYTES), io.SEEK_END)
        tail = stream.read()
        start, _ = footer_range(tail, size) if tail[-4:] == MAGIC else (0, 0)
        if start < 0:
            stream.seek(max(0, size - len(tail) + start))
            tail = stream.read()
        check_footer(path, tail, size, record)
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return stream


def footer_range(tail: bytes | bytearray, size: int) -> tuple[int, int]:
    """(start, end) of the footer within `tail`, the last bytes of a file of `size`; a negative start is before it."""
    length = int.from_bytes(tail[-8:-4], "little")
    return max(len(tail) - 8 - length, len(tail) - size), len(tail) - 8


def check_footer(path: str, tail: bytes, size: int, record: Mapping[str, Any] | None = None) -> None:
    """Raise DataError where the footer is not what was written. `tail` holds it whole, if it is no longer than said."""
    if tail[-4:] != MAGIC:
        raise damaged(path, "the file is empty" if not size else "it does not end as parquet does; it was cut short?")
    start, end = footer_range(tail, size)
    footer = tail[max(start, 0) : end]
    if record is not None and [size, zlib.crc32(tail[max(start, 0) :])] != [record["bytes"], record["footer"][1]]:
        raise DataError(f"{path}: is another file than its commit tells of. {CURE}")
    at = footer.rfind(_MARK)
    if at < 0:
        return  # another program's
    at += len(_MARK)
    stated = footer[at : at + 8]
    if f"{zlib.crc32(footer[:at] + _EMPTY + footer[at + 8 :]):08x}".encode() != stated:
        raise damaged(path, "the checksum of its footer is another: the file was changed or damaged")

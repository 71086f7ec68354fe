"""Digests of values: what says that two columns or arrays hold the same, whatever bytes they are stored in."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

SAMPLES = "samples"
"""The name, in a commit's `content`, of the digest of the columns that say which samples a shard holds."""
SAMPLE_COLUMNS = ("uid", "url", "text", "original_width", "original_height", "face_bboxes", "sha256")


def shard_content(table: pa.Table, arrays: Mapping[str, np.ndarray], scores: list[str]) -> dict[str, str]:
    """Name -> digest: of the samples (n rows), each array (n, d) and each of the columns `scores`."""
    columns = {name: column_digest(table[name]) for name in (*SAMPLE_COLUMNS, *scores)}
    samples = hashlib.sha256("".join(columns.pop(name) for name in SAMPLE_COLUMNS).encode()).hexdigest()
    return {SAMPLES: samples, **columns, **{name: array_digest(array) for name, array in sorted(arrays.items())}}


def array_digest(array: np.ndarray) -> str:
    """The sha256, in hex, of an array's dtype, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.hexdigest()


def column_digest(column: pa.ChunkedArray) -> str:
    """The sha256, in hex, of a column's type, values and nulls, whatever its chunks."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if kinds.is_string(values.type) or kinds.is_large_string(values.type):
        return _strings_digest(values)
    if not (kinds.is_integer(values.type) or kinds.is_floating(values.type) or kinds.is_boolean(values.type)):
        return hashlib.sha256(f"{values.type}{json.dumps(values.to_pylist(), default=str)}".encode()).hexdigest()
    digest = hashlib.sha256(str(values.type).encode())
    digest.update(np.packbits(values.is_null().to_numpy(zero_copy_only=False)).tobytes())
    zero: Any = pa.scalar(False if kinds.is_boolean(values.type) else 0, values.type)
    digest.update(values.fill_null(zero).to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()


def _strings_digest(values: pa.Array) -> str:
    lengths = pc.binary_length(values).cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    digest = hashlib.sha256(b"string" + lengths.tobytes())
    whole = pc.cast(values, pa.large_string())
    _, offsets, data = whole.buffers()
    if data is not None and len(whole):
        bounds = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
        digest.update(memoryview(data)[int(bounds[0]) : int(bounds[-1])])
    return digest.hexdigest()

"""uids as text (32 hex digits) and as DataComp stores them: two uint64, in one structured value."""

import binascii
from typing import Any

import numpy as np
import pyarrow as pa

from .errors import DataError

DTYPE = np.dtype("u8,u8")
DIGITS = frozenset("0123456789abcdefABCDEF")


def parse_uids(strings: Any) -> np.ndarray:
    """(n,) of DTYPE from a list, arrow array or polars series of 32-digit hex strings.

    f0 = int(uid[:16], 16), f1 = int(uid[16:], 16). Raises DataError on anything else, naming the first.
    """
    hi, lo = parse_halves(strings)
    uids = np.empty(len(hi), DTYPE)
    uids["f0"], uids["f1"] = hi, lo
    return uids


def parse_halves(strings: Any) -> tuple[np.ndarray, np.ndarray]:
    """The two uint64 halves, each (n,), of 32-digit hex strings. Raises DataError."""
    array = _arrow(strings)
    n = len(array)
    if n == 0:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    offsets = np.frombuffer(array.buffers()[1], np.int64, n + 1, array.offset * 8)
    if array.null_count or (np.diff(offsets) != 32).any():
        raise DataError(_complaint(array))
    text = memoryview(array.buffers()[2])[int(offsets[0]) : int(offsets[0]) + 32 * n]
    try:
        halves = np.frombuffer(binascii.unhexlify(text), ">u8").reshape(n, 2)
    except binascii.Error as error:
        raise DataError(_complaint(array)) from error
    return halves[:, 0].astype(np.uint64), halves[:, 1].astype(np.uint64)


def _arrow(strings: Any) -> Any:
    array = strings.to_arrow() if hasattr(strings, "to_arrow") else strings
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if not isinstance(array, pa.Array):
        array = pa.array(array, pa.large_string())
    return array.cast(pa.large_string())


def _complaint(array: Any) -> str:
    for row, value in enumerate(array.to_pylist()):
        if value is None or len(value) != 32 or not set(value) <= DIGITS:
            return f"uid {value!r} in row {row} is not 32 hexadecimal digits"
    return "a uid is not 32 hexadecimal digits"


def format_uids(uids: np.ndarray) -> list[str]:
    """32 lower-case hex digits for each of (n,) DTYPE."""
    return [f"{hi:016x}{lo:016x}" for hi, lo in zip(uids["f0"].tolist(), uids["f1"].tolist(), strict=True)]

"""JSON files that mmfilter wrote and reads back: parsed as if a stranger had written them."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

from . import storage
from .errors import ConflictError, DataError

FORMAT = 2
"""The version of run folders that this mmfilter writes: the integer `format` of run.json, commits, indices, records and
plans. A file without one is of version 1."""

CHECK = "check"
"""The key of a record's own checksum: the CRC-32, in hex, of all else that it holds."""


def encode(record: Mapping[str, Any]) -> bytes:
    """Return the bytes of a record with its checksum. Reading back one that was changed by a bit is an error.

    Keys keep their order: that of a recipe's rules is the order of its steps.
    """
    plain = json.loads(json.dumps({key: value for key, value in record.items() if key != CHECK}))
    return json.dumps({**plain, CHECK: checksum(plain)}, indent=1).encode()


def checksum(plain: Mapping[str, Any]) -> str:
    """The CRC-32, in hex, of a record as JSON reads it back."""
    return f"{zlib.crc32(json.dumps(plain, sort_keys=True).encode()):08x}"


def read_object(path: str, cure: str) -> dict[str, Any]:
    """Return the JSON object in a file. `cure` ends the message: what to do about a damaged file.

    Raises FileNotFoundError, DataError for a file that holds no JSON object, and ConflictError for one of a newer
    mmfilter.
    """
    return parse_object(storage.read_bytes(path), path, cure)


def parse_object(data: bytes, path: str, cure: str) -> dict[str, Any]:
    """`read_object` of bytes that were read already; `path` is what messages name."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:  # also not UTF-8, nested without end, integers without end
        raise DataError(f"{path}: is damaged ({reason(data, error)}); {cure}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: is damaged (it holds no JSON object); {cure}")
    stated = value.pop(CHECK, None)
    if stated is not None and stated != checksum(value):
        raise DataError(f"{path}: is damaged, or was changed by hand (its checksum is another); {cure}")
    version = value.get("format", 1)
    if isinstance(version, int) and version > FORMAT:
        raise ConflictError(
            f"{path}: was written by a newer mmfilter (format {version}; this one reads up to {FORMAT}). "
            "Install the newer version, or give another --out"
        )
    return value


def reason(data: bytes, error: Exception) -> str:
    """What is wrong with bytes that hold no JSON, in a few words."""
    if not data:
        return "the file is empty"
    return "nested too deeply" if isinstance(error, RecursionError) else f"not JSON: {error}"

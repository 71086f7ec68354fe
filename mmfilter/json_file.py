"""JSON files that mmfilter wrote and reads back: parsed as if a stranger had written them."""

import errno
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

from . import storage
from .errors import ConflictError, DataError, NoFile, unreadable

FORMAT = 2
"""The version of run folders that this mmfilter writes: the integer `format` of run.json, commits, indices, records and
plans. A file without one is of version 1."""
MAX_BYTES = 1 << 30
"""Bytes of a JSON file that is read; run.json of a million shards has some 200 MB."""

COUNT = "count"
"""In a shape: a whole number that is not negative."""
Shape = Any
"""What a value must be: a type (`int` and `float` are finite and no bool), COUNT, a tuple of these of which one fits,
`{"name": shape, "other?": shape}` (a name with a question mark may be absent or null), `{str: shape}` for any names,
`[shape]` for a list."""

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


def read_object(path: str, cure: str, shape: Shape = None) -> dict[str, Any]:
    """Return the JSON object in a file. `cure` ends the message: what to do about a damaged file.

    Raises FileNotFoundError, DataError for a file that holds no JSON object or one that does not fit `shape`,
    ConflictError for one of a newer mmfilter, and MMFilterError where the environment keeps it from being read.
    """
    return parse_object(_read(path, cure), path, cure, shape)


def optional_object(path: str, cure: str, shape: Shape = None) -> dict[str, Any] | None:
    """`read_object`, or None where there is no file."""
    try:
        return read_object(path, cure, shape)
    except FileNotFoundError:
        return None


def parse_object(data: bytes, path: str, cure: str, shape: Shape = None) -> dict[str, Any]:
    """`read_object` of bytes that were read already; `path` is what messages name."""
    value = _parse(data, path, cure)
    if not isinstance(value, dict):
        raise DataError(f"{path}: is damaged (it holds no JSON object); {cure}")
    stated = value.pop(CHECK, None)
    if stated is not None and stated != checksum(value):
        raise DataError(f"{path}: is damaged, or was changed by hand (its checksum is another); {cure}")
    version = value.get("format", 1)
    if type(version) is not int or version < 1:
        raise DataError(f"{path}: is damaged (its format is {str(version)[:40]!r}, no whole number); {cure}")
    if version > FORMAT:
        raise ConflictError(
            f"{path}: was written by a newer mmfilter (format {version}; this one reads up to {FORMAT}). "
            "Install the newer version, or give another --out"
        )
    demand(value, shape, path, cure)
    return value


def read_list(path: str, cure: str, shape: Shape) -> list[Any]:
    """`read_object` of a file that holds a list of values that fit `shape`."""
    value: list[Any] = _parse(_read(path, cure), path, cure)
    demand(value, [shape], path, cure)
    return value


def demand(value: Any, shape: Shape, path: str, cure: str) -> None:
    """Raise DataError, which names the place, where a value read from the file `path` does not fit `shape`."""
    if problem := misfit(value, shape):
        raise DataError(f"{path}: is damaged ({problem}); {cure}")


def misfit(value: Any, shape: Shape, at: str = "it") -> str:
    """Where and how a value does not fit a shape, "" where it does."""
    if shape is None:
        return ""
    if isinstance(shape, dict):
        return _misfit_mapping(value, shape, at)
    if isinstance(shape, list):
        items = enumerate(value) if isinstance(value, list) else ()
        wrong = "" if isinstance(value, list) else f"{at} is {_kind(value)}, not a list"
        return wrong or next(filter(None, (misfit(item, shape[0], _at(at, f"[{i}]")) for i, item in items)), "")
    kinds = shape if isinstance(shape, tuple) else (shape,)
    if any(_is(value, kind) for kind in kinds):
        return ""
    return f"{at} is {_kind(value)}, not {' or '.join(NAMES[kind] for kind in kinds)}"


def _misfit_mapping(value: Any, shape: dict[Any, Shape], at: str) -> str:
    if not isinstance(value, dict):
        return f"{at} is {_kind(value)}, not an object"
    if str in shape:
        return next(filter(None, (misfit(item, shape[str], _at(at, f".{name}")) for name, item in value.items())), "")
    for name, inner in shape.items():
        key, may_lack = name.removesuffix("?"), name.endswith("?")
        if value.get(key) is None and may_lack:
            continue
        if key not in value:
            return f"{_at(at, f'.{key}')} is missing"
        if wrong := misfit(value[key], inner, _at(at, f".{key}")):
            return wrong
    return ""


def _at(at: str, more: str) -> str:
    return more.removeprefix(".") if at == "it" else at + more


def _is(value: Any, kind: Any) -> bool:
    if kind == COUNT:
        return _is(value, int) and value >= 0
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind)


NAMES: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
NAMES |= {COUNT: "a whole number from 0 on", dict: "an object", type(None): "null"}


def _kind(value: Any) -> str:
    """A value's kind in words, with the value itself where it is a number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g}" if abs(value) < 1e300 else "a number without bound"
    return NAMES.get(type(value), type(value).__name__)


def _read(path: str, cure: str) -> bytes:
    try:
        with storage.open_read(path) as stream:
            data = stream.read(MAX_BYTES + 1)
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, "does not exist", path) from error
    except FileNotFoundError:
        raise
    except (IsADirectoryError, NoFile) as error:
        what = "a folder" if isinstance(error, IsADirectoryError) else "a pipe or a device"
        raise DataError(f"{path}: is {what}, where mmfilter has a file; move it elsewhere, then {cure}") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{path}: is damaged (more than {MAX_BYTES:,} bytes); {cure}")
    return data


def _parse(data: bytes, path: str, cure: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # also not UTF-8, nested without end, integers without end
        raise DataError(f"{path}: is damaged ({reason(data, error)}); {cure}") from error


def reason(data: bytes, error: Exception) -> str:
    """What is wrong with bytes that hold no JSON, in a few words."""
    if not data:
        return "the file is empty"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "not text in UTF-8" if isinstance(error, UnicodeDecodeError) else f"not JSON: {error}"

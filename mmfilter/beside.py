"""Files that a score writes beside its columns (concepts, lists), each with its record in FILE.record."""

import json
from collections.abc import Iterable
from typing import Any

from . import storage
from .errors import DataError
from .file_record import difference, difference_of, record_of

RECORD = ".record"


def write_records(paths: Iterable[str]) -> None:
    """Write the record of each file, which is there and whole."""
    for path in paths:
        storage.write_atomic(f"{path}{RECORD}", json.dumps(record_of(path)).encode())


def withdraw_records(paths: Iterable[str]) -> None:
    """Take the records away before the files are written anew."""
    for path in paths:
        storage.remove(f"{path}{RECORD}")


def is_whole(path: str) -> bool:
    """Whether a file is there with the size that was recorded; one without a record only has to be there."""
    record = _record(path)
    return storage.exists(path) if record is None else not difference(path, record)


def recorded_difference(path: str, whole: bool = False) -> str:
    """In what a file differs from its record, in a few words; "" where it does not, or has none."""
    record = _record(path)
    return "" if record is None else difference(path, record, whole=whole)


def check_recorded(path: str, cure: str) -> None:
    """Raise DataError, which ends with `cure`, where a file is not the one that was recorded; FileNotFoundError."""
    data, record = storage.read_bytes(path), _record(path)
    if record is not None and (what := difference_of(data, record)):
        raise DataError(f"{path}: is not the file that was recorded: {what}; {cure}")


def _record(path: str) -> Any:
    """The record of a file; None where there is none. One that is damaged vouches for nothing, and says so."""
    try:
        return json.loads(storage.read_bytes(f"{path}{RECORD}"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}

"""A subset's file and the record beside it: NAME.npy is what NAME.json tells of, or an error.

A file without a record is read as it is: whoever wrote it vouches for it. So is one whose record is of an earlier
version, which did not say what the file was.
"""

import posixpath
import re
from collections.abc import Mapping
from typing import Any

from . import storage
from .errors import DataError
from .file_record import check_bytes, difference, difference_of
from .json_file import read_object

ENDING = ".npy"
SCHEDULE = ".schedule.json"
EPOCH = re.compile(r"epoch-\d{4}\.npy")
AGAIN = "run 'mmfilter select' again"


def read_subset_bytes(path: str) -> bytes:
    """Return a subset file's bytes, which must be those that the record beside it tells of, where there is one.

    Raises DataError that names both files, and what `storage.read_bytes` raises.
    """
    data = storage.read_bytes(path)
    beside = record_beside(path)
    if beside is not None:
        check_fits(path, beside, data)
    elif (epoch := _epoch_record(path)) is not None:
        check_bytes(path, data, epoch, "make the schedule anew")
    return data


def _epoch_record(path: str) -> Mapping[str, Any] | None:
    """What NAME.schedule.json says of NAME/epoch-0000.npy; None where it says nothing of it."""
    folder, name = posixpath.split(path)
    schedule = f"{folder}{SCHEDULE}"
    if not EPOCH.fullmatch(name) or not storage.exists(schedule):
        return None
    epochs = read_object(schedule, "make the schedule anew").get("epochs")
    relative = f"{posixpath.basename(folder)}/{name}"
    for epoch in epochs if isinstance(epochs, list) else ():
        if isinstance(epoch, dict) and epoch.get("subset") == relative and "sha256" in epoch:
            return epoch
    return None


def record_beside(path: str) -> Mapping[str, Any] | None:
    """The record of a subset's file, None where there is none. A json of somebody else's is none.

    Raises DataError where a run's record is damaged.
    """
    other = record_path(path)
    if not path.endswith(ENDING) or not storage.exists(other):
        return None
    try:
        return read_object(other, AGAIN)
    except DataError:
        if storage.stem(other.rpartition("/")[0]) == "subsets":
            raise
        return None


def record_path(path: str) -> str:
    """Where the record of a subset's file would be."""
    return f"{path.removesuffix(ENDING)}.json"


def check_fits(path: str, record: Mapping[str, Any], data: bytes | None = None) -> None:
    """Raise DataError, naming both, unless the file at `path` is the one that `record` tells of.

    By its size alone where its bytes (`data`) are not at hand.
    """
    files = record.get("files")
    if not isinstance(files, Mapping) or "npy" not in files:
        return
    what = difference(path, files["npy"]) if data is None else difference_of(data, files["npy"])
    if what:
        raise DataError(f"{path} and its record {record_path(path)} are not of one selection: {what}; {AGAIN}")

"""What a shard's commit says of its npz, looked up once as long as neither file is another."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from . import storage
from .commit_file import optional_commit
from .shard_record import check_directory

Identity = tuple[int | str, ...]


def npz_record(commit: str, npz: str) -> Mapping[str, Any] | None:
    """The record of the npz in the commit at these paths, None where nothing vouches for it.

    Its size and the directory of its arrays are compared: an npz of another shard or pass differs. Raises DataError
    that names the file.
    """
    return _record(commit, _identity(commit), npz, _identity(npz))


@lru_cache(1 << 14)
def _record(commit: str, commit_identity: Identity, npz: str, npz_identity: Identity) -> Mapping[str, Any] | None:
    record: Mapping[str, Any] | None = ((optional_commit(commit) or {}).get("files") or {}).get("npz")
    if record is not None:
        check_directory(npz, record)
    return record


def _identity(path: str) -> Identity:
    return tuple((storage.identity_or_none(path) or {}).values())

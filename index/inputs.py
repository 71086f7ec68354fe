"""What tells that a path outside the pool has changed: a file, or a folder of files."""

from typing import Any

from mmfilter import storage
from mmfilter.recipe import fingerprint


def identity(path: str) -> str:
    """A fingerprint of a file's, or of a folder's files', names, sizes and times."""
    inside = storage.glob(storage.join(path, "**", "*")) if not storage.is_remote(path) else []
    found: list[Any] = [storage.identity_or_none(path)] if not inside else []
    return fingerprint(found + [[name, storage.identity_or_none(name)] for name in inside])

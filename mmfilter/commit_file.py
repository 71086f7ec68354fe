"""A shard's commit as a file: what its values must be, wherever it is read."""

import posixpath
from typing import Any

from .json_file import COUNT, demand, optional_object

CURE = "`mmfilter verify OUT --repair` does this shard again; or delete the file and run again"
SHAPE = {
    "parts": dict,
    "counts": {"read": COUNT, "ok": COUNT, "failed": {str: COUNT}},
    "path?": str,
    "notes?": {str: COUNT},
    "seconds?": {str: float},
    "models?": {str: dict},
    "input?": dict,
    "files?": {str: {"bytes": COUNT, "sha256": str}},
    "content?": {str: str},
}


def optional_commit(path: str) -> dict[str, Any] | None:
    """The commit at `path`, NAME.json beside a shard's metadata; None where there is none. DataComp's own metadata has
    no commits, so that an object of another kind in a folder of another name is none. Raises DataError, ConflictError.
    """
    commit = optional_object(path, CURE)
    if commit is None:
        return None
    ours = posixpath.basename(posixpath.dirname(path)) == "metadata"
    if not ours and not {"parts", "counts"} & commit.keys():
        return None
    demand(commit, SHAPE, path, CURE)
    return commit

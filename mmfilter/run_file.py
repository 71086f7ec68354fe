"""run.json, the record of a run's folder that nearly every verb reads: its shards, its recipe, its metadata."""

import os
from collections.abc import Mapping
from typing import Any

from . import storage
from .errors import DataError, MMFilterError
from .json_file import COUNT, optional_object

NAME = "run.json"
CURE = (
    "run `mmfilter run` or `mmfilter embed` with its recipe and pool again, which writes it anew; where OUT has no "
    "tars of its own, delete it and give --metadata"
)
SHAPE = {
    "started?": str,
    "pool?": [str],
    "shard_names?": [str],
    "left_out?": [str],
    "missing_shards?": [str],
    "metadata?": str,
    "recipe?": {"name?": str, "embed?": {str: (dict, str)}, "read?": dict},
    "embed?": {
        "shards_set_aside?": {str: str},
        "uids?": dict,
        "failed?": {str: COUNT},
        "read?": COUNT,
        "ok?": COUNT,
        "shards?": COUNT,
    },
    "runs?": [{"started?": str, "seconds": {str: float}}],
    "seconds?": {str: float},
}


def read_run(out: str) -> dict[str, Any]:
    """OUT/run.json; empty where there is none. Raises DataError on a damaged one, ConflictError on a newer one."""
    path = storage.join(out, NAME)
    run = optional_object(path, CURE, SHAPE)
    if run is None or (run and not run.keys() & {key.removesuffix("?") for key in SHAPE}):
        return {}  # somebody else's file, in a folder that is no run
    if not run.keys() & {"pool", "metadata"}:
        raise DataError(f"{path}: is damaged (it names neither a pool nor metadata); {CURE}")
    pool, names = run.get("pool") or [], run.get("shard_names") or []
    if names and len(names) != len(pool):
        raise DataError(f"{path}: is damaged ({len(names):,} shard_names for {len(pool):,} shards); {CURE}")
    for word in (*names, *map(storage.stem, pool)):
        if not is_file_name(word):
            raise DataError(f"{path}: is damaged (a shard cannot be called {word[:100]!r}); {CURE}")
    return run


def read_run_if_any(folder: str) -> dict[str, Any]:
    """`read_run` of a folder that may be no run: a damaged run.json of such a folder is somebody else's file."""
    try:
        return read_run(folder)
    except MMFilterError:
        if any(storage.isdir(storage.join(folder, part)) for part in ("metadata", "subsets")):
            raise
        return {}


def named_shards(run: Mapping[str, Any]) -> list[str]:
    """The shards' paths of a run.json, which know their names in OUT; none of them is a pattern."""
    paths = run.get("pool") or []
    names = run.get("shard_names") or map(storage.stem, paths)
    return [storage.ShardPath(path, name) for path, name in zip(paths, names, strict=True)]


def is_file_name(text: str) -> bool:
    """Whether a text that a file states can be a file's name, and leads to no other folder."""
    try:
        os.fsencode(text)
    except ValueError:  # half of a pair of surrogates
        return False
    return text not in ("", ".", "..") and "/" not in text and "\0" not in text

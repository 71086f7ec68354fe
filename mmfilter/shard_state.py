"""What OUT says of each shard of a run: that it belongs to the pool, that it was set aside, that it has a commit."""

import json

from . import storage
from .commit_file import optional_commit
from .errors import DataError
from .run_pool import left_out
from .sidecar import pool_tars

ATTEMPTS = 3
"""Failed attempts after which a shard is set aside."""


def run_shards(run: str) -> list[str]:
    """Names of the shards of the run's pool, as run.json has them, sorted; none where it names no pool."""
    return sorted(pool_tars(run).keys() - left_out(run))


def set_aside(run: str, stem: str) -> bool:
    """Whether a shard without a commit failed so often that its samples are counted as failed."""
    try:
        record = json.loads(storage.read_bytes(storage.join(run, "attempts", f"{stem}.json")))
        return int(record["attempts"]) >= ATTEMPTS
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, RecursionError):
        return False


def is_commit(folder: str, stem: str) -> bool:
    """Whether the json of a shard in a folder of metadata is a commit, and not some other program's file."""
    try:
        return optional_commit(storage.join(folder, f"{stem}.json")) is not None
    except DataError:
        return False

"""Which shards in OUT are not of the run's pool: removed or renamed since, or of another pool.

OUT/run.json names them (`left_out`); `run` and `embed` write it. Their files stay, and no verb counts them: not in the
table, the selection, the report, the card, explain. A run that an older version wrote leaves out none.
"""

import posixpath
from collections.abc import Collection

from . import storage
from .run_file import read_run

SHOWN = 5  # shards that a message names


def left_out(out: str) -> frozenset[str]:
    """Names of the shards in OUT that are not of its pool; none where run.json says nothing. Raises DataError."""
    return frozenset(read_run(out).get("left_out") or ())


def run_of_metadata(folder: str, out: str) -> str:
    """The run that a folder of metadata is of: the one it lies in (OUT/metadata), else `out`."""
    return posixpath.dirname(folder) if posixpath.basename(folder) == "metadata" else out


def held_shards(out: str) -> set[str]:
    """Names of all shards that OUT has a commit, failures or attempts of."""
    parts = {"metadata": ".json", "failures": ".parquet", "attempts": ".json"}
    return {
        name.removesuffix(ending)
        for part, ending in parts.items()
        for name in storage.names(storage.join(out, part))
        if name.endswith(ending) and not name.startswith(".")
    }


def listed(stems: Collection[str]) -> str:
    """`1 shard (00000002)`, `7 shards (00000002, ..., ...)`: how many, and the first of them."""
    first = ", ".join(sorted(stems)[:SHOWN]) + (", ..." if len(stems) > SHOWN else "")
    return f"{len(stems):,} shard{'' if len(stems) == 1 else 's'} ({first})"


def remembered_metadata(out: str) -> str | None:
    """The metadata folder that an earlier command was given with --metadata, as OUT/run.json has it."""
    return read_run(out).get("metadata") or None

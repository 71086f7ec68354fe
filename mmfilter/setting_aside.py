"""What OUT holds of a shard that was given up: a failure for each of its samples, and nothing else that counts them."""

import io
from contextlib import suppress

import pyarrow.parquet as pq

from . import storage
from .expected import counted_failures
from .records import Failure
from .sidecar import metadata_path, read_commit, read_failures, write_failures

STATUS = "shard_set_aside"


def set_aside(path: str, out: str, error: str) -> list[Failure]:
    """The failures of the shard at `path`, written where they are not yet. A commit from before is withdrawn first."""
    stem = storage.stem(path)
    if _is_committed(out, stem):
        rows = _of_commit(out, stem, error) or counted_failures(path, STATUS, error)
        for ending in ("json", "npz", "parquet"):
            storage.remove(metadata_path(out, stem, ending))
    else:
        rows = read_failures(out, stem)
        if rows and all(row.status == STATUS for row in rows):
            return rows
        rows = counted_failures(path, STATUS, error)
    write_failures(out, stem, rows)
    return rows


def _is_committed(out: str, stem: str) -> bool:
    return storage.exists(metadata_path(out, stem, "json"))


def _of_commit(out: str, stem: str, error: str) -> list[Failure]:
    """A failure for each sample that the shard's commit counts, well or failed; none where its files are damaged."""
    with suppress(Exception):  # whatever Arrow raises on bytes that are damaged
        data = io.BytesIO(storage.read_bytes(metadata_path(out, stem, "parquet")))
        rows = pq.read_table(data, columns=["key", "uid"], use_threads=False).to_pylist()
        counted = [*(Failure(row["key"], row["uid"], STATUS, error) for row in rows)]
        counted += [Failure(f.key, f.uid, STATUS, error) for f in read_failures(out, stem)]
        if len(counted) == (read_commit(out, stem) or {"counts": {}})["counts"].get("read"):
            return counted
    return []

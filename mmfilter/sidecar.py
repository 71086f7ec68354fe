"""A shard's files in OUT: metadata parquet and npz, failures, added columns, and the commit.

The parquet and npz are DataComp's layout (row i of one is row i of the other) and hold only samples
that are well, so that DataComp's own scripts read them. The json is the commit: it is written last.
"""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from . import storage
from .errors import ConflictError, DataError
from .records import Failure
from .run_file import named_shards, read_run
from .uids import parse_uids

BASE = {
    "uid": pa.string(),
    "url": pa.string(),
    "text": pa.string(),
    "original_width": pa.int64(),
    "original_height": pa.int64(),
    "face_bboxes": pa.list_(pa.list_(pa.float64())),
    "sha256": pa.string(),
    "key": pa.string(),
    "offset": pa.int64(),
    "size": pa.int64(),
}
HEAD, TAIL = list(BASE)[:5], list(BASE)[5:]  # score columns stand between them, sorted by name
FAILURES = pa.schema([(name, pa.string()) for name in ("key", "uid", "status", "error")])
PART_KEY = b"mmfilter.part"


@dataclass
class Stored:
    """A shard's rows in memory: parquet columns and npz arrays, row for row.

    `arrays` maps ``b32_img`` to float16 (n, d). `looked` is what scores keep of the pixels (n, ...); it is
    never written.
    """

    table: pa.Table
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    looked: dict[str, np.ndarray] = field(default_factory=dict)

    def take(self, rows: np.ndarray) -> "Stored":
        """The rows at the positions `rows` (k,), in that order."""
        arrays, looked = ({k: v[rows] for k, v in held.items()} for held in (self.arrays, self.looked))
        return Stored(self.table.take(pa.array(rows)), arrays, looked)


def metadata_path(out: str, stem: str, ending: str) -> str:
    return storage.join(out, "metadata", f"{stem}.{ending}")


def failures_path(out: str, stem: str) -> str:
    return storage.join(out, "failures", f"{stem}.parquet")


def columns_path(out: str, column: str, stem: str) -> str:
    return storage.join(out, "columns", column, f"{stem}.parquet")


def read_commit(out: str, stem: str) -> dict[str, Any] | None:
    """The commit of a shard, or None when it has none. Raises DataError on one that is damaged."""
    path = metadata_path(out, stem, "json")
    try:
        commit: dict[str, Any] = json.loads(storage.read_bytes(path))
        commit["parts"], commit["counts"]["failed"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged commit ({error}); delete it and run again to redo this shard") from error
    return commit


def write_commit(out: str, stem: str, commit: Mapping[str, Any], first: bool = False) -> None:
    """`first`: there was none when the shard was begun. On an object store it is put if absent; should another
    worker have been faster, its commit stands, as it made the same bytes. Raises ConflictError when it did not.
    """
    path, data = metadata_path(out, stem, "json"), json.dumps(commit, indent=1, sort_keys=True).encode()
    if not (first and storage.is_remote(path)):
        storage.write_atomic(path, data)
    elif not storage.create(path, data):
        there = read_commit(out, stem) or {}
        if any(there.get(what) != commit[what] for what in ("parts", "input", "counts")):
            raise ConflictError(f"{path}: another mmfilter has made this shard from something else meanwhile")


def pool_tars(out: str) -> dict[str, str]:
    """Shard -> its tar, as the newest run on OUT was given them: a pool may stand elsewhere than when a shard was
    made. Empty where OUT has no run.json; then a commit's `path` is what there is. Raises DataError on a damaged one.
    """
    return {storage.stem(tar): tar for tar in named_shards(read_run(out))}


def read_stored(out: str, stem: str) -> Stored:
    """Parquet and npz of a committed shard."""
    with storage.open_read(metadata_path(out, stem, "parquet")) as stream:
        table = pq.read_table(io.BytesIO(stream.read()), use_threads=False)
    with np.load(io.BytesIO(storage.read_bytes(metadata_path(out, stem, "npz"))), allow_pickle=False) as npz:
        arrays = {name: npz[name] for name in npz.files if name != "uid"}
    for name, array in arrays.items():
        if len(array) != table.num_rows:
            raise DataError(
                f"{metadata_path(out, stem, 'npz')}: {name} has {len(array)} rows where the parquet beside it has "
                f"{table.num_rows}; delete metadata/{stem}.json and run again"
            )
    return Stored(table, arrays)


def order_columns(table: pa.Table) -> pa.Table:
    """DataComp's order: uid, url, text, sizes, the scores by name, then the rest."""
    scores = sorted(name for name in table.column_names if name not in BASE)
    return table.select([*HEAD, *scores, *TAIL])


def write_stored(out: str, stem: str, stored: Stored, failures: list[Failure]) -> None:
    """Write failures, parquet and npz, each atomically. The commit is the caller's, after this."""
    write_failures(out, stem, failures)
    with storage.open_atomic(metadata_path(out, stem, "parquet")) as stream:
        pq.write_table(order_columns(stored.table), stream, compression="zstd")
    arrays = {name: stored.arrays[name] for name in sorted(stored.arrays)}
    uids = parse_uids(stored.table["uid"].to_pylist())
    with storage.open_atomic(metadata_path(out, stem, "npz")) as stream:
        np.savez(stream, allow_pickle=False, uid=uids, **arrays)


def write_failures(out: str, stem: str, failures: list[Failure]) -> None:
    path = failures_path(out, stem)
    if not failures:
        storage.remove(path)  # left by an earlier, different pass
        return
    rows = sorted(failures, key=lambda f: (f.key, f.uid, f.status, f.error))
    columns = {name: [getattr(row, name) for row in rows] for name in FAILURES.names}
    with storage.open_atomic(path) as stream:
        pq.write_table(pa.table(columns, schema=FAILURES), stream, compression="zstd")


def read_failures(out: str, stem: str) -> list[Failure]:
    """Rows of failures/{stem}.parquet; an absent file is no failures."""
    path = failures_path(out, stem)
    if not storage.exists(path):
        return []
    with storage.open_read(path) as stream:
        return [Failure(**row) for row in pq.read_table(io.BytesIO(stream.read()), use_threads=False).to_pylist()]


def read_part(path: str) -> Any:
    """The part (what made it) recorded in an added column's file, or None when there is no file."""
    if not storage.exists(path):
        return None
    with storage.open_read(path) as stream:
        metadata = pq.read_schema(stream).metadata or {}
    return json.loads(metadata.get(PART_KEY, b"null"))


def write_column(path: str, columns: Mapping[str, Any], part: Any) -> None:
    """An added score's file: uid and its columns; the rename is its commit."""
    table = pa.table(dict(columns))
    table = table.replace_schema_metadata({PART_KEY: json.dumps(part, sort_keys=True).encode()})
    with storage.open_atomic(path) as stream:
        pq.write_table(table, stream, compression="zstd")


def merge(old: Stored, new: Stored) -> Stored:
    """Rows well in both passes, in the new pass's order, with the columns and arrays of both."""
    where = {uid: row for row, uid in enumerate(old.table["uid"].to_pylist())}
    pairs = [(row, where[uid]) for row, uid in enumerate(new.table["uid"].to_pylist()) if uid in where]
    new_rows, old_rows = (np.array([p[side] for p in pairs], dtype=np.int64) for side in (0, 1))
    kept, before = new.take(new_rows), old.take(old_rows)
    table = kept.table
    for name in before.table.column_names:
        if name not in table.column_names:
            table = table.append_column(name, before.table[name])
    return Stored(table, {**before.arrays, **kept.arrays}, kept.looked)


def merge_failures(old: Iterable[Failure], new: list[Failure]) -> list[Failure]:
    """All of the new pass's failures and those of the old that it did not meet."""
    seen = {(failure.key, failure.uid) for failure in new}
    return [*new, *(failure for failure in old if (failure.key, failure.uid) not in seen)]

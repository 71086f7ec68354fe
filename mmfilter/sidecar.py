"""A shard's files in OUT: metadata parquet and npz, failures, added columns, and the commit.

The parquet and npz are DataComp's layout (row i of one is row i of the other) and hold only samples
that are well, so that DataComp's own scripts read them. The json is the commit: it is written last.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from . import parquet, storage
from .commit_file import optional_commit
from .content import shard_content
from .errors import ConflictError, DataError
from .file_record import record_of
from .json_file import encode
from .records import Failure
from .run_file import named_shards, read_run
from .shard_record import CURE, check_size, describe_npz, describe_parquet
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
PART_KEY, SOURCES_KEY = "mmfilter.part", "mmfilter.sources"


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
    return optional_commit(metadata_path(out, stem, "json"))


def write_commit(out: str, stem: str, commit: Mapping[str, Any], first: bool = False) -> None:
    """`first`: there was none when the shard was begun. On an object store it is put if absent; should another
    worker have been faster, its commit stands, as it made the same bytes. Raises ConflictError when it did not.
    """
    path, data = metadata_path(out, stem, "json"), encode(commit)
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


def read_stored(out: str, stem: str, files: Mapping[str, Any] | None = None) -> Stored:
    """Parquet and npz of a committed shard, compared with the commit's `files` where it has them. Raises DataError."""
    files = files or {}
    table = parquet.read(metadata_path(out, stem, "parquet"), record=files.get("parquet"))
    path = metadata_path(out, stem, "npz")
    arrays = read_arrays(path, files.get("npz"))
    uids = arrays.pop("uid", None)
    for name, array in arrays.items():
        if len(array) != table.num_rows:
            raise DataError(
                f"{path}: {name} has {len(array)} rows where the parquet beside it has {table.num_rows}; {CURE}"
            )
    if uids is not None and not np.array_equal(uids, parse_uids(table["uid"].to_pylist())):
        raise DataError(f"{path}: its uids are others than those of the parquet beside it; {CURE}")
    return Stored(table, arrays)


def read_arrays(
    path: str, record: Mapping[str, Any] | None = None, names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an npz that are among `names` (default: all); zip's checksums are compared.

    `record` is what the shard's commit says of the file. Raises DataError that names the file.
    """
    data = storage.read_bytes(path)
    if record is not None:
        check_size(path, len(data), record)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as npz:
            return {name: npz[name] for name in npz.files if names is None or name in names}
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as npz ({' '.join(str(error).split())[:200]}). {CURE}") from error


def order_columns(table: pa.Table) -> pa.Table:
    """DataComp's order: uid, url, text, sizes, the scores by name, then the rest."""
    scores = sorted(name for name in table.column_names if name not in BASE)
    return table.select([*HEAD, *scores, *TAIL])


def write_stored(out: str, stem: str, stored: Stored, failures: list[Failure]) -> dict[str, Any]:
    """Write failures, parquet and npz, each atomically; returns what the commit says of them, `files` and `content`.

    A commit that is there is withdrawn first: killed between the files, the shard has none, and is done again. The
    new commit is the caller's, after this.
    """
    storage.remove(metadata_path(out, stem, "json"))
    files = {}
    if (data := write_failures(out, stem, failures)) is not None:
        files["failures"] = record_of(data)
    table = order_columns(stored.table)
    files["parquet"] = describe_parquet(parquet.write(metadata_path(out, stem, "parquet"), table))
    arrays = {name: stored.arrays[name] for name in sorted(stored.arrays)}
    whole = {"uid": parse_uids(stored.table["uid"].to_pylist()), **arrays}
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **whole)
    data = stream.getvalue()
    storage.write_atomic(metadata_path(out, stem, "npz"), data)
    files["npz"] = describe_npz(data, whole)
    scores = [name for name in table.column_names if name not in BASE]
    return {"files": files, "content": shard_content(table, arrays, scores)}


def write_failures(out: str, stem: str, failures: list[Failure]) -> bytes | None:
    """Write the rows, in order; returns the file's bytes. No failures: a file of an earlier pass is removed, None."""
    path = failures_path(out, stem)
    if not failures:
        storage.remove(path)
        return None
    rows = sorted(failures, key=lambda f: (f.key, f.uid, f.status, f.error))
    columns = {name: [getattr(row, name) for row in rows] for name in FAILURES.names}
    return parquet.write(path, pa.table(columns, schema=FAILURES))


def read_failures(out: str, stem: str) -> list[Failure]:
    """Rows of failures/{stem}.parquet; an absent file is no failures. Raises DataError."""
    try:
        return [Failure(**row) for row in parquet.read(failures_path(out, stem), FAILURES.names).to_pylist()]
    except FileNotFoundError:
        return []


def write_column(path: str, columns: Mapping[str, Any], part: Any, sources: Mapping[str, Any]) -> None:
    """An added score's file: uid and its columns; the rename is its commit.

    `part` says what made it, `sources` (`mmfilter.sources`) the content that it was computed from.
    """
    plain = {PART_KEY: json.dumps(part, sort_keys=True), SOURCES_KEY: json.dumps(sources, sort_keys=True)}
    parquet.write(path, pa.table(dict(columns)), plain)


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

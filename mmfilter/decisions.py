"""What `select` left on disk: the record of each subset and its decisions, shard by shard."""

import hashlib
import posixpath
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from . import parquet, storage
from .errors import DataError, UsageError, nearest
from .failure_files import check_failures
from .json_file import read_object
from .run_pool import left_out
from .subset import Subset, check, load
from .subset_file import AGAIN, check_fits, record_path
from .subset_record import CURE, SHAPE

UID_REPEATED = "uid_repeated"  # stands in `dropped_by` where a uid had been seen before: a failure, not a rule's


def subset_names(out: str) -> list[str]:
    """Names of the subsets that were selected in `out`, sorted."""
    return [storage.stem(path) for path in storage.list_files(storage.join(out, "subsets"), ".json")]


def resolve_name(out: str, name: str = "") -> str:
    """`name` when `out` has that subset, or its only one when `name` is empty. Raises UsageError."""
    names = subset_names(out)
    if not names:
        raise UsageError(f"{out}: nothing was selected here yet; run 'mmfilter select' first, or check --out")
    if name in names:
        return name
    if not name and len(names) == 1:
        return names[0]
    known = ", ".join(names)
    if not name:
        raise UsageError(f"{out}: it holds several subsets ({known}); say which with --name")
    raise UsageError(f"{out}: no subset is called '{name}'{nearest(name, names)} It has: {known}")


def read_record(out: str, name: str) -> dict[str, Any]:
    """subsets/{name}.json: counts, steps, rule and recipe.

    Raises DataError when it is damaged or does not exist, and when the subset's file is not the one that it tells of
    (by its size; `read_subset` compares the whole file).
    """
    path = storage.join(out, "subsets", f"{name}.json")
    try:
        record = read_object(path, CURE, SHAPE)
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist; {CURE}") from error
    check_fits(subset_path(out, name), record)
    return record


def read_subset(out: str, name: str, record: Mapping[str, Any]) -> tuple[Subset, str]:
    """The subset that `record` tells of, and its file's sha256. Raises DataError where its file is another."""
    path = subset_path(out, name)
    try:
        data = storage.read_bytes(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: is not there, and {record_path(path)} tells of it; {AGAIN}") from error
    check_fits(path, record, data)
    return Subset(check(load(data, path), path)), hashlib.sha256(data).hexdigest()


def subset_path(out: str, name: str) -> str:
    """The path of a run's subset."""
    return storage.join(out, "subsets", f"{name}.npy")


def check_decisions(out: str, name: str, record: Mapping[str, Any]) -> None:
    """Raise DataError, naming the first, where decisions are gone that the record says were written."""
    folder = storage.join(out, "subsets", name)
    there = {storage.stem(path) for path in storage.list_files(folder, ".parquet")}
    if gone := [stem for stem in _checksums(record) if stem not in there]:
        more = f" and {len(gone) - 1:,} more are" if len(gone) > 1 else " is"
        path = storage.join(folder, f"{gone[0]}.parquet")
        raise DataError(f"{path}{more} not there, and {folder}.json tells of the decisions in it; {AGAIN}")


def read_decisions(
    path: str, record: Mapping[str, Any], columns: Sequence[str] = (), texts: Sequence[str] = ()
) -> pl.DataFrame:
    """A shard's decisions, which must be those that the subset's `record` was written with. Raises DataError."""
    try:
        data = storage.read_bytes(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: is not there; {AGAIN}") from error
    checksum = _checksums(record).get(storage.stem(path))
    if checksum is not None and checksum != zlib.crc32(data):
        raise DataError(f"{path}: it is damaged, or of another selection than {posixpath.dirname(path)}.json; {AGAIN}")
    return _frame(path, parquet.parse(path, data, columns or None), texts)


def _checksums(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Shard -> checksum of its decisions; none in a record of an earlier version."""
    files = record.get("files")
    written = files.get("decisions") if isinstance(files, Mapping) else None
    return written if isinstance(written, Mapping) else {}


def decision_paths(out: str, name: str) -> dict[str, str]:
    """Shard -> path of its decisions, in the shards' order; of the run's pool."""
    return _of_pool(out, storage.list_files(storage.join(out, "subsets", name), ".parquet"))


def failure_paths(out: str) -> dict[str, str]:
    """Shard -> path of its failures; a shard without any has no file. Of the run's pool.

    Raises DataError where one is gone, or another, that its shard's commit tells of.
    """
    paths = _of_pool(out, storage.list_files(storage.join(out, "failures"), ".parquet"))
    check_failures(out, paths)
    return paths


def _of_pool(out: str, paths: list[str]) -> dict[str, str]:
    others = left_out(out)
    return {stem: path for path in paths if (stem := storage.stem(path)) not in others}


def read_parquet(path: str, columns: Sequence[str] = (), texts: Sequence[str] = ()) -> pl.DataFrame:
    """A parquet file, local or remote, checked as it is read: all its columns, or those named; `texts` hold text.

    Raises DataError that names the file, for a column that is not there too.
    """
    try:
        return _frame(path, parquet.read(path, columns or None), texts)
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist") from error


def _frame(path: str, table: pa.Table, texts: Sequence[str]) -> pl.DataFrame:
    try:
        frame = pl.from_arrow(table)
    except pl.exceptions.PolarsError as error:
        raise parquet.damaged(path, error) from error
    assert isinstance(frame, pl.DataFrame)
    for name in texts:
        if frame[name].dtype not in (pl.String, pl.Categorical, pl.Null):
            raise DataError(f"{path}: column '{name}' holds {frame[name].dtype}, not text")
    return frame

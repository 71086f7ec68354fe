"""What `select` left on disk: the record of each subset and its decisions, shard by shard."""

import hashlib
import io
import json
import posixpath
import zlib
from collections.abc import Mapping
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from . import storage
from .errors import DataError, UsageError, nearest
from .run_pool import left_out
from .subset import Subset, check, load
from .subset_file import AGAIN, check_fits, record_path

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

    Raises DataError when it is damaged, and when the subset's file is not the one that it tells of (by its size;
    `read_subset` compares the whole file).
    """
    path = storage.join(out, "subsets", f"{name}.json")
    try:
        record = json.loads(storage.read_bytes(path))
        record["counts"]["kept"], record["steps"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged record ({error}); run 'mmfilter select' again") from error
    check_fits(subset_path(out, name), record)
    return dict(record)


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


def read_decisions(path: str, record: Mapping[str, Any], columns: list[str] | None = None) -> pl.DataFrame:
    """A shard's decisions, which must be those that the subset's `record` was written with. Raises DataError."""
    try:
        data = storage.read_bytes(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: is not there; {AGAIN}") from error
    checksum = _checksums(record).get(storage.stem(path))
    if checksum is not None and checksum != zlib.crc32(data):
        raise DataError(f"{path}: it is damaged, or of another selection than {posixpath.dirname(path)}.json; {AGAIN}")
    return _parse(path, io.BytesIO(data), columns)


def _checksums(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Shard -> checksum of its decisions; none in a record of an earlier version."""
    files = record.get("files")
    written = files.get("decisions") if isinstance(files, Mapping) else None
    return written if isinstance(written, Mapping) else {}


def decision_paths(out: str, name: str) -> dict[str, str]:
    """Shard -> path of its decisions, in the shards' order; of the run's pool."""
    return _of_pool(out, storage.list_files(storage.join(out, "subsets", name), ".parquet"))


def failure_paths(out: str) -> dict[str, str]:
    """Shard -> path of its failures; a shard without any has no file. Of the run's pool."""
    return _of_pool(out, storage.list_files(storage.join(out, "failures"), ".parquet"))


def _of_pool(out: str, paths: list[str]) -> dict[str, str]:
    others = left_out(out)
    return {stem: path for path in paths if (stem := storage.stem(path)) not in others}


def read_parquet(path: str, columns: list[str] | None = None) -> pl.DataFrame:
    """A parquet file, local or remote, each page by its checksum where it has one. Raises DataError that names it."""
    return _parse(path, io.BytesIO(storage.read_bytes(path)) if storage.is_remote(path) else path, columns)


def _parse(path: str, source: Any, columns: list[str] | None) -> pl.DataFrame:
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            table = file.read(columns)
        if columns is not None and (lacking := set(columns) - set(table.column_names)):
            raise pl.exceptions.ColumnNotFoundError(f"no column {', '.join(sorted(lacking))}")
        found = pl.from_arrow(table)
        assert isinstance(found, pl.DataFrame)
        return found if columns is None else found.select(columns)
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: cannot be read as parquet ({' '.join(str(error).split())[:200]})") from error

"""What `select` left on disk: the record of each subset and its decisions, shard by shard."""

import json
from typing import Any

import polars as pl

from . import parquet, storage
from .errors import DataError, UsageError, nearest
from .failure_files import check_failures
from .run_pool import left_out

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
    """subsets/{name}.json: counts, steps, rule and recipe. Raises DataError when it is damaged."""
    path = storage.join(out, "subsets", f"{name}.json")
    try:
        record = json.loads(storage.read_bytes(path))
        record["counts"]["kept"], record["steps"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged record ({error}); run 'mmfilter select' again") from error
    return dict(record)


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


def read_parquet(path: str, columns: list[str] | None = None) -> pl.DataFrame:
    """A parquet file, local or remote, checked as it is read. Raises DataError that names the file."""
    try:
        frame = pl.from_arrow(parquet.read(path, columns))
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist") from error
    except pl.exceptions.PolarsError as error:
        raise parquet.damaged(path, error) from error
    assert isinstance(frame, pl.DataFrame)
    return frame

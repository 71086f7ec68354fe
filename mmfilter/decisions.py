"""What `select` left on disk: the record of each subset and its decisions, shard by shard."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from . import parquet, storage
from .errors import DataError, UsageError, nearest
from .json_file import read_object
from .run_pool import left_out
from .subset_record import CURE, SHAPE, record_path

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
    """subsets/{name}.json: counts, steps, rule and recipe. Raises DataError when it is damaged or does not exist."""
    path = record_path(out, name)
    try:
        return read_object(path, CURE, SHAPE)
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist; {CURE}") from error


def decision_paths(out: str, name: str) -> dict[str, str]:
    """Shard -> path of its decisions, in the shards' order; of the run's pool."""
    return _of_pool(out, storage.list_files(storage.join(out, "subsets", name), ".parquet"))


def failure_paths(out: str) -> dict[str, str]:
    """Shard -> path of its failures; a shard without any has no file. Of the run's pool."""
    return _of_pool(out, storage.list_files(storage.join(out, "failures"), ".parquet"))


def _of_pool(out: str, paths: list[str]) -> dict[str, str]:
    others = left_out(out)
    return {stem: path for path in paths if (stem := storage.stem(path)) not in others}


def read_parquet(path: str, columns: Sequence[str] = (), texts: Sequence[str] = ()) -> pl.DataFrame:
    """A parquet file, local or remote, checked as it is read: all its columns, or those named; `texts` hold text.

    Raises DataError that names the file, for a column that is not there too.
    """
    try:
        frame = pl.from_arrow(parquet.read(path, columns or None))
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist") from error
    except pl.exceptions.PolarsError as error:
        raise parquet.damaged(path, error) from error
    assert isinstance(frame, pl.DataFrame)
    for name in texts:
        if frame[name].dtype not in (pl.String, pl.Categorical, pl.Null):
            raise DataError(f"{path}: column '{name}' holds {frame[name].dtype}, not text")
    return frame

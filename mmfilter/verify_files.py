"""The checks of `mmfilter verify`: what each kind of file in OUT says of itself, and what others say of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from . import parquet, storage
from .beside import recorded_difference
from .decisions import check_decisions, read_decisions
from .errors import DataError, MMFilterError
from .file_record import difference
from .json_file import read_object
from .shard_record import check_columns
from .sidecar import failures_path, metadata_path, read_arrays, read_commit
from .subset import Subset
from .uids import parse_uids

SHARD, COLUMN, SUBSET, INDEX, CONCEPTS, SHARDS, SCHEDULE, RUN = (
    *("shard", "column", "subset", "index", "concepts", "shards", "schedule", "run"),
)
"""What a finding belongs to, and so what has to be made again."""


BESIDE = {"overlap": "overlap_of"}
"""A folder below OUT that a pool score writes, beside concepts -> the score's first column."""


@dataclass(frozen=True, order=True)
class Finding:
    """A file that is not what was written, or is not there. `name` is of the shard, column, subset, ..., `kind` says
    which; `what` is a sentence without the path.
    """

    kind: str
    name: str
    path: str
    what: str


def attempt(kind: str, name: str, path: str, check: Callable[[], Any]) -> list[Finding]:
    """The finding that a check's error makes; none where it raises none."""
    try:
        check()
    except (MMFilterError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        gone = isinstance(error, OSError)
        return [Finding(kind, name, path, "is not there" if gone else str(error).removeprefix(f"{path}: "))]
    return []


def check_shard(out: str, stem: str, deep: bool) -> list[Finding]:
    """Findings of a shard's commit, parquet, npz and failures."""
    path = metadata_path(out, stem, "json")
    try:
        commit = read_commit(out, stem)
    except MMFilterError as error:
        return [Finding(SHARD, stem, path, str(error).removeprefix(f"{path}: "))]
    if commit is None:
        return [Finding(SHARD, stem, path, "is not there: the shard is not finished, or its commit was deleted")]
    records: Mapping[str, Any] = commit.get("files") or {}
    paths = {ending: metadata_path(out, stem, ending) for ending in ("parquet", "npz")}
    paths["failures"] = failures_path(out, stem)
    if not records:
        return _former_shard(stem, paths, commit, deep)
    found = []
    for name, path in paths.items():
        record = records.get(name)
        if record is None:
            if name == "failures" and storage.exists(path):
                found.append(
                    Finding(SHARD, stem, path, "its commit tells of no failures; it is of a pass that did not end")
                )
            continue
        if what := difference(path, record, whole=deep):
            found.append(Finding(SHARD, stem, path, what))
        elif name == "parquet" and not deep and not storage.is_remote(path):
            found += attempt(SHARD, stem, path, lambda: check_columns(paths["parquet"], records["parquet"], ()))
    return found


def _former_shard(stem: str, paths: Mapping[str, str], commit: Mapping[str, Any], deep: bool) -> list[Finding]:
    """Of a commit of format 1, which has no checksums: whether the files are there, can be read and fit each other."""
    found = [
        Finding(SHARD, stem, path, "is not there")
        for name, path in paths.items()
        if not storage.exists(path) and (name != "failures" or commit["counts"]["failed"])
    ]
    if found or not deep:
        return found

    def fit() -> None:
        uids = parse_uids(parquet.read(paths["parquet"])["uid"].to_pylist())
        for name, array in read_arrays(paths["npz"]).items():
            if len(array) != len(uids) or (name == "uid" and not np.array_equal(array, uids)):
                raise DataError(f"{name} has other rows than the parquet beside it")

    found += attempt(SHARD, stem, paths["npz"], fit)
    if commit["counts"]["failed"]:
        found += attempt(SHARD, stem, paths["failures"], lambda: parquet.read(paths["failures"]))
    return found


def check_given_up(out: str, stem: str, deep: bool) -> list[Finding]:
    """Findings of the failures of a shard that was set aside: that they are there and can be read, nothing else."""
    path = failures_path(out, stem)
    return attempt(SHARD, stem, path, partial(parquet.read if deep else parquet.read_footer, path))


def check_column(path: str, column: str, table_path: str, deep: bool) -> list[Finding]:
    """Findings of a shard's added column: its footer, its rows against the parquet's; `deep` also each page."""

    def check() -> None:
        rows = parquet.read_footer(path).num_rows
        if deep:
            table, uids = parquet.read(path), parquet.read(table_path, ["uid"])["uid"]
            if not table["uid"].cast("string").equals(uids.cast("string")):
                raise DataError("its uids are others than those of its shard")
        elif rows != parquet.read_footer(table_path).num_rows:
            raise DataError("it has another number of rows than its shard")

    return attempt(COLUMN, column, path, check)


def check_beside(out: str, path: str, deep: bool) -> list[Finding]:
    """Findings of a file that a pool score wrote beside its columns (clusters, lists), which has a record."""
    what = recorded_difference(path, deep)
    place = path.removeprefix(f"{out.rstrip('/')}/").split("/")
    kind, name = (CONCEPTS, place[1]) if place[0] == "concepts" else (COLUMN, BESIDE.get(place[0], place[0]))
    return [Finding(kind, name, path, what)] if what else []


def check_subset(out: str, name: str, deep: bool) -> list[Finding]:
    """Findings of a subset's record, uids and decisions."""
    record_path, path = (storage.join(out, "subsets", f"{name}.{ending}") for ending in ("json", "npy"))
    try:
        record = read_object(record_path, "run 'mmfilter select' again")
    except (MMFilterError, FileNotFoundError) as error:
        if isinstance(error, OSError) and not storage.names(storage.join(out, "subsets", name)):
            return attempt(SUBSET, name, path, partial(Subset.read, path))  # of `subset --write`: nobody vouches for it
        what = "is not there, beside the uids" if isinstance(error, OSError) else str(error)
        return [Finding(SUBSET, name, record_path, what.removeprefix(f"{record_path}: "))]
    files = record.get("files")
    stated = files.get("npy") if isinstance(files, Mapping) else None
    found = []
    if stated is not None and (what := difference(path, stated, whole=deep)):
        found.append(Finding(SUBSET, name, path, what))
    elif stated is None:
        counts = record.get("counts") or {}

        def count() -> None:
            uids = len(Subset.read(path))
            if uids != counts.get("kept", 0) + record.get("copies", 0):
                raise DataError(f"holds {uids:,} uids, and its record tells of {counts.get('kept', 0):,}")

        found += attempt(SUBSET, name, path, count)
    try:
        check_decisions(out, name, record)
    except MMFilterError as error:
        found.append(Finding(SUBSET, name, storage.join(out, "subsets", name), str(error)))
    for decided in storage.list_files(storage.join(out, "subsets", name), ".parquet"):
        read = partial(read_decisions, decided, record) if deep else partial(parquet.read_footer, decided)
        found += attempt(SUBSET, name, decided, read)
    return found

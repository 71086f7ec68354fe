"""A pool's score table: metadata parquet and added columns, joined on uid, read column by column."""

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from . import storage
from .errors import DataError, UsageError, nearest
from .uids import parse_halves

HALVES = ("uid_hi", "uid_lo")
READERS = 4  # threads; the parquet readers release the GIL


@dataclass(frozen=True)
class Table:
    """`stems` are the shards, in order; `columns` maps each column to "metadata" or to its folder in columns/."""

    out: str
    metadata: str
    stems: tuple[str, ...]
    columns: dict[str, str]

    def path(self, column: str, stem: str) -> str:
        """The parquet file that holds a column of a shard."""
        if self.columns[column] == "metadata":
            return storage.join(self.metadata, f"{stem}.parquet")
        return storage.join(self.out, "columns", self.columns[column], f"{stem}.parquet")

    def read(self, columns: Iterable[str], stem: str | None = None) -> pl.DataFrame:
        """The named columns of one shard, or of all of them one after the other.

        `uid_hi` and `uid_lo` (uint64) are the uid's halves. Raises UsageError on an unknown column,
        DataError (file and column named) where a file lacks it.
        """
        names = sorted(set(columns))
        for name in names:
            if name not in self.columns and name not in HALVES:
                raise UsageError(
                    f"{self.metadata}: no column '{name}'{nearest(name, self.columns)} This pool has: {', '.join(sorted(self.columns))}"
                )
        if stem is not None:
            return self._read_shard(names, stem)
        with ThreadPoolExecutor(READERS) as pool:
            frames = list(pool.map(lambda s: self._read_shard(names, s), self.stems))
        return pl.concat(frames) if frames else pl.DataFrame({name: [] for name in names})

    def _read_shard(self, names: list[str], stem: str) -> pl.DataFrame:
        wanted = [name for name in names if name not in HALVES]
        halves = len(wanted) < len(names)
        base = [name for name in wanted if self.columns[name] == "metadata"]
        added = [name for name in wanted if self.columns[name] != "metadata"]
        path = storage.join(self.metadata, f"{stem}.parquet")
        extra = ["uid"] if (added or halves or not base) and "uid" not in base else []
        frame = _read_parquet(path, base + extra)
        for folder in sorted({self.columns[name] for name in added}):
            here = [name for name in added if self.columns[name] == folder]
            frame = _join(frame, _read_parquet(storage.join(self.out, "columns", folder, f"{stem}.parquet"), ["uid", *here]))
        if halves:
            try:
                hi, lo = parse_halves(frame["uid"])
            except DataError as error:
                raise DataError(f"{path}: {error}") from error
            frame = frame.with_columns(pl.Series("uid_hi", hi), pl.Series("uid_lo", lo))
        return frame.select(names) if names else frame.select("uid")


def _join(frame: pl.DataFrame, added: pl.DataFrame) -> pl.DataFrame:
    """Added columns on uid; where the rows stand alike, which is nearly always, without a join."""
    if added["uid"].equals(frame["uid"]):
        return frame.hstack(added.drop("uid").get_columns())
    return frame.join(added.unique("uid", keep="first"), on="uid", how="left", maintain_order="left")


def _read_parquet(path: str, columns: list[str]) -> pl.DataFrame:
    try:
        source: Any = io.BytesIO(storage.read_bytes(path)) if storage.is_remote(path) else path
        table = pq.read_table(source, columns=columns, use_threads=False, memory_map=False)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as parquet ({' '.join(str(error).split())[:200]})") from error
    for name in columns:
        if name not in table.column_names:
            raise DataError(f"{path}: has no column '{name}' where other shards do; was it written by another run?")
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def open_table(out: str, metadata: str | None = None) -> Table:
    """The table of a run's folder, or of a bare folder of DataComp's metadata.

    `metadata` names the folder of parquet files (default: OUT/metadata, else OUT itself). In a folder
    of ours only committed shards count. Raises UsageError when there is no parquet file.
    """
    folder = metadata or (storage.join(out, "metadata") if storage.exists(storage.join(out, "metadata")) else out)
    stems = {storage.stem(path): path for path in storage.glob(storage.join(folder, "*.parquet"))}
    commits = {storage.stem(path) for path in storage.glob(storage.join(folder, "*.json"))}
    names = sorted(stems.keys() & commits if commits else stems)
    if not names:
        raise UsageError(f"{folder}: holds no metadata (*.parquet); embed a pool first, or name DataComp's metadata folder")
    columns = dict.fromkeys(_schema(stems[names[0]]), "metadata")
    for path in storage.glob(storage.join(out, "columns", "*", f"{names[0]}.parquet")):
        added = path.rsplit("/", 2)[1]
        columns.update({name: added for name in _schema(path) if name not in columns})
    if "uid" not in columns:
        raise DataError(f"{stems[names[0]]}: has no column 'uid'; everything is joined on it")
    return Table(out, folder, tuple(names), columns)


def _schema(path: str) -> list[str]:
    try:
        with storage.open_read(path) as stream:
            return list(pq.read_schema(stream).names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as parquet ({' '.join(str(error).split())[:200]})") from error

"""A pool's score table: metadata parquet and added columns, joined on uid, read column by column."""

import io
import os
import posixpath
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from . import storage
from .errors import DataError, UsageError, nearest
from .hints import nearest_beside
from .run_file import read_run
from .run_pool import left_out, run_of_metadata
from .uids import HALVES, halves, taken_apart

READERS = 2  # threads; what they call has threads of its own
GROUP = 200_000  # rows that are masked at once: enough that a call costs nothing, some 40 MB with captions


@dataclass(frozen=True)
class Table:
    """`stems` are the shards, in order; `columns` maps each column to "metadata" or to its folder in columns/.

    `partial` are the columns that some shard lacks, as one that came since they were computed.
    """

    out: str
    metadata: str
    stems: tuple[str, ...]
    columns: dict[str, str]
    partial: frozenset[str] = frozenset()

    def whole(self) -> "Table":
        """The table without its partial columns, for what shows whatever there is."""
        return replace(self, columns={c: place for c, place in self.columns.items() if c not in self.partial})

    def path(self, column: str, stem: str) -> str:
        """The parquet file that holds a column of a shard."""
        if self.columns[column] == "metadata":
            return storage.join(self.metadata, f"{stem}.parquet")
        return storage.join(self.out, "columns", self.columns[column], f"{stem}.parquet")

    def read(self, columns: Iterable[str], stems: str | Sequence[str] | None = None) -> pl.DataFrame:
        """The named columns, by name, of a shard or of several (default: all), one after the other.

        `uid_hi` and `uid_lo` (uint64) are the uid's halves. Raises UsageError on an unknown column,
        DataError (file and column named) where a file lacks it or holds another type than the others.
        """
        names = sorted(set(columns))
        for name in names:
            if name not in self.columns and name not in HALVES:
                known = f"{nearest(name, self.columns)} This pool has: {', '.join(sorted(self.columns))}"
                raise UsageError(f"{self.metadata}: no column '{name}'{known}")
        stems = self.stems if stems is None else [stems] if isinstance(stems, str) else stems
        frame = self._read_together(names, stems) if len(stems) > 1 else None
        return self._read_apart(names, stems) if frame is None else frame

    def _read_together(self, names: list[str], stems: Sequence[str]) -> pl.DataFrame | None:
        """Many shards in one call of polars' reader, twice as fast as each alone.

        None where that does not do: remote files, added columns, or shards that differ or are damaged.
        """
        if storage.is_remote(self.metadata) or any(self.columns.get(name, "metadata") != "metadata" for name in names):
            return None
        paths = [storage.join(self.metadata, f"{stem}.parquet") for stem in stems]
        scan = pl.scan_parquet(paths, glob=False, hive_partitioning=False, cache=False)
        try:
            if set(HALVES).isdisjoint(names):
                return scan.select(names or ["uid"]).collect()
            frame = scan.select(*(name for name in names if name not in HALVES), *halves()).collect(engine="streaming")
            taken_apart(frame)
            return frame.select(names)
        except (pl.exceptions.PolarsError, OSError, DataError):
            return None

    def _read_apart(self, names: list[str], stems: Sequence[str]) -> pl.DataFrame:
        """Shard by shard, so that an error names its file."""
        with ThreadPoolExecutor(READERS) as pool:
            frames = list(pool.map(lambda stem: self._read_shard(names, stem), stems))
        self._check_types(frames, stems)
        return pl.concat(frames, how="vertical_relaxed") if frames else pl.DataFrame({name: [] for name in names})

    def _read_shard(self, names: list[str], stem: str) -> pl.DataFrame:
        base = [name for name in names if self.columns.get(name) == "metadata"]
        path = storage.join(self.metadata, f"{stem}.parquet")
        frame = _read_parquet(path, base if len(base) == len(names) > 0 else sorted({"uid", *base}))
        for folder in sorted({self.columns[name] for name in names if name not in HALVES} - {"metadata"}):
            here = [name for name in names if self.columns.get(name) == folder]
            frame = _join(frame, _read_parquet(self.path(here[0], stem), ["uid", *here]))
        try:
            return _with_halves(frame, not set(HALVES).isdisjoint(names)).select(names or ["uid"])
        except DataError as error:
            raise DataError(f"{path}: column 'uid': {error}") from error

    def groups(self) -> list["Group"]:
        """All shards, in order, in groups of about `GROUP` rows. Raises DataError."""
        with ThreadPoolExecutor(READERS) as pool:
            rows = pool.map(lambda stem: _rows(storage.join(self.metadata, f"{stem}.parquet")), self.stems)
            groups: list[Group] = []
            for stem, n in zip(self.stems, rows, strict=True):
                if not groups or groups[-1].height >= GROUP:
                    groups.append(Group(sum(group.height for group in groups)))
                groups[-1].stems.append(stem)
                groups[-1].rows.append(n)
        return groups

    def _check_types(self, frames: list[pl.DataFrame], stems: Sequence[str]) -> None:
        """One kind of value a column over all shards: else a threshold has no one meaning.

        A shard without any value has no type; whole numbers with a null among them are floats to pandas.
        """
        first: dict[str, tuple[str, pl.DataType]] = {}
        for stem, frame in zip(stems, frames, strict=True):
            for name, dtype in frame.schema.items():
                other, known = first.setdefault(name, (stem, dtype)) if dtype != pl.Null else (stem, dtype)
                if not _alike(dtype, known):
                    raise DataError(
                        f"{self.path(name, stem)}: column '{name}' holds {dtype}, but {known} in shard {other}; "
                        "compute the column for all shards alike"
                    )


@dataclass
class Group:
    """Shards that are read and masked together; `start` is where its first row stands in the pool."""

    start: int
    stems: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    @property
    def height(self) -> int:
        return sum(self.rows)


def _with_halves(frame: pl.DataFrame, wanted: bool) -> pl.DataFrame:
    if not wanted:
        return frame
    frame = frame.with_columns(halves())
    taken_apart(frame)
    return frame


def _alike(a: pl.DataType, b: pl.DataType) -> bool:
    return a == b or (a.is_numeric() and b.is_numeric() and (a.is_integer() or b.is_integer()))


def _join(frame: pl.DataFrame, added: pl.DataFrame) -> pl.DataFrame:
    """Added columns on uid; where the rows stand alike, which is nearly always, without a join."""
    if added["uid"].equals(frame["uid"]):
        return frame.hstack(added.drop("uid").get_columns())
    return frame.join(added.unique("uid", keep="first"), on="uid", how="left", maintain_order="left")


def _read_parquet(path: str, columns: list[str]) -> pl.DataFrame:
    try:
        source: Any = io.BytesIO(storage.read_bytes(path)) if storage.is_remote(path) else path
        with pq.ParquetFile(source) as file:
            have = file.schema_arrow.names
            table = file.read(columns, use_threads=False) if set(columns) <= set(have) else None
        frame = pl.from_arrow(table) if table is not None else None
    except FileNotFoundError as error:
        raise DataError(f"{path}: is not there, though other shards have one; run what writes it again") from error
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: cannot be read as parquet ({' '.join(str(error).split())[:200]})") from error
    if frame is None:
        name = next(name for name in columns if name not in have)
        hint = f"{nearest(name, have)} It has: {', '.join(have)}"
        raise DataError(f"{path}: no column '{name}', which other shards have{hint}")
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.col("uid").cast(pl.String)) if "uid" in columns else frame  # or categorical


def open_table(out: str, metadata: str | None = None) -> Table:
    """The table of a run's folder, or of a bare folder of DataComp's metadata.

    `metadata` names the folder of parquet files (default: the one that an earlier command on OUT was given, else
    OUT/metadata, else OUT itself). In a folder that mmfilter embedded only committed shards of the run's pool count
    (`mmfilter.run_pool`). Raises UsageError when there is no parquet file.
    """
    metadata = metadata or remembered_metadata(out)
    folder = metadata or (storage.join(out, "metadata") if storage.exists(storage.join(out, "metadata")) else out)
    stems = {_name(path): path for path in storage.list_files(folder, ".parquet")}
    commits = {_name(path) for path in storage.list_files(folder, ".json")}
    names = sorted(stems.keys() & commits or stems)  # without a commit at all it is DataComp's, stray JSON or not
    others = left_out(run_of_metadata(folder, out))
    names = [name for name in names if name not in others]
    if not names and not storage.is_remote(folder) and not os.path.isdir(folder):
        hint = nearest_beside(folder, folders=True)
        raise UsageError(f"{folder}: does not exist{hint} Give the folder of a run, or of metadata")
    if not names:
        raise UsageError(f"{folder}: no metadata (*.parquet); embed a pool first, or name DataComp's metadata folder")
    columns = dict.fromkeys(_schema(stems[names[0]]), "metadata")
    if "uid" not in columns:
        raise DataError(f"{stems[names[0]]}: no column 'uid'{nearest('uid', columns)} Everything is joined on it")
    partial: set[str] = set()
    for place in storage.list_files(storage.join(out, "columns")):
        paths = {_name(path): path for path in storage.list_files(place, ".parquet") if _name(path) not in others}
        added = [name for name in _schema(paths[max(paths)]) if name not in columns] if paths else []
        columns.update(dict.fromkeys(added, posixpath.basename(place)))
        partial.update(added if set(names) - paths.keys() else ())
    return Table(out, folder, tuple(names), columns, frozenset(partial))


def remembered_metadata(out: str) -> str | None:
    """The metadata folder that an earlier command was given with --metadata, as OUT/run.json has it."""
    return read_run(out).get("metadata") or None


def _name(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]


def _schema(path: str) -> list[str]:
    return list(_footer(path).schema.to_arrow_schema().names)


def _rows(path: str) -> int:
    return int(_footer(path).num_rows)


def _footer(path: str) -> pq.FileMetaData:
    try:
        with storage.open_read(path) as stream:
            return pq.read_metadata(stream)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as parquet ({' '.join(str(error).split())[:200]})") from error

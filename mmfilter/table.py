"""A pool's score table: metadata parquet and added columns, joined on uid, read column by column."""

import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import polars as pl

from . import parquet, storage
from .allow import Allow, by_shards, gaps
from .commit_file import optional_commit
from .errors import ConflictError, DataError, UsageError, nearest
from .hints import nearest_beside
from .run_pool import left_out, listed, remembered_metadata, run_of_metadata
from .shard_record import check_columns
from .shard_state import Listed, missing_shards, refuse_missing
from .sidecar import BASE
from .sources import METADATA, cure, find_stale, read_origin, score_of
from .uids import HALVES, halves, taken_apart

READERS = 2  # threads; what they call has threads of its own
GROUP = 200_000  # rows that are masked at once: enough that a call costs nothing, some 40 MB with captions


@dataclass(frozen=True)
class Table:
    """`stems` are the shards, in order; `columns` maps each column to "metadata" or to its folder in columns/.

    `partial` maps a column to the shards that lack it, as one that came since it was computed. `committed` says
    whether the shards have commits, which vouch for their files. `missing` are shards of the run that are left out as
    they lack a commit or a file; `allow` says whether that, and columns that were computed from other content, are no
    errors. `stale` gathers what was found of these. `pool` are all shards where `stems` are some of them.
    """

    out: str
    metadata: str
    stems: tuple[str, ...]
    columns: dict[str, str]
    partial: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    committed: bool = False
    missing: tuple[str, ...] = ()
    allow: Allow = Allow()
    pool: tuple[str, ...] = ()
    stale: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    fresh: set[str] = field(default_factory=set, compare=False, repr=False)

    def whole(self) -> "Table":
        """The table without its partial columns, for what shows all columns.

        Raises DataError, naming columns and shards, unless they may be missing.
        """
        if self.partial and not self.allow.missing:
            self._refuse_partial(self.partial, "; or go on without with --allow-missing")
        return replace(self, columns={c: place for c, place in self.columns.items() if c not in self.partial})

    def some(self, stems: Sequence[str]) -> "Table":
        """The table of some of its shards, in another order."""
        return replace(self, stems=tuple(stems), pool=self.pool or self.stems)

    def gaps(self) -> dict[str, Any]:
        """What is missing, left out or stale in what was read until now, as plain values (mmfilter/allow.py)."""
        left_out = {column: stems for column, stems in self.partial.items() if column not in self.columns}
        return gaps(self.missing, left_out, self.stale)

    def path(self, column: str, stem: str) -> str:
        """The parquet file that holds a column of a shard."""
        if self.columns[column] == "metadata":
            return storage.join(self.metadata, f"{stem}.parquet")
        return storage.join(self.out, "columns", self.columns[column], f"{stem}.parquet")

    def read(self, columns: Iterable[str], stems: str | Sequence[str] | None = None) -> pl.DataFrame:
        """The named columns, by name, of a shard or of several (default: all), one after the other.

        `uid_hi` and `uid_lo` (uint64) are the uid's halves. Raises UsageError on an unknown column,
        DataError (file and column named) where a file lacks it, is damaged, or holds another type than the others,
        ConflictError for a column that was computed from other content than the pool's.
        """
        names = sorted(set(columns))
        for name in names:
            if name not in self.columns and name not in HALVES:
                known = f"{nearest(name, self.columns)} This pool has: {', '.join(sorted(self.columns))}"
                raise UsageError(f"{self.metadata}: no column '{name}'{known}")
        if partial := [name for name in names if name in self.partial]:
            self._refuse_partial(partial)
        self.check_fresh(names)
        stems = self.stems if stems is None else [stems] if isinstance(stems, str) else stems
        frame = self._read_together(names, stems) if len(stems) > 1 else None
        return self._read_apart(names, stems) if frame is None else frame

    def check_fresh(self, columns: Iterable[str]) -> None:
        """Raise ConflictError where one of the columns is stale, naming all such and their shards.

        Where that is allowed they are noted in `stale` instead, column -> sentence. Each is looked at once. Where
        shards are missing, by leave, a column that was computed over all of them is noted alone.
        """
        added = {name for name in columns if self.columns.get(name, METADATA) != METADATA} - self.fresh
        found = find_stale(self, self.pool or self.stems, added) if added else []
        refused = [] if self.allow.stale else [one for one in found if one.shards or not self.missing]
        if refused:
            raise ConflictError(
                f"{self.out}: {'; '.join(stale.describe() for stale in refused)}. "
                f"{cure(stale.score for stale in refused)}; or pass --allow-stale"
            )
        self.stale.update({column: stale.describe() for stale in found for column in stale.columns})
        self.fresh.update(added)

    def _refuse_partial(self, columns: Iterable[str], otherwise: str = "") -> NoReturn:
        groups = by_shards({name: self.partial[name] for name in columns})
        named = "; ".join(f"{listed(stems)} without {names}" for names, stems in groups)
        raise DataError(f"{self.out}: {named}. {cure(self._score(name) for name in columns)}{otherwise}")

    def _score(self, column: str) -> str:
        """The registry name of the score that made an added column; "" where that is not known."""
        stem = next((stem for stem in self.stems if stem not in self.partial[column]), None)
        origin = read_origin(self.path(column, stem)) if stem else None
        return score_of(origin)

    def record(self, stem: str) -> Mapping[str, Any] | None:
        """What the shard's commit says of its parquet; None where nothing vouches for it. Raises DataError."""
        if not self.committed:
            return None
        commit = optional_commit(storage.join(self.metadata, f"{stem}.json")) or {}
        record: Mapping[str, Any] | None = (commit.get("files") or {}).get("parquet")
        return record

    def _read_together(self, names: list[str], stems: Sequence[str]) -> pl.DataFrame | None:
        """Many shards in one call of polars' reader, twice as fast as each alone.

        None where that does not do: remote files, added columns, or shards that differ or are damaged.
        """
        if storage.is_remote(self.metadata) or any(self.columns.get(name, "metadata") != "metadata" for name in names):
            return None
        paths = [storage.join(self.metadata, f"{stem}.parquet") for stem in stems]
        checked = {*names, *(("uid",) if not set(HALVES).isdisjoint(names) or not names else ())}
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(lambda path, stem: self._check_file(path, stem, checked), paths, stems))
        scan = pl.scan_parquet(paths, glob=False, hive_partitioning=False, cache=False)
        try:
            if set(HALVES).isdisjoint(names):
                return scan.select(names or ["uid"]).collect()
            frame = scan.select(*(name for name in names if name not in HALVES), *halves()).collect(engine="streaming")
            taken_apart(frame)
            return frame.select(names)
        except (pl.exceptions.PolarsError, OSError, DataError):
            return None

    def _check_file(self, path: str, stem: str, columns: set[str]) -> None:
        """Compare a local parquet with its commit: polars, which reads it then, checks nothing. Raises DataError."""
        if (record := self.record(stem)) is not None:
            check_columns(path, record, columns)

    def _read_apart(self, names: list[str], stems: Sequence[str]) -> pl.DataFrame:
        """Shard by shard, so that an error names its file."""
        with ThreadPoolExecutor(READERS) as pool:
            frames = list(pool.map(lambda stem: self._read_shard(names, stem), stems))
        self._check_types(frames, stems)
        return pl.concat(frames, how="vertical_relaxed") if frames else pl.DataFrame({name: [] for name in names})

    def _read_shard(self, names: list[str], stem: str) -> pl.DataFrame:
        base = [name for name in names if self.columns.get(name) == "metadata"]
        path = storage.join(self.metadata, f"{stem}.parquet")
        wanted = base if len(base) == len(names) > 0 else sorted({"uid", *base})
        frame = _read_parquet(path, wanted, self.record(stem))
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


def _read_parquet(path: str, columns: list[str], record: Mapping[str, Any] | None = None) -> pl.DataFrame:
    try:
        frame = pl.from_arrow(parquet.read(path, columns, record))
    except FileNotFoundError as error:
        raise DataError(f"{path}: is not there, though other shards have one; run what writes it again") from error
    except pl.exceptions.PolarsError as error:
        raise parquet.damaged(path, error) from error
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.col("uid").cast(pl.String)) if "uid" in columns else frame  # or categorical


def open_table(out: str, metadata: str | None = None, allow_missing: bool = False, allow_stale: bool = False) -> Table:
    """The table of a run's folder, or of a bare folder of DataComp's metadata.

    `metadata` names the folder of parquet files (default: the one that an earlier command on OUT was given, else
    OUT/metadata, else OUT itself). In a folder that mmfilter embedded only committed shards of the run's pool count
    (`mmfilter.run_pool`), and all of them have to be there. Raises UsageError when there is no parquet file, DataError
    where a shard of the run lacks its commit, its parquet or its npz, unless `allow_missing`.
    """
    metadata = metadata or remembered_metadata(out)
    folder = metadata or (storage.join(out, "metadata") if storage.exists(storage.join(out, "metadata")) else out)
    there = Listed.of(folder)
    run = run_of_metadata(folder, out)
    others = left_out(run)
    missing = missing_shards(run, folder, there)
    names = sorted(there.parquets & there.commits or ([] if missing else there.parquets))  # no commit: DataComp's
    names = [name for name in names if name not in others and name not in missing]
    if missing and not (allow_missing and names):
        refuse_missing(run, missing, len(names))
    if not names and not storage.is_remote(folder) and not os.path.isdir(folder):
        hint = nearest_beside(folder, folders=True)
        raise UsageError(f"{folder}: does not exist{hint} Give the folder of a run, or of metadata")
    if not names:
        raise UsageError(f"{folder}: no metadata (*.parquet); embed a pool first, or name DataComp's metadata folder")
    first = storage.join(folder, f"{names[0]}.parquet")
    columns = dict.fromkeys(_schema(first), METADATA)
    if "uid" not in columns:
        raise DataError(f"{first}: no column 'uid'{nearest('uid', columns)} Everything is joined on it")
    partial = _added_columns(out, names, others | set(missing), columns)
    committed, allow = bool(there.parquets & there.commits), Allow(allow_missing, allow_stale)
    return Table(out, folder, tuple(names), columns, partial, committed, tuple(sorted(missing)), allow)


def _added_columns(out: str, names: list[str], others: Set[str], columns: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Put the columns in OUT/columns into `columns`; returns those that some of the shards `names` lack."""
    partial: dict[str, tuple[str, ...]] = {}
    for place in storage.list_files(storage.join(out, "columns")):
        paths = {storage.stem(path): path for path in storage.list_files(place, ".parquet")}
        paths = {stem: path for stem, path in paths.items() if stem not in others}
        if not paths:
            continue
        lacking = tuple(stem for stem in names if stem not in paths)
        added = [name for name in _schema(paths[max(paths)]) if name not in (BASE if not lacking else columns)]
        columns.update(dict.fromkeys(added, posixpath.basename(place)))
        if lacking:
            partial.update(dict.fromkeys(added, lacking))
    return partial


def _schema(path: str) -> list[str]:
    return parquet.names_of(parquet.read_footer(path))


def _rows(path: str) -> int:
    return int(parquet.read_footer(path).num_rows)

"""One run's folder as it is served: table, indices, subsets, concepts; what changes on disk is taken up."""

import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from mmfilter import storage
from mmfilter.allow import sentences
from mmfilter.commit_file import optional_commit
from mmfilter.decisions import read_record, read_subset
from mmfilter.errors import DataError, MMFilterError, nearest
from mmfilter.images import ImageLimits
from mmfilter.run_pool import listed
from mmfilter.select import read_failed
from mmfilter.sidecar import pool_tars
from mmfilter.subset_record import changes_since, gaps_of
from mmfilter.table import open_table

from ..evidence import Evidence
from ..pool import Pool as TablePool
from .batch import Batcher, search_many
from .columns import Columns
from .metrics import Metrics
from .settings import Refused, Settings

RUN = "run.json"
PARTS = ("metadata", "columns", "subsets", "index", "concepts")


@dataclass(frozen=True)
class Opened:
    """A kNN index and its rows in the table: `rows` (len(index),) int64, -1 where gone; None where row = position."""

    index: Any
    rows: np.ndarray | None
    batcher: Batcher

    def to_rows(self, positions: np.ndarray) -> np.ndarray:
        return positions if self.rows is None else self.rows[positions]

    def among(self, mask: np.ndarray) -> np.ndarray:
        """(len(index),) bool by position, of a mask (n,) by row."""
        if self.rows is None:
            return mask
        return np.where(self.rows >= 0, mask[self.rows], False) if len(mask) else np.zeros(len(self.rows), bool)


@dataclass(frozen=True)
class Chosen:
    """A subset: which of the table's rows it holds (n,) bool, and its record (steps, counts)."""

    mask: np.ndarray
    record: dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """What is served at one moment; a request works on one of these to its end. `kept_by` is the newest subset."""

    columns: Columns
    indices: dict[str, Opened] = field(default_factory=dict)
    subsets: dict[str, Chosen] = field(default_factory=dict)
    kept_by: str = ""
    concepts: tuple[str, ...] = ()
    failed: int = 0

    def subset(self, name: str) -> Chosen:
        """Raises Refused."""
        if name not in self.subsets:
            known = ", ".join(self.subsets) or "none"
            raise Refused(404, f"no subset is called '{name}'{nearest(name, self.subsets)} This pool has: {known}")
        return self.subsets[name]

    @cached_property
    def models(self) -> list[str]:
        """Short names of the models that embedded the pool, as its first shard's commit has them."""
        table = self.columns.table
        commit = optional_commit(storage.join(table.metadata, f"{table.stems[0]}.json")) or {}
        return sorted(commit.get("models") or {})

    @cached_property
    def limits(self) -> ImageLimits:
        """What the run's images were read within."""
        table = self.columns.table
        return TablePool(table.out, table.metadata, allow=table.allow).limits

    @cached_property
    def gaps(self) -> list[str]:
        """Sentences on what is missing or stale, also in the indices and subsets."""
        table = self.columns.table
        behind = [
            f"Index {name} is without {listed(opened.index.lacks)} that came since; `mmfilter index` brings it up."
            for name, opened in self.indices.items()
            if opened.index.lacks
        ]
        told = [
            f"Subset {name}: {sentence}"
            for name, chosen in self.subsets.items()
            for sentence in [*sentences(gaps_of(chosen.record)), *changes_since(table, chosen.record)]
        ]
        return [*sentences(table.gaps()), *behind, *told]

    @cached_property
    def kept(self) -> np.ndarray | None:
        return self.subsets[self.kept_by].mask if self.kept_by else None

    @cached_property
    def evidence(self) -> Evidence | None:
        """How the duplicates stand to what is kept; None where none were looked for. Raises MMFilterError."""
        table = self.columns.table
        pool = TablePool(table.out, table.metadata, allow=table.allow)
        found = Evidence.open(pool) if "duplicate_of" in self.columns.kinds else None
        if found is not None and len(found.pool.uids) != len(self.columns):
            raise DataError(f"{table.metadata}: it changed while it was read; it will be read again")
        return found


class Pool:
    """A folder and its snapshot. `refresh` is cheap where nothing changed: modification times are compared."""

    def __init__(self, out: str, name: str, settings: Settings, work: Executor, metrics: Metrics) -> None:
        self.out, self.name, self.settings, self.work, self.metrics = out, name, settings, work, metrics
        self._lock = threading.Lock()
        self._stamps: dict[str, Any] = {}
        self._next = 0.0
        self.trouble = ""
        self.tars: dict[str, str] = {}
        self._take_up(None)

    def due(self) -> bool:
        """Whether it is time for a look at the disk; true once, for whoever then calls `refresh`."""
        now = time.monotonic() >= self._next
        if now:
            self._next = float("inf")
        return now

    def refresh(self) -> None:
        """Take up what changed on disk; where that fails, go on with what there was."""
        started = time.monotonic()
        with self._lock:
            try:
                self._take_up(self.snapshot)
            except Exception as error:  # whatever a half-written or damaged folder raises; the old snapshot stays
                self._failed(error)
        took = time.monotonic() - started
        self._next = time.monotonic() + max(self.settings.refresh, 10 * took)  # a growing pool takes a tenth at most

    def _take_up(self, old: Snapshot | None) -> None:
        stamps = {part: stamp(storage.join(self.out, part)) for part in PARTS}
        stamps[RUN] = _age(storage.join(self.out, RUN))  # which shards are of the run's pool
        changed = {part for part in stamps if old is None or stamps[part] != self._stamps.get(part)}
        if changed or old is None:
            self.trouble = ""
            self.snapshot = self._read(old, changed)
            self._stamps = stamps

    def _read(self, old: Snapshot | None, changed: set[str]) -> Snapshot:
        table = old is None or bool(changed & {"metadata", "columns", RUN})
        if table:
            self.tars = pool_tars(self.out)
            whole = open_table(self.out, self.settings.metadata or None, *self.settings.allow).whole()
            whole.check_fresh(whole.columns)
            found = Snapshot(Columns(whole, self.settings.cache))
            found = replace(found, failed=sum(read_failed(self.out, set(found.columns.table.stems)).values()))
        else:
            assert old is not None
            found = replace(old)
        if table or "index" in changed:
            found = replace(found, indices=dict(self._indices(found.columns, old)))
        if table or "subsets" in changed:
            subsets = dict(self._subsets(found.columns, old))
            chosen = {n: _age(storage.join(self.out, "subsets", f"{n}.json")) for n, s in subsets.items() if s.record}
            found = replace(found, subsets=subsets, kept_by=max(chosen, key=lambda n: (chosen[n], n), default=""))
        return replace(found, concepts=tuple(_names(self.out, "concepts", "")))

    def _indices(self, columns: Columns, old: Snapshot | None) -> Iterable[tuple[str, Opened]]:
        if not _names(self.out, "index", ""):
            return
        from ..knn import names, peek_index

        for name in names(self.out):
            before = old.indices.get(name) if old else None
            try:
                index = peek_index(self.out, name, self.settings.metadata or None, self.settings.allow)
            except MMFilterError as error:
                self._failed(error)
                if before and old and old.columns is columns:
                    yield name, before
                continue
            if before and before.index.info == index.info and old and old.columns is columns:
                yield name, before
                continue
            _ = index.faiss  # read here, while the old version answers
            uids = np.asarray(index.uids)
            same = len(uids) == len(columns) and bool((uids == columns.uids).all())
            batcher = Batcher(search_many(index), self.work, self.settings.window, 256, self.metrics.batch.observe)
            yield name, Opened(index, None if same else columns.find(uids), batcher)

    def _subsets(self, columns: Columns, old: Snapshot | None) -> Iterable[tuple[str, Chosen]]:
        """By name; a damaged one is as it was before, or left out. One without a record was not selected here."""
        for name in _names(self.out, "subsets", ".npy"):
            try:
                there = storage.exists(storage.join(self.out, "subsets", f"{name}.json"))
                record = read_record(self.out, name) if there else {}
                subset, _ = read_subset(self.out, name, record)
                yield name, Chosen(subset.contains(columns.uids), record)
            except MMFilterError as error:
                self._failed(error)
                if old and old.columns is columns and name in old.subsets:
                    yield name, old.subsets[name]

    def _failed(self, error: Exception) -> None:
        self.trouble = str(error) if isinstance(error, MMFilterError) else f"{type(error).__name__}: {error}"
        self.metrics.refresh_failures.inc()

    def tar(self, stem: str) -> str:
        """The path of a shard's tar, as the newest run or its commit has it; "" where none is known."""
        if stem not in self.tars:
            path = storage.join(self.snapshot.columns.table.metadata, f"{stem}.json")
            try:
                commit = optional_commit(path) or {}
            except MMFilterError:  # a damaged commit: the shard's tar is not known
                commit = {}
            self.tars[stem] = commit.get("path") or ""
        return self.tars[stem]


def stamp(path: str, depth: int = 2) -> Any:
    """The modification times of a folder, its folders and the small files that name a version in them."""
    if storage.is_remote(path) or not os.path.isdir(path):
        return None
    inner = []
    if depth:
        for entry in sorted(os.scandir(path), key=lambda e: e.name):
            if entry.is_dir():
                inner.append((entry.name, stamp(entry.path, depth - 1)))
            elif entry.name in ("current", "index.json", "concepts.json"):
                inner.append((entry.name, entry.stat().st_mtime_ns))
    return os.stat(path).st_mtime_ns, tuple(inner)


def _names(out: str, part: str, ending: str) -> list[str]:
    """Names of a part's entries: folders, or files of an ending."""
    paths = storage.list_files(storage.join(out, part), ending)
    return [os.path.basename(p).removesuffix(ending) for p in paths if ending or os.path.isdir(p)]


def _age(path: str) -> int:
    identity = storage.identity_or_none(path) or {}
    return int(identity.get("mtime_ns", 0))

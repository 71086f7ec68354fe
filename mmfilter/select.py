"""Choose: fit the rules to the pool, mask it shard by shard, write the subset and every decision."""

import json
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from . import storage
from .errors import UsageError
from .plugs import Rule
from .rules import check_columns, walk
from .rules.build import rule_name
from .subset import Subset, later_repeats
from .table import HALVES, READERS, Table
from .uids import DTYPE
from .versions import versions


@dataclass(frozen=True)
class SelectOptions:
    """`out` is the run's folder, `name` the subset's; `source` is the recipe, for the record."""

    out: str
    name: str
    where: str = "select"
    source: dict[str, Any] = field(default_factory=dict)
    decisions: bool = True


@dataclass(frozen=True)
class Selection:
    """What came out. `counts`: in = kept + dropped + failed."""

    path: str
    counts: dict[str, int]
    failed: dict[str, int]
    steps: list[dict[str, Any]]
    seconds: float


@dataclass
class _Masked:
    """One shard's outcome: all uids, which are kept, and by step how many were dropped."""

    stem: str
    uids: np.ndarray
    keep: np.ndarray
    first: np.ndarray  # (steps,) dropped by this step first
    alone: np.ndarray  # (steps,) that the step drops by itself


def select(table: Table, rule: Rule, options: SelectOptions) -> Selection:
    """Write subsets/{name}.npy, .json and decisions. Raises UsageError for a column that is not there.

    A uid that stands in two shards is kept at most once: the first shard's row counts, later rows are
    failures with the status `uid_repeated`.
    """
    started = time.perf_counter()
    check_columns(rule, [*table.columns, *HALVES], options.where)
    masker = _Masker(table, _fit(table, rule), options)
    _remove_stale(table, options)
    with ThreadPoolExecutor(READERS) as pool:
        shards = list(pool.map(masker.mask, table.stems))
    failed = Counter(read_failed(options.out, set(table.stems)))
    rows, before = sum(len(s.uids) for s in shards), sum(failed.values())
    for at, repeated in _repeats(shards):
        shards[at] = masker.mask(shards[at].stem, repeated)
        failed["uid_repeated"] += len(repeated)
    kept = Subset(np.concatenate([np.empty(0, DTYPE), *(s.uids[s.keep] for s in shards)]))
    path = storage.join(options.out, "subsets", f"{options.name}.npy")
    kept.write(path)
    counts = {"in": rows + before, "kept": len(kept)}
    counts |= {"dropped": int(sum(s.first.sum() for s in shards)), "failed": sum(failed.values())}
    if counts["in"] != counts["kept"] + counts["dropped"] + counts["failed"]:
        raise AssertionError(f"counts do not add up: {counts}")
    steps = masker.report(counts["kept"] + counts["dropped"], shards)
    reasons = {status: n for status, n in sorted(failed.items()) if n}
    selection = Selection(path, counts, reasons, steps, time.perf_counter() - started)
    _write_record(selection, options)
    return selection


def _fit(table: Table, rule: Rule) -> Rule:
    """The rule fitted to every sample of the pool once, in the columns that its fitted parts look at."""
    if not rule.fit_needs:
        return rule.fit(pl.DataFrame())
    frame = table.read(rule.fit_needs | set(HALVES))
    repeated = later_repeats(frame["uid_hi"].to_numpy(), frame["uid_lo"].to_numpy())
    if len(repeated):
        once = np.ones(frame.height, bool)
        once[repeated] = False
        frame = frame.filter(pl.Series(once))
    return rule.fit(frame)


class _Masker:
    """Masks one shard after another with fitted rules; safe in threads."""

    def __init__(self, table: Table, rule: Rule, options: SelectOptions) -> None:
        self.table, self.rule, self.options = table, rule, options
        self.steps = list(_steps(rule))
        self.leaves = list(walk(rule))

    def mask(self, stem: str, repeated: np.ndarray | None = None) -> _Masked:
        """Mask a shard and write its decisions. `repeated` are row numbers that count as failed."""
        needs = self.rule.needs | set(HALVES) | ({"uid"} if self.options.decisions else set())
        frame = self.table.read(needs, stem)
        uids = np.empty(frame.height, DTYPE)
        uids["f0"], uids["f1"] = frame["uid_hi"].to_numpy(), frame["uid_lo"].to_numpy()
        well = np.ones(frame.height, bool)
        well[[] if repeated is None else repeated] = False
        verdicts: dict[int, np.ndarray] = {}
        try:
            masks = [self._once(verdicts, rule, frame) for _, rule in self.steps]
        except UsageError as error:
            raise UsageError(f"{self.options.where}: shard {stem}: {error}") from error
        blame = np.full(frame.height, -1, np.int32)
        left = well.copy()
        first, alone = np.zeros(len(masks), np.int64), np.zeros(len(masks), np.int64)
        for i, mask in enumerate(masks):
            drops = left & ~mask
            blame[drops] = i
            left &= mask
            first[i], alone[i] = drops.sum(), (well & ~mask).sum()
        blame[~well] = len(masks)
        if self.options.decisions:
            self._write(stem, frame["uid"], blame, {p: self._once(verdicts, leaf, frame) for p, leaf in self.leaves})
        return _Masked(stem, uids, left, first, alone)

    @staticmethod
    def _once(verdicts: dict[int, np.ndarray], rule: Rule, frame: pl.DataFrame) -> np.ndarray:
        """The rule's mask; a step that is a leaf is not computed twice."""
        if id(rule) not in verdicts:
            verdicts[id(rule)] = rule.mask(frame)
        return verdicts[id(rule)]

    def _write(self, stem: str, uids: pl.Series, blame: np.ndarray, leaves: dict[str, np.ndarray]) -> None:
        names = pa.array([path for path, _ in self.steps] + ["uid_repeated", ""])
        codes = pa.array(np.where(blame < 0, len(names) - 1, blame).astype(np.int32))
        columns: dict[str, Any] = {"uid": uids.to_arrow().cast(pa.string()), "keep": pa.array(blame < 0)}
        columns["dropped_by"] = pa.DictionaryArray.from_arrays(codes, names).cast(pa.string())
        columns |= {path: pa.array(mask) for path, mask in leaves.items()}
        path = storage.join(self.options.out, "subsets", self.options.name, f"{stem}.parquet")
        with storage.open_atomic(path) as stream:
            pq.write_table(pa.table(columns), stream, compression="zstd")

    def report(self, rows: int, shards: list[_Masked]) -> list[dict[str, Any]]:
        """The waterfall: each step with what came in, what it dropped first, what it drops alone."""
        steps = []
        for i, (path, rule) in enumerate(self.steps):
            dropped = int(sum(s.first[i] for s in shards))
            cuts: dict[str, list[float]] = {}
            for _, leaf in walk(rule):
                for column, values in leaf.thresholds.items():
                    cuts.setdefault(column, []).extend(values)
            alone = int(sum(s.alone[i] for s in shards))
            step = {"path": path, "rule": rule_name(rule), "text": rule.describe(), "in": rows, "dropped": dropped}
            steps.append({**step, "alone": alone, "columns": sorted(rule.needs - set(HALVES)), "thresholds": cuts})
            rows -= dropped
        return steps


def _steps(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """The rules of a top-level `all` or `then` one by one, or the rule itself."""
    name = rule_name(rule)
    if name in ("all", "then"):
        for i, child in enumerate(rule.children):
            inner = list(walk(child, f"{name}[{i}]"))
            yield (inner[0][0] if len(inner) == 1 else f"{name}[{i}].{rule_name(child)}"), child
    else:
        inner = list(walk(rule))
        yield (inner[0][0] if len(inner) == 1 else name), rule


def _repeats(shards: list[_Masked]) -> list[tuple[int, np.ndarray]]:
    """(shard's position, its rows whose uid stood in the pool before), for the shards that have any."""
    if not shards:
        return []
    later = later_repeats(*(np.concatenate([s.uids[half] for s in shards]) for half in ("f0", "f1")))
    ends = np.cumsum([len(s.uids) for s in shards])
    groups = np.searchsorted(ends, later, "right")
    starts = ends - [len(s.uids) for s in shards]
    return [(int(g), later[groups == g] - starts[g]) for g in np.unique(groups)]


def _remove_stale(table: Table, options: SelectOptions) -> None:
    """Decisions of an earlier run under this name, for shards that get none now: they are not this subset's."""
    written = set(table.stems) if options.decisions else set()
    for path in storage.glob(storage.join(options.out, "subsets", options.name, "*.parquet")):
        if storage.stem(path) not in written and not storage.is_remote(path):
            os.unlink(path)


def read_failed(out: str, stems: Collection[str]) -> dict[str, int]:
    """Status -> how many samples, over OUT/failures: of the shards `stems` and of those that were given up on.

    Other files there are from a pass that was cut short: it will be done again.
    """
    counts: Counter[str] = Counter()
    for path in storage.glob(storage.join(out, "failures", "*.parquet")):
        stem = storage.stem(path)
        if stem not in stems and not storage.exists(storage.join(out, "attempts", f"{stem}.json")):
            continue
        with storage.open_read(path) as stream:
            counts.update(pq.read_table(stream, columns=["status"], use_threads=False)["status"].to_pylist())
    return dict(counts)


def _write_record(selection: Selection, options: SelectOptions) -> None:
    record = {
        "name": options.name,
        "rule": options.source.get("select"),
        "counts": selection.counts,
        "failed": selection.failed,
        "steps": selection.steps,
        "seconds": round(selection.seconds, 3),
        "recipe": options.source,
        "versions": versions(),
    }
    path = storage.join(options.out, "subsets", f"{options.name}.json")
    storage.write_atomic(path, json.dumps(record, indent=1, default=str).encode())

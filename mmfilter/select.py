"""Choose: fit the rules to the pool, mask it shard by shard, write the subset and every decision."""

import time
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from . import parquet, storage
from .decisions import failure_paths, read_parquet
from .earlier_subset import check_own
from .errors import UsageError
from .plugs import Rule
from .repeat import Repeat, fit_repeats, needs_to_fit, which
from .rules import check_columns, walk
from .rules.build import rule_name
from .subset import Subset, check_name, later_repeats
from .subset_record import column_origins, selected_from, withdraw, write_record
from .table import READERS, Group, Table
from .uids import DTYPE, HALVES
from .versions import versions


@dataclass(frozen=True)
class SelectOptions:
    """`out` is the run's folder, `name` the subset's; `source` is the recipe, for the record.

    A sample that is kept stands in the subset as often as the first of `repeat` says whose rule, fitted on all that is
    kept, keeps it too; once where there is none.
    """

    out: str
    name: str
    where: str = "select"
    source: dict[str, Any] = field(default_factory=dict)
    decisions: bool = True
    repeat: tuple[Repeat, ...] = ()


@dataclass(frozen=True)
class Selection:
    """What came out. `counts`, of samples: in = kept + dropped + failed. The subset holds kept + `copies` uids."""

    path: str
    counts: dict[str, int]
    failed: dict[str, int]
    steps: list[dict[str, Any]]
    seconds: float
    copies: int = 0
    repeat: list[dict[str, Any]] = field(default_factory=list)
    gaps: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Masked:
    """The outcome of a group of shards (n rows): which are kept, how often, and by step how many were dropped."""

    group: Group
    keep: np.ndarray  # (n,) bool
    first: np.ndarray  # (steps,) dropped by this step first
    alone: np.ndarray  # (steps,) that the step drops by itself
    entry: np.ndarray  # (kept,) which entry of `repeat` says how often, -1 none; (0,) where the recipe repeats nothing


def select(table: Table, rule: Rule, options: SelectOptions) -> Selection:
    """Write subsets/{name}.npy, .json and decisions. Raises UsageError for a column that is not there.

    A uid that stands in the pool twice is kept at most once: its first row, in the shards' order, counts,
    later rows are failures with the status `uid_repeated`.
    """
    started = time.perf_counter()
    check_name(options.name)
    check_columns(rule, [*table.columns, *HALVES], options.where)
    for i, entry in enumerate(options.repeat):
        where = f"{options.where.removesuffix('select')}repeat[{i}].rule"
        check_columns(entry.rule, [*table.columns, *HALVES], where)
    check_own(options.out, options.name, options.decisions)
    masker = _Masker(table, rule, options)
    earlier = withdraw(options.out, options.name, set(table.stems) if options.decisions else set())
    masked = masker.run()
    failed = Counter(read_failed(options.out, set(table.stems)))
    rows, before = sum(m.group.height for m in masked), sum(failed.values())
    failed["uid_repeated"] += len(masker.repeated)
    kept = Subset(masker.uids(masked))
    path = storage.join(options.out, "subsets", f"{options.name}.npy")
    npy = kept.write(path)
    repeat = masker.report_repeats(masked)
    copies = sum((entry["times"] - 1) * entry["samples"] for entry in repeat)
    counts = {"in": rows + before, "kept": len(kept) - copies}
    counts |= {"dropped": int(sum(m.first.sum() for m in masked)), "failed": sum(failed.values())}
    if counts["in"] != counts["kept"] + counts["dropped"] + counts["failed"]:
        raise AssertionError(f"counts do not add up: {counts}")
    steps = masker.report(counts["kept"] + counts["dropped"], masked)
    reasons = {status: n for status, n in sorted(failed.items()) if n}
    selection = Selection(path, counts, reasons, steps, time.perf_counter() - started, copies, repeat, table.gaps())
    files = {"npy": npy, "decisions": {stem: masker.written[stem] for stem in table.stems if options.decisions}}
    _write_record(selection, table, options, files, earlier)
    return selection


class _Masker:
    """Fits the rules to the pool, then masks it group by group, safe in threads.

    `seen` is what the fit read of the whole pool, in its order: it is not read again. `hi` and `lo` (n,) uint64
    are the pool's uids. `repeated` (k,) are the pool's rows, ascending, whose uid stood in an earlier row. `written`
    holds the checksum of each shard's decisions.
    """

    def __init__(self, table: Table, rule: Rule, options: SelectOptions) -> None:
        self.table, self.options = table, options
        self.seen = pl.DataFrame()
        self.written: dict[str, int] = {}
        self.hi = self.lo = np.empty(0, np.uint64)
        self.repeated = np.empty(0, np.int64)
        self.rule, self.repeat = self._fit(rule)
        self.steps = list(steps_of(self.rule))
        self.leaves = list(walk(self.rule))

    def _fit(self, rule: Rule) -> tuple[Rule, tuple[Repeat, ...]]:
        """The rules fitted to each sample once, in the columns that their fitted parts look at."""
        repeat = self.options.repeat
        needs = needs_to_fit(rule, repeat)
        if not needs:
            return rule.fit(pl.DataFrame()), fit_repeats(repeat, pl.DataFrame(), 0)
        self.seen = self.table.read(needs | set(HALVES))
        self.hi, self.lo = (self.seen[half].to_numpy() for half in HALVES)
        self.repeated = later_repeats(self.hi, self.lo)
        once = self.seen.filter(pl.Series(self._well(0, self.seen.height))) if len(self.repeated) else self.seen
        rule = rule.fit(once)
        if any(entry.rule.fit_needs for entry in repeat):
            repeat = fit_repeats(repeat, once.filter(pl.Series(rule.mask(once), dtype=pl.Boolean)), once.height)
        return rule, repeat

    def run(self) -> list[_Masked]:
        """Mask all groups and write their decisions."""
        groups = self.table.groups()
        if not self.seen.height:  # each group fills in its own; gathered later they would be copied once more
            self.hi, self.lo = (np.empty(sum(group.height for group in groups), np.uint64) for _ in HALVES)
        with ThreadPoolExecutor(READERS) as pool:
            masked = list(pool.map(self._mask, groups))
        if self.seen.height:
            return masked
        self.repeated = later_repeats(self.hi, self.lo)
        ends = [group.start + group.height for group in groups]
        for at in np.unique(np.searchsorted(ends, self.repeated, "right")):
            masked[at] = self._mask(groups[at])
        return masked

    def _well(self, start: int, height: int) -> np.ndarray:
        """(height,) bool: which rows, from the pool's row `start` on, are their uid's first."""
        well = np.ones(height, bool)
        low, high = np.searchsorted(self.repeated, [start, start + height])
        well[self.repeated[low:high] - start] = False
        return well

    def _read(self, group: Group) -> pl.DataFrame:
        needs = self.rule.needs | set(HALVES) | ({"uid"} if self.options.decisions else set())
        needs = needs.union(*(entry.rule.needs for entry in self.repeat))
        here = self.seen.select(sorted(needs & set(self.seen.columns))).slice(group.start, group.height)
        rest = needs - set(here.columns)
        frame = self.table.read(rest, group.stems) if rest else here
        return frame.hstack(here.get_columns()) if rest and here.width else frame

    def _mask(self, group: Group) -> _Masked:
        frame, well = self._read(group), self._well(group.start, group.height)
        if not self.seen.height:
            here = slice(group.start, group.start + group.height)
            self.hi[here], self.lo[here] = (frame[half].to_numpy() for half in HALVES)
        verdicts: dict[int, np.ndarray] = {}
        try:
            masks = [self._once(verdicts, rule, frame) for _, rule in self.steps]
            entry = which(self.repeat, frame) if self.repeat else np.empty(0, np.int16)
        except UsageError as error:
            shards = " to ".join(dict.fromkeys([group.stems[0], group.stems[-1]]))
            raise UsageError(f"{self.options.where}: shard {shards}: {error}") from error
        first, alone = np.zeros(len(masks), np.int64), np.zeros(len(masks), np.int64)
        blame, left = np.full(group.height, -1, np.int32), well.copy()
        for i, mask in enumerate(masks):
            drops = left & ~mask
            blame[drops] = i
            left &= mask
            first[i], alone[i] = drops.sum(), (well & ~mask).sum()
        blame[~well] = len(masks)
        if self.options.decisions:
            self._write(group, frame["uid"], blame, {p: self._once(verdicts, leaf, frame) for p, leaf in self.leaves})
        return _Masked(group, left, first, alone, entry[left] if self.repeat else entry)

    @staticmethod
    def _once(verdicts: dict[int, np.ndarray], rule: Rule, frame: pl.DataFrame) -> np.ndarray:
        """The rule's mask; a step that is a leaf is not computed twice."""
        if id(rule) not in verdicts:
            verdicts[id(rule)] = rule.mask(frame)
        return verdicts[id(rule)]

    def _write(self, group: Group, uids: pl.Series, blame: np.ndarray, leaves: dict[str, np.ndarray]) -> None:
        names = pa.array([path for path, _ in self.steps] + ["uid_repeated", ""])
        codes = pa.array(np.where(blame < 0, len(names) - 1, blame).astype(np.int32))
        columns: dict[str, Any] = {"uid": uids.to_arrow().cast(pa.string()), "keep": pa.array(blame < 0)}
        columns["dropped_by"] = pa.DictionaryArray.from_arrays(codes, names).cast(pa.string())
        columns |= {path: pa.array(mask) for path, mask in leaves.items()}
        decisions, start = pa.table(columns), 0
        for stem, rows in zip(group.stems, group.rows, strict=True):
            path = storage.join(self.options.out, "subsets", self.options.name, f"{stem}.parquet")
            self.written[stem] = zlib.crc32(parquet.write(path, decisions.slice(start, rows)))
            start += rows

    def uids(self, masked: list[_Masked]) -> np.ndarray:
        """(k,) DTYPE of the uids that are kept, in the pool's order, as often as `repeat` says."""
        keep = np.flatnonzero(np.concatenate([np.empty(0, bool), *(m.keep for m in masked)]))
        if self.repeat:
            times = np.array([*(entry.times for entry in self.repeat), 1])  # the last one is for -1
            keep = np.repeat(keep, times[np.concatenate([m.entry for m in masked])])
        uids = np.empty(len(keep), DTYPE)
        uids["f0"], uids["f1"] = self.hi[keep], self.lo[keep]
        return uids

    def report_repeats(self, masked: list[_Masked]) -> list[dict[str, Any]]:
        """Each entry of `repeat` with how many samples it repeats."""
        rows = []
        for i, entry in enumerate(self.repeat):
            samples = int(sum((m.entry == i).sum() for m in masked))
            row = {"path": f"repeat[{i}].{entry.path}", "text": entry.rule.describe(), "times": entry.times}
            rows.append({**row, "samples": samples})
        return rows

    def report(self, rows: int, masked: list[_Masked]) -> list[dict[str, Any]]:
        """The waterfall: each step with what came in, what it dropped first, what it drops alone."""
        steps = []
        for i, (path, rule) in enumerate(self.steps):
            dropped = int(sum(m.first[i] for m in masked))
            cuts: dict[str, list[float]] = {}
            for _, leaf in walk(rule):
                for column, values in leaf.thresholds.items():
                    cuts.setdefault(column, []).extend(values)
            alone = int(sum(m.alone[i] for m in masked))
            step = {"path": path, "rule": rule_name(rule), "text": rule.describe(), "in": rows, "dropped": dropped}
            steps.append({**step, "alone": alone, "columns": sorted(rule.needs - set(HALVES)), "thresholds": cuts})
            rows -= dropped
        return steps


def steps_of(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """The rules of a top-level `all` or `then` one by one, or the rule itself."""
    name = rule_name(rule)
    if name in ("all", "then"):
        for i, child in enumerate(rule.children):
            inner = list(walk(child, f"{name}[{i}]"))
            yield (inner[0][0] if len(inner) == 1 else f"{name}[{i}].{rule_name(child)}"), child
    else:
        inner = list(walk(rule))
        yield (inner[0][0] if len(inner) == 1 else name), rule


def read_failed(out: str, stems: Collection[str]) -> dict[str, int]:
    """Status -> how many samples, over OUT/failures: of the shards `stems` and of those that were given up on.

    Other files there are from a pass that was cut short: it will be done again. Raises DataError.
    """
    counts: Counter[str] = Counter()
    for stem, path in failure_paths(out).items():
        if stem not in stems and not storage.exists(storage.join(out, "attempts", f"{stem}.json")):
            continue
        counts.update(status or "unknown" for status in read_parquet(path, ["status"], ["status"])["status"])
    return dict(counts)


def _write_record(
    selection: Selection, table: Table, options: SelectOptions, files: dict[str, Any], earlier: dict[str, Any]
) -> None:
    read = {column for step in selection.steps for column in step["columns"]}
    read = read.union(*(entry.rule.needs for entry in options.repeat))
    record = {
        "name": options.name,
        "rule": options.source.get("select"),
        "counts": selection.counts,
        "failed": selection.failed,
        "steps": selection.steps,
        "copies": selection.copies,
        "repeat": selection.repeat,
        "seconds": round(selection.seconds, 3),
        "recipe": options.source,
        "versions": versions(),
        "columns": column_origins(table, read),
        "files": files,
        **selected_from(table, read),
    }
    write_record(storage.join(options.out, "subsets", f"{options.name}.json"), record, earlier)

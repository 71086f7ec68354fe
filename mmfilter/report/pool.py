"""A pool and one decision over it, read a column at a time."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from .. import storage
from ..allow import Allow
from ..commit_file import optional_commit
from ..decisions import (
    UID_REPEATED,
    check_decisions,
    decision_paths,
    failure_paths,
    read_decisions,
    read_parquet,
    read_record,
)
from ..errors import DataError
from ..run_pool import left_out, run_of_metadata
from ..sidecar import pool_tars
from ..table import Table, open_table

REPEATED = -2  # the blame of a sample whose uid stood in the pool before: it counts as failed
ROW_COLUMNS = ("uid", "key", "text", "url", "sha256", "offset", "size", "original_width", "original_height")


@dataclass(frozen=True)
class Step:
    """One leaf rule of the selection, as subsets/{name}.json tells it.

    `dropped` counts the samples it was first to drop, `alone` those it would drop by itself.
    """

    path: str
    rule: str
    text: str
    read: int
    dropped: int
    alone: int
    columns: tuple[str, ...] = ()
    thresholds: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pool:
    """The n well samples of a pool, in the table's order, with what was decided on each.

    keep (n,) bool; blame (n,) int16: the position in `steps` of the first rule that dropped it, -1
    where kept, REPEATED where it failed; starts (shards + 1,) int64: where each shard's rows begin.
    """

    out: str
    name: str
    table: Table
    record: dict[str, Any]
    steps: list[Step]
    starts: np.ndarray
    keep: np.ndarray
    blame: np.ndarray
    commits: dict[str, dict[str, Any]]

    def __len__(self) -> int:
        return len(self.keep)

    @property
    def well(self) -> np.ndarray:
        """(n,) bool: the samples the rules judged."""
        return self.blame != REPEATED

    def series(self, column: str) -> pl.Series:
        """A column over the whole pool (n,), in its own type."""
        parts = [self.table.read([column], stem)[column] for stem in self.table.stems]
        return pl.concat(parts) if parts else pl.Series(column, [], dtype=pl.Float64)

    def floats(self, column: str) -> np.ndarray:
        """A number column as (n,) float32 if it is stored so (rules compare in its own precision), else
        float64; what is missing is NaN."""
        values = self.series(column)
        kind = pl.Float32 if values.dtype == pl.Float32 else pl.Float64
        return values.cast(kind, strict=False).fill_null(float("nan")).to_numpy()

    def rows(self, positions: Iterable[int]) -> dict[int, dict[str, Any]]:
        """uid, key, text, url, place in the tar and shard of the samples at `positions`."""
        wanted = np.unique(np.fromiter(positions, np.int64))
        shards = np.searchsorted(self.starts, wanted, side="right") - 1
        have = [name for name in ROW_COLUMNS if name in self.table.columns]
        found: dict[int, dict[str, Any]] = {}
        for shard in np.unique(shards):
            stem = self.table.stems[shard]
            here = wanted[shards == shard]
            rows = self.table.read(have, stem)[here - self.starts[shard]].to_dicts()
            path = self.commits.get(stem, {}).get("path", "")
            found.update({int(p): {**row, "shard": stem, "path": path} for p, row in zip(here, rows, strict=True)})
        return found


def open_pool(out: str, name: str, metadata: str = "", allow: Allow = Allow()) -> Pool:
    """Read the decisions of subset `name` in `out`, and line them up with the table by uid.

    `metadata` is where the score table is when it is not in `out`; `allow` says what of it may be missing or stale.
    Raises DataError when a sample has no decision, ConflictError for stale columns.
    """
    record = read_record(out, name)
    check_decisions(out, name, record)
    steps = [_step(raw) for raw in record["steps"]]
    table = open_table(out, metadata or None, *allow).whole()
    table.check_fresh(table.columns)
    numbers = {step.path: i for i, step in enumerate(steps)}
    paths = decision_paths(out, name)
    keeps, blames, starts = [np.empty(0, bool)], [np.empty(0, np.int16)], [0]
    for stem in table.stems:
        decided = _decided(table, stem, paths.get(stem, ""), record)
        for path in decided["dropped_by"].unique(maintain_order=True).to_list():
            if path not in ("", UID_REPEATED) and path not in numbers:  # a rule of rules that took the blame itself
                numbers[path] = len(steps)
                steps.append(Step(path, path, path, 0, 0, 0))
        keeps.append(decided["keep"].to_numpy())
        codes = decided["dropped_by"].replace_strict({**numbers, "": -1, UID_REPEATED: REPEATED}, return_dtype=pl.Int16)
        blames.append(codes.to_numpy())
        starts.append(starts[-1] + decided.height)
    return Pool(
        out, name, table, record, steps,
        np.array(starts), np.concatenate(keeps), np.concatenate(blames), _commits(table, out),
    )  # fmt: skip


def _step(raw: dict[str, Any]) -> Step:
    thresholds = {str(k): [float(v) for v in values] for k, values in (raw.get("thresholds") or {}).items()}
    path, rule = str(raw["path"]), str(raw.get("rule", raw["path"]))
    read, dropped, alone = (int(raw.get(key) or 0) for key in ("in", "dropped", "alone"))
    text, columns = str(raw.get("text") or rule), tuple(raw.get("columns") or ())
    return Step(path, rule, text, read, dropped, alone, columns, thresholds)


def _decided(table: Table, stem: str, path: str, record: dict[str, Any]) -> pl.DataFrame:
    again = f"run 'mmfilter select' again to decide subset '{record.get('name', '')}' on the pool as it is now"
    if not path:
        raise DataError(f"shard {stem}: it has no decisions; {again}")
    uids = table.read(["uid"], stem).select("uid")
    decided = read_decisions(path, record, ["uid", "keep", "dropped_by"], ["uid", "dropped_by"])
    if decided["keep"].dtype != pl.Boolean:
        raise DataError(f"{path}: column 'keep' holds {decided['keep'].dtype}, not true and false; {again}")
    if not decided["uid"].equals(uids["uid"]):
        decided = uids.join(decided.unique("uid", keep="first"), on="uid", how="left", maintain_order="left")
    if missing := decided["keep"].null_count():
        raise DataError(f"{path}: {missing} samples of the shard have no decision; {again}")
    return decided.with_columns(pl.col("dropped_by").fill_null(""))


def _commits(table: Table, out: str) -> dict[str, dict[str, Any]]:
    """Each shard's metadata json, in order, with its tar where that stands now; DataComp's own metadata has none."""
    commits, tars = {}, pool_tars(out)
    others = left_out(run_of_metadata(table.metadata, out)) | set(table.missing)
    for path in storage.list_files(table.metadata, ".json"):
        stem = storage.stem(path)
        commit = optional_commit(path) if stem not in others else None
        if commit:
            commits[stem] = {**commit, "path": tars.get(stem) or commit.get("path", "")}
    return commits


def read_failures(pool: Pool) -> pl.DataFrame:
    """Every failed or lost sample of the pool: shard, key, uid, status, error (all str)."""
    columns = ["key", "uid", "status", "error"]
    frames = [
        read_parquet(path, columns, columns).select(pl.col(columns).cast(pl.String).fill_null(""), shard=pl.lit(stem))
        for stem, path in failure_paths(pool.out).items()
        if stem not in pool.table.missing
    ]
    again = pool.rows(np.flatnonzero(~pool.well)).values()
    error = "an earlier sample of the pool has the same uid"
    repeated = [{**row, "key": row.get("key") or "", "status": UID_REPEATED, "error": error} for row in again]
    schema = dict.fromkeys([*columns, "shard"], pl.String)
    return pl.concat([pl.DataFrame([{k: row[k] for k in schema} for row in repeated], schema=schema), *frames])

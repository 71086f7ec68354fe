"""Scores that need no pixels, computed from a shard's stored columns and embeddings."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from . import parquet, storage
from .commit_file import optional_commit
from .errors import DataError, nearest
from .feed import Clock
from .sidecar import Stored, columns_path, read_arrays, write_column
from .sources import stored_sources
from .work import Work, score_part


class StoredBatch(Mapping[str, Any]):
    """A shard as the batch a score is called with: columns, `img_emb:b32` from the npz arrays, what a `look` kept.

    Where a column or array is not in memory it is looked for in the shard's files, one at a time.
    """

    def __init__(
        self, stored: Stored, out: str, stem: str, metadata: str = "", files: Mapping[str, Any] | None = None
    ) -> None:
        """`files` is what the shard's commit says of them, where it does."""
        self.stored, self.out, self.stem, self.files = stored, out, stem, files or {}
        self.metadata = metadata or storage.join(out, "metadata")

    def __getitem__(self, need: str) -> Any:
        kind, _, model = need.partition(":")
        if kind in ("img_emb", "txt_emb"):
            return self._array(f"{model}_{kind[:3]}")
        if need in self.stored.looked:
            return self.stored.looked[need]
        if need in self.stored.table.column_names:
            return _plain(self.stored.table[need])
        return self._added(need)

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored.table.column_names)

    def __len__(self) -> int:
        """Columns, as of any mapping; the rows are `stored.table.num_rows`."""
        return len(self.stored.table.column_names)

    def _array(self, name: str) -> np.ndarray:
        if name not in self.stored.arrays:
            path = storage.join(self.metadata, f"{self.stem}.npz")
            arrays = read_arrays(path, self.files.get("npz"), [name])
            if name not in arrays:
                names = sorted(read_arrays(path, None, None))
                raise DataError(f"{path}: no array '{name}'{nearest(name, names)} It has: {names}")
            rows = self.stored.table.num_rows
            if len(arrays[name]) != rows:
                raise DataError(
                    f"{path}: {name} has {len(arrays[name])} rows where the parquet beside it has {rows}; "
                    "row i of one is row i of the other, so fetch or make both again"
                )
            self.stored.arrays[name] = arrays[name]
        return self.stored.arrays[name]

    def _added(self, column: str) -> Any:
        path = columns_path(self.out, column, self.stem)
        try:
            added = parquet.read(path, ["uid", column])
        except FileNotFoundError as error:
            names = self.stored.table.column_names
            raise DataError(
                f"shard {self.stem}: no column '{column}'{nearest(column, names)} It has: {', '.join(names)}"
            ) from error
        uids = self.stored.table["uid"].to_pylist()
        if added["uid"].to_pylist() != uids:  # made before a later pass set rows aside
            where = {uid: row for row, uid in enumerate(added["uid"].to_pylist())}
            if lost := next((uid for uid in uids if uid not in where), None):
                raise DataError(f"{path}: has no row for uid {lost} of its shard; delete it and score again")
            added = added.take([where[uid] for uid in uids])
        return _plain(added[column])


def _plain(column: Any) -> Any:
    """Numbers as numpy arrays, everything else as lists."""
    import pyarrow.types as kinds

    if kinds.is_integer(column.type) or kinds.is_floating(column.type):
        return column.to_numpy()
    return column.to_pylist()


def add_columns(stem: str, work: Work, clock: Clock, metadata: str = "") -> None:
    """Compute `work.scores` (none of which reads pixels) for a shard of `metadata`: columns/<column>/."""
    started = time.perf_counter()
    folder = metadata or storage.join(work.out, "metadata")
    files = (optional_commit(storage.join(folder, f"{stem}.json")) or {}).get("files") or {}
    table = parquet.read(storage.join(folder, f"{stem}.parquet"), record=files.get("parquet"))
    batch = StoredBatch(Stored(table), work.out, stem, folder, files)
    for score in work.scores:
        sources = {"shard": stored_sources(work.out, folder, stem, score.needs)}
        columns = {"uid": batch["uid"], **score(batch)}
        write_column(columns_path(work.out, score.columns[0], stem), columns, work.parts[score_part(score)], sources)
    clock.add("score", started)

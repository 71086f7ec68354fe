"""A pool's embeddings as rows that are read where they lie: by shard, in blocks, or row by row.

Nothing here holds the pool in memory: at most one shard's array at a time (npz.py tells how it is read).
"""

import zipfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mmfilter import storage
from mmfilter.allow import Allow
from mmfilter.commit_file import optional_commit
from mmfilter.content import SAMPLES
from mmfilter.errors import DataError, UsageError
from mmfilter.npz_record import npz_record
from mmfilter.provenance import fingerprint
from mmfilter.shard_record import check_blocks
from mmfilter.shard_state import check_npzs
from mmfilter.table import Table, open_table
from mmfilter.uids import HALVES, parse_uids

from .npz import read_array, read_header, read_rows

SIDES = {"image": "img", "text": "txt"}


@dataclass(frozen=True)
class Vectors:
    """One model's embeddings of one modality, over all shards in the table's order.

    A row's *position* is its place in that order, 0 to len - 1; it names a row only as long as the pool
    stands, and is what a kNN index calls an id. `counts` are rows by shard, `dim` is d.
    """

    table: Table
    model: str
    modality: str  # image | text
    counts: tuple[int, ...]
    dim: int

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def array(self) -> str:
        """The array's name in the npz: ``b32_img``."""
        return f"{self.model}_{SIDES[self.modality]}"

    @property
    def stems(self) -> tuple[str, ...]:
        return self.table.stems

    @cached_property
    def starts(self) -> np.ndarray:
        """(shards + 1,) int64: the position of each shard's first row, and the total."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    @cached_property
    def paths(self) -> list[str]:
        """Each shard's npz."""
        return [_npz(self.table, stem) for stem in self.stems]

    def shard(self, i: int) -> np.ndarray:
        """(n, d) of float16 or float32 as stored: row j is the shard's parquet's row j. Raises DataError."""
        return read_array(self.paths[i], self.array, self.counts[i])

    def record(self, i: int) -> Mapping[str, Any] | None:
        """What the shard's commit says of its npz, whose size and directory are compared; None where it says nothing.

        Raises DataError.
        """
        return npz_record(storage.join(self.table.metadata, f"{self.stems[i]}.json"), self.paths[i])

    def uids(self, i: int) -> np.ndarray:
        """(n,) of `uids.DTYPE`, the shard's, row for row with `shard(i)`."""
        try:
            uids = np.asarray(read_array(self.paths[i], "uid", self.counts[i]))
        except UsageError:  # DataComp's npz has none
            return parse_uids(self.table.read(["uid"], self.stems[i])["uid"])
        check_blocks(self.paths[i], "uid", uids, 0, self.record(i))
        return uids

    def verify(self) -> None:
        """Compare all blocks of rows with their checksums. Raises DataError.

        For a computation that reads rows one by one, which are not checked then. A shard without checksums, of format
        1 or of another program, has its uids compared with those of the parquet beside it.
        """
        for i, path in enumerate(self.paths):
            if record := self.record(i):
                check_blocks(path, self.array, self.shard(i), 0, record)
            else:
                self.compare_uids(i)

    def compare_uids(self, i: int) -> None:
        """Raise DataError where the shard's npz and parquet are of two passes: they hold other uids."""
        halves = self.table.read(HALVES, self.stems[i])
        uids = self.uids(i)
        if not all(
            np.array_equal(uids[f], halves[half].to_numpy()) for f, half in zip(("f0", "f1"), HALVES, strict=True)
        ):
            raise DataError(
                f"{self.paths[i]}: its uids are others than those of the parquet beside it: the two are of different "
                f"passes. Delete metadata/{self.stems[i]}.json and run again, or fetch both anew"
            )

    def all_uids(self) -> np.ndarray:
        """(n,) of `uids.DTYPE` by position: 16 bytes a row."""
        return np.concatenate([self.uids(i) for i in range(len(self.stems))]) if self.stems else parse_uids([])

    def blocks(self, rows: int = 65_536, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """(position, float32 (m, d) of unit rows) over positions `start` to `stop`, m up to `rows`.

        A row without a direction (NaN, Inf, all zeros) comes as zeros. What is read whole is compared with its
        checksum. Raises DataError.
        """
        stop = len(self) if stop is None else stop
        for i, first in enumerate(self.starts[:-1]):
            low, high = max(start - first, 0), min(stop - first, self.counts[i])
            if low < high:
                stored, record = self.shard(i), self.record(i)
                for at in range(low, high, rows):
                    block = stored[at : min(at + rows, high)]
                    check_blocks(self.paths[i], self.array, block, at, record)
                    yield int(first) + at, unit(block)

    def take(self, positions: np.ndarray) -> np.ndarray:
        """float32 (k, d), unit rows at `positions` (k,) in their order; only these rows are read."""
        positions = np.asarray(positions, np.int64)
        rows = np.empty((len(positions), self.dim), np.float32)
        order = np.argsort(positions, kind="stable")
        cuts = np.searchsorted(positions[order], self.starts)
        shards = np.flatnonzero(np.diff(cuts))
        for i, start, stop in zip(shards.tolist(), cuts[shards].tolist(), cuts[shards + 1].tolist(), strict=True):
            here = order[start:stop]
            record = self.record(i)
            rows[here] = read_rows(self.paths[i], self.array, self.counts[i], positions[here] - self.starts[i], record)
        return _scale(rows)

    def place(self, position: int) -> tuple[str, int]:
        """(shard's stem, row in it) of a position."""
        i = bisect_right(self.starts.tolist(), position) - 1
        return self.stems[i], position - int(self.starts[i])

    @cached_property
    def identity(self) -> list[dict[str, Any]]:
        """By shard: stem, rows, and what made the embeddings. Equal lists mean equal vectors."""
        return [
            {"shard": stem, "rows": rows, "made": _made(self.table, stem, self.model)}
            for stem, rows in zip(self.stems, self.counts, strict=True)
        ]


def open_vectors(
    out: str, model: str, modality: str = "image", metadata: str | None = None, allow: Allow = Allow()
) -> Vectors:
    """The embeddings of a run's folder, or of a folder of DataComp's metadata (`metadata`, as `open_table`).

    Raises UsageError for a model or modality that is not there, DataError for a damaged or odd shard, and where some
    shard has no npz.
    """
    if modality not in SIDES:
        raise UsageError(f"modality '{modality}': it is one of {', '.join(SIDES)}")
    table = open_table(out, metadata, *allow)
    check_npzs(table.metadata, table.stems)
    name = f"{model}_{SIDES[modality]}"
    shapes = [read_header(_npz(table, stem), name)[1] for stem in table.stems]
    for stem, shape in zip(table.stems, shapes, strict=True):
        if len(shape) != 2 or shape[1] != shapes[0][1]:
            raise DataError(f"{_npz(table, stem)}: {name} has the shape {shape}, others {shapes[0]}; embed it again")
    return Vectors(table, model, modality, tuple(shape[0] for shape in shapes), shapes[0][1])


def embedded(table: Table, modality: str = "image") -> list[str]:
    """The models whose embeddings the first shard has, sorted; none where it has no npz. Raises UsageError."""
    if modality not in SIDES:
        raise UsageError(f"modality '{modality}': it is one of {', '.join(SIDES)}")
    path = _npz(table, table.stems[0]) if table.stems else ""
    if not path or not storage.exists(path):
        return []
    try:
        with storage.open_read(path) as stream, zipfile.ZipFile(stream) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as npz ({error})") from error
    ending = f"_{SIDES[modality]}"
    return sorted(name.removesuffix(ending) for name in names if name.endswith(ending))


def only_model(out: str, modality: str = "image", metadata: str | None = None, allow: Allow = Allow()) -> str:
    """The one model that embedded the pool. Raises UsageError where there is none, or several to choose from."""
    models = embedded(open_table(out, metadata, *allow), modality)
    if len(models) == 1:
        return models[0]
    if not models:
        raise UsageError(f"{out}: no {modality} embeddings (no npz beside the parquet); embed the pool with a model")
    raise UsageError(f"{out}: embeddings of {len(models)} models; choose one with --model: {', '.join(models)}")


def unit(rows: np.ndarray) -> np.ndarray:
    """float32 (n, d) of length 1, from any float type; rows without a direction become zeros."""
    return _scale(np.array(rows, np.float32))


def _scale(rows: np.ndarray) -> np.ndarray:
    """`unit` of float32 rows, in their place."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
        rows /= lengths
    bad = ~(np.isfinite(lengths) & (lengths > 0))[:, 0]
    if bad.any():
        rows[bad] = 0
    return rows


def _npz(table: Table, stem: str) -> str:
    return storage.join(table.metadata, f"{stem}.npz")


def _made(table: Table, stem: str, model: str) -> str:
    """The fingerprint of the commit's record of the model; of a foreign shard, its npz's size and time."""
    path = storage.join(table.metadata, f"{stem}.json")
    commit = optional_commit(path)
    if commit is not None:
        if content := commit.get("content"):
            return fingerprint([content.get(SAMPLES), *(content.get(f"{model}_{side}") for side in SIDES.values())])
        parts = commit["parts"]
        return fingerprint([commit.get("input"), parts.get("read"), parts.get(f"embed:{model}")])
    return fingerprint(storage.identity_or_none(_npz(table, stem)))

"""A shard in pieces, where workers would stand idle: runs of its units, each read by one worker and laid by.

A piece is `OUT/pieces/SHARD.NUMBER-OF.npz`: the arrays, and as bytes the rows and failures (parquet) and what
it was made from (json). Whoever writes the last one of a shard joins them and takes them away.
"""

import io
import json
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from . import storage
from .errors import DataError
from .expected import expected_keys
from .feed import UNIT, Clock
from .gather import Gathered
from .json_file import COUNT, parse_object
from .records import Failure
from .sidecar import BASE, FAILURES
from .work import Work

DAMAGED = (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, pa.ArrowException)
TOLD = {"made": dict, "units": COUNT, "looked": [str], "notes": {str: COUNT}, "seconds": {str: float}}
NAME = re.compile(r".+\.\d{4}-\d{4}\.npz(\.[0-9a-f]{8}\.tmp)?")
ROWS, FAILED, SAID = "rows", "failed", "said"  # the arrays of bytes; others have a colon in their name


@dataclass(frozen=True)
class Piece:
    """The piece `number` of `of` of the shard at `path`, which has `units` units as far as is known."""

    path: str
    number: int
    of: int
    units: int

    @property
    def first(self) -> int:
        return self.number * self.units // self.of

    @property
    def until(self) -> int | None:
        """The last piece goes on to the end of the tar, wherever that is."""
        return None if self.number + 1 == self.of else (self.number + 1) * self.units // self.of


def cut(path: str, most: int) -> list[Piece]:
    """Up to `most` pieces of a shard, by the files beside it; none where it is not worth cutting or not known."""
    known = expected_keys(path)
    count = len(known) if isinstance(known, dict) else known or 0
    units = -(-count // UNIT)
    of = min(units, most)
    return [Piece(path, number, of, units) for number in range(of)] if of > 1 else []


def siblings(piece: Piece) -> list[Piece]:
    """All pieces of its shard, in order."""
    return [Piece(piece.path, number, piece.of, piece.units) for number in range(piece.of)]


def piece_path(out: str, piece: Piece) -> str:
    return storage.join(out, "pieces", f"{storage.stem(piece.path)}.{piece.number:04d}-{piece.of:04d}.npz")


def made_from(work: Work, identity: Any, embedders: Mapping[str, Any]) -> dict[str, Any]:
    """What a piece's values hang on, as JSON reads it back: one of another tar, model or batch is not joined."""
    made = {
        "input": identity,
        "parts": dict(work.parts),
        "does": sorted([*work.models, *(score.columns[0] for score in work.scores)]),
        "batch": work.batch_size,
        "models": {name: embedder.info() for name, embedder in embedders.items()},
    }
    return json.loads(json.dumps(made))


def write_piece(out: str, piece: Piece, made: Mapping[str, Any], got: Gathered, clock: Clock) -> None:
    rows = pa.table({name: pa.array(got.rows[name], type=kind) for name, kind in BASE.items()})
    failed = {name: [getattr(row, name) for row in got.failures] for name in FAILURES.names}
    said = {"made": made, "units": piece.units, "looked": sorted(got.looked)}
    said |= {"notes": got.notes, "seconds": clock.seconds}
    arrays = {f"array:{name}": np.concatenate(values) for name, values in got.parts.items()}
    held = {ROWS: _table(rows), FAILED: _table(pa.table(failed, schema=FAILURES))}
    held[SAID] = np.frombuffer(json.dumps(said).encode(), np.uint8)
    with storage.open_atomic(piece_path(out, piece)) as stream:
        np.savez(stream, allow_pickle=False, **held, **arrays)


def _table(table: pa.Table) -> np.ndarray:
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd")
    return np.frombuffer(stream.getvalue(), np.uint8)


def is_there(out: str, piece: Piece, made: Mapping[str, Any]) -> bool:
    """Whether the piece was written, whole, and from the same."""
    try:
        with storage.open_read(piece_path(out, piece)) as stream, np.load(stream, allow_pickle=False) as npz:
            said = parse_object(npz[SAID].tobytes(), piece_path(out, piece), "it is made again", TOLD)
    except (*DAMAGED, OSError, DataError):
        return False
    return bool(said["made"] == made and said["units"] == piece.units)


def read_piece(out: str, piece: Piece) -> tuple[Gathered, dict[str, float]]:
    """What a worker gathered, and its seconds by stage. Raises FileNotFoundError."""
    path = piece_path(out, piece)
    try:
        with np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False) as npz:
            tables = (pq.read_table(io.BytesIO(npz[name].tobytes()), use_threads=False) for name in (ROWS, FAILED))
            rows, failed = tables
            parts = {name.removeprefix("array:"): [npz[name]] for name in npz.files if ":" in name}
            said = parse_object(npz[SAID].tobytes(), path, "run again", TOLD)
    except DAMAGED as error:
        storage.remove(path)
        raise DataError(f"{path}: was damaged ({error}) and is made again when its shard is tried again") from error
    failures = [Failure(**row) for row in failed.to_pylist()]
    return Gathered(rows.to_pydict(), parts, set(said["looked"]), failures, Counter(said["notes"])), said["seconds"]


def sweep(out: str) -> None:
    """Remove the pieces that nobody joined: their shards were done whole."""
    folder = storage.join(out, "pieces")
    for name in filter(NAME.fullmatch, storage.names(folder)):
        storage.remove(storage.join(folder, name))
    if not storage.is_remote(folder):
        with suppress(OSError):  # there is none, or it holds files of a user's
            os.rmdir(folder)

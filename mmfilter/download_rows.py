"""Which rows of a download came: by the tars, shard by shard, and which are to be asked for again."""

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from . import storage
from .member_names import split_name
from .subset import Subset
from .tar import Member, members
from .uids import parse_uids
from .url_lists import read_piece, write_pieces


def rows_in_tar(path: str, number: int) -> set[int]:
    """Rows of piece `number` whose image is in the tar at `path`, by the keys that img2dataset gives them.

    Neither its parquet nor its stats are asked: of a row that could not be written they tell otherwise.
    """
    held: set[int] = set()
    first = f"{number:08d}"
    try:
        with storage.open_read(path) as stream:
            for entry in members(stream, lambda name: 0):
                key, extension = split_name(entry.name) if isinstance(entry, Member) else ("", "")
                if extension == "jpg" and entry.size and re.fullmatch(rf"{first}\d{{4,10}}", key):
                    held.add(int(key[len(first) :]))
    except FileNotFoundError:
        pass  # then it holds none
    return held


def standing(out: str) -> tuple[list[int], list[int]]:
    """(done, pending): the numbers of the pieces whose shard has its stats, and of the others."""
    done = {int(name[:8]) for name in storage.names(out) if re.fullmatch(r"\d{8}_stats\.json", name)}
    names = storage.names(storage.join(out, "_lists"))
    pieces = [int(name[:8]) for name in names if re.fullmatch(r"\d{8}\.arrow", name)]
    return [n for n in pieces if n in done], [n for n in pieces if n not in done]


def list_failed(out: str, shard_size: int) -> int:
    """Further pieces of the rows that were tried and never came, each once; returns how many rows. 16 bytes a row."""
    done, pending = standing(out)
    queued = Subset(np.concatenate([parse_uids([]), *(_uids(read_piece(out, n)) for n in pending)]))
    over = Subset(np.concatenate([queued.uids, *(_came(out, n) for n in done)]))

    def left() -> Iterator[pa.Table]:
        nonlocal over
        for number in done:
            piece = read_piece(out, number)
            uids = _uids(piece)
            first = np.unique(uids, return_index=True)[1]
            again = np.sort(first[~over.contains(uids[first])])
            over = Subset(np.concatenate([over.uids, uids[again]]))
            yield piece.take(pa.array(again))

    return sum(map(len, write_pieces(out, max([*done, *pending], default=-1) + 1, left(), shard_size)))


def repeated_rows(out: str, rows: int, shard_size: int) -> int:
    """Of the list's `rows` those that came in no tar although another row of the same uid did. 16 bytes a row.

    Such a row is not asked for again: its sample is there.
    """
    pieces = range(-(-rows // shard_size))  # those after them are of --retry-failed
    asked = Subset(np.concatenate([parse_uids([]), *(_uids(read_piece(out, n)) for n in pieces)]))
    twice = asked.uids[asked.counts(asked.uids) > 1]
    if not len(twice):
        return 0
    came = Subset(np.concatenate([parse_uids([]), *(_came(out, n) for n in standing(out)[0])]))
    once = Subset(twice).unique().uids
    count = came.counts(once)
    return int(np.maximum(asked.counts(once) - count, 0)[count > 0].sum())


def _uids(table: pa.Table) -> np.ndarray:
    return parse_uids(table["uid"].to_pylist())


def _came(out: str, number: int) -> np.ndarray:
    """The uids (n,) of the rows that a shard's tar holds."""
    uids = _uids(read_piece(out, number))
    held = rows_in_tar(storage.join(out, f"{number:08d}.tar"), number)
    return uids[sorted(row for row in held if row < len(uids))]

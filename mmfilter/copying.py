"""Copy members from tars into a new one: large reads, and each header checked before its bytes are believed."""

import hashlib
import itertools
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from . import storage
from .errors import DataError
from .faces import Boxes
from .fields import ReadOptions
from .images import DecodeError, ImageLimits
from .outgoing import COPY, NEW_JSON, PNG, STATE_UID, TEXT, caption_of, with_uid
from .reshard_plan import OutputShard, Source
from .shard_index import encoded
from .tar import END
from .tar_headers import headers
from .tar_source import BLOCK, ZERO
from .uids import format_uids

WINDOW = 1 << 20  # bytes read at once
ARENA = 4 * WINDOW  # bytes held until they are written
PIECES = 1000  # written at once; the system's limit is 1024
NO_LIMIT = 1 << 62  # pixels: the index had its say
NEAR = 1 << 16  # bytes; members with no more than this between them are read in one go


class _Move(NamedTuple):
    """One member to copy. `until` is where the run of near members ends in the source: read ahead to there."""

    header: bytes  # in the new tar
    source: int
    offset: int
    size: int
    written: int  # the bytes of its data in the new tar
    check: int
    until: int
    boxes: Boxes | None
    change: int
    uid: str


def copy_members(shard: OutputShard, out: BinaryIO) -> dict[str, Any]:
    """Write `shard`'s tar to `out`; returns its record. Raises DataError when an input has changed."""
    gather = _Gather(out)
    window = _Window(shard.sources, gather.flush)
    try:
        for move in _moves(shard):
            if move.source != window.number:
                window.open(move.source)
            start, end = move.offset - BLOCK, move.offset + move.size
            part = window.read(start, min(end, start + WINDOW), move.until)
            if zlib.crc32(part[:BLOCK]) != move.check:
                raise window.changed(f"the header at byte {start} is another")
            gather.add(move.header)
            more = (window.read(at, min(end, at + WINDOW), move.until) for at in range(start + WINDOW, end, WINDOW))
            if move.boxes is None and move.change == COPY:
                gather.add(part[BLOCK:])
                for piece in more:
                    gather.add(piece)
            else:
                data = b"".join([bytes(part[BLOCK:]), *map(bytes, more)])
                gather.add(_changed(data, move, window, shard.read))
            gather.add(ZERO[: -move.written % BLOCK])
        gather.add(END)
        gather.flush()
        window.verify()
    finally:
        window.close()
    return {"bytes": gather.written, "sha256": gather.digest.hexdigest()}


def _changed(data: bytes, move: _Move, window: "_Window", read: ReadOptions) -> bytes:
    """A member's bytes in the new tar, as many as there were when it was indexed. Raises DataError."""
    try:
        if move.change in (STATE_UID, NEW_JSON):
            data = with_uid(data, move.uid)
        elif move.change == TEXT:
            data = caption_of(data, read)
        else:
            data = encoded(data, move.change == PNG, move.boxes or (), ImageLimits(max_pixels=NO_LIMIT, avif=True))
    except (DecodeError, ValueError) as error:
        raise window.changed(str(error)) from error
    if len(data) != move.written:
        raise DataError(
            f"{window.path}: the member at byte {move.offset} has {len(data)} bytes when it is written here and had "
            f"{move.written} where it was indexed: install the same Pillow on every node, and run again"
        )
    return data


def tar_bytes(shard: OutputShard) -> int:
    """The length of the tar that `copy_members` writes."""
    return len(END) + sum(len(move.header) + -(-move.written // BLOCK) * BLOCK for move in _moves(shard))


class _Gather:
    """Pieces on their way to `out`, written many at once: a call for each costs more than its copy."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.pieces: list[bytes | memoryview] = []
        self.written, self.digest = 0, hashlib.sha256()
        try:
            self.file = out.fileno()
        except OSError:  # a remote file has none
            self.file = -1

    def add(self, piece: bytes | memoryview) -> None:
        if len(piece):
            self.pieces.append(piece)
        if len(self.pieces) == PIECES:
            self.flush()

    def flush(self) -> None:
        total = sum(map(len, self.pieces))
        done = os.writev(self.file, self.pieces) if self.file >= 0 and total else 0
        if done < total:  # remote, or the disk took only a part: the next write says why
            self.out.write(b"".join(self.pieces)[done:])
            self.out.flush()
        for piece in self.pieces:
            self.digest.update(piece)
        self.written += total
        self.pieces.clear()


def _moves(shard: OutputShard) -> Iterator[_Move]:
    """The members in the new tar's order."""
    members, count = shard.members, np.diff(shard.first)
    source = np.repeat(shard.source, count)
    start, end = members["offset"] - BLOCK, members["offset"] + members["size"]
    parted = (source[1:] != source[:-1]) | (start[1:] < end[:-1]) | (start[1:] - end[:-1] > NEAR)
    last = np.flatnonzero(np.append(parted, True)[: len(members)])  # each run's last member
    until = end[last][np.searchsorted(last, np.arange(len(members)))]
    columns = (source, members["offset"], members["size"], members["written"], members["check"], until)
    boxes, change = map(shard.boxes.get, range(len(members))), members["change"].tolist()
    new = headers(_names(shard), members["written"])
    uids = itertools.chain.from_iterable(map(itertools.repeat, format_uids(shard.uids), count.tolist()))
    return map(_Move, new, *(column.tolist() for column in columns), boxes, change, uids)


def _names(shard: OutputShard) -> list[str]:
    """Each member's new name: `{uid}-{j}.{extension}`."""
    keys = [f"{uid}-{j}." for uid, j in zip(format_uids(shard.uids), shard.copy.tolist(), strict=True)]
    row = np.repeat(np.arange(len(keys)), np.diff(shard.first)).tolist()
    return [keys[r] + shard.extensions[e] for r, e in zip(row, shard.members["extension"].tolist(), strict=True)]


class _Window:
    """The source that is open and the bytes of it that were read last.

    Reads fill `buffer` one after the other; before its start is used again, `release` must have
    written what was handed out.
    """

    def __init__(self, sources: tuple[Source, ...], release: Callable[[], None]) -> None:
        self.sources, self.release = sources, release
        self.number = -1
        self.stream: BinaryIO | None = None
        self.buffer = memoryview(bytearray(ARENA))
        self.used = 0
        self.start = self.end = self.base = 0  # bytes [start, end) of the source are at buffer[base:]

    def open(self, number: int) -> None:
        if number == self.number:
            return
        self.verify()
        self.close()
        self.number = number
        self.verify()
        self.stream = storage.open_read(self.sources[number].path)
        self.start = self.end = 0

    def verify(self) -> None:
        """The open source is still what was indexed."""
        if self.number < 0:
            return
        source = self.sources[self.number]
        try:
            now = storage.identity(source.path)
        except OSError as error:
            raise DataError(f"{source.path}: it was there when it was indexed, and is not now ({error})") from error
        if now != source.identity:
            raise self.changed(f"it was {source.identity} and is {now}")

    def read(self, start: int, end: int, until: int) -> memoryview:
        """Bytes [start, end) of the source, at most WINDOW; a read goes on towards `until`."""
        if start < self.start or end > self.end:
            self._fill(start, max(end, min(until, start + WINDOW)))
        at = self.base + start - self.start
        return self.buffer[at : at + end - start]

    def _fill(self, start: int, end: int) -> None:
        assert self.stream is not None
        if self.used + end - start > ARENA:
            self.release()
            self.used = 0
        part = self.buffer[self.used : self.used + end - start]
        self.stream.seek(start)
        got = 0
        while got < len(part):
            n = self.stream.readinto(part[got:])  # type: ignore[attr-defined]
            if not n:
                raise self.changed(f"it ends before byte {end}")
            got += n
        self.start, self.end, self.base = start, end, self.used
        self.used += len(part)

    @property
    def path(self) -> str:
        return self.sources[self.number].path

    def changed(self, how: str) -> DataError:
        return DataError(f"{self.path}: it changed since it was indexed: {how}. Put it back, or take another folder")

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()
        self.stream = None

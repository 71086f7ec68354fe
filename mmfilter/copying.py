"""Copy members from tars into a new one: large reads, and each header checked before its bytes are believed."""

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from . import storage
from .errors import DataError
from .reshard_plan import OutputShard, Source
from .shard_index import name_check
from .tar import BLOCK, END, header, pad, parse_block
from .uids import format_uids

WINDOW = 1 << 20  # bytes read at once
ARENA = 4 * WINDOW  # bytes held until they are written
PIECES = 1000  # written at once; the system's limit is 1024
NEAR = 1 << 16  # bytes; members with no more than this between them are read in one go


class _Move(NamedTuple):
    """One member to copy. `until` is where the run of near members ends in the source: read ahead to there."""

    name: str  # in the new tar
    source: int
    offset: int
    size: int
    check: int
    until: int


def copy_members(shard: OutputShard, out: BinaryIO) -> int:
    """Write `shard`'s tar to `out`; returns its bytes. Raises DataError when an input has changed."""
    gather = _Gather(out)
    window = _Window(shard.sources, gather.flush)
    try:
        for move in _moves(shard):
            window.open(move.source)
            window.check(move)
            gather.add(header(move.name, move.size))
            for at in range(0, move.size, WINDOW):
                end = move.offset + min(move.size, at + WINDOW)
                gather.add(window.read(move.offset + at, end, move.until))
            gather.add(pad(move.size))
        gather.add(END)
        gather.flush()
        window.verify()
    finally:
        window.close()
    return gather.written


class _Gather:
    """Pieces on their way to `out`, written many at once: a call for each costs more than its copy."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.pieces: list[bytes | memoryview] = []
        self.written = 0
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
        self.written += total
        self.pieces.clear()


def _moves(shard: OutputShard) -> Iterator[_Move]:
    """The members in the new tar's order."""
    members, count = shard.members, np.diff(shard.first)
    keys = [f"{uid}-{j}" for uid, j in zip(format_uids(shard.uids), shard.copy.tolist(), strict=True)]
    row = np.repeat(np.arange(len(keys)), count).tolist()
    source = np.repeat(shard.source, count)
    start, end = members["offset"] - BLOCK, members["offset"] + members["size"]
    parted = (source[1:] != source[:-1]) | (start[1:] < end[:-1]) | (start[1:] - end[:-1] > NEAR)
    last = np.flatnonzero(np.append(parted, True)[: len(members)])  # each run's last member
    until = end[last][np.searchsorted(last, np.arange(len(members)))]
    table = (source, members["offset"], members["size"], members["name"], until, members["extension"])
    for i, (s, offset, size, check, u, e) in enumerate(zip(*(c.tolist() for c in table), strict=True)):
        yield _Move(f"{keys[row[i]]}.{shard.extensions[e]}", s, offset, size, check, u)


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
            raise self._changed(f"it was {source.identity} and is {now}")

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
                raise self._changed(f"it ends before byte {end}")
            got += n
        self.start, self.end, self.base = start, end, self.used
        self.used += len(part)

    def check(self, move: _Move) -> None:
        """The block before the data is the header that was indexed."""
        at = move.offset - BLOCK
        found = parse_block(bytes(self.read(at, move.offset, move.until)))
        if found is None or found[1] != move.size or (move.check and name_check(found[0]) != move.check):
            raise self._changed(f"the header at byte {at} is another")

    def _changed(self, how: str) -> DataError:
        path = self.sources[self.number].path
        return DataError(f"{path}: it changed since it was indexed: {how}. Put it back, or take another folder")

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()
        self.stream = None

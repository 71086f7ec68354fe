"""Copy members from tars into a new one: large reads, and each header checked before its bytes are believed."""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from . import storage
from .errors import DataError
from .reshard_plan import OutputShard, Source
from .shard_index import name_check
from .tar import BLOCK, END, header, pad, parse_block
from .uids import format_uids

WINDOW = 1 << 20  # bytes read at once
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
    written = 0
    window = _Window(shard.sources)
    try:
        for move in _moves(shard):
            window.open(move.source)
            window.check(move)
            out.write(header(move.name, move.size))
            at, end = move.offset, move.offset + move.size
            while at < end:
                at += out.write(window.read(at, min(end, at + WINDOW), move.until))
            out.write(pad(move.size))
        out.write(END)
        written = out.tell()
        window.verify()
    finally:
        window.close()
    return written


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
    """The one source that is open, and the bytes of it that were read last."""

    def __init__(self, sources: tuple[Source, ...]) -> None:
        self.sources = sources
        self.number = -1
        self.stream: BinaryIO | None = None
        self.buffer = memoryview(bytearray(2 * WINDOW))
        self.start = self.end = 0

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
        """Bytes [start, end) of the source, at most WINDOW + BLOCK; a read goes on towards `until`."""
        if start < self.start or end > self.end:
            self._fill(start, max(end, min(until, start + len(self.buffer))))
        return self.buffer[start - self.start : end - self.start]

    def _fill(self, start: int, end: int) -> None:
        assert self.stream is not None
        self.stream.seek(start)
        got = 0
        while got < end - start:
            n = self.stream.readinto(self.buffer[got : end - start])  # type: ignore[attr-defined]
            if not n:
                raise self._changed(f"it ends before byte {end}")
            got += n
        self.start, self.end = start, end

    def check(self, move: _Move) -> None:
        """The block before the data is the header that was indexed."""
        at = move.offset - BLOCK
        found = parse_block(bytes(self.read(at, move.offset, move.until)))
        if found is None or found[1] != move.size or (move.check and name_check(found[0]) != move.check):
            raise self._changed(f"the header at byte {at} is another")

    def _changed(self, how: str) -> DataError:
        path = self.sources[self.number].path
        return DataError(f"{path}: it changed since it was indexed: {how}. Put it back, or start again in another folder")

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()
        self.stream = None

"""Tar, strictly and without loss: a streaming parser that finds its way again after damage.

Nothing is ever extracted, links are never followed, and no header is believed beyond the bytes that
are there. Layout: POSIX.1-1988 (ustar), POSIX.1-2001 (PAX records), and GNU's long names.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from .tar_source import BLOCK, Source, checked

ZERO = bytes(BLOCK)
END = bytes(2 * BLOCK)
MAX_MEMBER = 1 << 30  # bytes; a larger member is passed over with its size stated and its data unread
WHOLE = MAX_MEMBER  # bytes of a member that are wanted: all
MAX_RECORDS = 1 << 20  # bytes of PAX records or of a long name
DIGITS = 20  # of a number in a PAX record: Python refuses to read one of thousands
KINDS = {0: "file", 48: "file", 55: "file", 49: "link", 50: "link", 53: "dir"}  # type flags \0 0 7 1 2 5


class Member(NamedTuple):
    """One entry. `header` and `offset` are byte positions in the tar, `size` the data's bytes."""

    name: str
    kind: str  # file | dir | link | other
    header: int  # where its first header block starts, PAX included
    offset: int
    size: int
    data: bytes  # as much of it as was wanted
    check: int  # crc32 of the block before the data: tells later whether this entry still stands there


class Gap(NamedTuple):
    """Bytes that are no entry: what they are in a word (`status`) and in a sentence."""

    offset: int
    size: int
    status: str  # empty | not_a_tar | corrupt_header | truncated | trailing_garbage | zero_blocks | no_end
    error: str


HARMLESS = frozenset({"zero_blocks", "no_end", "trailing_garbage"})  # gaps in which no member can have been


def members(stream: BinaryIO, want: Callable[[str], int] = lambda name: WHOLE) -> Iterator[Member | Gap]:
    """Entries and gaps of a tar, by position; of a file's data as many of its first bytes as `want(name)` says.

    Never raises on content. After a corrupt header it goes on at the next bytes that are a header
    (at any alignment), so one bad sector costs one member, not the rest of the shard.
    """
    return _Parser(stream, want).run()


class _Parser:
    def __init__(self, stream: BinaryIO, want: Callable[[str], int]) -> None:
        self.source = Source(stream)
        self.want = want
        self.zeros = 0  # zero blocks since the last entry
        self.entries = 0
        self.tail = 0  # where the last entry's data starts
        self.reread = 0  # bytes
        self.first: int | None = None  # where the PAX or long-name block of the coming entry starts
        self.long_name: str | None = None
        self.long_size: int | None = None

    def run(self) -> Iterator[Member | Gap]:
        source = self.source
        while True:
            at = source.at
            block = source.read(BLOCK)
            if len(block) < BLOCK:
                yield from self._end(at, len(block))
                return
            if block == ZERO:
                self.zeros += 1
                continue
            size = checked(block)
            if size is None:
                yield self._resync(at, block)
                continue
            if self.zeros:
                if self.entries:
                    yield Gap(
                        at - self.zeros * BLOCK, self.zeros * BLOCK, "zero_blocks", "end marks with more behind them"
                    )
                self.zeros = 0
            entry = self._entry(at, block, size)
            if entry is not None:
                yield entry

    def _entry(self, at: int, block: bytes, size: int) -> Member | Gap | None:
        flag = block[156]
        if flag in b"xgLK":
            return self._records(at, block, size)
        name = self.long_name if self.long_name is not None else _name(block)
        size = self.long_size if self.long_size is not None else size
        header = at if self.first is None else self.first
        kind = KINDS.get(flag, "other")
        size = size if kind == "file" else 0
        self.long_name = self.long_size = self.first = None
        padded = -(-size // BLOCK) * BLOCK
        offset = self.tail = self.source.at
        if self.source.left is not None and size > self.source.left:
            return self._overlong(at, name, size)
        data = b""
        wanted = min(size, self.want(name)) if kind == "file" and size <= MAX_MEMBER else 0
        if wanted:
            data = self.source.read(wanted)
            if len(data) < wanted:
                self.source.push(data)
                return self._overlong(at, name, size)
            self.source.skip(padded - wanted)
        else:
            self.source.skip(padded)
        self.entries += 1
        return Member(name, kind, header, offset, size, data, zlib.crc32(block))

    def _records(self, at: int, block: bytes, size: int) -> Gap | None:
        """A PAX header or a GNU long name: it describes the entry after it."""
        if size > MAX_RECORDS or (self.source.left is not None and size > self.source.left):
            return self._resync(at, block)
        data = self.source.read(size)
        self.source.skip(-size % BLOCK)
        self.first = at if self.first is None else self.first
        if block[156] == ord("L"):
            self.long_name = data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        elif block[156] == ord("x"):
            records = _pax(data)
            if "path" in records:
                self.long_name = records["path"]
            if len(stated := records.get("size", "")) <= DIGITS and stated.isdecimal():
                self.long_size = int(stated)
        return None

    def _resync(self, at: int, block: bytes) -> Gap:
        """Skip to the next header. `block` is what stood where a header should have been."""
        self._look_back(at, block)
        found = self.source.find_header()
        skipped = max(self.source.at - at, 0)
        self.first = self.long_name = self.long_size = None
        if not found and self.entries == 0:
            what = "it is gzip-compressed; unpack it first" if block[:2] == b"\x1f\x8b" else "no tar header in it"
            return Gap(at, skipped, "not_a_tar", f"not a tar: {what}")
        if not found and self.zeros >= 2:
            return Gap(at, skipped, "trailing_garbage", f"{skipped} bytes after the end marks are no tar")
        if self.source.at < at:
            why = f"no header at byte {at}: bytes are missing before it, and byte {self.source.at} is one"
            return Gap(self.source.at, 0, "corrupt_header", why)
        where = f"until byte {self.source.at}" if found else "to the end"
        return Gap(
            at, skipped, "corrupt_header", f"the header at byte {at} is damaged; {skipped} bytes were skipped {where}"
        )

    def _look_back(self, at: int, block: bytes) -> None:
        """To where a header can be: where bytes are missing, the entry before has taken the next one's for its data.

        No more is read twice than the tar is long, whatever its headers claim; a stream that cannot go back goes on.
        """
        self.reread += at - self.tail
        if self.source.end is not None and self.reread <= self.source.end:
            self.source.back(self.tail)
        else:
            self.source.push(block[1:])

    def _overlong(self, at: int, name: str, size: int) -> Gap:
        """An entry that claims more bytes than there are: cut short, or its header lies."""
        found = self.source.find_header()
        why = "its header is wrong" if found else "the file is cut short"
        status = "corrupt_header" if found else "truncated"
        return Gap(
            at, self.source.at - at, status, f"{name!r} at byte {at} claims {size} bytes, more than there are: {why}"
        )

    def _end(self, at: int, rest: int) -> Iterator[Gap]:
        if at == 0 and rest == 0:
            yield Gap(0, 0, "empty", "the file has no bytes")
        elif rest and not self.zeros:
            yield Gap(at, rest, "truncated", f"the file ends within a header at byte {at}")
        elif rest:
            yield Gap(at, rest, "trailing_garbage", f"{rest} bytes after the end marks are no tar")
        elif not self.zeros:
            yield Gap(at, 0, "no_end", "the file has no end mark; it may have been cut between two members")


def _name(block: bytes) -> str:
    name = block[:100].split(b"\0", 1)[0]
    if block[345] and block[257:263] == b"ustar\0":
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _pax(data: bytes) -> dict[str, str]:
    """Records `length key=value\\n`; what does not parse ends the list."""
    records: dict[str, str] = {}
    while data:
        length, _, _ = data.partition(b" ")
        if len(length) > DIGITS or not length.isdigit() or not 0 < int(length) <= len(data):
            break
        record, data = data[len(length) + 1 : int(length) - 1], data[int(length) :]
        key, _, value = record.partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
    return records


def pad(size: int) -> bytes:
    """The zeros after `size` bytes of data."""
    return bytes(-size % BLOCK)


def header(name: str, size: int) -> bytes:
    """The header block(s) of a file: owner 0, mode 0644, time 0, so that the same input gives the same bytes."""
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) <= 100 and size < 8**11:
        return _block(raw, size, b"0")
    records = _record(b"path", raw) + (_record(b"size", b"%d" % size) if size >= 8**11 else b"")
    pax = _block(b"PaxHeaders/" + raw[-80:].replace(b"/", b"_"), len(records), b"x") + records + pad(len(records))
    return pax + _block(raw[:100], min(size, 8**11 - 1), b"0")


def _record(key: bytes, value: bytes) -> bytes:
    base = len(key) + len(value) + 3
    total = base
    while base + len(b"%d" % total) != total:  # the length counts its own digits
        total = base + len(b"%d" % total)
    return b"%d %s=%s\n" % (total, key, value)


def _block(name: bytes, size: int, flag: bytes) -> bytes:
    fields = (name.ljust(100, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0", b"%011o\0" % size, b"00000000000\0")
    body = b"".join(fields) + b" " * 8 + flag + bytes(100) + b"ustar\00000" + bytes(32 + 32 + 8 + 8 + 155 + 12)
    return body[:148] + b"%06o\0 " % sum(body) + body[156:]

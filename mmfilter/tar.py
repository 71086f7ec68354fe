"""Tar, strictly and without loss: a streaming parser that finds its way again after damage.

Nothing is ever extracted, links are never followed, and no header is believed beyond the bytes that
are there. What the types of entries mean says `mmfilter.tar_entries`.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from .not_tar import is_container, recognise
from .tar_entries import (
    HARD_LINK,
    INHERITED,
    KINDS,
    MAX_MEMBER,
    RECORDS,
    SPARSE,
    UNREAD,
    WITHOUT_DATA,
    link_target,
    overridden,
    parse_records,
    place,
    stated_name,
)
from .tar_source import BLOCK, ZERO, Source, checked

END = bytes(2 * BLOCK)
WHOLE = MAX_MEMBER  # bytes of a member that are wanted: all
MAX_RECORDS = 1 << 26  # bytes of pax records or of a long name: an incremental dump lists a whole folder in them


class Member(NamedTuple):
    """One entry. `header` and `offset` are byte positions in the tar, `size` the data's bytes.

    A hard link to an earlier member is that member under another name: its offset, size, data and check.
    """

    name: str
    kind: str  # file | dir | link | sparse | continued | label | other
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


def members(
    stream: BinaryIO, want: Callable[[str], int] = lambda name: WHOLE, notes: Counter[str] | None = None
) -> Iterator[Member | Gap]:
    """Entries and gaps of a tar, by position; of a file's data as many of its first bytes as `want(name)` says.

    `notes` counts the files of unknown types (`member_unknown_type`).

    Never raises on content. After a corrupt header it goes on at the next bytes that are a header
    (at any alignment), so one bad sector costs one member, not the rest of the shard.
    """
    return _Parser(stream, want, Counter() if notes is None else notes).run()


class _Parser:
    def __init__(self, stream: BinaryIO, want: Callable[[str], int], notes: Counter[str], resolve: bool = True) -> None:
        self.source, self.notes = Source(stream), notes
        self.want = want
        self.resolve = resolve and self.source.end is not None
        self.zeros = 0  # zero blocks since the last entry
        self.entries = 0
        self.tail = 0  # where the data of the last entry or record starts
        self.reread = 0  # bytes
        self.first: int | None = None  # where the first header that describes the coming entry starts
        self.records: dict[str, str] = {}  # of the coming entry, by pax keyword
        self.inherited: dict[str, str] = {}  # of all entries to come
        self.places: dict[str, Member] | None = None  # earlier members without their data, once a hard link was seen

    def run(self) -> Iterator[Member | Gap]:
        source = self.source
        while True:
            at = source.at
            block = source.read(BLOCK)
            if len(block) < BLOCK:
                yield from self._end(at, block)
                return
            if block == ZERO:
                self.zeros += 1
                continue
            size = checked(block)
            if size is None:
                if at == 0 and is_container(block, source.last(4)):
                    yield self._foreign(block)
                    return
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
        if flag in RECORDS:
            return self._records(at, block, size)
        name, kind, header = stated_name(block), KINDS.get(flag) or self._unknown(), at
        records = self.records
        if self.first is not None or self.inherited:
            records = {**self.inherited, **records}
            name, size, kind = overridden(records, name, size, kind)
            header = at if self.first is None else self.first
            self.records, self.first = {}, None
        if kind == "file" and name.endswith("/"):
            kind = "dir"  # of a tar older than the type flags
        if flag == SPARSE:
            self._skip_map(block)
        if kind != "file" and size and (flag in WITHOUT_DATA or (kind == "dir" and flag != ord("D"))):
            size = 0 if self.source.at_header() else size
        source = self.source
        offset = self.tail = source.at
        if source.end is not None and size > source.end - offset:
            return self._overlong(at, name, size, kind)
        data = b""
        wanted = min(size, self.want(name)) if kind == "file" and size <= MAX_MEMBER else 0
        if wanted:
            data = source.read(wanted)
            if len(data) < wanted:
                source.push(data)
                return self._overlong(at, name, size, kind)
        source.skip(-(-size // BLOCK) * BLOCK - wanted)
        self.entries += 1
        member = Member(name, kind, header, offset, size, data, zlib.crc32(block))
        if flag == HARD_LINK and self.resolve:
            member = self._linked(at, member, link_target(records, block))
        if self.places is not None and member.kind != "link":
            self.places[place(name)] = member._replace(data=b"")
        return member

    def _unknown(self) -> str:
        self.notes["member_unknown_type"] += 1
        return "file"

    def _records(self, at: int, block: bytes, size: int) -> Gap | None:
        """A pax header or a GNU long name: it describes the entry after it, or all entries."""
        if size > MAX_RECORDS or (self.source.left is not None and size > self.source.left):
            return self._resync(at, block, sound=True)
        self.tail = self.source.at
        data = self.source.read(size)
        self.source.skip(-size % BLOCK)
        self.first = at if self.first is None else self.first
        records = parse_records(block[156], data)
        self.records.update(records)
        if block[156] == ord("g"):
            self.inherited.update({key: records[key] for key in INHERITED if key in records})
        return None

    def _skip_map(self, block: bytes) -> None:
        """Pass over the blocks that go on with the map of a GNU sparse file (POSIX's is in the records or the data)."""
        more = block[482]
        while more:
            block = self.source.read(BLOCK)
            more = block[504] if len(block) == BLOCK else 0

    def _linked(self, at: int, link: Member, target: str) -> Member:
        """The earlier member that a hard link names, under the link's name; the link itself where there is none.

        A file that was packed twice is a link to itself the second time: no member more.
        """
        here = self.source.at
        if self.places is None:
            self.places = self._members_before(at)
            self.source.back(here)
        found = self.places.get(place(target))
        itself = place(target) == place(link.name)
        if found is None or itself or (found.kind != "file" and found.kind not in UNREAD):
            return link
        data = b""
        if found.kind == "file" and found.size <= MAX_MEMBER and (wanted := min(found.size, self.want(link.name))):
            self.source.back(found.offset)
            data = self.source.read(wanted)
            self.source.back(here)
        return found._replace(name=link.name, header=link.header, data=data)

    def _members_before(self, at: int) -> dict[str, Member]:
        """Members that stand before the first hard link, by name, read again: few tars have one."""
        source = self.source
        source.stream.seek(source.start)
        places: dict[str, Member] = {}
        for entry in _Parser(source.stream, lambda name: 0, Counter(), resolve=False).run():
            if entry.offset > at:
                break
            if isinstance(entry, Member):
                places[place(entry.name)] = entry
        return places

    def _foreign(self, block: bytes) -> Gap:
        """A file that holds others in a form of its own: a header in it is no entry of a tar."""
        self.source.skip(self.source.left or 0)
        return Gap(0, self.source.at, "not_a_tar", f"not a tar: {recognise(block)}")

    def _resync(self, at: int, block: bytes, sound: bool = False) -> Gap:
        """Skip to the next header. `block` is what stood where one should have been, or is one that lies (`sound`)."""
        if sound:  # it would be found again
            self.source.push(block[1:])
        else:
            self._look_back(at, block)
        found = self.source.find_header()
        skipped = max(self.source.at - at, 0)
        self.first, self.records = None, {}
        if not found and self.entries == 0:
            return Gap(at, skipped, "not_a_tar", f"not a tar: {recognise(block) or 'no tar header is in it'}")
        if not found and self.zeros >= 2:
            return Gap(at, skipped, "trailing_garbage", f"{skipped} bytes after the end marks are no tar")
        if self.source.at < at:
            why = f"no header at byte {at}: bytes are missing before it, and byte {self.source.at} is one"
            return Gap(self.source.at, 0, "corrupt_header", why)
        where = f"until byte {self.source.at}" if found else "to the end"
        why = f"the header at byte {at} is damaged; {skipped} bytes were skipped {where}"
        return Gap(at, skipped, "corrupt_header", why)

    def _look_back(self, at: int, block: bytes) -> None:
        """To where a header can be: where bytes are missing, the entry before has taken the next one's for its data.

        No more is read twice than the tar is long, whatever its headers claim; a stream that cannot go back goes on.
        """
        self.reread += at - self.tail
        if self.source.end is not None and self.reread <= self.source.end:
            self.source.back(self.tail)
        else:
            self.source.push(block[1:])

    def _overlong(self, at: int, name: str, size: int, kind: str) -> Gap:
        """An entry that claims more bytes than there are: cut short, or its header lies."""
        found = self.source.find_header()
        why = "its header is wrong" if found else "the file is cut short"
        if kind == "continued" and not found:
            why = "it goes on in another volume (tar -M); join the volumes into one tar first"
        status = "corrupt_header" if found else "truncated"
        error = f"{name!r} at byte {at} claims {size} bytes, more than there are: {why}"
        return Gap(at, self.source.at - at, status, error)

    def _end(self, at: int, block: bytes) -> Iterator[Gap]:
        rest = len(block)
        if at == 0 and rest == 0:
            yield Gap(0, 0, "empty", "the file has no bytes")
        elif at == 0 and (what := recognise(block)):
            yield Gap(0, rest, "not_a_tar", f"not a tar: {what}")
        elif rest and not self.zeros:
            yield Gap(at, rest, "truncated", f"the file ends within a header at byte {at}")
        elif rest:
            yield Gap(at, rest, "trailing_garbage", f"{rest} bytes after the end marks are no tar")
        elif not self.zeros:
            yield Gap(at, 0, "no_end", "the file has no end mark; it may have been cut between two members")


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

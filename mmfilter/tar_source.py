"""The bytes of a tar: a stream with a position, that can look for a header and take bytes back."""

import io
import re
import zlib
from typing import BinaryIO

BLOCK = 512
ZERO = bytes(BLOCK)
CHUNK = 1 << 20
NUMBER = re.compile(rb"[ \0]*([0-7]+)[ \0]")  # what stands behind the digits of a field counts for nothing


class Source:
    """A stream with a position, what is left of it (None: unknown), and bytes pushed back."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream: BinaryIO = stream
        self.at = 0
        self.end: int | None = None
        self.pushed = b""
        if stream.seekable():
            self.start = stream.tell()
            self.end = stream.seek(0, io.SEEK_END) - self.start
            stream.seek(self.start)

    @property
    def left(self) -> int | None:
        return None if self.end is None else self.end - self.at

    def read(self, n: int) -> bytes:
        """Up to n bytes; fewer only at the end."""
        if not self.pushed:
            data = self.stream.read(n)
        else:
            data, self.pushed = self.pushed[:n], self.pushed[n:]
        if len(data) < n:
            data = self._rest(data, n)
        self.at += len(data)
        return data

    def _rest(self, data: bytes, n: int) -> bytes:
        parts, have = [data], len(data)
        while have < n:  # in pieces: what a header claims is not allocated before it is there
            part = self.stream.read(min(n - have, CHUNK))
            if not part:
                break
            parts.append(part)
            have += len(part)
        return b"".join(parts)

    def push(self, data: bytes) -> None:
        """Give back what was read last."""
        self.pushed = data + self.pushed
        self.at -= len(data)

    def back(self, to: int) -> None:
        """Return to an earlier position of a stream that can."""
        self.stream.seek(self.start + to)
        self.pushed, self.at = b"", to

    def last(self, n: int) -> bytes:
        """The last n bytes of a stream that can go there; none of another."""
        if self.end is None:
            return b""
        here = self.stream.tell()
        self.stream.seek(self.start + max(self.end - n, 0))
        data = self.stream.read(n)
        self.stream.seek(here)
        return data

    def at_header(self) -> bool:
        """Whether no data stands here but a header, an end mark, or nothing more."""
        block = self.read(BLOCK)
        self.push(block)
        return block in (b"", ZERO) or checked(block) is not None

    def skip(self, n: int) -> None:
        if self.end is not None and not self.pushed:
            n = min(n, self.end - self.at)
            if n > 0:
                self.stream.seek(n, io.SEEK_CUR)
                self.at += n
            return
        while n > 0 and (part := self.read(min(n, CHUNK))):
            n -= len(part)

    def find_header(self) -> bool:
        """Move to the next bytes that are a header: by magic and checksum anywhere, by checksum alone (a header older
        than the magic) at whole blocks from the start. To the end when there are none.
        """
        window = b""
        while True:
            part = self.read(CHUNK)
            window += part
            start = _header_in(window, -(self.at - len(window)) % BLOCK)
            if start >= 0:
                self.push(window[start:])
                return True
            if not part:
                return False
            window = window[-(2 * BLOCK) :]  # enough for a header that straddles two chunks


def _header_in(window: bytes, aligned: int) -> int:
    """Where the first header starts, or -1; `aligned` is the first place where a block of the tar does."""
    last = len(window) - BLOCK
    blocks = range(aligned, last + 1, BLOCK)
    old = next((start for start in blocks if checked(window[start : start + BLOCK]) is not None), -1)
    last = last if old < 0 else old
    at = window.find(b"ustar")
    while 0 <= at <= last + 257:
        if at >= 257 and checked(window[at - 257 : at - 257 + BLOCK]) is not None:
            return at - 257
        at = window.find(b"ustar", at + 1)
    return old


def checked(block: bytes) -> int | None:
    """The size a header states, or None when the block is no sound header."""
    try:
        try:
            stated = int(block[148:156].strip(b" \0") or b"x", 8)
        except ValueError:
            stated = _number(block[148:156])
        # Adler-32's low half is the bytes' sum modulo 65521, plus 1: a tenth of sum()'s time
        over = ((zlib.adler32(block) & 0xFFFF) - 1 - sum(block[148:156]) + 256 - stated) % 65521
        if over and over != _signed(block):
            return None
        if block[124] & 0x80:  # GNU's base-256, for 8 GiB and more
            return int.from_bytes(block[125:136], "big") if block[124] == 0x80 else None
        size = block[124:136].strip(b" \0") or b"0"
        return int(size, 8) if size.isdigit() else _number(block[124:136])  # int() would take a sign, "_" and "0o"
    except ValueError:
        return None


def _number(field: bytes) -> int:
    """The octal digits at the start of a header's field. Raises ValueError where it begins otherwise."""
    match = NUMBER.match(field)
    if match is None:
        raise ValueError("no octal number")
    return int(match[1], 8)


def _signed(block: bytes) -> int:
    """What the sum is less, modulo 65521, for writers of old that took bytes for signed."""
    return 256 * sum(byte >= 0x80 for byte in block[:148] + block[156:]) % 65521

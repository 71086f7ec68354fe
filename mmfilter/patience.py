"""Local files on disks and networks that fail for a moment: what may pass is asked again, three times with pauses.

An OSError that comes out of here is an answer about the path (`errors.ANSWERS`). What is the environment's fault is a
MachineError, so that no handler of OSErrors takes it for a finding.
"""

import errno
import io
import os
import random
import stat
import time
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO, TypeVar

from .errors import SHORT, TRANSIENT, NoFile, TransientError, cannot_write, is_of_environment, unreadable

T = TypeVar("T")

PAUSES = (0.5, 3.0)  # seconds, at most, after the first and after the second failure
BUFFER = 1 << 14  # bytes
AGAIN = SHORT | TRANSIENT
CHANGED = "it was replaced while it was read"
_random = random.Random()  # its own: nobody's seed is disturbed


def patiently(call: Callable[[], T], path: str, writes: bool = False, between: Callable[[int], Any] | None = None) -> T:
    """`call()`, tried again after a random pause where what it raises may pass; `between` hears of the errno before.

    Raises MachineError naming `path` for what is the environment's fault, and any other OSError as it is.
    """
    for pause in (*PAUSES, None):
        try:
            return call()
        except OSError as error:
            if not is_of_environment(error):
                raise
            if pause is None or error.errno not in AGAIN:
                raise (cannot_write if writes else unreadable)(path, error) from error
            number = error.errno
        time.sleep(_random.uniform(pause / 2, pause))
        if between is not None and number is not None:
            between(number)
    raise AssertionError


def open_patiently(path: str) -> BinaryIO:
    """A binary stream whose reads are tried again. Raises FileNotFoundError and other answers, MachineError."""
    return io.BufferedReader(PatientFile(path), BUFFER)


def _open_without_waiting(path: str, flags: int) -> int:
    """`os.open` that does not wait for somebody to write into a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _told(file: Any) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


class PatientFile(io.RawIOBase):
    """A local file, read without a buffer. After ESTALE (its server has let go of the handle) it is opened again."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file: Any = patiently(self._open, path)
        self.at_open: tuple[int, int] = patiently(lambda: _told(self.file), path)
        self.can_seek: bool = self.file.seekable()

    def _open(self) -> Any:
        file = open(self.path, "rb", buffering=0, opener=_open_without_waiting)  # noqa: SIM115
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise NoFile(errno.EINVAL, "it is a pipe or a device, not a file", self.path)
        return file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self.can_seek

    def tell(self) -> int:
        return int(self.file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)  # asks no disk

    def readinto(self, buffer: Any) -> int | None:
        try:
            return self.file.readinto(buffer)
        except OSError as error:
            return self._again(error, lambda: self.file.readinto(buffer))

    def readall(self) -> bytes:
        try:
            return self.file.readall()
        except OSError as error:
            return self._again(error, lambda: self.file.readall())

    def _again(self, error: OSError, call: Callable[[], T]) -> T:
        """The two tries that are left after `error`, from where the file was."""
        first: list[OSError] = [error]
        at = self.tell() if self.can_seek else None

        def once() -> T:
            if first:
                raise first.pop()
            if at is not None:
                self.file.seek(at)
            return call()

        return patiently(once, self.path, between=self._reopen)

    def _reopen(self, number: int) -> None:
        """The file anew where its handle is stale. Raises TransientError where another stands there by now."""
        if number != errno.ESTALE:
            return
        file = patiently(self._open, self.path)
        if _told(file) != self.at_open:
            file.close()
            raise TransientError(f"{self.path}: {CHANGED}; the same command goes on from here")
        self.file.close()
        self.file = file

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


class PatientWriter(io.RawIOBase):
    """A new local file, written without a buffer."""

    def __init__(self, path: str, becomes: str) -> None:
        self.path = becomes  # what messages name
        self.file: Any = patiently(partial(open, path, "wb", buffering=0), becomes, writes=True)

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self.file.fileno())

    def tell(self) -> int:
        return int(self.file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self.file.seek(offset, whence))

    def truncate(self, size: int | None = None) -> int:
        return int(self.file.truncate(size))

    def write(self, data: Any) -> int:
        return patiently(lambda: self.file.write(data), self.path, writes=True)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.file.close()

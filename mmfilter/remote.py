"""Object stores (`s3://`, `gs://`, `hf://`, through fsspec): every call is tried again while the store is
unwell, an answer that is too short is no answer, and what cannot be had is an error, never an absence.

fsspec's own `exists` and `glob` say "not there" when a listing fails, and its files publish what was
written so far when the writer fails; a run that believed them would lose samples.
"""

import errno
import io
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar

from .errors import StoreError, StoreRefusal, need
from .schemes import EXTRAS, check_scheme

T = TypeVar("T")

TRIES = 8
FIRST_WAIT, MAX_WAIT = 0.5, 20.0  # seconds; the most that is waited after the first and after any try
SPAN, MAX_SPAN = 1 << 16, 1 << 23  # bytes asked for at once: after a seek, and at most when read on in order
BOTO = {"retries": {"mode": "standard", "total_max_attempts": 3}}  # of each request; `retrying` is around them
ANSWERS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
HOPELESS = (PermissionError, NotImplementedError, TypeError, ValueError, AttributeError)
HOPELESS_NUMBERS = {errno.EPERM, errno.ENOSYS, errno.ENAMETOOLONG}


class ChangedError(StoreError):
    """An object that was replaced while it was read."""


_random = random.Random()  # its own: nobody's seed is disturbed


def filesystem(path: str) -> Any:
    """The fsspec filesystem of a remote `path`, which remembers no listing. Raises MissingDependency, UsageError."""
    import fsspec

    check_scheme(path)
    scheme = path.split("://", 1)[0]
    if scheme in EXTRAS:
        need(EXTRAS[scheme], EXTRAS[scheme])
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "s3":
        options["config_kwargs"] = {**BOTO, **fsspec.config.conf.get("s3", {}).get("config_kwargs", {})}
    fs = fsspec.filesystem(scheme, **options)
    if scheme == "s3":
        fs.retries = 1  # its own wait without jitter; botocore's and `retrying` are enough
    return fs


def retrying(call: Callable[[], T], path: str) -> T:
    """`call()`, tried again after a random wait ("full jitter", Brooker 2015, AWS Architecture Blog).

    Raises FileNotFoundError and FileExistsError, which are answers, at once; StoreError for what no
    waiting mends (access denied), and for the last of `TRIES` failures.
    """
    for left in reversed(range(TRIES)):
        try:
            return call()
        except StoreError:
            raise
        except Exception as failed:
            error = _failure(failed)
            if isinstance(error, ANSWERS):
                raise
            if _status(error) == 412:
                raise FileExistsError(errno.EEXIST, "another object stands there", path) from error
            if _hopeless(error):
                raise (StoreRefusal if _refused(error) else StoreError)(f"{path}: {_told(error)}") from error
            if not left:
                raise StoreError(
                    f"{path}: the store failed {TRIES} times, at last with: {_told(error)}. "
                    "The same command goes on from here"
                ) from error
        time.sleep(_random.uniform(0, min(MAX_WAIT, FIRST_WAIT * 2 ** (TRIES - 1 - left))))
    raise AssertionError


def _failure(error: Exception) -> Exception:
    """What went wrong: fsspec's web client says "no such file" of a server that does not answer or refuses, too."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    unanswered = isinstance(cause, OSError) and not isinstance(cause, ANSWERS)
    return cause if unanswered or getattr(cause, "status", 404) not in (404, 410) else error


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error of a store's client, where it tells."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return None


def _hopeless(error: Exception) -> bool:
    numbered = isinstance(error, OSError) and error.errno in HOPELESS_NUMBERS
    asked_wrong = type(error).__name__.endswith("ParamValidationError") or getattr(error, "status", 0) in (400, 405)
    return isinstance(error, HOPELESS) or numbered or asked_wrong or _refused(error)


def _refused(error: Exception) -> bool:
    """Whether the store says no to whoever asks, or there are no credentials to ask with."""
    named = type(error).__name__.endswith(("CredentialsError", "ProfileNotFound"))
    return isinstance(error, PermissionError) or named or getattr(error, "status", 0) in (401, 403, 451)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def info(path: str) -> dict[str, Any] | None:
    """fsspec's details of an object or folder (`size`, `type`, `ETag`, ...); None where nothing is."""
    fs = filesystem(path)
    try:
        return dict(retrying(lambda: fs.info(path), path))
    except FileNotFoundError:
        return None


def remove(path: str) -> None:
    """Delete an object; one that is not there is well."""
    fs = filesystem(path)
    try:
        retrying(lambda: fs.rm_file(path), path)
    except FileNotFoundError:
        pass


@contextmanager
def upload(path: str) -> Iterator[BinaryIO]:
    """A local temporary file that becomes the object when the block ends well; else nothing is sent."""
    with tempfile.NamedTemporaryFile(prefix="mmfilter-") as stream:
        yield stream  # type: ignore[misc]
        stream.flush()
        fs = filesystem(path)
        retrying(lambda: fs.put_file(stream.name, path), path)


def create(path: str, data: bytes) -> bool:
    """Put `data` where nothing stands (S3: `If-None-Match: *`); False when something else does.

    The same bytes are taken for ours: an answer can be lost after the put was done. Atomic on S3 and
    Google Cloud Storage; elsewhere fsspec looks first and then writes.
    """
    fs = filesystem(path)
    try:
        retrying(lambda: fs.pipe_file(path, data, mode="create"), path)
    except FileExistsError:
        return _holds(path, data)
    return True


def replace(path: str, data: bytes, tag: str) -> bool:
    """Put `data` where the object with the ETag `tag` stands (S3: `If-Match`); False when it is another or gone."""
    fs = filesystem(path)
    try:
        retrying(lambda: fs.pipe_file(path, data, IfMatch=tag), path)
    except (FileExistsError, FileNotFoundError):
        return _holds(path, data)
    return True


def _holds(path: str, data: bytes) -> bool:
    try:
        with open_read(path) as stream:
            return stream.read() == data
    except (FileNotFoundError, ChangedError):
        return False


def open_read(path: str) -> BinaryIO:
    """A stream over ranged requests, or the store's own stream where it tells no size. Raises FileNotFoundError."""
    fs = filesystem(path)
    file = retrying(lambda: fs.open(path, "rb", cache_type="none"), path)
    if getattr(file, "size", None) is None:
        return file
    return io.BufferedReader(RangedFile(file, path), SPAN)


class RangedFile(io.RawIOBase):
    """An object's bytes by ranges: little after a seek, ever more when it is read on in order.

    On S3 every range carries `If-Match`, so that two versions of an object are never mixed.
    """

    def __init__(self, file: Any, path: str) -> None:
        self.file, self.path, self.length = file, path, int(file.size)
        self.at = 0
        self.start, self.window = 0, b""  # `window` holds the object's bytes from `start` on
        self.span = SPAN

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.length}[whence]
        self.at = max(0, base + offset)
        return self.at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self.length - self.at)
        if wanted <= 0:
            return 0
        if not self.start <= self.at < self.start + len(self.window):
            self._fill(wanted)
        part = self.window[self.at - self.start :][:wanted]
        buffer[: len(part)] = part
        self.at += len(part)
        return len(part)

    def readall(self) -> bytes:
        data = bytearray(max(0, self.length - self.at))
        done = 0
        while done < len(data):
            self.span = MAX_SPAN
            done += self.readinto(memoryview(data)[done:])
        return bytes(data)

    def _fill(self, wanted: int) -> None:
        read_on = self.at == self.start + len(self.window)
        self.span = min(2 * self.span, MAX_SPAN) if read_on else SPAN
        end = min(self.length, self.at + max(self.span, min(wanted, MAX_SPAN)))
        self.window, self.start = retrying(lambda: self._range(self.at, end), self.path), self.at

    def _range(self, start: int, end: int) -> bytes:
        try:
            self.file.seek(start)
            data = bytes(self.file.read(end - start))
        except OSError as error:
            if type(error).__name__ == "FileExpired" or _status(error) == 412:
                raise ChangedError(f"{self.path}: it changed while it was read; run again") from error
            raise
        if len(data) != end - start:
            raise OSError(errno.EIO, f"{len(data)} of {end - start} bytes came")
        return data

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()

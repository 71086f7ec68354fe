"""Errors that say what failed, where, and what to do next; the CLI prints them without a traceback."""

import difflib
import errno
import importlib
import os
from collections.abc import Iterable
from types import ModuleType

OK, FAILED, USAGE, SET_ASIDE, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes
COPY = "`mmfilter recipe copy NAME` writes a packaged recipe to a file of yours"  # in what asks to change a recipe
OF_DEVICE = ("out of memory", "allocate memory", "CUDA", "cuDNN", "NCCL")  # in torch's RuntimeErrors


def _numbers(names: str) -> frozenset[int]:
    """The errnos of these names that this system knows."""
    return frozenset(getattr(errno, name) for name in names.split() if hasattr(errno, name))


ABSENT = _numbers("ENOENT ENOTDIR")
ANSWERS = ABSENT | _numbers("EISDIR EEXIST ENOTEMPTY EINVAL ENAMETOOLONG ELOOP ENXIO ESPIPE EILSEQ EXDEV")
"""Errnos that say what stands at a path, or what was asked of it. Every other errno is the environment's fault."""

TRANSIENT = _numbers(
    "EIO ESTALE ETIMEDOUT EREMOTEIO EAGAIN EINTR EBUSY EDEADLK ENOLCK ENOLINK ECOMM EPROTO EBADMSG EUCLEAN ENODATA "
    "ETIME ECONNRESET ECONNABORTED ECONNREFUSED ENETUNREACH ENETDOWN ENETRESET EHOSTDOWN EHOSTUNREACH ENOBUFS"
)
"""Errnos that may pass, or are of one file alone: tried three times, then the attempt has failed, and others go on."""

NO_ROOM = _numbers("ENOSPC EDQUOT EROFS EFBIG")
"""Errnos of writing alone."""

SHORT = _numbers("EMFILE ENFILE ENOMEM")
"""Errnos of a machine of which too much is asked at a time. What is in none of the three stops the job."""


class MMFilterError(Exception):
    """Something the user can act on. The message is one or two plain sentences."""

    exit_code = FAILED


class UsageError(MMFilterError):
    """The request itself is wrong: a flag, a recipe, a path pattern."""

    exit_code = USAGE


class DataError(MMFilterError):
    """An input is not what it says it is (a corrupt file, a missing column, a gap)."""


class ConflictError(MMFilterError):
    """What is on disk was made from something else; going on would mix the two."""


class StoreError(MMFilterError):
    """An object store kept failing however long it was asked; it says nothing about what it holds."""


class StoreRefusal(StoreError):
    """An object store denies access; waiting does not mend it."""


class MachineError(MMFilterError):
    """A disk, a mount or the set-up keeps a path from being read or written; it says nothing about the data."""


class TransientError(MachineError):
    """One that may pass, or is of one file alone."""


class ShortageError(MachineError):
    """The machine has no memory, or no file handle, left for so much at a time."""


class NotFetched(MMFilterError):
    """Weights that are not on this machine and could not be fetched; the message says what to fetch."""


class MissingDependency(MMFilterError):
    """An optional package is not installed; the message is the pip command that mends it."""


class NoFile(OSError):
    """A local path that is a pipe or a device: reading it may wait for ever, or never end."""


def is_of_machine(error: BaseException) -> bool:
    """Whether an error met while a sample was read says nothing about the sample: memory, disk, device, set-up.

    Pillow raises OSError about bytes too, then without a number.
    """
    if isinstance(error, (MemoryError, MMFilterError, ImportError)) or not isinstance(error, Exception):
        return True
    if isinstance(error, OSError):
        return error.errno is not None
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in OF_DEVICE)


def short_reason(error: BaseException) -> str:
    """The kind of an error that nothing foresaw, and the start of what it says."""
    return f"{type(error).__name__}: {str(error)[:120]}"


def is_of_environment(error: BaseException) -> bool:
    """Whether an OSError, or a MemoryError, is the environment's fault and says nothing of what is at the path."""
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in ANSWERS
    return isinstance(error, MemoryError)


def check_environment(path: str, error: BaseException) -> None:
    """Raise the MachineError that `error`, met while `path` was read, amounts to; nothing where it is the data's.

    The first line of a handler that takes what it caught for a finding.
    """
    if is_of_environment(error):
        raise unreadable(path, error) from error


def named(error: BaseException) -> str:
    """What the system says, and the errno's name: `Input/output error, EIO`."""
    number = getattr(error, "errno", None)
    if number is None:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{getattr(error, 'strerror', None) or os.strerror(number)}, {errno.errorcode.get(number, number)}"


def _kind(error: BaseException) -> type[MachineError]:
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number in SHORT:
        return ShortageError
    return TransientError if number in TRANSIENT else MachineError


CURES = {
    MachineError: "check the mount, the permissions and the room",
    TransientError: "check the mount, the disk and the network",
    ShortageError: "give it fewer --workers or --threads, close other programs, or raise the limit (ulimit)",
}


def cannot_write(path: str, error: OSError) -> MachineError:
    """What is raised in place of an OSError met while writing `path`."""
    kind = _kind(error)
    cure = f"{CURES[kind][0].upper()}{CURES[kind][1:]}"
    return kind(f"{path}: cannot be written ({named(error)}). {cure}; the same command goes on from here")


def unreadable(path: str, error: BaseException) -> MachineError:
    """What is raised where the environment, and not the data, keeps a path from being read."""
    kind = _kind(error)
    return kind(
        f"{path}: exists or may exist, but cannot be read ({named(error)}). That says nothing about the data, and "
        f"nothing was recorded; {CURES[kind]}, then run the same command again"
    )


def of_environment(error: OSError | MemoryError, otherwise: str) -> MachineError:
    """What is raised in place of an error of the environment that names no more than a file, or not even that."""
    writes = getattr(error, "errno", None) in NO_ROOM
    path = str(getattr(error, "filename", None) or otherwise)
    return cannot_write(path, error) if writes else unreadable(path, error)  # type: ignore[arg-type]


def nearest(word: str, words: Iterable[str]) -> str:
    """How a sentence about an unknown `word` ends: ``"; did you mean 'x'?"``, the closest of `words`, or ``"."``."""
    known, word = {w.lower(): w for w in sorted(words)}, word.lower()
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5) or [w for w in known if word and word in w]
    return f"; did you mean '{known[close[0]]}'?" if close else "."


def need(module: str, pip: str) -> ModuleType:
    """Import an optional `module`, or raise `MissingDependency` with the pip command.

    `pip` is what to install: ``mmfilter[download]`` or a package's name.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingDependency(f"{module} is not installed. Run: pip install '{pip}'") from error

"""Errors that say what failed, where, and what to do next; the CLI prints them without a traceback."""

import difflib
import errno
import importlib
from collections.abc import Iterable
from types import ModuleType

OK, FAILED, USAGE, SET_ASIDE, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes
COPY = "`mmfilter recipe copy NAME` writes a packaged recipe to a file of yours"  # in what asks to change a recipe
OF_DEVICE = ("out of memory", "allocate memory", "CUDA", "cuDNN", "NCCL")  # in torch's RuntimeErrors
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}  # the disk's fault, and no shard's


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
    """An object store refuses, or kept failing however long it was asked; it says nothing about what it holds."""


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


def cannot_write(path: str, error: OSError) -> MMFilterError:
    """What is raised in place of an OSError met while writing `path`."""
    return MMFilterError(f"{path}: cannot be written ({error.strerror or error}). The same command goes on from here")


def unreadable(path: str, error: OSError) -> MMFilterError:
    """What is raised where the environment, and not the data, keeps a path from being read."""
    return MMFilterError(
        f"{path}: exists or may exist, but cannot be read ({error.strerror or error}). Nothing was recorded; check the "
        "mount and the permissions, then run the same command again"
    )


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

"""What a user gives to `--pool`: folders, brace patterns, globs and plain paths, and which shards they name.

What exists is taken as it is, whatever characters it has: a whole path, and the folder that a pattern is in. Only what
is left is a pattern. No other path of a command is one.
"""

import glob as local
import math
import posixpath
import re
from collections.abc import Iterable

from . import listings
from .errors import UsageError
from .folders import is_tar
from .paths import ShardPath, exists, files_below, is_remote, isdir, join, names, stem

MOST_SHARDS = 10_000_000  # of a brace pattern
RANGE = re.compile(r"\{(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.-?\d+)?\}")
GLOB, SPECIAL = "*?[", "*?[{"
JOINED = 8  # words between `::` that are tried as one path


def expand(patterns: str | Iterable[str]) -> list[str]:
    """Shard paths named by brace patterns, globs, folders (their `*.tar`) or plain paths, in order.

    ``shards/{000..007}.tar``, ``s3://bucket/pool/*.tar``, ``pool/``, several joined by ``::``. A folder without a tar
    of its own is searched below. Nothing is run and nothing is fetched: WebDataset's ``pipe:`` URLs are refused. A
    path or folder that exists is taken as it is, whatever characters it has. A glob or folder that matches nothing is
    an error; a plain path that does not exist is kept.

    A shard's name (`stem`) is its path below the pattern's fixed part without `.tar`, with ``__`` for ``/``.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    paths: list[str] = []
    for given in patterns:
        if isinstance(given, ShardPath):  # expanded before
            paths.append(given)
            continue
        for pattern in split(given):
            if pattern.startswith("pipe:"):
                raise UsageError(f"{pattern}: 'pipe:' runs a shell command and is never opened; mount or copy the data")
            folder, rest = divide(pattern)
            root = _fixed_part(folder, rest)
            for below in _braces(folder, rest):
                paths.extend(_named(path, root) for path in _matches(folder, below))
    if not paths:
        raise UsageError("the pool is empty: no pattern was given")
    return paths


def split(pattern: str) -> list[str]:
    """The patterns that WebDataset's `a::b` joins; a local path or folder that exists is not taken apart."""
    if isinstance(pattern, ShardPath) or "::" not in pattern:
        return [pattern]
    words, found = pattern.split("::"), []
    while words:
        several = range(min(len(words), JOINED), 1, -1)
        count = next((n for n in several if _holds_marks(words[:n])), 1)
        found.append("::".join(words[:count]))
        words = words[count:]
    return found


def _holds_marks(words: list[str]) -> bool:
    """Whether the words joined by `::` are a local path that exists, or are in a folder that does."""
    path = "::".join(words)
    end = path.find("/", path.rfind("::"))
    return not is_remote(path) and (exists(path) or (end > 0 and isdir(path[:end])))


def braces(pattern: str) -> list[str]:
    """The paths that a brace pattern names, or the pattern itself. Raises UsageError on one of too many shards, and
    on a brace that is opened and not closed, or the other way round.
    """
    folder, rest = divide(pattern)
    return [folder + path for path in _braces(folder, rest)] if rest else [folder]


def _braces(folder: str, rest: str) -> list[str]:
    """What `rest` names below `folder`."""
    from braceexpand import braceexpand

    if not any(c in rest for c in "{}\\"):
        return [rest]
    _bounded(folder, rest)
    try:
        return list(braceexpand(rest))
    except ValueError as error:
        raise UsageError(f"{folder}{rest}: a brace is opened and not closed, or the other way round") from error


def _bounded(folder: str, rest: str) -> None:
    """Raise UsageError on a brace pattern of more shards than any pool has: they would be listed in memory."""
    count = math.prod(abs(int(b) - int(a)) + 1 for a, b in RANGE.findall(rest))
    if count > MOST_SHARDS:
        raise UsageError(f"{folder}{rest}: names {count:,} shards, more than {MOST_SHARDS:,}; give a narrower pattern")


def divide(pattern: str) -> tuple[str, str]:
    """(what is taken as it is, what is a pattern): a whole path that exists and "", or a folder up to its `/` and the
    rest. The folder is the deepest one that exists, or what is before the first special character.
    """
    if isinstance(pattern, ShardPath):
        return pattern, ""
    first = min((pattern.find(c) for c in SPECIAL if c in pattern), default=-1)
    if first < 0:
        end = pattern.rfind("/") + 1
        return (pattern, "") if _is_here(pattern) else (pattern[:end], pattern[end:])
    if exists(pattern):
        return pattern, ""
    end = len(pattern)
    while (end := pattern.rfind("/", 0, end)) > first:
        if isdir(pattern[:end]):
            return pattern[: end + 1], pattern[end + 1 :]
    end = pattern.rfind("/", 0, first) + 1
    return pattern[:end], pattern[end:]


def _is_here(path: str) -> bool:
    return not is_remote(path) and exists(path)


def glob(pattern: str) -> list[str]:
    """Sorted paths that match a glob; a remote one keeps its scheme. What `divide` takes as it is is no pattern."""
    folder, rest = divide(pattern)
    if not rest:
        return [folder]
    if not is_remote(pattern):
        return sorted(local.glob(local.escape(folder) + rest, recursive=True))
    return listings.glob(folder, rest)


def _fixed_part(folder: str, rest: str) -> str:
    """The folder that a divided pattern's shards are below, which their names are relative to."""
    if not rest:
        return folder if isdir(folder) else posixpath.dirname(folder)
    if any(c in rest for c in SPECIAL) or is_tar(rest):
        return folder.rstrip("/") or folder
    return (folder + rest).rstrip("/")


def _named(path: str, root: str) -> str:
    """`path`, which knows its name where that is not its file's."""
    folder = posixpath.dirname(path)
    below = _below(folder, root) if is_remote(path) else posixpath.relpath(folder or ".", root or ".")
    if below in (".", "") or below.startswith(".."):
        return path
    return ShardPath(path, f"{below.replace('/', '__')}__{stem(path)}")


def _below(folder: str, root: str) -> str:
    return folder[len(root) :].strip("/") if folder.startswith(root) else ""


def _matches(folder: str, below: str) -> list[str]:
    path = folder + below if below else folder  # which may know its name
    if any(c in below for c in GLOB) and divide(path)[1]:
        return _tars_of(path, glob(path))
    if is_tar(path) or not isdir(path):
        return [path]
    found = tars(path)
    if not found:
        raise UsageError(f"{path}: no shard matches; give .tar files, a folder that holds them, or a pattern")
    return found


def _tars_of(pattern: str, matches: list[str]) -> list[str]:
    """The files named .tar of what a glob matches. Raises UsageError where there is none."""
    found = [path for path in matches if is_tar(path) and (is_remote(path) or not isdir(path))]
    if found:
        return found
    if matches:
        raise UsageError(
            f"{pattern}: matches no .tar file ({len(matches):,} others, the first of them {matches[0]}); "
            "give a pattern that ends in '*.tar'"
        )
    raise UsageError(f"{pattern}: no shard matches; give .tar files, a folder that holds them, or a pattern")


def tars(folder: str) -> list[str]:
    """The sorted tars in a folder, or, where it has none itself, in all folders below."""
    own = [join(folder, name) for name in names(folder) if is_tar(name)]
    return own or [path for path in files_below(folder) if is_tar(path)]

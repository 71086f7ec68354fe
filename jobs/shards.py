"""The shards that `--pool` names: found, counted, and refused before any work where some do not exist."""

import itertools
import os
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mmfilter import patterns, storage
from mmfilter.errors import UsageError, unreadable
from mmfilter.folders import is_tar
from mmfilter.hints import nearest_beside
from mmfilter.patience import patiently
from mmfilter.presence import absent
from mmfilter.reshard_files import check_pool
from mmfilter.text import valid_text

from .outdir import absolute

SHOWN = 5  # missing shards that a message names


@dataclass(frozen=True)
class Shards:
    """`paths` exist, as far as a listing tells, in order; `missing` were named and do not exist."""

    paths: list[str]
    missing: list[str]


def find_shards(pool: list[str], allow_missing: bool = False, namesakes: bool = False) -> Shards:
    """The shards of the `--pool` patterns, absolute. With `namesakes` two may have one name.

    Raises UsageError where a named shard (a plain path, a brace pattern) does not exist unless `allow_missing`, where
    nothing is left, on a path that is no tar, and on two shards of one name; DataError for shards of a reshard that is
    not finished, or not whole any more (unless `allow_missing`); MMFilterError where a folder cannot be read.
    """
    paths, named = _expand(pool)
    if not namesakes:
        _refuse_namesakes(paths)
    _refuse_odd_names(paths)
    missing = absent(named) + _dangling(set(paths) - set(named))
    if missing:
        _refuse(missing, len(paths), allow_missing)
    absent_paths = set(missing)
    _only_tars([path for path in named if path not in absent_paths])
    present = [path for path in paths if path not in absent_paths]
    if not (namesakes or allow_missing):
        check_pool(present, set(present) - set(named))
    return Shards(present, missing)


def check_visible(pool: list[str], allow_missing: bool = False) -> None:
    """`find_shards` of the local patterns whose folder holds tars on this machine: a disk that it shares with the
    cluster. Others are the cluster's to look for: an empty folder here may be a mount point there.
    """
    for pattern in pool:
        folder, rest = patterns.divide(pattern)
        folder = folder if rest or os.path.isdir(folder) else posixpath.dirname(folder)
        if not storage.is_remote(pattern) and _holds_tars(folder or "."):
            find_shards([pattern], allow_missing)


def _holds_tars(folder: str) -> bool:
    try:
        return any(is_tar(name) for name in os.listdir(folder))
    except OSError:
        return False


def _refuse_odd_names(paths: Sequence[str]) -> None:
    """Raise UsageError on a name that is no UTF-8: files and rows are named after the shard."""
    odd = next((path for path in paths if not path.isascii() and valid_text(path) != path), None)
    if odd is not None:
        raise UsageError(f"--pool: {valid_text(odd)} is not named in UTF-8; rename it")


def _dangling(paths: Iterable[str]) -> list[str]:
    """Local links whose target does not exist, as git-annex leaves them before the files are fetched."""
    return sorted(path for path in paths if os.path.islink(path) and not os.path.exists(path))


def _refuse_namesakes(paths: Sequence[str]) -> None:
    """Raise UsageError on two shards of one name."""
    first_of: dict[str, str] = {}
    for path in paths:
        stem = storage.stem(path)
        if stem in first_of:
            where = "given twice" if first_of[stem] == path else f"the name of both {first_of[stem]} and {path}"
            raise UsageError(f"--pool: shard '{stem}' is {where}; shards are known by name, so run such pools apart")
        first_of[stem] = path


def note(missing: Sequence[str]) -> dict[str, Any]:
    """The shards that a command went on without, as plain values: how many, and the first of them."""
    return {"shards": len(missing), "first": list(missing[:SHOWN])}


def counted(number: int) -> str:
    """`1 named shard does`, `2 named shards do`."""
    return f"{number:,} named shard{' does' if number == 1 else 's do'}"


def lines(noted: dict[str, Any]) -> list[str]:
    """`note`'s values for a person: a line, or none where no shard is missing."""
    if not noted["shards"]:
        return []
    named = ", ".join(noted["first"]) + (", ..." if noted["shards"] > len(noted["first"]) else "")
    return [f"  missing: {counted(noted['shards'])} not exist ({named}); nothing is recorded for them"]


def _expand(pool: list[str]) -> tuple[list[str], list[str]]:
    """(all paths, those among them that were named and not found by a listing), absolute, in order."""
    paths: list[str] = []
    named: list[str] = []
    for pattern in itertools.chain.from_iterable(map(patterns.split, pool)):
        if not pattern.strip():
            raise UsageError("--pool: is empty; give .tar files, a folder that holds them, or a pattern")
        _listable(pattern)
        literal = {absolute(path) for path in patterns.braces(pattern)}
        expanded = [absolute(path) for path in storage.expand([pattern])]
        paths += expanded
        named += [path for path in expanded if path in literal]
    return paths or storage.expand(pool), named


def _listable(pattern: str) -> None:
    """Raise MMFilterError where the folder of a local pattern cannot be listed: a glob would say "no match"."""
    folder, rest = patterns.divide(pattern)
    if storage.is_remote(pattern) or not any(c in rest for c in patterns.GLOB):
        return
    folder = folder or "."
    try:
        if storage.exists(folder):
            patiently(lambda: os.scandir(folder).close(), folder)
    except NotADirectoryError:
        pass
    except OSError as error:
        raise unreadable(folder, error) from error


def _refuse(missing: list[str], of: int, allow_missing: bool) -> None:
    """Raise UsageError that says how many are missing, the first of them, and the cure."""
    if allow_missing and len(missing) < of:
        return
    if of == 1:
        raise UsageError(f"--pool: {missing[0]} does not exist{nearest_beside(missing[0])} {_cure(missing[0], False)}")
    folders = list(dict.fromkeys(posixpath.dirname(path) for path in missing))
    absent_paths = next((folder for folder in folders if not _is_folder(folder)), "")
    where = f" The folder {absent_paths} does not exist{nearest_beside(absent_paths)}" if absent_paths else ""
    cure = _cure(missing[0], len(missing) < of)
    raise UsageError(f"--pool: {len(missing):,} of {of:,} named shards do not exist: {_first(missing)}.{where} {cure}")


def _is_folder(path: str) -> bool:
    return storage.isdir(path) if storage.is_remote(path) else os.path.isdir(path)


def _cure(path: str, some: bool) -> str:
    cure = "Check the path and the mount, or fetch them"
    if some:
        return f"{cure}; --allow-missing goes on without them"
    return f"{cure}." if is_tar(path) else "Give .tar files, a folder that holds them, or a pattern."


def _first(missing: Sequence[str]) -> str:
    return ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")


def _only_tars(named: list[str]) -> None:
    """Raise UsageError on a named path that is a folder, or a file without the ending of a tar."""
    for path in named:
        if not is_tar(path):
            raise UsageError(
                f"--pool: {path} is not a .tar file; give .tar files, a folder that holds them, or a pattern"
            )
        if not storage.is_remote(path) and os.path.isdir(path):
            raise UsageError(
                f"--pool: {path} is a folder, though it is named like a tar; give its content: '{path}/*.tar'"
            )

"""The run's folder: one driver at a time, leftovers of a killed run, and the count of attempts."""

import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Any, TypeVar

from mmfilter import storage
from mmfilter.allow import Allow
from mmfilter.dates import now
from mmfilter.derived import run_of
from mmfilter.errors import ConflictError, DataError, UsageError, cannot_write
from mmfilter.fields import ReadOptions
from mmfilter.hints import nearest_beside
from mmfilter.json_file import COUNT, FORMAT, encode, optional_object
from mmfilter.run_file import read_run, read_run_if_any
from mmfilter.schemes import check_scheme

from . import marker
from .beat import beating
from .leftovers import sweep
from .terminal import print

T = TypeVar("T")
R = TypeVar("R")
READERS, CHUNK = 32, 1024


def absolute(path: str) -> str:
    """A local path made absolute (workers have another working directory); URLs as they are.

    Raises UsageError for a URL that is not opened.
    """
    check_scheme(path)
    if storage.is_remote(path):
        return path
    whole = os.path.abspath(path)
    return storage.ShardPath(whole, path.name) if isinstance(path, storage.ShardPath) else whole


def shard_paths(pool: list[str]) -> list[str]:
    """Absolute shard paths of the --pool patterns, all of which exist. Raises as `find_shards` does."""
    from .shards import find_shards

    return find_shards(pool).paths


@contextmanager
def only_driver(out: str) -> Iterator[None]:
    """Hold OUT for this process. Raises ConflictError when another one works on it."""
    if storage.is_remote(out):
        from .lease import lease

        with lease(out), beating(out), marker.kept(out):
            yield
        return
    import fcntl

    with _lock_file(out) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(
                f"{out}: another mmfilter is working on this folder; wait for it, or give another --out"
            ) from error
        sweep(out)
        with beating(out), marker.kept(out):
            yield


def _lock_file(out: str) -> IO[str]:
    try:
        os.makedirs(out, exist_ok=True)
        return open(os.path.join(out, ".lock"), "a", opener=_open_without_waiting)  # whatever is in it stays
    except OSError as error:
        raise cannot_write(out, error) from error


def _open_without_waiting(path: str, flags: int) -> int:
    """A pipe of that name is opened for both sides, which does not wait."""
    return os.open(path, flags & ~os.O_WRONLY | os.O_RDWR, 0o666)


def each(call: Callable[[T], R], items: list[T], remote: bool) -> Iterator[R]:
    """`call` of each item, in their order; on an object store, where each is a wait, `READERS` at a time."""
    if not remote:
        yield from map(call, items)
        return
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(items), CHUNK):  # all at once would be a future for each of a million
            yield from pool.map(call, items[start : start + CHUNK])


def attempts_path(out: str, stem: str) -> str:
    return storage.join(out, "attempts", f"{stem}.json")


def read_attempts(out: str, stem: str) -> dict[str, Any]:
    """{"attempts": n, "error": the last one's}; zero when the shard never failed."""
    cure = f"delete it: the attempts of shard {stem} are counted anew"
    shape = {"attempts": COUNT, "error": str, "died?": bool}
    return optional_object(attempts_path(out, stem), cure, shape) or {"attempts": 0, "error": ""}


def count_attempt(out: str, stem: str, error: str, of_machine: bool = False) -> int:
    """Record one more failed attempt, and how many of them were the machine's; returns how many there are now."""
    record = read_attempts(out, stem)
    record |= {"attempts": record["attempts"] + 1, "error": error}
    if of_machine:
        record["of_machine"] = record.get("of_machine", 0) + 1
    storage.write_atomic(attempts_path(out, stem), json.dumps(record).encode())
    return int(record["attempts"])


def count_death(out: str, stem: str) -> None:
    """Record that the command's own process died at the shard. That counts once, however often it happens: a person
    may have killed it, and only workers that die as well set a shard aside."""
    record = read_attempts(out, stem)
    if not record.get("died"):
        record = {"attempts": record["attempts"] + 1, "error": "the process that did it died", "died": True}
        storage.write_atomic(attempts_path(out, stem), json.dumps(record).encode())


def forget_machine(out: str, stem: str) -> bool:
    """Take back the attempts that a disk, a network or a store made fail; whether others are left."""
    record = read_attempts(out, stem)
    left = record["attempts"] - record.pop("of_machine", 0)
    if left <= 0:
        forget_attempts(out, stem)
    elif left < record["attempts"]:
        storage.write_atomic(attempts_path(out, stem), json.dumps({**record, "attempts": left}).encode())
    return left > 0


def forget_attempts(out: str, stem: str) -> None:
    storage.remove(attempts_path(out, stem))


def load_run(out: str) -> dict[str, Any]:
    """OUT/run.json. Raises UsageError when OUT holds no run."""
    path = storage.join(out, "run.json")
    if not storage.exists(path):
        hint = nearest_beside(out, folders=True)
        raise UsageError(
            f"{out}: no run here (there is no run.json){hint} `mmfilter run` or `mmfilter embed` makes one"
        )
    return read_run(out)


def keep_metadata(out: str, metadata: str | None, allow: Allow = Allow()) -> str | None:
    """`metadata` made absolute, and noted in OUT/run.json, so that later commands on OUT read it unasked.

    Raises UsageError where it holds no metadata.
    """
    if not metadata:
        return None
    from mmfilter.table import open_table

    folder = absolute(metadata)
    open_table(out, folder, *allow)  # a folder without metadata is not noted: later commands would read it unasked
    save_run(out, metadata=folder)
    return folder


def run_reading(out: str) -> ReadOptions:
    """How the run in OUT read its samples; the default where OUT holds none, or one that says nothing of it."""
    from mmfilter.recipe import reading

    recipe = read_run_if_any(out).get("recipe") or {}
    return reading(recipe.get("read") or {}, storage.join(out, "run.json"))


def reading_beside(subset: str) -> ReadOptions:
    """How samples were read by the run whose folder holds the subset's file (OUT/subsets/NAME.npy)."""
    return run_reading(run_of(subset)) if subset else ReadOptions()


def pool_fields(paths: Sequence[str]) -> dict[str, Any]:
    """What run.json says of the shards: their paths, and their names where those are not the files'."""
    named = any(isinstance(path, storage.ShardPath) for path in paths)
    return {"pool": list(paths), "shard_names": [storage.stem(path) for path in paths] if named else None}


def save_run(out: str, **fields: Any) -> None:
    """Update OUT/run.json with `fields`. `started`, the date, is that of the first time."""
    run, path = read_run(out), storage.join(out, "run.json")
    if not run and storage.exists(path):
        raise ConflictError(f"{path}: is another program's file, and is not replaced; give another --out")
    _write_run(out, {**(run or {"started": now()}), **fields})


def mend_run(out: str) -> None:
    """Put a damaged OUT/run.json aside, and say so: `run` and `embed` know all that it holds but the earlier times.

    Raises ConflictError for one of a newer mmfilter.
    """
    try:
        read_run(out)
    except DataError as error:
        path = storage.join(out, "run.json")
        aside = _put_aside(path)
        print(
            f"mmfilter: {str(error).partition('; ')[0]}: it is kept as {aside}, and another is written. The times of "
            "earlier runs, and which shards were left out, are not known any more",
            file=sys.stderr,
        )
        _write_run(out, {"started": now(), "pool": []})


def _put_aside(path: str) -> str:
    """Rename a file or folder to NAME.damaged, or NAME.damaged-N where there is one; the new path."""
    found = {name for name in storage.names(os.path.dirname(path)) if name.startswith("run.json.damaged")}
    aside = next(
        p for n in itertools.count() if os.path.basename(p := f"{path}.damaged{f'-{n}' if n else ''}") not in found
    )
    if storage.is_remote(path):
        storage.write_atomic(aside, storage.read_bytes(path))
    else:
        os.rename(path, aside)
    return aside


def _write_run(out: str, run: dict[str, Any]) -> None:
    storage.write_atomic(storage.join(out, "run.json"), encode({**run, "format": FORMAT}))

"""The run's folder: one driver at a time, leftovers of a killed run, and the count of attempts."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import IO, Any, TypeVar

from mmfilter import storage
from mmfilter.allow import Allow
from mmfilter.dates import now
from mmfilter.derived import run_of
from mmfilter.errors import ConflictError, UsageError, cannot_write
from mmfilter.fields import ReadOptions
from mmfilter.hints import nearest_beside

from . import marker
from .beat import beating

T = TypeVar("T")
R = TypeVar("R")
READERS, CHUNK = 32, 1024
HALF_WRITTEN = re.compile(r"\.[0-9a-f]{8}\.tmp$")  # what `storage.open_atomic` writes before it is whole


def absolute(path: str) -> str:
    """A local path made absolute (workers have another working directory); URLs as they are."""
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
        _sweep(out)
        with beating(out), marker.kept(out):
            yield


def _lock_file(out: str) -> IO[str]:
    try:
        os.makedirs(out, exist_ok=True)
        return open(os.path.join(out, ".lock"), "w")
    except OSError as error:
        raise cannot_write(out, error) from error


def _sweep(out: str) -> None:
    """Remove what a killed run left half written; files of that ending that have other names are a user's."""
    for folder, _, names in os.walk(out):
        for name in filter(HALF_WRITTEN.search, names):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))


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
    path = attempts_path(out, stem)
    if not storage.exists(path):
        return {"attempts": 0, "error": ""}
    return json.loads(storage.read_bytes(path))


def count_attempt(out: str, stem: str, error: str) -> int:
    """Record one more failed attempt; returns how many there are now."""
    record = read_attempts(out, stem)
    record |= {"attempts": record["attempts"] + 1, "error": error}
    storage.write_atomic(attempts_path(out, stem), json.dumps(record).encode())
    return int(record["attempts"])


def count_death(out: str, stem: str) -> None:
    """Record that the command's own process died at the shard. That counts once, however often it happens: a person
    may have killed it, and only workers that die as well set a shard aside."""
    record = read_attempts(out, stem)
    if not record.get("died"):
        record = {"attempts": record["attempts"] + 1, "error": "the process that did it died", "died": True}
        storage.write_atomic(attempts_path(out, stem), json.dumps(record).encode())


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
    return json.loads(storage.read_bytes(path))


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

    path = storage.join(out, "run.json")
    try:
        source = json.loads(storage.read_bytes(path))["recipe"] if storage.exists(path) else {}
        return reading(source.get("read") or {}, path)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ReadOptions()


def reading_beside(subset: str) -> ReadOptions:
    """How samples were read by the run whose folder holds the subset's file (OUT/subsets/NAME.npy)."""
    return run_reading(run_of(subset)) if subset else ReadOptions()


def pool_fields(paths: Sequence[str]) -> dict[str, Any]:
    """What run.json says of the shards: their paths, and their names where those are not the files'."""
    named = any(isinstance(path, storage.ShardPath) for path in paths)
    return {"pool": list(paths), "shard_names": [storage.stem(path) for path in paths] if named else None}


def save_run(out: str, **fields: Any) -> None:
    """Update OUT/run.json with `fields`. `started`, the date, is that of the first time."""
    path = storage.join(out, "run.json")
    run = json.loads(storage.read_bytes(path)) if storage.exists(path) else {"started": now()}
    storage.write_atomic(path, json.dumps({**run, **fields}, indent=1, sort_keys=True).encode())

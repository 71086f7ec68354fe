"""The run's folder: one driver at a time, leftovers of a killed run, and the count of attempts."""

import glob
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Any, TypeVar

from mmfilter import storage
from mmfilter.errors import ConflictError, UsageError, cannot_write, nearest

from .beat import beating

T = TypeVar("T")
R = TypeVar("R")
READERS, CHUNK = 32, 1024


def absolute(path: str) -> str:
    """A local path made absolute (workers have another working directory); URLs as they are."""
    return path if storage.is_remote(path) else os.path.abspath(path)


def shard_paths(pool: list[str]) -> list[str]:
    """Absolute shard paths of the --pool patterns. Raises UsageError on two shards of one name."""
    paths = [absolute(path) for path in storage.expand(pool)]
    seen: dict[str, str] = {}
    for path in paths:
        stem = storage.stem(path)
        if stem in seen:
            where = "given twice" if seen[stem] == path else f"the name of both {seen[stem]} and {path}"
            raise UsageError(f"--pool: shard '{stem}' is {where}; shards are known by name, so run such pools apart")
        seen[stem] = path
    return paths


@contextmanager
def only_driver(out: str) -> Iterator[None]:
    """Hold OUT for this process. Raises ConflictError when another one works on it."""
    if storage.is_remote(out):
        from .lease import lease

        with lease(out), beating(out):
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
        with beating(out):
            yield


def _lock_file(out: str) -> IO[str]:
    try:
        os.makedirs(out, exist_ok=True)
        return open(os.path.join(out, ".lock"), "w")
    except OSError as error:
        raise cannot_write(out, error) from error


def _sweep(out: str) -> None:
    """Remove what a killed run left half written."""
    for path in glob.glob(os.path.join(glob.escape(out), "**", "*.tmp"), recursive=True):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


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
    n = read_attempts(out, stem)["attempts"] + 1
    storage.write_atomic(attempts_path(out, stem), json.dumps({"attempts": n, "error": error}).encode())
    return n


def forget_attempts(out: str, stem: str) -> None:
    storage.remove(attempts_path(out, stem))


def load_run(out: str) -> dict[str, Any]:
    """OUT/run.json. Raises UsageError when OUT holds no run."""
    path = storage.join(out, "run.json")
    if not storage.exists(path):
        parent, name = os.path.split(absolute(out).rstrip("/"))
        hint = nearest(name, [other for other in storage.names(parent) if other != name])
        raise UsageError(
            f"{out}: no run here (there is no run.json){hint} `mmfilter run` or `mmfilter embed` makes one"
        )
    return json.loads(storage.read_bytes(path))


def keep_metadata(out: str, metadata: str | None) -> str | None:
    """`metadata` made absolute, and noted in OUT/run.json, so that later commands on OUT read it unasked."""
    if not metadata:
        return None
    folder = absolute(metadata)
    save_run(out, metadata=folder)
    return folder


def save_run(out: str, **fields: Any) -> None:
    """Update OUT/run.json with `fields`."""
    path = storage.join(out, "run.json")
    run = json.loads(storage.read_bytes(path)) if storage.exists(path) else {}
    storage.write_atomic(path, json.dumps({**run, **fields}, indent=1, sort_keys=True).encode())

"""OUT/in-process: what this process is doing by itself, without a worker, in case it dies of it.

A worker that dies is seen by its driver. A command that works without Ray dies together with its driver, so it writes
down beforehand what it begins. The file goes when the work is done or was stopped; one that is left says that the
process died (a crash in a decoder, no memory left, a SIGKILL), and the next command uses Ray (`jobs.choice`).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmfilter import storage
from mmfilter.errors import MMFilterError
from mmfilter.json_file import optional_object

from .stopping import NOTES

NAME = "in-process"


class _Marker:
    """Of this process's OUT; empty outside of one."""

    out, task, written = "", "", False


MARKER = _Marker()


@contextmanager
def kept(out: str) -> Iterator[None]:
    """For as long as the block holds OUT. What this process wrote goes at its end, however it ends."""
    global MARKER
    MARKER = _Marker()
    MARKER.out = out
    if not storage.is_remote(out):
        NOTES.append(_stopped)
    try:
        yield
    finally:
        _stopped()
        MARKER = _Marker()
        if _stopped in NOTES:
            NOTES.remove(_stopped)


def begin(task: Any) -> None:
    """This process starts with `task`: a shard's path, or something smaller, of which no name is kept."""
    shard = storage.stem(task) if isinstance(task, str) else ""
    if MARKER.out and (not MARKER.written or shard != MARKER.task):
        MARKER.written, MARKER.task = True, shard
        storage.write_atomic(_path(), json.dumps({"shard": shard}).encode())


def left_behind() -> dict[str, Any] | None:
    """What a process that died was doing in OUT: {"shard": its name, or ""}; None where none did."""
    if not MARKER.out or MARKER.written or not storage.exists(_path()):
        return None
    try:
        return optional_object(_path(), "delete it", {"shard": str})
    except MMFilterError:  # it was being written when the process died
        return {"shard": ""}


def _stopped() -> None:
    """A stop is no death."""
    if MARKER.written:
        forget()


def forget() -> None:
    """The work is done."""
    if not MARKER.out:
        return
    MARKER.written = False
    try:
        storage.remove(_path())
    except (OSError, MMFilterError):
        pass  # it only makes the next command use Ray


def _path() -> str:
    return storage.join(MARKER.out, NAME)

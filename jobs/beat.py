"""OUT/.progress: what the command at work on OUT is doing, written every few seconds for `mmfilter status`.

It is one small file, so a run on an object store can be watched too, and a driver that was killed shows
by the file's age. The file decides nothing; what shards usually take also tells which worker hangs.
"""

import math
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from mmfilter import storage
from mmfilter.status import EVERY, forget_old_note, write_progress

from .stopping import NOTES

HUNG, UNKNOWN = 10.0, 24.0  # a task hangs after so many typical times; so many patiences, where none is known


class Beat:
    """State of this process's command. Its methods are quick, and may be called from any thread."""

    def __init__(self) -> None:
        self.started = time.time()
        self.stage: dict[str, Any] = {}
        self.flying: dict[str, float] = {}  # shard -> when it was sent to its worker
        self.lasted: deque[float] = deque(maxlen=256)  # seconds of the last shards that came back well
        self.lock = threading.Lock()

    def at(self, stage: str, unit: str, done: int, total: int) -> None:
        """How far the stage is, in units (shards, tasks)."""
        with self.lock:
            self.stage = {"stage": stage, "unit": unit, "done": done, "of": total}

    def sent(self, task: Any) -> None:
        """A task goes to a worker. Only shards (paths) are named; other tasks are small."""
        if isinstance(task, str):
            with self.lock:
                self.flying[storage.stem(task)] = time.time()

    def back(self, task: Any, well: bool = True) -> None:
        """It came back, well or not."""
        if isinstance(task, str):
            with self.lock:
                since = self.flying.pop(storage.stem(task), None)
                if since is not None and well:
                    self.lasted.append(time.time() - since)

    def overdue(self, patience: float) -> float:
        """Seconds after which a task is taken for hung: `patience`, but ten times what shards take, or `UNKNOWN` times
        `patience` while none has come back; 0: never.
        """
        with self.lock:
            typical = median(self.lasted) if self.lasted else None
        if not patience:
            return math.inf
        return UNKNOWN * patience if typical is None else max(patience, HUNG * typical)

    def record(self, state: str) -> dict[str, Any]:
        """What the note holds."""
        with self.lock:
            return {
                "state": state,
                "command": " ".join(sys.argv[1:2]) or "python",
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "job": os.environ.get("MMFILTER_JOB", ""),
                "started": round(self.started, 3),
                "time": round(time.time(), 3),
                **self.stage,
                "typical_s": round(median(self.lasted), 3) if self.lasted else None,
                "in_flight": {shard: round(since, 3) for shard, since in sorted(self.flying.items())},
            }


BEAT = Beat()


@contextmanager
def beating(out: str) -> Iterator[None]:
    """Keep OUT/.progress up to date for as long as the block lasts."""
    global BEAT
    beat = BEAT = Beat()
    forget_old_note(out)
    ended = threading.Event()

    def keep() -> None:
        write_progress(out, beat.record("running"))
        while not ended.wait(EVERY):
            write_progress(out, beat.record("running"))

    thread = threading.Thread(target=keep, name="beat", daemon=True)
    thread.start()
    state = "stopped"

    def note() -> None:
        write_progress(out, beat.record(state))

    if not storage.is_remote(out):
        NOTES.append(note)
    try:
        yield
        state = "ended"
    finally:
        ended.set()
        thread.join(EVERY)
        note()
        if note in NOTES:
            NOTES.remove(note)


def at(stage: str, unit: str, done: int, total: int) -> None:
    BEAT.at(stage, unit, done, total)


def sent(task: Any) -> None:
    BEAT.sent(task)


def back(task: Any, well: bool = True) -> None:
    BEAT.back(task, well)


def overdue(patience: float) -> float:
    return BEAT.overdue(patience)

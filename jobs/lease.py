"""A folder on an object store held by one driver: a lease, as there is no lock that dies with its process.

`OUT/.lock` is put if absent and rewritten every `BEAT` seconds. Who finds it there watches it: one that
is rewritten has a live owner; one that stands unchanged for `LEASE` seconds is taken over, by a put that
fails if anybody else was faster. Only changes are looked at, so clocks need not agree.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from mmfilter import remote, storage
from mmfilter.errors import ConflictError, StoreError

from .terminal import print

BEAT, LEASE, LOOK = 15.0, 60.0, 3.0  # seconds; a guess that bears four lost beats


@contextmanager
def lease(out: str) -> Iterator[None]:
    """Hold OUT while the block runs. Raises ConflictError where another mmfilter does.

    Should the lease be lost (a pause longer than `LEASE`, somebody deleted it), this process gets SIGTERM.
    """
    path = storage.join(out, ".lock")
    body = _body(uuid.uuid4().hex, 0)
    if not storage.create(path, body):
        _take_over(path, body, out)
    keeper = _Keeper(path, body)
    keeper.start()
    try:
        yield
    finally:
        keeper.stop()


def _body(owner: str, beat: int) -> bytes:
    return json.dumps({"owner": owner, "beat": beat, "host": socket.gethostname(), "pid": os.getpid()}).encode()


def _take_over(path: str, body: bytes, out: str) -> None:
    busy = f"{out}: another mmfilter is working on this folder; wait for it, or give another --out"
    first = tag(path)
    print(f"mmfilter: {path} is there; up to {LEASE:g} s, to see whether its owner lives", file=sys.stderr)
    until = time.monotonic() + LEASE
    while time.monotonic() < until:
        time.sleep(LOOK)
        now = tag(path)
        if now is None and storage.create(path, body):
            return
        if now != first:
            raise ConflictError(busy)
    if first is None or not path.startswith("s3://"):
        raise ConflictError(f"{busy}. If none is, delete {path}: this store has no put that could take it over")
    if not remote.replace(path, body, first):
        raise ConflictError(busy)


def tag(path: str) -> str | None:
    """What changes when the object does; None where it is not there."""
    identity = storage.identity_or_none(path)
    return None if identity is None else str(identity["etag"])


class _Keeper(threading.Thread):
    """Rewrites the lock until it is stopped, then takes it away."""

    def __init__(self, path: str, body: bytes) -> None:
        super().__init__(daemon=True)
        self.path, self.body, self.beat = path, body, 0
        self.owner = json.loads(body)["owner"]
        self.done = threading.Event()
        self.lost = False

    def run(self) -> None:
        while not self.done.wait(BEAT):
            try:
                self._renew()
            except StoreError:
                continue  # the next beat may come through; if none does, the lease runs out
            if self.lost and not self.done.is_set():
                print(f"mmfilter: {self.path} is another's now; this one stops", file=sys.stderr)
                os.kill(os.getpid(), signal.SIGTERM)  # to the process: only that reaches the thread that waits
                return

    def _renew(self) -> None:
        held = _read(self.path)
        if held != self.body:
            self.lost = True
            return
        body = _body(self.owner, self.beat + 1)
        seen = tag(self.path)
        if not self.path.startswith("s3://"):
            storage.write_atomic(self.path, body)
        elif seen is None or not remote.replace(self.path, body, seen):
            self.lost = True
            return
        self.body, self.beat = body, self.beat + 1

    def stop(self) -> None:
        self.done.set()
        self.join(LEASE)
        if self.lost:
            return
        try:
            if _read(self.path) == self.body:
                storage.remove(self.path)
        except StoreError as error:
            print(f"mmfilter: {error} ({self.path} is left, and taken over in {LEASE:g} s)", file=sys.stderr)


def _read(path: str) -> bytes | None:
    try:
        return storage.read_bytes(path)
    except (FileNotFoundError, remote.ChangedError):
        return None

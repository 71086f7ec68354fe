"""`where` expressions of requests are worked out in processes of their own, which are ended when one takes too long."""

import atexit
import fcntl
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import polars as pl

from mmfilter.errors import UsageError
from mmfilter.rules.where import evaluated_by

from .settings import Refused

SECONDS = 15.0  # for all expressions of a request
PROCESSES = 2  # expressions in work at once; further requests wait for their turn, and for no longer than that
THREADS = "2"  # of polars in each
PIPE = 1 << 20  # bytes
ROWS, BYTES = 1 << 18, 64 << 20  # that an expression works on at once


class _Process:
    """One evaluating process; `mask` is called by one thread at a time."""

    def __init__(self) -> None:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.child = subprocess.Popen(
            [sys.executable, "-P", "-m", "index.service.where_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "PYTHONPATH": paths, "POLARS_MAX_THREADS": THREADS},
        )  # fmt: skip
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):  # where the user's pipes are many; it is only slower
                fcntl.fcntl(self.child.stdin, fcntl.F_SETPIPE_SZ, PIPE)  # type: ignore[arg-type]
        self.ready = False

    def mask(self, sql: str, table: pl.DataFrame, until: float) -> np.ndarray:
        """(n,) bool. Raises UsageError with the process's sentence, TimeoutError, EOFError where it ended."""
        assert self.child.stdin is not None
        stop = threading.Timer(max(0.0, until - time.monotonic()), self.child.kill)
        stop.daemon = True
        stop.start()
        try:
            if not self.ready:
                self.ready = self._answer() == (b"+", b"")
            packed = io.BytesIO()
            table.write_ipc_stream(packed)
            for data in (sql.encode("utf-8", "surrogatepass"), packed.getbuffer()):
                self.child.stdin.write(len(data).to_bytes(8, "little"))
                self.child.stdin.write(data)
            self.child.stdin.flush()
            status, answer = self._answer()
        except (OSError, EOFError) as error:
            raise (TimeoutError if time.monotonic() >= until else EOFError)() from error
        finally:
            stop.cancel()
        if status == b"!":
            raise UsageError(answer.decode("utf-8", "replace"))
        return np.frombuffer(answer, bool)

    def _answer(self) -> tuple[bytes, bytes]:
        stream: Any = self.child.stdout
        head = stream.read(9)
        data = stream.read(int.from_bytes(head[1:], "little"))
        if len(head) < 9 or len(data) < int.from_bytes(head[1:], "little"):
            raise EOFError
        return head[:1], data

    def end(self) -> None:
        self.child.kill()
        self.child.wait()
        for stream in (self.child.stdin, self.child.stdout):
            try:
                stream.close()  # type: ignore[union-attr]
            except OSError:
                pass  # what was not yet written to it


def _slices(sql: str, table: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The columns that an expression reads, some rows at a time: what it makes of them is bounded as they are."""
    names = sorted(set(pl.sql_expr(sql).meta.root_names()) & set(table.columns))
    table = table.select(names) if names else table
    rows = min(ROWS, 1 + int(BYTES * table.height / (table.estimated_size() + 1)))
    for at in range(0, max(table.height, 1), rows):
        yield table.slice(at, rows)


class Evaluator:
    """Up to `PROCESSES` processes, started when they are needed and kept; one that was stopped is replaced."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds, self._room = seconds, threading.Semaphore(PROCESSES)
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        atexit.register(self.close)

    @contextmanager
    def bounded(self, rows: int = 0) -> Iterator[None]:
        """Within this block, a request's, expressions are worked out in another process, for `seconds` in all and one
        more for each million rows of the pool.

        What they raise there: UsageError, and Refused (503) past the time or the memory.
        """
        seconds = self.seconds + rows / 1_000_000
        until, held = time.monotonic() + seconds, list[_Process]()

        def evaluate(sql: str, table: pl.DataFrame) -> np.ndarray:
            return np.concatenate([evaluate_slice(sql, part) for part in _slices(sql, table)])

        def evaluate_slice(sql: str, table: pl.DataFrame) -> np.ndarray:
            if not held:
                held.append(self._take(until))
            try:
                return held[0].mask(sql, table, until)
            except (TimeoutError, EOFError) as error:
                self._end(held.pop())
                self._room.release()
                took = f"took more than {seconds:.3g} seconds" if isinstance(error, TimeoutError) else "ended"
                why = "" if isinstance(error, TimeoutError) else " the process that worked it out: too much memory?"
                raise Refused(503, f"where: the expression {took}{why}; ask a simpler one") from error

        try:
            with evaluated_by(evaluate):
                yield
        finally:
            for process in held:
                self._idle.append(process)
                self._room.release()

    def _take(self, until: float) -> _Process:
        if not self._room.acquire(timeout=max(0.0, until - time.monotonic())):
            raise Refused(503, f"where: {PROCESSES} expressions are in work; ask again in a few seconds")
        while self._idle:
            process = self._idle.pop()
            if process.child.poll() is None:
                return process
            self._end(process)
        process = _Process()
        self._all.add(process)
        return process

    def _end(self, process: _Process) -> None:
        self._all.discard(process)
        process.end()

    def close(self) -> None:
        """End all processes, those at work too."""
        for process in list(self._all):
            self._end(process)
        self._idle.clear()

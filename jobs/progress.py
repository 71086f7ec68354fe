"""How far a job is, on stderr: bars on a terminal, plain lines otherwise, or JSON lines; results are on stdout."""

import json
import os
import sys
import threading
import time
from enum import StrEnum
from typing import Any

from mmfilter.errors import UsageError, nearest

from . import beat
from .terminal import print

PLAIN_S = 3.0  # between two plain lines while units come back
WAITING_S = 15.0  # between two plain or JSON lines while none does
VARIABLE = "MMFILTER_PROGRESS"


class Mode(StrEnum):
    """How progress is shown."""

    bar = "bar"
    plain = "plain"
    json = "json"
    none = "none"


_chosen: Mode | None = None
_every = False  # a line for each unit


def choose(mode: Mode | None, quiet: bool = False, verbose: bool = False) -> None:
    """Set how this process shows progress. Raises UsageError for two answers, or a variable that is none."""
    global _chosen, _every
    if quiet and (verbose or mode not in (None, Mode.none)):
        raise UsageError(f"--quiet and {'--verbose' if verbose else f'--progress {mode}'}: give one of them")
    _every = verbose
    told = os.environ.get(VARIABLE, "")
    if mode is None and told and told not in list(Mode):
        raise UsageError(f"{VARIABLE}={told}: no such progress{nearest(told, Mode)} Known: {', '.join(Mode)}")
    _chosen = Mode.none if quiet else mode or (Mode(told) if told else Mode.plain if verbose else None)


def mode() -> Mode:
    """What was chosen; else bars on a terminal and plain lines without one."""
    return _chosen or (Mode.bar if sys.stderr.isatty() else Mode.plain)


def silence_stderr() -> None:
    """Whatever read this process's stderr has ended (a closed pager): the work goes on, and says no more there."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


class Progress:
    """One stage's progress, in units (shards) and samples. Use as a context manager."""

    current: "Progress | None" = None

    def __init__(self, stage: str, total: int, unit: str = "shards") -> None:
        self.stage, self.total, self.unit = stage, total, unit
        self.done = self.samples = self.failed = self.read = 0
        self.started = self._said = time.monotonic()
        self.mode = mode()
        self._bar: Any = None
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def __enter__(self) -> "Progress":
        beat.at(self.stage, self.unit, self.done, self.total)
        if self.mode is Mode.bar:
            self._bar = _rich_bar()
            self._bar.start()
            self._task = self._bar.add_task(self.stage, total=self.total, rate="")
        elif self.mode is Mode.json:
            self._say("start")
        Progress.current = self
        self._thread = threading.Thread(target=self._wait, name="progress", daemon=True)
        self._thread.start()
        return self

    def advance(self, samples: int = 0, failed: int = 0) -> None:
        """One more unit done, with its samples (of which `failed` were set aside)."""
        self.done += 1
        self.samples += samples
        self.failed += failed
        self.read = self.samples
        beat.at(self.stage, self.unit, self.done, self.total)
        if self._bar is not None:
            self._bar.update(self._task, advance=1, rate=self._rate())
        elif self._due():
            self._say("progress")

    def _due(self) -> bool:
        """Whether a line is due; the last unit's is that of the end, which JSON tells apart."""
        since = time.monotonic() - self._said
        if self.mode is Mode.json:
            return since > 1.0 or self.done == self.total
        return (since > PLAIN_S or _every) and self.done < self.total

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._ended.set()
        Progress.current = None
        if self._bar is not None:
            self._bar.stop()
        else:
            self._say("end" if kind is None else "stopped")

    @property
    def seen(self) -> int:
        """Samples so far: those of the units that are done, or more where this process reads within one."""
        return max(self.samples, self.read)

    @property
    def rate(self) -> float:
        """Samples a second since the start."""
        return self.seen / max(time.monotonic() - self.started, 1e-9)

    def _wait(self) -> None:
        """Say now and then that it goes on while no unit comes back."""
        while not self._ended.wait(1.0):
            if self._bar is not None:
                self._bar.update(self._task, rate=self._rate())
            elif time.monotonic() - self._said >= WAITING_S:
                self._say("progress")

    def _rate(self) -> str:
        rate = f"{self.seen:,} samples, {self.rate:,.0f}/s" if self.seen else ""
        return rate + (f", {self.failed:,} failed" if self.failed else "")

    def _say(self, event: str) -> None:
        """One line, plain or JSON."""
        if self.mode is Mode.none:
            return
        with self._lock:
            self._said = time.monotonic()
            elapsed = self._said - self.started
            left = elapsed / self.done * (self.total - self.done) if self.done else None
            line = self._json(event, elapsed, left) if self.mode is Mode.json else self._plain(event, elapsed, left)
            try:
                print(line, file=sys.stderr, flush=True)
            except BrokenPipeError:
                silence_stderr()

    def _plain(self, event: str, elapsed: float, left: float | None) -> str:
        """`embed 3/8 shards, 1,532 samples, 210/s, 0 failed, 20 s left`."""
        said = [f"{self.stage} {self.done:,}/{self.total:,} {self.unit}"]
        if self.seen:
            said += [f"{self.seen:,} samples", f"{self.rate:,.0f}/s", f"{self.failed:,} failed"]
        if event == "progress":
            said.append(f"{span(elapsed)} so far" if left is None else f"{span(left)} left")
        else:
            said.append(f"{'stopped after ' if event == 'stopped' else ''}{span(elapsed)}")
        return ", ".join(said)

    def _json(self, event: str, elapsed: float, left: float | None) -> str:
        line: dict[str, Any] = {"event": event, "stage": self.stage, self.unit: self.done, "of": self.total}
        line |= {"samples": self.seen, "failed": self.failed, "seconds": round(elapsed, 2)}
        if left is not None:
            line |= {"samples_per_s": round(self.rate, 1), "left_s": round(left, 1)}
        return json.dumps(line)


def count_read(samples: int) -> None:
    """Samples that this process has read of a shard that is not done; a worker elsewhere has no stage to tell."""
    if Progress.current is not None:
        Progress.current.read += samples


def step(stage: str, fields: dict[str, Any], last: bool = False) -> None:
    """A stage that counts by itself (the steps of a training): one line that changes, a line each, or JSON."""
    shown, row = mode(), "  ".join(f"{name} {value}" for name, value in fields.items())
    if shown is Mode.bar:
        sys.stderr.write("\r")
        print(row, end="\n" if last else "", file=sys.stderr, flush=True)
    elif shown is Mode.plain:
        print(f"{stage} {row}", file=sys.stderr, flush=True)
    elif shown is Mode.json:
        print(json.dumps({"event": stage, **fields}), file=sys.stderr, flush=True)


def note(stage: str, text: str) -> None:
    """A line of a stage in words."""
    if mode() is Mode.json:
        print(json.dumps({"event": stage, "text": text}), file=sys.stderr, flush=True)
    elif mode() is not Mode.none:
        print(f"{stage} {text}", file=sys.stderr, flush=True)


def span(seconds: float) -> str:
    """`40 s`, `12 min`, `3.4 h`, `5.1 d`."""
    for size, unit in ((86400, "d"), (3600, "h")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    if seconds >= 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.0f} s" if seconds >= 10 or seconds == 0 else f"{seconds:.1f} s"


def _rich_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = [
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
    ]
    return Bars(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))

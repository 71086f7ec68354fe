"""How far a job is: rich bars on a terminal, JSON lines otherwise; both on stderr, results on stdout."""

import json
import sys
import time
from typing import Any

from . import beat


class Progress:
    """One stage's progress, in units (shards) and samples. Use as a context manager."""

    def __init__(self, stage: str, total: int, unit: str = "shards") -> None:
        self.stage, self.total, self.unit = stage, total, unit
        self.done = self.samples = self.failed = 0
        self.started = time.monotonic()
        self._said = 0.0
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        beat.at(self.stage, self.unit, self.done, self.total)
        if sys.stderr.isatty():
            self._bar = _rich_bar()
            self._bar.start()
            self._task = self._bar.add_task(self.stage, total=self.total, rate="")
        else:
            self._say("start")
        return self

    def advance(self, samples: int = 0, failed: int = 0) -> None:
        """One more unit done, with its samples (of which `failed` were set aside)."""
        self.done += 1
        self.samples += samples
        self.failed += failed
        beat.at(self.stage, self.unit, self.done, self.total)
        if self._bar is not None:
            rate = f"{self.rate:,.0f} samples/s" + (f", {self.failed} failed" if self.failed else "")
            self._bar.update(self._task, advance=1, rate=rate)
        elif time.monotonic() - self._said > 1.0 or self.done == self.total:
            self._say("progress")

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._say("end" if kind is None else "stopped")

    @property
    def rate(self) -> float:
        """Samples a second since the start."""
        return self.samples / max(time.monotonic() - self.started, 1e-9)

    def _say(self, event: str) -> None:
        self._said = time.monotonic()
        elapsed = self._said - self.started
        line: dict[str, Any] = {"event": event, "stage": self.stage, self.unit: self.done, "of": self.total}
        line |= {"samples": self.samples, "failed": self.failed, "seconds": round(elapsed, 2)}
        if self.done:
            line |= {
                "samples_per_s": round(self.rate, 1),
                "left_s": round(elapsed / self.done * (self.total - self.done), 1),
            }
        print(json.dumps(line), file=sys.stderr, flush=True)


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


def event(name: str, **fields: Any) -> None:
    """A JSON line on stderr for what is not a stage (only where there is no terminal)."""
    if not sys.stderr.isatty():
        print(json.dumps({"event": name, **fields}), file=sys.stderr, flush=True)

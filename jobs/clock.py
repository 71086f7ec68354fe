"""How long the steps of a run took: OUT/run.json holds every run that had work to do, so a later one loses nothing."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmfilter.dates import now
from mmfilter.run_file import read_run


class StepClock:
    """Wall-clock seconds of one run's steps.

    A step that found everything done is not recorded: its seconds say nothing about the work. One that a signal
    stopped is, as its finished shards are kept.
    """

    def __init__(self, out: str) -> None:
        self.out, self.started = out, now()
        self.seconds: dict[str, float] = {}
        self._worked: set[str] = set()
        self._place: int | None = None  # of this run in run.json's list

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block. `did` says afterwards whether it had work to do."""
        began, finished = time.monotonic(), True
        try:
            yield
        except Exception:
            raise
        except BaseException:  # Ctrl-C or SIGTERM
            finished = False
            raise
        finally:
            self.seconds[name] = round(time.monotonic() - began, 2)
            if not finished:
                self.did(name)
                self.save()

    def did(self, name: str, work: bool = True) -> None:
        """Whether the step had work to do."""
        if work:
            self._worked.add(name)

    def save(self) -> None:
        """Bring run.json's `runs` and their sum, `seconds`, up to this run."""
        from .outdir import save_run

        seconds = {name: spent for name, spent in self.seconds.items() if name in self._worked}
        if not seconds:
            return
        runs = recorded_runs(self.out)
        if self._place is None:
            self._place = len(runs)
        runs[self._place :] = [{"started": self.started, "seconds": seconds}]
        save_run(self.out, runs=runs, seconds=_total(runs))


def recorded_runs(out: str) -> list[dict[str, Any]]:
    """run.json's `runs`. Of an OUT that an earlier version wrote, one without a date: its last run's seconds."""
    run = read_run(out)
    return list(run.get("runs") or ([{"seconds": run["seconds"]}] if run.get("seconds") else []))


def _total(runs: list[dict[str, Any]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for run in runs:
        for name, spent in run["seconds"].items():
            total[name] = round(total.get(name, 0.0) + float(spent), 2)
    return total

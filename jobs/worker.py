"""The Ray actor: holds what is costly to load and does as many tasks at a time as it has lanes."""

import time
from typing import Any

import ray

from mmfilter.errors import MMFilterError

from . import metrics
from .driver import Make, Setup, guarded


@ray.remote
class Worker:
    """Calls `make(setup)` once, then the function it returned for each task."""

    def __init__(self, make: Make, setup: Setup) -> None:
        self.refusal: MMFilterError | None = None
        try:
            self.call = make(setup)
        except MMFilterError as error:
            self.refusal = error

    def ready(self) -> tuple[MMFilterError | None, str]:
        """Answers once the worker has loaded everything: (why it could not, or None; the node it is on)."""
        return self.refusal, ray.get_runtime_context().get_node_id()

    def run(self, task: Any) -> Any:
        """The task's result, or a Refusal or Crash in its place."""
        started = time.perf_counter()
        result = guarded(self.call, task)
        metrics.count(result, time.perf_counter() - started)
        return result

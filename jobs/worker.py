"""The Ray actor: holds what is costly to load and does as many tasks at a time as it has lanes."""

import time
from typing import Any

import ray

from mmfilter.errors import MMFilterError

from . import metrics
from .driver import Make, Setup, guarded


@ray.remote
class Worker:
    """Calls `make(setup)` at the start of a job, then the function it returned for each task."""

    def begin(self, make: Make, setup: Setup) -> tuple[MMFilterError | None, str]:
        """Load everything; returns why it could not, or None, and the node it is on."""
        refusal: MMFilterError | None = None
        try:
            self.call: Any = make(setup)
        except MMFilterError as error:
            refusal = error
        return refusal, ray.get_runtime_context().get_node_id()

    def rest(self) -> None:
        """Let go of what was loaded, until the next job."""
        self.call = None

    def run(self, task: Any) -> Any:
        """The task's result, or a Refusal or Crash in its place."""
        started = time.perf_counter()
        result = guarded(self.call, task)
        metrics.count(result, time.perf_counter() - started)
        return result

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

    def ready(self) -> MMFilterError | None:
        """Answers once the worker has loaded everything: why it could not, or None."""
        return self.refusal

    def run(self, number: int, task: Any) -> tuple[str | None, int, Any]:
        """(this actor's id, the task's number, its result): the driver keeps books by them."""
        started = time.perf_counter()
        result = guarded(self.call, task)
        metrics.count(result, time.perf_counter() - started)
        return ray.get_runtime_context().get_actor_id(), number, result

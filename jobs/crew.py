"""The actors of a job: all are asked for at once, and each gets tasks from when it is ready."""

import sys
import time
from typing import Any

from mmfilter.errors import MMFilterError

from .cluster import Shape

SAY = 60.0  # seconds after which a job without any worker says what it waits for


class Lane:
    """One of the shards that a worker has in flight: ActorPool wants each of an actor's turns to be a thing."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor


class Crew:
    """`shape.workers` actors of `Worker`. Those that find no room wait for it, and an autoscaler makes it."""

    def __init__(self, ray: Any, Worker: Any, make: Any, setup: Any, shape: Shape) -> None:
        self.ray, self.shape, self.began = ray, shape, time.monotonic()
        self.actors = [self._actor(Worker).remote(make, setup) for _ in range(shape.workers)]
        self.loading = {actor.ready.remote(): actor for actor in self.actors}

    def _actor(self, Worker: Any) -> Any:
        shape = self.shape
        return Worker.options(num_cpus=shape.cpus, num_gpus=shape.gpus, max_restarts=-1, max_concurrency=shape.lanes)

    def ready(self, wait: float = 0.0) -> list[Lane]:
        """The lanes of actors that have loaded what they need since the last call; looks for `wait` seconds.

        Raises MMFilterError with the reason of one that cannot.
        """
        if not self.loading:
            return []
        references = list(self.loading)
        done, _ = self.ray.wait(references, num_returns=1 if wait else len(references), timeout=wait)
        if len(self.loading) == len(self.actors) and not done:
            self._say()
        return [Lane(actor) for actor in map(self._checked, done) for _ in range(self.shape.lanes)]

    def _checked(self, reference: Any) -> Any:
        from ray.exceptions import RayError

        actor = self.loading.pop(reference)
        try:
            refusal = self.ray.get(reference)
        except RayError as error:
            why = [line for line in str(error).splitlines() if line.strip()]
            raise MMFilterError(
                f"a worker could not start: {why[-1].strip()} (is mmfilter installed on every node?)"
            ) from error
        if refusal is not None:
            raise refusal
        return actor

    def _say(self) -> None:
        if time.monotonic() - self.began > SAY:
            self.began = float("inf")  # once
            room = f"{self.shape.cpus:g} CPUs" + (f" and {self.shape.gpus} GPU" if self.shape.gpus else "")
            print(f"mmfilter: no worker has started yet; each waits for a machine with {room} free", file=sys.stderr)

    def stop(self) -> None:
        """Let go of them all, also of those that never found room."""
        for actor in self.actors:
            self.ray.kill(actor)

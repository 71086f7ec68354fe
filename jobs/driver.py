"""Drive tasks over workers: in this process, or over Ray actors with `ray.util.ActorPool`.

ActorPool is Ray's own loop over actors: only task descriptors go out and small reports come back, so
the object store stays empty and the driver's memory flat. What it lacks is ours: the count of
attempts of a task that kills its worker (Ray would retry it for ever).
"""

import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mmfilter.errors import MMFilterError, StoreError

from . import beat
from .cluster import Width, settle, start_ray

Make = Callable[["Setup"], Callable[[Any], Any]]
"""Called once in each worker; returns the function that does one task."""

ATTEMPTS = 3


@dataclass(frozen=True)
class Setup:
    """What a worker is told of where it runs."""

    device: str
    threads: int
    batch_size: int


@dataclass(frozen=True)
class Crash:
    """A task that raised something unforeseen, or killed its worker."""

    error: str


@dataclass(frozen=True)
class Refusal:
    """A task that raised an MMFilterError: the job stops and says so."""

    error: MMFilterError


def guarded(call: Callable[[Any], Any], task: Any) -> Any:
    """The task's result, or a Refusal or Crash in its place."""
    try:
        return call(task)
    except MMFilterError as error:
        if not isinstance(error, StoreError):
            return Refusal(error)
        return Crash(str(error))  # it may be this object alone, and another time it may answer
    except Exception as error:
        return Crash(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")


def drive(tasks: Sequence[Any], make: Make, width: Width, threads: bool = False) -> Iterator[tuple[Any, Any]]:
    """Yield (task, result or Crash) as they finish, each task once. Raises a task's MMFilterError.

    `threads`: what `make` returns may do several tasks at once, which a local job then does.
    """
    local = _in_threads if threads else _in_process
    for task, result in (local if width.local else _on_ray)(tasks, make, width):
        beat.back(task)
        if isinstance(result, Refusal):
            raise result.error
        yield task, result


def _in_process(tasks: Sequence[Any], make: Make, width: Width) -> Iterator[tuple[Any, Any]]:
    shape = settle(width, len(tasks))
    call = make(Setup(shape.device, shape.threads, shape.batch_size))
    for task in tasks:
        beat.sent(task)
        yield task, guarded(call, task)


def _in_threads(tasks: Sequence[Any], make: Make, width: Width) -> Iterator[tuple[Any, Any]]:
    """A task a thread, and one thread a task: many small products shared out among all cores wait on each other."""
    from threadpoolctl import threadpool_limits

    shape = settle(width, len(tasks))
    if shape.workers == 1:
        yield from _in_process(tasks, make, width)
        return
    call = make(Setup(shape.device, shape.threads, shape.batch_size))
    single = partial(threadpool_limits, 1)  # OpenMP's limit is each thread's own, BLAS's the process's
    with threadpool_limits(1), ThreadPoolExecutor(shape.workers, initializer=single) as pool:
        flying = {pool.submit(guarded, call, task): task for task in tasks}
        try:
            for done in as_completed(flying):
                yield flying.pop(done), done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _wait_ready(ray: Any, actors: list[Any]) -> None:
    """Wait until every worker has loaded what it needs. Raises MMFilterError with the reason of one that cannot."""
    from ray.exceptions import RayError

    try:
        refused = [error for error in ray.get([actor.ready.remote() for actor in actors]) if error is not None]
    except RayError as error:
        why = [line for line in str(error).splitlines() if line.strip()]
        raise MMFilterError(
            f"a worker could not start: {why[-1].strip()} (is mmfilter installed on every node?)"
        ) from error
    if refused:
        raise refused[0]


def _on_ray(tasks: Sequence[Any], make: Make, width: Width) -> Iterator[tuple[Any, Any]]:
    ray = start_ray(width.address)
    from ray.exceptions import RayActorError
    from ray.util import ActorPool

    from .worker import Worker as Plain

    Worker: Any = Plain  # ray.remote makes an actor class of it, which type checkers do not see
    there = ray.cluster_resources()
    shape = settle(width, len(tasks), there)
    if width.address is None:  # an actor that this machine has no core for would never start
        shape = replace(shape, workers=max(1, min(shape.workers, int(there.get("CPU", 1) // shape.cpus))))
    setup = Setup(shape.device, shape.threads, shape.batch_size)
    options = {"num_cpus": shape.cpus, "num_gpus": shape.gpus, "max_restarts": -1, "max_concurrency": shape.overlap}
    actors = [Worker.options(**options).remote(make, setup) for _ in range(shape.workers)]
    _wait_ready(ray, actors)
    pool = ActorPool(actors * shape.overlap)
    back: set[int] = set()
    flying: dict[str, list[int]] = {}  # actor id -> tasks sent to it and not yet back

    def send(actor: Any, number: int) -> Any:
        flying.setdefault(actor._actor_id.hex(), []).append(number)
        beat.sent(tasks[number])
        return actor.run.remote(number, tasks[number])

    for number in range(len(tasks)):
        pool.submit(send, number)
    while pool.has_next():
        try:
            actor_id, number, result = pool.get_next_unordered()
        except RayActorError as error:
            for number in flying.pop(error.actor_id or "", []):
                back.add(number)
                yield tasks[number], Crash(f"its worker died ({type(error).__name__})")
            continue
        if number not in back:  # else its worker died right after it, and it is counted already
            flying[actor_id].remove(number)
            back.add(number)
            yield tasks[number], result
    if len(back) < len(tasks):
        raise MMFilterError(
            f"no worker is left and {len(tasks) - len(back)} tasks are not done; the same command goes on from here"
        )
    for actor in actors:
        ray.kill(actor)

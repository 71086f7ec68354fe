"""Drive tasks over workers: in this process, or over Ray actors with `ray.util.ActorPool`.

ActorPool is Ray's own loop over actors: only task descriptors go out and small reports come back, so
the object store stays empty and the driver's memory flat. What it lacks is ours: the count of
attempts of a task that kills its worker (Ray would retry it for ever).
"""

import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmfilter.errors import MMFilterError, StoreError

from . import beat
from .cluster import Width, machines, settle, start_ray
from .crew import Crew, Lane

Make = Callable[["Setup"], Callable[[Any], Any]]
"""Called once in each worker; returns the function that does one task."""

ATTEMPTS = 3
POLL = 1.0  # seconds between looks for workers that have become ready


@dataclass(frozen=True)
class Setup:
    """What a worker is told of where it runs."""

    device: str
    threads: int
    batch_size: int
    own: int = 1  # shards at a time that it decodes itself, where decoders do others for it
    decoder_cpus: int = 0  # cores of each of those decoders; 0: there are none


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


def _on_ray(tasks: Sequence[Any], make: Make, width: Width) -> Iterator[tuple[Any, Any]]:
    ray = start_ray(width.address)
    from ray.exceptions import RayActorError
    from ray.util import ActorPool

    from .worker import Worker as Plain

    Worker: Any = Plain  # ray.remote makes an actor class of it, which type checkers do not see
    shape = settle(width, len(tasks), machines(ray))
    setup = Setup(shape.device, shape.threads, shape.batch_size, shape.own, shape.decoder_cpus)
    crew = Crew(ray, Worker, make, setup, shape)
    pool: Any = ActorPool([])  # of lanes: an actor can have several tasks
    back: set[int] = set()
    flying: dict[str, list[int]] = {}  # actor id -> tasks sent to it and not yet back

    def send(lane: Lane, number: int) -> Any:
        flying.setdefault(lane.actor._actor_id.hex(), []).append(number)
        beat.sent(tasks[number])
        return lane.actor.run.remote(number, tasks[number])

    waiting = iter(range(len(tasks)))  # a task is sent when a worker is free: what is in flight hangs on them alone
    unsent = next(waiting, None)
    while unsent is not None or pool.has_next():
        for lane in crew.ready(0 if pool.has_next() else POLL):
            pool.push(lane)
        while unsent is not None and pool.has_free():
            pool.submit(send, unsent)
            unsent = next(waiting, None)
        if not pool.has_next():
            continue
        try:
            actor_id, number, result = pool.get_next_unordered(POLL if crew.loading else None)
        except TimeoutError:
            continue  # to look for workers that have become ready
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
    crew.stop()

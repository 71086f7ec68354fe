"""Drive tasks over workers: in this process, or over Ray actors (`jobs.crew`)."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmfilter.errors import (
    MMFilterError,
    ShortageError,
    StoreError,
    StoreRefusal,
    TransientError,
    is_of_environment,
    of_environment,
)
from mmfilter.narrow import with_less

from . import beat, marker
from .cluster import Width, settle, start_ray
from .stopping import check, held_back

Make = Callable[["Setup"], Callable[[Any], Any]]
"""Called once in each worker; returns the function that does one task."""

ATTEMPTS = 3


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
    """A task that raised something unforeseen, or killed its worker.

    `of_machine`: a disk, a network or a store kept failing, which says nothing about the task; the next command begins
    to count anew.
    """

    error: str
    of_machine: bool = False


@dataclass(frozen=True)
class Refusal:
    """A task that raised an MMFilterError: the job stops and says so."""

    error: MMFilterError


@dataclass(frozen=True)
class Short(Refusal):
    """A task for which the machine has too little memory or too few file handles beside what else it does."""


def guarded(call: Callable[[Any], Any], task: Any) -> Any:
    """The task's result, or a Refusal or Crash in its place. Where the machine is short it is tried with less."""
    try:
        return with_less(lambda: call(task), _name(task))
    except MMFilterError as error:
        return _answer(error)
    except Exception as error:
        if isinstance(error, OSError) and is_of_environment(error):
            return _answer(of_environment(error, "a temporary file (TMPDIR)"))
        return Crash(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")


def _answer(error: MMFilterError) -> Any:
    if isinstance(error, (StoreError, TransientError)) and not isinstance(error, StoreRefusal):
        return Crash(str(error), of_machine=True)  # it may be this file alone, and another time it may be read
    return Short(error) if isinstance(error, ShortageError) else Refusal(error)


def _name(task: Any) -> str:
    return str(getattr(task, "path", "") or getattr(task, "name", "") or task)[:200]


def drive(tasks: Sequence[Any], make: Make, width: Width, threads: bool = False) -> Iterator[tuple[Any, Any]]:
    """Yield (task, result or Crash) as they finish, each task once. Raises a task's MMFilterError.

    `threads`: what `make` returns may do several tasks at once, which a local job then does.
    """
    local = _in_threads if threads else _in_process
    for task, result in (local if width.local else _on_ray)(tasks, make, width):
        beat.back(task, well=not isinstance(result, Crash | Refusal))
        if isinstance(result, Refusal):
            raise result.error
        yield task, result
    marker.forget()


def _in_process(tasks: Sequence[Any], make: Make, width: Width) -> Iterator[tuple[Any, Any]]:
    shape = settle(width, len(tasks))
    marker.begin(None)
    call = make(Setup(shape.device, shape.threads, shape.batch_size))
    for task in tasks:
        check()
        beat.sent(task)
        marker.begin(task)
        yield task, guarded(call, task)


def _in_threads(tasks: Sequence[Any], make: Make, width: Width) -> Iterator[tuple[Any, Any]]:
    """A task a thread, and one thread a task: many small products shared out among all cores wait on each other."""
    from threadpoolctl import threadpool_limits

    shape = settle(width, len(tasks))
    if shape.workers == 1:
        yield from _in_process(tasks, make, width)
        return
    marker.begin(None)
    call = make(Setup(shape.device, shape.threads, shape.batch_size))
    single = partial(threadpool_limits, 1)  # OpenMP's limit is each thread's own, BLAS's the process's
    waiting, workers = list(tasks), shape.workers
    while waiting:
        short = []
        with threadpool_limits(1), ThreadPoolExecutor(workers, initializer=single) as pool:
            flying = {pool.submit(guarded, call, task): task for task in waiting}
            try:
                for done in as_completed(flying):
                    task, result = flying.pop(done), done.result()
                    if isinstance(result, Short) and workers > 1:
                        short.append(task)
                    else:
                        yield task, result
            finally:
                pool.shutdown(cancel_futures=True)
        waiting, workers = short, max(1, workers // 2)


def _on_ray(tasks: Sequence[Any], make: Make, width: Width) -> Iterator[tuple[Any, Any]]:
    ray = start_ray(width.address)
    with held_back():
        from .crew import Crew

        crew = Crew(ray, tasks, make, width)
    for number, result in crew.results():
        yield tasks[number], result

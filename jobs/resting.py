"""Workers on Ray between two jobs of one process: to start one takes seconds, so those of a job serve the next.

Only those on CPUs: ending its process is what surely frees a GPU.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """What a worker is of: one of another kind does not do. `ray` is this process's connection to its cluster."""

    ray: str
    cpus: float
    gpus: int
    lanes: int


RESTING: list[tuple[Kind, Any]] = []


def connection() -> str:
    """What tells this process's Ray from one that it had before; their drivers' ids may be the same (job 1's)."""
    import ray

    here = ray.get_runtime_context()
    return f"{here.get_node_id()} {here.get_job_id()}"


def start(kind: Kind) -> Any:
    """A new worker."""
    from .worker import Worker

    of: Any = Worker  # ray.remote makes an actor class of it, which type checkers do not see
    options = {"num_cpus": kind.cpus, "num_gpus": kind.gpus, "max_concurrency": kind.lanes}
    return of.options(**options, max_restarts=0).remote()


def take(kind: Kind, most: int) -> list[Any]:
    """Up to `most` workers of the kind. All others are ended: they hold cores."""
    rested = [actor for of, actor in RESTING if of == kind]
    RESTING[:] = [(of, actor) for of, actor in RESTING if of != kind] + [(kind, actor) for actor in rested[most:]]
    dismiss()
    return rested[:most]


def keep(kind: Kind, actors: list[Any]) -> None:
    """Workers that have no task go to rest, and let go of what they loaded; or they are ended."""
    RESTING.extend((kind, actor) for actor in actors)
    if kind.gpus:
        dismiss()
    else:
        for actor in actors:
            actor.rest.remote()


def dismiss() -> None:
    """End all that rest: their cores are wanted for something else."""
    import ray

    while RESTING:
        kind, actor = RESTING.pop()
        if ray.is_initialized() and kind.ray == connection():  # else it went with its Ray
            ray.kill(actor)

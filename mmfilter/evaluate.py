"""Run tasks on a model: the embedder is loaded once, and each result is written as it comes."""

from collections.abc import Sequence

from .embed import load
from .errors import MMFilterError
from .plugs import Task
from .results import TaskResult, read_results, write_results
from .weights import ModelSpec


def evaluate(
    model: ModelSpec,
    tasks: Sequence[Task],
    out: str,
    device: str = "cpu",
    batch: int | None = None,
    aside: dict[str, str] | None = None,
) -> list[TaskResult]:
    """The tasks' results, in their order; those that OUT already has are read, not run again.

    A task that fails is noted in `aside` (key -> why) and the others go on; without `aside` its error is
    raised. Raises what `embed.load` raises.
    """
    have = read_results(out)
    embedder = load("model", model, device, batch) if any(task.key not in have for task in tasks) else None
    for task in tasks:
        if task.key in have:
            continue
        try:
            have[task.key] = task.run(embedder)
        except MMFilterError as error:
            if aside is None:
                raise
            aside[task.key] = str(error)
            continue
        write_results(out, [have[task.key]])
    return [have[task.key] for task in tasks if task.key in have]

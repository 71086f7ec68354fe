"""`rank`: the same training on several subsets, evaluated alike; which of them trains the better model."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from mmfilter.errors import MMFilterError

from . import options as o
from .cluster import Width
from .driver import ATTEMPTS, Crash, Setup, drive


def add(app: typer.Typer) -> None:
    @app.command()
    def rank(
        subsets: Annotated[list[str], typer.Argument(help="Subsets' .npy files.", metavar="SUBSETS")],
        pool: o.Pool,
        out: Annotated[str, typer.Option("--out", help="Where trials are written.", metavar="OUT")] = "runs/rank",
        scale: Annotated[str, typer.Option(help="micro, tiny, small, medium, large or xlarge.")] = "tiny",
        seeds: Annotated[int, typer.Option(min=1, help="Trainings of each subset; two at least to compare.")] = 3,
        tasks: Annotated[
            list[str] | None,
            typer.Option("--tasks", help="'scenes', a set, or a folder of sets. Repeatable.", metavar="FOLDER"),
        ] = None,
        samples: Annotated[int, typer.Option(min=0, help="Pairs seen in each training (0: the scale's).")] = 0,
        lr_scale: Annotated[float, typer.Option(help="The learning rate, as a part of the scale's: proxy runs.")] = 1.0,
        model: Annotated[str, typer.Option(help="Another model than the scale's.")] = "",
        address: o.Address = None,
        workers: o.Workers = None,
        gpus: o.Gpus = None,
        threads: Annotated[int, typer.Option(min=1, help="CPU threads a training.")] = 1,
        processes: Annotated[int, typer.Option(min=1, help="open_clip: one a GPU of a training, by torchrun.")] = 1,
        loaders: Annotated[int, typer.Option(min=0, help="open_clip: loader workers of each process.")] = 4,
        local: o.Local = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Print each arm's command; write nothing.")] = False,
        as_json: o.Json = False,
    ) -> None:
        """Train on each subset, on random ones of the same size and on all of the pool; evaluate; compare."""
        from dataclasses import replace

        from mmfilter.scales import find_scale, scenes
        from mmfilter.trials import Trials

        from .outdir import absolute, only_driver, shard_paths

        found = find_scale(scale, samples, lr_scale)
        asked = Trials(
            pool=shard_paths(pool),
            out=absolute(out),
            scale=replace(found, model=model or found.model),
            tasks=chosen_tasks(tasks or ["scenes"], scenes(scale)),
            seeds=tuple(range(seeds)),
            threads=threads,
            processes=processes,
            workers=loaders,
        )
        paths = [absolute(path) for path in subsets]
        if dry_run:
            print("\n".join(plan(asked, paths)))
            return
        with only_driver(asked.out):
            run_trials(asked, paths, Width(address, workers, gpus, threads, None, local))
        from .leaderboard import show

        print(show([asked.out], as_json))


def chosen_tasks(roots: Sequence[str], samples: int) -> list[Any]:
    """The tasks that are named, `samples` a task of our scenes. Raises UsageError, DataError."""
    from mmfilter.tasks.find import find_tasks, is_name
    from mmfilter.tasks.scenes import SCENES, scene_tasks

    from .outdir import absolute

    places = [root if is_name(root) else absolute(root) for root in roots if root != SCENES]
    return [*(scene_tasks(samples=samples) if SCENES in roots else []), *(find_tasks(places)[0] if places else [])]


def plan(asked: Any, subsets: Sequence[str]) -> list[str]:
    """What would be trained, and the command of each subset's first training; writes nothing."""
    from mmfilter.trials import Trial, arms, planned, pool_uids

    found = arms(subsets, pool_uids(asked.pool))
    scale = asked.scale
    said = [
        f"{len(found) * len(asked.seeds)} trainings of {scale.samples:,} pairs ({scale.name}): "
        f"{len(found)} arms, {len(asked.seeds)} seeds, {len(asked.tasks)} tasks each"
    ]
    for arm in found:
        said += ["", f"{arm.name}: {arm.kept:,} samples" + (f", beside it {arm.beside}" if arm.beside else "")]
        said.append("drawn anew for each seed" if arm.random else planned(Trial(asked, arm, asked.seeds[0])))
    return said


def run_trials(asked: Any, subsets: Sequence[str], width: Width) -> None:
    """Do what is not done yet, over workers. Raises MMFilterError; what is done stays."""
    from mmfilter.trials import arms, pool_uids, prepare

    from .progress import Progress

    uids = pool_uids(asked.pool)
    left, attempts, error = prepare(asked, arms(subsets, uids), uids), 0, ""
    with Progress("rank", len(left), "trials") as progress:
        while left and attempts < ATTEMPTS:
            again, attempts = [], attempts + 1
            for trial, result in drive(left, Make(), width):
                if isinstance(result, Crash):
                    again.append(trial)
                    error = result.error
                else:
                    progress.advance()
            left = again
    if left:
        raise MMFilterError(f"rank: {len(left)} trials failed {ATTEMPTS} times: {error}")


class Make:
    """What a worker calls: one trial at a time, since each fills its device."""

    def __call__(self, setup: Setup) -> Callable[[Any], int]:
        import threading
        from dataclasses import replace

        import torch

        from mmfilter.trials import run_trial

        alone = threading.Lock()

        def run(trial: Any) -> int:
            device = trial.of.device or ("" if setup.device == "cpu" else setup.device)
            with alone:
                torch.set_num_threads(trial.of.threads)
                return len(run_trial(replace(trial, of=replace(trial.of, device=device))))

        return run

"""`rank`: the same training on several subsets, evaluated alike; which of them trains the better model."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from mmfilter.errors import MMFilterError

from . import options as o
from . import rank_flags as r
from .cluster import Width
from .driver import ATTEMPTS, Crash, Setup, drive
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def rank(
        subsets: r.Subsets,
        pool: o.Pool,
        out: r.Out = "runs/rank",
        uids: o.Uids = None,
        pool_id: o.PoolId = None,
        captions: o.Captions = None,
        scale: r.ScaleName = "tiny",
        seeds: r.Seeds = 3,
        tasks: r.Tasks = None,
        samples: r.Samples = 0,
        lr_scale: r.LrScale = 1.0,
        model: r.Model = "",
        address: o.Address = None,
        workers: o.Workers = None,
        gpus: o.Gpus = None,
        threads: r.Threads = 1,
        processes: r.Processes = 1,
        loaders: r.Loaders = 4,
        local: o.Local = False,
        dry_run: r.DryRun = False,
        as_json: o.Json = False,
    ) -> None:
        """Train on each subset, on random ones of the same size and on all of the pool; evaluate; compare."""
        from mmfilter.subset_notes import notes_of

        from .leaderboard import show
        from .outdir import absolute, only_driver

        asked = _asked(dict(locals()))
        paths = [absolute(path) for path in subsets]
        if dry_run:
            print("\n".join(plan(asked, paths)))
            return
        for note in [note for path in paths for note in notes_of(path)]:
            print(f"mmfilter: {note}", file=sys.stderr)
        with only_driver(asked.out):
            run_trials(asked, paths, Width(address, workers, gpus, threads, None, local))
        print(show([asked.out], as_json))


def _asked(given: dict[str, Any]) -> Any:
    """The Trials that the flags ask for. Raises UsageError, DataError."""
    from dataclasses import replace

    from mmfilter.fields import read_options
    from mmfilter.scales import find_scale, scenes
    from mmfilter.trials import Trials

    from .outdir import absolute, reading_beside, shard_paths

    scale = find_scale(given["scale"], given["samples"], given["lr_scale"])
    return Trials(
        pool=shard_paths(given["pool"]),
        out=absolute(given["out"]),
        scale=replace(scale, model=given["model"] or scale.model),
        tasks=chosen_tasks(given["tasks"] or ["scenes"], scenes(scale.name)),
        seeds=tuple(range(given["seeds"])),
        threads=given["threads"],
        processes=given["processes"],
        workers=given["loaders"],
        read=read_options(
            reading_beside(absolute(given["subsets"][0])), given["uids"], given["pool_id"], given["captions"]
        ),
    )


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

    found = arms(subsets, pool_uids(asked.pool, asked.read))
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

    uids = pool_uids(asked.pool, asked.read)
    left, attempts, error = prepare(asked, arms(subsets, uids), uids), 0, ""
    with Progress("rank", len(left), "trials") as progress:
        while left and attempts < ATTEMPTS:
            again, attempts = [], attempts + 1
            for trial, result in drive(left, Make(), width):
                if isinstance(result, Crash):
                    again.append(trial)
                    error = result.error.splitlines()[0]
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

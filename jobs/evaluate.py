"""`evaluate`: what a model can do, on evaluation sets; DataComp's tasks, results file and aggregate."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from mmfilter.errors import SET_ASIDE, UsageError
from mmfilter.text import one_line

from . import options as o
from . import progress
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def evaluate(
        model: Annotated[
            str, typer.Argument(help="A model folder, an open_clip name, hf-hub:..., or demo.", metavar="MODEL")
        ],
        tasks: Annotated[
            list[str],
            typer.Option(
                "--tasks", help="A set, a folder of sets, s3://..., or a task by name. Repeatable.", metavar="FOLDER"
            ),
        ],
        out: Annotated[str, typer.Option("--out", help="Where results are written.", metavar="OUT")],
        pretrained: Annotated[str | None, typer.Option(help="open_clip's tag for the weights.")] = None,
        weights: Annotated[str | None, typer.Option(help="A file to read the weights from.")] = None,
        only: Annotated[list[str] | None, typer.Option(help="Only the task of this key. Repeatable.")] = None,
        datacomp: Annotated[bool, typer.Option("--datacomp", help="Name what DataComp's 40 lack here.")] = False,
        split: Annotated[str, typer.Option(help="The sets' split.")] = "test",
        device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
        threads: Annotated[int, typer.Option(min=1, help="CPU threads of the model.")] = 1,
        redo: Annotated[bool, typer.Option("--redo", help="Measure again what OUT already has.")] = False,
        as_json: o.Json = False,
    ) -> None:
        """Measure a model on evaluation sets; a task that is done is not run again."""
        from mmfilter.tasks.find import is_name

        from .outdir import absolute

        given = {"model": model, "pretrained": pretrained, "weights": weights}
        how = {"device": device, "threads": threads, "redo": redo}
        which = {"split": split, "only": only or [], "datacomp": datacomp}
        roots = [root if is_name(root) else absolute(root) for root in tasks]
        found = evaluate_model(given, roots, absolute(out), which, how)
        print(json.dumps(found, indent=1) if as_json else "\n".join(lines(found)))
        if found["aside"] or found["missing"] or any(task["failed"] for task in found["tasks"]):
            raise typer.Exit(SET_ASIDE)


def evaluate_model(
    model: Mapping[str, Any], roots: Sequence[str], out: str, which: Mapping[str, Any], how: Mapping[str, Any]
) -> dict[str, Any]:
    """Tasks, what is `missing` (key -> what to fetch) or `aside` (key -> why), the aggregate. Raises MMFilterError."""
    from mmfilter.evaluate import evaluate, forget
    from mmfilter.plugs import build_plug
    from mmfilter.tasks.datacomp import aggregate
    from mmfilter.tasks.find import choose, find_tasks
    from mmfilter.weights import ModelSpec

    from .outdir import only_driver

    spec = build_plug(ModelSpec, {k: v for k, v in model.items() if v is not None}, "MODEL")
    aside: dict[str, str] = {}
    tasks, missing = find_tasks(roots, which["split"], which["datacomp"], aside)
    if not tasks and not aside:
        raise UsageError(
            f"{', '.join(roots)}: none of DataComp's sets is here. The first: {next(iter(missing.values()))}"
        )
    only = which["only"]
    aside = {key: why for key, why in aside.items() if not only or key in only}
    tasks = [] if only and set(only) <= set(aside) else choose(tasks, [key for key in only if key not in aside])
    with only_driver(out):
        if how["redo"]:
            forget(out)
        import torch

        torch.set_num_threads(how["threads"])
        results = evaluate(spec, tasks, out, how["device"], aside, _say)
    table = [_row(result, task) for result, task in _paired(results, tasks)]
    whole = aggregate({result.key: result for result in results})
    return {
        "model": model["model"],
        "out": out,
        "tasks": table,
        "missing": missing,
        "aside": aside,
        "aggregate": _plain(whole),
    }


def _paired(results: Sequence[Any], tasks: Sequence[Any]) -> list[tuple[Any, Any]]:
    by_key = {task.key: task for task in tasks}
    return [(result, by_key[result.key]) for result in results]


def _row(result: Any, task: Any) -> dict[str, Any]:
    return {
        "key": result.key,
        "dataset": result.dataset,
        "main_metric": task.main_metric,
        "metrics": _plain(result.metrics),
        "samples": result.samples,
        "failed": result.failed,
        "notes": list(result.notes),
    }


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def lines(found: Mapping[str, Any]) -> list[str]:
    """A line a task, what was set aside or is missing, and the aggregate as far as it is whole."""
    said = []
    for task in found["tasks"]:
        value = task["metrics"]["main_metric"]
        shown = "      " if value is None else f"{value:.4f}"
        lost = ", ".join(f"{n:,} {status}" for status, n in task["failed"].items())
        said.append(
            f"{shown}  {task['dataset']}: {task['main_metric'] or 'no main metric'}, {task['samples']:,} samples"
            + (f"; left out: {lost}" if lost else "")
        )
        said += [f"        note: {note}" for note in task["notes"]]
    said += [f"not measured  {key}: {why}" for key, why in found["aside"].items()]
    said += [f"missing       {key}: {why}" for key, why in found["missing"].items()]
    whole = {name: value for name, value in found["aggregate"].items() if value is not None}
    said += [f"{value:.4f}  DataComp's {name}" for name, value in whole.items()]
    return [*map(one_line, said), f"{found['out']}/eval_results.jsonl"]


def _say(text: str) -> None:
    progress.note("evaluate", text)

"""`run`: a whole recipe, from shards to a subset, new shards and a report. Each step skips what is done."""

import json
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import typer

from mmfilter.allow import ALL
from mmfilter.errors import OK, SET_ASIDE, MMFilterError

from . import options as o
from .cluster import Width
from .terminal import print


@dataclass(frozen=True)
class RunOptions:
    """What `run` was asked beyond the recipe and the pool."""

    out: str
    name: str
    width: Width = Width()
    redo: bool = False
    reshard: bool = True
    labels: str | None = None
    missing: tuple[str, ...] = ()  # named shards that do not exist
    keep_going: bool = False


def add(app: typer.Typer) -> None:
    @app.command()
    def run(
        recipe: o.RecipeArg,
        pool: o.Pool,
        out: o.Out = "runs/run",
        name: o.Name = None,
        weights: o.Weights = None,
        uids: o.Uids = None,
        pool_id: o.PoolId = None,
        captions: o.Captions = None,
        address: o.Address = None,
        workers: o.Workers = None,
        gpus: o.Gpus = None,
        threads: o.Threads = None,
        batch_size: o.BatchSize = None,
        decoders: o.Decoders = None,
        patience: o.Patience = 3600,
        local: o.Local = False,
        redo_changed: o.Redo = False,
        allow_missing: o.AllowMissing = False,
        keep_going: o.KeepGoing = False,
        reshard: o.Reshard = True,
        labels: o.Labels = None,
        dry_run: o.DryRun = False,
        as_json: o.Json = False,
    ) -> None:
        """A whole recipe: embed and score, select, reshard, report. Run again, it goes on."""
        from mmfilter.recipe import load_recipe

        from .outdir import absolute, mend_run
        from .shards import find_shards

        loaded, shards = load_recipe(recipe, weights).read_as(uids, pool_id, captions), find_shards(pool, allow_missing)
        width = o.width(address, workers, gpus, threads, batch_size, local, decoders, patience)
        asked = RunOptions(
            absolute(out), name or loaded.name, width, redo_changed, reshard, labels, tuple(shards.missing), keep_going
        )
        if not dry_run:
            mend_run(asked.out)
        check_run(loaded, shards.paths, asked, dry_run)
        if dry_run:
            from .dryrun import say

            say(loaded, shards.paths, asked, as_json)
            return
        result = run_recipe(loaded, shards.paths, asked)
        print(json.dumps(result, indent=1) if as_json else "\n".join(lines(result)))
        raise typer.Exit(SET_ASIDE if result["counts"]["failed"] else OK)


def check_run(recipe: Any, paths: list[str], asked: RunOptions, dry_run: bool = False) -> None:
    """Raise MMFilterError for what can be known to fail, before anything is spent (jobs/check.py)."""
    from .check import Request, check_request

    resharded = asked.reshard and recipe.select is not None
    verb: Any = "dry-run" if dry_run else "run"
    given = (asked.name, asked.labels, resharded, asked.redo, asked.keep_going)
    request = Request(verb, asked.out, paths, None, *given)
    check_request(recipe, request)


def run_recipe(recipe: Any, paths: list[str], asked: RunOptions) -> dict[str, Any]:
    """Do the whole recipe; returns counts and paths. Raises MMFilterError."""
    from .clock import StepClock
    from .counts import summary
    from .embed import embed_pool
    from .look import report_run
    from .outdir import only_driver, save_run
    from .run_pool import run_pool
    from .shards import note

    out, clock = asked.out, StepClock(asked.out)
    with only_driver(out):
        of_run = run_pool(out, paths, in_portions=False)
        recorded = {
            "recipe": recipe.source,
            "models": recipe.model_paths,
            "missing_shards": list(asked.missing),
            "metadata": None,
        }
        begin = partial(save_run, out, **of_run.fields(), **recorded)
        with clock.step("embed"):
            counts = embed_pool(recipe, paths, out, asked.width, asked.redo, begin)
        clock.did("embed", counts.done_before < counts.shards)
        save_run(out, embed=summary(counts))
        there, noted = not_aside(paths, counts), {"missing": note(asked.missing), "pool": of_run.noted()}
        result: dict[str, Any] = {"out": out, "embed": summary(counts), **noted}
        if recipe.pool_scores:
            with clock.step("pool_scores"):
                result["pool_scores"] = _pool_scores(recipe, asked)
            clock.did("pool_scores", any(result["pool_scores"].values()))
        result["counts"] = {"in": counts.read, "kept": counts.ok, "dropped": 0, "failed": sum(counts.failed.values())}
        if recipe.select is not None:
            selection = _selected(recipe, asked, clock)
            result |= {"counts": selection["counts"], "selection": selection}
            if asked.reshard:
                result["reshard"] = _resharded(selection["path"], there, recipe.read, asked, clock)
        clock.save()
        if recipe.select is not None:
            result["report"] = report_run(out, asked.name, asked.labels, allow=ALL)
        result["seconds"] = clock.seconds
    return result


def not_aside(paths: list[str], counts: Any) -> list[str]:
    """The shards to go on with: those that were not set aside. Raises MMFilterError where all were."""
    from mmfilter import storage

    there = [path for path in paths if storage.stem(path) not in counts.set_aside]
    if not there:
        first, why = min(counts.set_aside.items())
        raise MMFilterError(f"all {len(paths):,} shards were set aside; {first}: {why}")
    return there


def _pool_scores(recipe: Any, asked: RunOptions) -> dict[str, int]:
    """First column -> shards written."""
    from .pool_scores import add_pool_scores, pool_scores_of

    width = replace(asked.width, decoders=None)
    return add_pool_scores(pool_scores_of(recipe, asked.out, asked.redo), asked.out, width, redo=asked.redo)


def _selected(recipe: Any, asked: RunOptions, clock: Any) -> dict[str, Any]:
    """The recipe's selection, as a step of the run."""
    from mmfilter.subset_record import earlier_record, record_path, same_selection

    from .select import select_subset

    before = earlier_record(record := record_path(asked.out, asked.name))
    with clock.step("select"):
        selection = select_subset(recipe, asked.out, asked.name)
    clock.did("select", not same_selection(before, earlier_record(record)))
    return selection


def _resharded(subset: str, there: list[str], read: Any, asked: RunOptions, clock: Any) -> dict[str, Any]:
    """The subset's new shards, as a step of the run; `there` are the pool's shards that were not set aside."""
    from mmfilter import storage
    from mmfilter.reshard_plan import ReshardOptions

    from .reshard import Request, reshard_subset

    to, width = storage.join(asked.out, "shards", asked.name), replace(asked.width, decoders=None)
    request = Request(ReshardOptions(allow_missing=bool(asked.missing)), read, True)
    with clock.step("reshard"):
        written = reshard_subset(subset, there, to, width, request)
    clock.did("reshard", written["shards_done_before"] < written["shards"])
    return written


def lines(result: dict[str, Any]) -> list[str]:
    """The result for a person."""
    from . import reshard, select
    from .counts import form_lines
    from .run_pool import lines as pool_lines
    from .shards import lines as missing_lines

    said = select.lines({"steps": [], "failed": {}, "path": "none", **result.get("selection", result)})
    said += form_lines(result["embed"])
    said += [f"  set aside: shard {shard} ({why})" for shard, why in result["embed"]["shards_set_aside"].items()]
    said += [*missing_lines(result["missing"]), *pool_lines(result["pool"])]
    if "reshard" in result:
        said.append(f"shards  {reshard.line(result['reshard'])}")
    if "report" in result:
        said.append(f"report  {result['report']}")
    said.append("seconds " + ", ".join(f"{stage} {s:g}" for stage, s in result["seconds"].items()))
    return said

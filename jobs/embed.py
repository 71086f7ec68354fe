"""`embed`: read the pool once; embeddings and scores for every shard, committed shard by shard."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import typer

from mmfilter import storage
from mmfilter.errors import OK, SET_ASIDE
from mmfilter.expected import expected_failures
from mmfilter.recipe import Recipe
from mmfilter.records import Failure
from mmfilter.shard import ShardReport, process_shard
from mmfilter.sidecar import failures_path, read_commit, write_failures
from mmfilter.weights import ModelSpec, local_sha256, resolve
from mmfilter.work import Work, embedders_of, pending, plan_work

from . import options as o
from .cluster import Width
from .driver import ATTEMPTS, Crash, Setup, drive
from .outdir import count_attempt, forget_attempts, read_attempts
from .progress import Progress


@dataclass(frozen=True)
class MakeEmbedder:
    """Loads the models a worker needs; what it returns does one shard."""

    work: Work
    models: Mapping[str, ModelSpec]

    def __call__(self, setup: Setup) -> Callable[[str], ShardReport]:
        if self.models:
            import torch

            if setup.device == "cpu":
                torch.set_num_threads(1)  # workers are the parallelism, and the bytes do not depend on the cores
        from mmfilter.embed import load

        embedders = {name: load(name, spec, setup.device, setup.batch_size) for name, spec in self.models.items()}
        work = replace(self.work, batch_size=setup.batch_size, threads=setup.threads)
        return lambda path: process_shard(path, work, embedders)


@dataclass
class PoolCounts:
    """What the pool came to: `read` = `ok` + the sum of `failed`. `aside` are shards given up on."""

    shards: int = 0
    done_before: int = 0
    read: int = 0
    ok: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    aside: dict[str, str] = field(default_factory=dict)

    def add(self, report: ShardReport) -> None:
        self.read += report.read
        self.ok += report.ok
        self.failed.update(report.failed)


def add(app: typer.Typer) -> None:
    @app.command()
    def embed(
        recipe: o.RecipeArg,
        pool: o.Pool,
        out: o.Out = "runs/run",
        address: o.Address = None,
        workers: o.Workers = None,
        gpus: o.Gpus = None,
        threads: o.Threads = None,
        batch_size: o.BatchSize = None,
        patience: o.Patience = 3600,
        local: o.Local = False,
        redo_changed: o.Redo = False,
        as_json: o.Json = False,
    ) -> None:
        """Embeddings and scores of every shard: metadata parquet and npz. Done shards are skipped."""
        from mmfilter.recipe import load_recipe

        from .outdir import absolute, only_driver, save_run, shard_paths

        loaded, paths, folder = load_recipe(recipe), shard_paths(pool), absolute(out)
        width = replace(o.width(address, workers, gpus, threads, batch_size, local), patience=patience)
        with only_driver(folder):
            save_run(folder, pool=paths, recipe=loaded.source)
            counts = embed_pool(loaded, paths, folder, width, redo_changed)
            save_run(folder, embed=summary(counts))
        print(json.dumps(summary(counts), indent=1) if as_json else "\n".join(lines(summary(counts))))
        raise typer.Exit(SET_ASIDE if counts.failed else OK)


def resolved_weights(work: Work, models: Mapping[str, ModelSpec]) -> dict[str, str | None]:
    """Each model's weights sha256, fetched where wanted. Raises MMFilterError saying what to fetch by hand."""
    known = {name: work.parts[f"embed:{name}"]["weights"] for name in work.models}
    return {**known, **{name: resolve(spec).sha256 for name, spec in models.items() if known[name] is None}}


def find_todo(paths: list[str], work: Work) -> dict[str, list[str]]:
    """Path -> parts still to do, for the shards that lack any. Raises ConflictError."""
    todo = {path: pending(work, read_commit(work.out, storage.stem(path)), path) for path in paths}
    return {path: parts for path, parts in todo.items() if parts}


def embed_pool(recipe: Recipe, paths: list[str], out: str, width: Width, redo: bool = False) -> PoolCounts:
    """Bring every shard up to the recipe. A second call does nothing; a killed one goes on.

    Raises ConflictError where OUT was made from something else, MMFilterError when a model is
    wanted and its weights are not at hand.
    """
    work = replace(plan_work(recipe, out, {n: local_sha256(s) for n, s in recipe.embed.items()}), redo=redo)
    todo = find_todo(paths, work)
    wanted = set().union(*(embedders_of(work, parts) for parts in todo.values()))
    models = {name: spec for name, spec in work.models.items() if name in wanted}
    if models:
        work = replace(plan_work(recipe, out, resolved_weights(work, models)), redo=redo)
        todo = find_todo(paths, work)
    counts = PoolCounts(shards=len(paths), done_before=len(paths) - len(todo))
    _drive(list(todo), MakeEmbedder(work, models), width, counts)
    for path in paths:
        stem = storage.stem(path)
        if stem not in counts.aside:
            commit = read_commit(out, stem)
            assert commit is not None
            counts.add(ShardReport(stem, commit["counts"]["read"], commit["counts"]["ok"], commit["counts"]["failed"]))
    return counts


def _drive(paths: list[str], make: MakeEmbedder, width: Width, counts: PoolCounts) -> None:
    out = make.work.out
    if not paths:
        return
    left = [path for path in paths if not _given_up(path, out, counts)]
    with Progress("embed", len(paths)) as progress:
        while left:
            again: list[str] = []
            for path, result in drive(left, make, width):
                stem = storage.stem(path)
                if isinstance(result, Crash):
                    count_attempt(out, stem, result.error)
                    if not _given_up(path, out, counts):
                        again.append(path)
                        continue
                    progress.advance()
                else:
                    forget_attempts(out, stem)
                    progress.advance(result.read, sum(result.failed.values()))
            left = sorted(again)


def _given_up(path: str, out: str, counts: PoolCounts) -> bool:
    """Whether the shard has had its attempts; then its samples are recorded as failed."""
    stem = storage.stem(path)
    attempts = read_attempts(out, stem)
    if attempts["attempts"] < ATTEMPTS:
        return False
    reason = str(attempts["error"]).splitlines()[0]
    rows = expected_failures(path) or [Failure("", "", "", "")]
    rows = [Failure(row.key, row.uid, "shard_set_aside", f"{ATTEMPTS} attempts failed: {reason}") for row in rows]
    if not storage.exists(failures_path(out, stem)):
        write_failures(out, stem, rows)
    counts.aside[stem] = reason
    counts.read += len(rows)
    counts.failed["shard_set_aside"] += len(rows)
    return True


def summary(counts: PoolCounts) -> dict[str, Any]:
    """Plain values for run.json and the CLI."""
    return {
        "shards": counts.shards,
        "shards_done_before": counts.done_before,
        "read": counts.read,
        "ok": counts.ok,
        "failed": dict(sorted(counts.failed.items())),
        "shards_set_aside": counts.aside,
    }


def lines(said: dict[str, Any]) -> list[str]:
    """The summary for a person."""
    out = [
        f"read {said['read']:,} = ok {said['ok']:,} + failed {said['read'] - said['ok']:,} ({said['shards']:,} shards)"
    ]
    out += [f"  failed: {status:<24} {n:,}" for status, n in said["failed"].items()]
    return out + [f"  set aside: shard {shard} ({why})" for shard, why in said["shards_set_aside"].items()]

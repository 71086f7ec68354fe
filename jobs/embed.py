"""`embed`: read the pool once; embeddings and scores for every shard, committed shard by shard."""

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import typer

from mmfilter import storage
from mmfilter.commit_file import optional_commit
from mmfilter.errors import OK, SET_ASIDE
from mmfilter.feed import Clock, Fed, FeedPlan, Source, feed
from mmfilter.lacking import pending
from mmfilter.model_identity import identity, local_identity, precision_on
from mmfilter.pieces import Piece, cut, sweep
from mmfilter.recipe import Recipe
from mmfilter.records import Failure
from mmfilter.setting_aside import set_aside
from mmfilter.shard import ShardReport, process_piece, process_shard
from mmfilter.sidecar import metadata_path, read_commit
from mmfilter.weights import ModelSpec, local_sha256, resolve
from mmfilter.work import (
    RESOLVED,
    Work,
    added_parts,
    check_loaded,
    embedders_of,
    looks,
    needs_pass,
    plan_work,
    select_parts,
)

from . import choice, marker
from . import options as o
from .cluster import Width, device_of, machines, settle, start_ray, with_decoders
from .counts import PoolCounts, lines, summary
from .driver import ATTEMPTS, Crash, Setup, drive
from .outdir import count_attempt, count_death, each, forget_attempts, forget_machine, read_attempts
from .progress import Progress, count_read
from .terminal import print


@dataclass(frozen=True)
class MakeEmbedder:
    """Loads the models a worker needs; what it returns does one shard."""

    work: Work
    models: Mapping[str, ModelSpec]

    def __call__(self, setup: Setup) -> Callable[[str | Piece], ShardReport | None]:
        if self.models:
            import torch

            if setup.device == "cpu":
                torch.set_num_threads(1)  # workers are the parallelism, and the bytes do not depend on the cores
        from mmfilter.embed import load

        embedders = {name: load(name, spec, setup.device, setup.batch_size) for name, spec in self.models.items()}
        for name, embedder in embedders.items():
            check_loaded(self.work, name, embedder.part())
        work = replace(self.work, batch_size=setup.batch_size, threads=setup.threads)
        source = _counted(feed)
        if setup.decoder_cpus:
            from .decoder import Lanes

            source = Lanes(setup.own, setup.decoder_cpus).source

        def do(task: str | Piece) -> ShardReport | None:
            one: Any = process_piece if isinstance(task, Piece) else process_shard
            return one(task, work, embedders, source)

        return do


def _counted(source: Source) -> Source:
    """`source`, which tells this process's progress what of a shard has been embedded."""

    def read(path: str, plan: FeedPlan, failures: list[Failure], clock: Clock) -> Iterator[Fed]:
        for fed in source(path, plan, failures, clock):
            yield fed
            count_read(len(fed.rows["uid"]))

    return read


def add(app: typer.Typer) -> None:
    @app.command()
    def embed(
        recipe: o.RecipeArg,
        pool: o.Pool,
        out: o.Out = "runs/run",
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
        as_json: o.Json = False,
    ) -> None:
        """Embeddings and scores of every shard: metadata parquet and npz. Done shards are skipped."""
        from mmfilter.recipe import load_recipe

        from .check import Request, check_request
        from .outdir import absolute, mend_run, only_driver, save_run
        from .run_pool import lines as pool_lines
        from .run_pool import run_pool
        from .shards import find_shards, note
        from .shards import lines as missing_lines

        shards = find_shards(pool, allow_missing)
        loaded = load_recipe(recipe, weights).read_as(uids, pool_id, captions)
        folder = absolute(out)
        mend_run(folder)
        check_request(loaded, Request("embed", folder, shards.paths, redo=redo_changed, keep_going=keep_going))
        width = o.width(address, workers, gpus, threads, batch_size, local, decoders, patience)
        with only_driver(folder):
            of_run = run_pool(folder, shards.paths, in_portions=True)
            recorded = {**of_run.fields(), "recipe": loaded.source, "models": loaded.model_paths}
            recorded["missing_shards"] = shards.missing
            begin = partial(save_run, folder, **recorded, metadata=None)
            counts = embed_pool(loaded, shards.paths, folder, width, redo_changed, begin)
            save_run(folder, embed=summary(counts))
        result = {**summary(counts), "missing": note(shards.missing), "pool": of_run.noted()}
        plain = [*lines(result), *missing_lines(result["missing"]), *pool_lines(result["pool"])]
        print(json.dumps(result, indent=1) if as_json else "\n".join(plain))
        raise typer.Exit(SET_ASIDE if counts.failed else OK)


def work_of(recipe: Recipe, out: str) -> Work:
    """The recipe's work, with what is known of its models as far as that takes no network and no open_clip."""
    weights = {name: local_sha256(spec) for name, spec in recipe.embed.items()}
    return plan_work(recipe, out, weights, {name: local_identity(spec) or {} for name, spec in recipe.embed.items()})


def resolved_work(recipe: Recipe, work: Work, names: Collection[str], width: Width) -> Work:
    """The work with all there is to know of the models `names`, which are fetched where wanted.

    Raises MMFilterError saying what to fetch by hand.
    """
    parts = {name: work.parts[f"embed:{name}"] for name in recipe.embed}
    weights = {name: part["weights"] for name, part in parts.items()}
    resolved = {name: part[RESOLVED] for name, part in parts.items()}
    device = device_of(width)
    for name in names:
        spec = recipe.embed[name]
        found = resolve(spec)
        weights[name] = found.sha256
        resolved[name] = {**identity(spec, found), "precision": precision_on(spec, device)}
    return replace(plan_work(recipe, work.out, weights, resolved), redo=work.redo)


def find_todo(paths: list[str], work: Work) -> dict[str, list[str]]:
    """Path -> parts still to do, for the shards that lack any, or whose files are gone or cut. Raises ConflictError.

    The folders of metadata and failures are listed once; a shard without a commit costs nothing more.
    """
    folders = [storage.join(work.out, name) for name in ("metadata", "failures")]
    sizes = {storage.join(f, name): size for f in folders for name, size in storage.sizes(f).items()}

    def lacks(path: str) -> list[str]:
        commit_path = metadata_path(work.out, storage.stem(path), "json")
        return pending(work, optional_commit(commit_path) if commit_path in sizes else None, path, sizes)

    found = zip(paths, each(lacks, paths, storage.is_remote(work.out)), strict=True)
    return {path: parts for path, parts in found if parts}


def embed_pool(
    recipe: Recipe,
    paths: list[str],
    out: str,
    width: Width,
    redo: bool = False,
    begin: Callable[[], None] = lambda: None,
) -> PoolCounts:
    """Bring every shard up to the recipe. A second call does nothing; a killed one goes on.

    `begin` is called when it is known that nothing conflicts with what OUT has. Raises ConflictError where OUT was
    made from something else, MMFilterError when a model is wanted and its weights are not at hand.
    """
    work = replace(work_of(recipe, out), redo=redo)
    work = replace(work, added=added_parts(work))
    todo = find_todo(paths, work)
    wanted = set().union(*(embedders_of(work, parts) for parts in todo.values()))
    models = {name: spec for name, spec in work.models.items() if name in wanted}
    if models:
        work = replace(resolved_work(recipe, work, models, width), added=work.added)
        todo = find_todo(paths, work)
    work = replace(work, added=added_parts(work, todo.values()))
    begin()
    counts = PoolCounts(shards=len(paths), done_before=len(paths) - len(todo), made_of=recipe.read.how)
    if todo:
        width = _chosen(width, work, models, todo)
        _drive(list(todo), MakeEmbedder(work, models), _decoding(width, work, models), counts)
    stems = [stem for stem in map(storage.stem, paths) if stem not in counts.set_aside]
    for commit in each(partial(read_commit, out), stems, storage.is_remote(out)):
        assert commit is not None
        counts.add(commit)
    return counts


def _chosen(width: Width, work: Work, models: Mapping[str, ModelSpec], todo: Mapping[str, list[str]]) -> Width:
    """On Ray or in this process; before that, the death of the process that was at one of the shards is counted."""
    died, stems = marker.left_behind(), {storage.stem(path) for path in todo}
    if died is not None and died["shard"] in stems:
        count_death(work.out, died["shard"])
    tried = {storage.stem(name) for name in storage.names(storage.join(work.out, "attempts"))}
    deadly = [stem for stem in sorted(tried & stems) if read_attempts(work.out, stem).get("died")]
    if deadly and width.local:
        print(
            f"mmfilter: shard {deadly[0]} ended this process before; without --local, Ray sets it aside",
            file=sys.stderr,
        )
    some = select_parts(work, sorted(set().union(*todo.values())))
    return choice.choose(width, choice.embedding(list(todo), models, needs_pass(some)), "".join(deadly[:1]))


def _decoding(width: Width, work: Work, models: Mapping[str, ModelSpec]) -> Width:
    """The width with its decoders: none where no model waits for them, nor by default for a score that would have
    them send whole pictures.
    """
    if not models:
        return replace(width, decoders=0)
    whole = any(looks(score) for score in work.scores)
    return replace(width, decoders=width.decoders or 0) if whole else with_decoders(width)


def _drive(paths: list[str], make: MakeEmbedder, width: Width, counts: PoolCounts) -> None:
    out = make.work.out
    tried = {storage.stem(name) for name in storage.names(storage.join(out, "attempts"))}
    tried = {stem for stem in tried & set(map(storage.stem, paths)) if forget_machine(out, stem)}
    left = [path for path in paths if storage.stem(path) not in tried or not _given_up(path, out, counts)]
    with Progress("embed", len(paths)) as progress:
        tasks: list[str | Piece] = _cut(left, make, width)
        while left:
            again: list[str] = []
            unjoined = {task.path for task in tasks if isinstance(task, Piece)}
            for task, result in drive(tasks, make, width):
                path = task if isinstance(task, str) else task.path
                stem = storage.stem(path)
                if isinstance(task, Piece) and (path not in unjoined or not isinstance(result, ShardReport)):
                    continue  # a piece that crashed is no attempt: its shard is done whole next
                if isinstance(result, Crash):
                    count_attempt(out, stem, result.error, result.of_machine)
                    tried.add(stem)
                    if not _given_up(path, out, counts):
                        again.append(path)
                        continue
                    progress.advance()
                else:
                    if stem in tried:
                        forget_attempts(out, stem)
                    unjoined.discard(path)
                    progress.advance(result.read, sum(result.failed.values()))
            left = sorted([*again, *unjoined])
            tasks = [*left]
    sweep(out)


def _cut(paths: list[str], make: MakeEmbedder, width: Width) -> list[str | Piece]:
    """The shards; in pieces, two for each worker, where there are fewer of them than workers."""
    if width.local or not make.models:
        return [*paths]
    workers = settle(width, sys.maxsize, machines(start_ray(width.address))).workers
    if len(paths) >= workers:
        return [*paths]
    pieces = {path: cut(path, -(-2 * workers // len(paths))) for path in paths}
    tasks: list[str | Piece] = []
    for path in paths:
        tasks += pieces[path] or [path]
    return tasks


def _given_up(path: str, out: str, counts: PoolCounts) -> bool:
    """Whether the shard has had its attempts; then its samples are recorded as failed."""
    stem = storage.stem(path)
    attempts = read_attempts(out, stem)
    if attempts["attempts"] < ATTEMPTS:
        return False
    reason = (str(attempts["error"]).splitlines() or [""])[0]
    rows = set_aside(path, out, f"{ATTEMPTS} attempts failed: {reason}")
    counts.set_aside[stem] = reason
    counts.read += len(rows)
    counts.failed["shard_set_aside"] += len(rows)
    return True

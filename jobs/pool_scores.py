"""Pool scores: computed over workers from the whole pool, committed shard by shard as columns."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmfilter import storage
from mmfilter.allow import Allow
from mmfilter.beside import is_whole, withdraw_records, write_records
from mmfilter.derived import refuse_derived_alike
from mmfilter.errors import ConflictError, MMFilterError
from mmfilter.former import former_pool_scores
from mmfilter.lacking import added_column
from mmfilter.parts import defaults, filled
from mmfilter.plug_names import named, renamed
from mmfilter.plugs import PoolScore, Run
from mmfilter.recipe import Recipe
from mmfilter.scores import SCORES
from mmfilter.sidecar import columns_path, write_column
from mmfilter.sources import shard_sources
from mmfilter.table import Table

from . import choice
from .cluster import Width
from .driver import ATTEMPTS, Crash, Setup, drive
from .progress import Progress
from .terminal import print


@dataclass(frozen=True)
class _Make:
    """What a worker calls: the function itself, as it needs nothing loaded."""

    function: Callable[[Any], Any]

    def __call__(self, setup: Setup) -> Callable[[Any], Any]:
        from index import gpu

        gpu.use(setup.device)
        return lambda task: self.function(task[1])


def mapper(width: Width, stage: str, on_gpu: bool = False) -> Run:
    """run(function, tasks) over workers of this width, on GPUs only if `on_gpu`.

    Raises MMFilterError when a task fails three times.
    """
    width = replace(width, gpus=width.gpus if on_gpu else 0, patience=0)  # of tasks that are no shards nothing is known

    def run(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        results: list[Any] = [None] * len(tasks)
        left, attempts = list(enumerate(tasks)), 0
        with Progress(stage, len(left), "tasks") as progress:
            while left:
                again, error, attempts = [], "", attempts + 1
                for task, result in drive(left, _Make(function), width, threads=True):
                    if isinstance(result, Crash):
                        again.append(task)
                        error = result.error.splitlines()[0]
                    else:
                        results[task[0]] = result
                        progress.advance()
                if again and attempts == ATTEMPTS:
                    raise MMFilterError(f"{stage}: {len(again)} of {len(tasks)} tasks failed {ATTEMPTS} times: {error}")
                left = sorted(again, key=lambda task: task[0])
        return results

    return run


def pool_scores_of(recipe: Recipe, out: str, redo: bool = False) -> tuple[PoolScore, ...]:
    """The recipe's pool scores; in a folder that an earlier version's recipe began, as it had them, unless `redo`."""
    scores = recipe.pool_scores if redo else former_pool_scores(recipe, out)
    if scores != recipe.pool_scores:
        print(
            f"mmfilter: {out} was begun by an earlier version of the recipe {recipe.name}, and goes on as it was; "
            "--redo-changed computes anew what the recipe does otherwise now",
            file=sys.stderr,
        )
    return scores


def add_pool_scores(
    scores: Sequence[PoolScore],
    out: str,
    width: Width,
    metadata: str | None = None,
    redo: bool = False,
    weights: Mapping[str, str] | None = None,
    allow: Allow = Allow(),
) -> dict[str, int]:
    """Bring OUT/columns up to `scores`, one after the other; returns first column -> shards written.

    A score whose pool has changed is computed again. One that was computed otherwise is a ConflictError
    unless `redo`, what a score reads and is not there a UsageError. A second call does nothing; a killed one goes on.
    `weights` are paths of the models that images beside the pool are embedded with. What is missing or stale, where
    `allow` says that it may be, is recorded among the columns' sources.
    """
    from index.pool import Pool

    written = {}
    for score in scores:
        refuse_derived_alike([out, *score.inputs])
        pool = Pool(out, metadata, weights or {}, allow)  # anew: a score may read what the one before wrote
        part = pool_part(score, pool)
        stems = pool.table.stems
        todo = [stem for stem in stems if _lacks(score, pool.table, stem, part, redo)]
        files = [storage.join(out, file) for file in score.files]
        if not all(map(is_whole, files)):
            todo = list(stems)
        if todo:
            _verify_vectors(pool, score)
            devices = width if score.on_gpu else replace(width, gpus=0)
            chosen = choice.choose(devices, choice.rows(pool.table))
            withdraw_records(files)
            columns = score(pool, mapper(chosen, score.columns[0], score.on_gpu))
            write_records(files)
            _write(pool, score, columns, part, set(todo))
        written[score.columns[0]] = len(todo)
    return written


def _verify_vectors(pool: Any, score: PoolScore) -> None:
    """Compare the embeddings that the score reads with their checksums, which single rows have none of.

    Raises DataError.
    """
    sides = {"img_emb": "image", "txt_emb": "text"}
    for need in sorted(score.needs):
        kind, _, model = need.partition(":")
        if kind in sides:
            pool.vectors(model, sides[kind]).verify()


def pool_part(score: PoolScore, pool: Any) -> dict[str, Any]:
    """What a pool score's columns are made from: the plug, its fields, and the pool and files it reads."""
    fields = json.loads(score.model_dump_json())
    part = {**named(score, SCORES), "fields": fields, "pool": pool.identity(score.needs)}
    if score.inputs:
        from index.inputs import identity

        part["inputs"] = {path: identity(path, score.needs) for path in score.inputs}
    return part


def _lacks(score: PoolScore, table: Table, stem: str, part: dict[str, Any], redo: bool) -> bool:
    """Whether the shard's columns are not there, another shard's or an older pool's. Raises ConflictError."""
    out, origin = table.out, added_column(table.out, score.columns[0], stem)
    was = filled(renamed(origin and origin.part, SCORES), part, {"fields": defaults(type(score))})
    if was == part:
        stated = origin.sources.get("shard") if origin else None
        return bool(stated) and stated != shard_sources(table, stem, score.needs)
    if was is not None and not redo and (changed := changed_fields(was, part)):
        raise ConflictError(
            f"{out}: column{'s' * (len(score.columns) > 1)} {', '.join(score.columns)} (shard {stem}): made with "
            f"{'; '.join(changed)}. Rules and reports that read them would say something else. Put back what changed, "
            "give another --out, or pass --redo-changed to replace them"
        )
    return True


def changed_fields(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of the score and its fields is not as it was, each as `name VALUE, now VALUE`."""
    if (was.get("score"), was.get("version")) != (now["score"], now["version"]):
        made = [f"the score {part.get('score')} (version {part.get('version')})" for part in (was, now)]
        return [f"{made[0]}, now {made[1]}"]
    before, after = was.get("fields") or {}, now["fields"]
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return [f"{name} {json.dumps(before.get(name))}, now {json.dumps(after.get(name))}" for name in names]


def _write(pool: Any, score: PoolScore, columns: dict[str, Any], part: Any, todo: set[str]) -> None:
    """columns/NAME/STEM.parquet of the shards in `todo`; `columns` are by the pool's position."""
    start, needs, gaps = 0, sorted(score.needs), pool.table.gaps()
    for stem in pool.table.stems:
        uids = pool.table.read(["uid"], stem)["uid"].to_arrow()
        rows = slice(start, start + len(uids))
        start += len(uids)
        if stem in todo:
            here = {"uid": uids.cast("string"), **{name: columns[name][rows] for name in score.columns}}
            sources = {
                "shard": shard_sources(pool.table, stem, score.needs),
                "pool": part["pool"],
                "needs": needs,
                **gaps,
            }
            write_column(columns_path(pool.out, score.columns[0], stem), here, part, sources)

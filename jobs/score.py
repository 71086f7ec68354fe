"""`score`: scores that need no pixels, added to a pool from its stored columns and embeddings."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import typer

from mmfilter import storage
from mmfilter.allow import Allow, sentences
from mmfilter.check import check_score_files, columns_of
from mmfilter.columns import add_columns
from mmfilter.commit_file import optional_commit
from mmfilter.errors import ConflictError, UsageError
from mmfilter.feed import Clock
from mmfilter.lacking import added_column, fresh, part_differs
from mmfilter.recipe import Recipe
from mmfilter.table import Table, open_table
from mmfilter.work import plan_work, reads_pixels, score_part, select_parts

from . import options as o
from .cluster import Width
from .pool_scores import add_pool_scores, pool_scores_of
from .progress import Progress
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def score(
        recipe: o.RecipeArg,
        out: o.Out = "runs/run",
        metadata: o.Metadata = None,
        weights: o.Weights = None,
        address: o.Address = None,
        workers: o.Workers = None,
        local: o.Local = False,
        redo_changed: o.Redo = False,
        allow: Allow = Allow(),
        as_json: o.Json = False,
    ) -> None:
        """Scores that need no pixels, from stored columns and embeddings: columns/NAME. No tar is read."""
        from mmfilter.recipe import load_recipe
        from mmfilter.table import open_table

        from .check import Request, check_request
        from .outdir import absolute, keep_metadata, only_driver

        folder, width = absolute(out), o.width(address, workers, None, None, None, local)
        loaded = load_recipe(recipe, weights)
        check_request(loaded, Request("score", folder, metadata=metadata and absolute(metadata)))
        open_table(
            folder, metadata and absolute(metadata), *allow
        )  # before anything is written into a folder that is no run
        with only_driver(folder):
            given = keep_metadata(folder, metadata, allow)
            result = score_pool(loaded, folder, given, width, redo_changed, allow)
        print(json.dumps(result, indent=1) if as_json else "\n".join(lines(result)))


def lines(result: dict[str, Any]) -> list[str]:
    """The result for a person."""
    columns = ", ".join(result["columns"]) or "none to add"
    brought_up = f"; brought up to the pool: {', '.join(result['brought_up'])}" if result["brought_up"] else ""
    return [f"{result['shards']:,} shards, columns: {columns}{brought_up}", *(f"  {s}" for s in sentences(result))]


def score_pool(
    recipe: Recipe,
    out: str,
    metadata: str | None = None,
    width: Width = Width(local=True),
    redo: bool = False,
    allow: Allow = Allow(),
) -> dict[str, Any]:
    """Write columns/NAME for every score of the recipe that the pool lacks; no tar is read.

    Pool scores come last, over workers of this `width`. With `redo`, what was added and made otherwise is made again.

    `metadata` is a folder of parquet (and npz) that somebody else embedded, such as DataComp's.
    Raises UsageError for a score that looks at pixels, ConflictError where a column was made otherwise.
    """
    check_score_files(recipe, recipe.pool_scores)
    table = open_table(out, metadata, *allow)
    whole = table.columns.keys() - table.partial.keys()  # a command that stopped half way has left some shards without
    todo = [score for score in recipe.scores if not set(score.columns) <= whole]
    for score in todo:
        if reads_pixels(score):
            raise UsageError(
                f"{recipe.where}: the score of '{score.columns[0]}' looks at pixels; `mmfilter embed` computes it"
            )
    table.check_fresh(_read_by(recipe))
    work = plan_work(recipe, out, {})
    started = time.perf_counter()
    with ThreadPoolExecutor() as pool, Progress("score", len(table.stems)) as progress:
        scored: set[str] = set()
        for parts in pool.map(lambda stem: _score_shard(stem, table, work, redo), table.stems):
            scored.update(parts)
            progress.advance()
    written = add_pool_scores(pool_scores_of(recipe, out, redo), out, width, metadata, redo, allow=allow)
    new = [c for s in todo for c in s.columns]
    new += [c for s in recipe.pool_scores if written[s.columns[0]] for c in s.columns]
    return {
        "shards": len(table.stems),
        "columns": new,
        "brought_up": [c for s in recipe.scores if score_part(s) in scored for c in s.columns if c not in new],
        "seconds": round(time.perf_counter() - started, 2),
        **table.gaps(),
    }


def _read_by(recipe: Recipe) -> set[str]:
    """The columns that the recipe's scores read and that none of them computes."""
    needs = {need for score in recipe.scores for need in score.needs}
    needs |= {need for score in recipe.pool_scores for need in score.needs}
    return needs - columns_of(recipe)


def _score_shard(stem: str, table: Table, work: Any, redo: bool) -> list[str]:
    """Add the columns that a shard lacks, or that were computed from what it held before; returns these parts.

    Raises ConflictError.
    """
    parts = (optional_commit(storage.join(table.metadata, f"{stem}.json")) or {"parts": {}})["parts"]
    todo = []
    for score in work.scores:
        if reads_pixels(score):
            continue
        part, column = score_part(score), score.columns[0]
        stored = table.columns.get(column) == "metadata"
        added = None if stored else added_column(work.out, column, stem)
        was = parts.get(part) if stored else added and added.part
        if not stored and (was is None or (added and not fresh(work.out, stem, score, added, table.metadata))):
            todo.append(part)
        elif was is not None and part_differs(work, part, was):
            if stored or not redo:
                raise ConflictError(
                    f"{work.out}: column '{column}' of shard {stem} was made otherwise: {was}; give another "
                    f"--out{'' if stored else ', or pass --redo-changed'}"
                )
            todo.append(part)
    if todo:
        add_columns(stem, select_parts(work, todo), Clock(), table.metadata)
    return todo

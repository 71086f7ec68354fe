"""`score`: scores that need no pixels, added to a pool from its stored columns and embeddings."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mmfilter import storage
from mmfilter.columns import add_columns
from mmfilter.errors import ConflictError, UsageError
from mmfilter.feed import Clock
from mmfilter.recipe import Recipe
from mmfilter.sidecar import columns_path, read_commit, read_part
from mmfilter.table import Table, open_table
from mmfilter.work import plan_work, reads_pixels, score_part, select_parts

from .progress import Progress


def score_pool(recipe: Recipe, out: str, metadata: str | None = None) -> dict[str, Any]:
    """Write columns/NAME for every score of the recipe that the pool lacks; no tar is read.

    `metadata` is a folder of parquet (and npz) that somebody else embedded, such as DataComp's.
    Raises UsageError for a score that looks at pixels, ConflictError where a column was made otherwise.
    """
    table = open_table(out, metadata)
    todo = [score for score in recipe.scores if not set(score.columns) <= set(table.columns)]
    for score in todo:
        if reads_pixels(score):
            raise UsageError(
                f"{recipe.where}: the score of '{score.columns[0]}' looks at pixels; `mmfilter embed` computes it"
            )
    work = plan_work(recipe, out, {})
    started = time.perf_counter()
    with ThreadPoolExecutor() as pool, Progress("score", len(table.stems)) as progress:
        for _ in pool.map(lambda stem: _score_shard(stem, table, work, todo), table.stems):
            progress.advance()
    return {
        "shards": len(table.stems),
        "columns": [c for s in todo for c in s.columns],
        "seconds": round(time.perf_counter() - started, 2),
    }


def _score_shard(stem: str, table: Table, work: Any, todo: list[Any]) -> None:
    commit = read_commit(table.out, stem) if table.metadata == storage.join(table.out, "metadata") else None
    missing = []
    for score in todo:
        part = score_part(score)
        was = read_part(columns_path(work.out, score.columns[0], stem)) or (commit or {"parts": {}})["parts"].get(part)
        if was is not None and was != work.parts[part]:
            raise ConflictError(
                f"{work.out}: column '{score.columns[0]}' of shard {stem} was made otherwise: {was}; give another --out"
            )
        if was is None:
            missing.append(part)
    if missing:
        add_columns(stem, select_parts(work, missing), Clock(), table.metadata)

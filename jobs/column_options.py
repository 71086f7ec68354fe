"""Whether the columns that a recipe's rules read were made with the options that the recipe says."""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from mmfilter.commit_file import optional_commit
from mmfilter.errors import ConflictError, UsageError
from mmfilter.former import former_pool_scores
from mmfilter.lacking import part_defaults, part_differs
from mmfilter.parts import defaults, filled
from mmfilter.plug_names import named, renamed
from mmfilter.plugs import PoolScore, Score
from mmfilter.recipe import Recipe
from mmfilter.rules import walk
from mmfilter.run_pool import listed
from mmfilter.scores import SCORES
from mmfilter.sources import METADATA, read_origin
from mmfilter.storage import join
from mmfilter.table import READERS, Table
from mmfilter.work import plan_work, score_part

from .pool_scores import changed_fields

Compare = Callable[[Any], list[str]]
"""What of a column's record is not as the recipe says, each as `name VALUE, now VALUE`."""


def check_options(recipe: Recipe, table: Table) -> None:
    """Raise ConflictError, naming fields, values and shards, where a column was made otherwise than the recipe says.

    Where stale columns are allowed it is noted in `table.stale`. A column whose origin nothing records is believed.
    """
    read = {column for _, rule in walk(recipe.select) for column in rule.needs} if recipe.select else set()
    read = read.union(*(entry.rule.needs for entry in recipe.repeat)) & set(table.columns)
    origins, told = _Origins(table), {}
    for score in recipe.scores:
        for column in sorted(read & set(score.columns)):
            told[column] = _differences(column, origins.read(column, score_part(score)), _comparing(recipe, score))
    for pool_score in former_pool_scores(recipe, table.out):
        for column in sorted(read & set(pool_score.columns)):
            told[column] = _differences(column, origins.read(column), _comparing_pool_score(pool_score))
    told = {column: sentence for column, sentence in told.items() if sentence}
    if told and not table.allow.stale:
        raise ConflictError(
            f"{table.out}: {'; '.join(told.values())}. Compute it as {recipe.where} says with `mmfilter score "
            f"{recipe.name} --redo-changed` or `mmfilter run`, change the recipe, or pass --allow-stale"
        )
    table.stale.update(told)


@dataclass
class _Origins:
    """What the pool's columns were made from, by shard; the commits are read once."""

    table: Table
    parts: dict[str, Any] = field(default_factory=dict)

    def read(self, column: str, part: str = "") -> Iterable[tuple[Any, list[str]]]:
        """(what made a column, the shards where it did); where nothing says, there is no entry."""
        stored = self.table.columns[column] == METADATA
        if stored and not part:
            return []
        stems = [stem for stem in self.table.stems if stem not in self.table.partial.get(column, ())]
        with ThreadPoolExecutor(READERS) as pool:
            if stored and not self.parts:
                self.parts = dict(zip(stems, pool.map(self._commit, stems), strict=True))
            made = (
                [self.parts[s].get(part) for s in stems]
                if stored
                else pool.map(lambda s: self._added(column, s), stems)
            )
            found: dict[str, tuple[Any, list[str]]] = {}
            for stem, origin in zip(stems, made, strict=True):
                if origin is not None:
                    found.setdefault(_plain(origin), (origin, []))[1].append(stem)
        return found.values()

    def _commit(self, stem: str) -> Any:
        return (optional_commit(join(self.table.metadata, f"{stem}.json")) or {"parts": {}})["parts"]

    def _added(self, column: str, stem: str) -> Any:
        origin = read_origin(self.table.path(column, stem))
        return origin.part if origin else None


def _plain(origin: Any) -> str:
    """An origin without the pool that a pool score was computed over, which is another question."""
    return json.dumps({k: v for k, v in origin.items() if k != "pool"} if isinstance(origin, dict) else origin)


def _differences(column: str, origins: Iterable[tuple[Any, list[str]]], compare: Compare) -> str:
    """A sentence; "" where the column is as the recipe says."""
    changes = [(change, stems) for origin, stems in origins for change in [compare(origin)] if change]
    if not changes:
        return ""
    return "; ".join(f"column {column} of {listed(stems)} was made with {'; '.join(c)}" for c, stems in changes)


def _comparing(recipe: Recipe, score: Score) -> Compare:
    part = score_part(score)
    try:
        work = plan_work(replace(recipe, scores=(score,)), "", {})
    except UsageError:  # a file of its fields that is not here now: what it held cannot be compared
        return lambda was: []

    def compare(was: Any) -> list[str]:
        if not part_differs(work, part, was):
            return []
        now = work.parts[part]
        before = filled(renamed(was, SCORES), now, part_defaults(work, part))
        return changed_fields(before, now) or [
            f"the model {name} {json.dumps((before.get('models') or {}).get(name))}, now {json.dumps(model)}"
            for name, model in now["models"].items()
        ]

    return compare


def _comparing_pool_score(score: PoolScore) -> Compare:
    now = {**named(score, SCORES), "fields": json.loads(score.model_dump_json())}
    return lambda was: changed_fields(filled(renamed(was, SCORES), now, {"fields": defaults(type(score))}), now)

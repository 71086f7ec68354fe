"""What a repair makes things again from: the recipe and pool that were given, else what the run's files record."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mmfilter import storage
from mmfilter.errors import MMFilterError, UsageError
from mmfilter.plugs import PoolScore, Score
from mmfilter.recipe import Recipe, load_recipe, parse_recipe
from mmfilter.run_file import named_shards

from .outdir import load_run


@dataclass(frozen=True)
class Request:
    """What the files are made again from, where not from what run.json records."""

    recipe: str | None = None
    pool: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    deep: bool = False


class Source:
    """The recipe and the pool, read when they are first needed."""

    def __init__(self, out: str, request: Request) -> None:
        self.out, self.request = out, request

    @property
    def recipe(self) -> Recipe:
        """The recipe that was given, else the one that run.json records. Raises UsageError."""
        if self.request.recipe:
            return load_recipe(self.request.recipe, list(self.request.weights))
        run = load_run(self.out)
        if not isinstance(run.get("recipe"), dict):
            raise UsageError(f"{self.out}/run.json: records no recipe; give it with --recipe")
        return recorded_recipe(run["recipe"], run.get("models"), f"recipe of {self.out}", self.request.weights)

    @property
    def paths(self) -> list[str]:
        """The shards of the pool that was given, else those that run.json names. Raises UsageError."""
        if self.request.pool:
            from .shards import find_shards

            return find_shards(list(self.request.pool)).paths
        if paths := named_shards(load_run(self.out)):
            return paths
        raise UsageError(f"{self.out}/run.json: names no pool; give it with --pool")


def recorded_recipe(source: Mapping[str, Any], models: Any, where: str, weights: Sequence[str] = ()) -> Recipe:
    """A recipe as run.json or a subset's record has it; `models` are paths of model folders, which stood beside it."""
    node = dict(source)
    if isinstance(models, Mapping) and isinstance(node.get("embed"), Mapping):
        node["embed"] = {name: _with_model(spec, models.get(name)) for name, spec in node["embed"].items()}
    text = yaml.safe_dump(node, sort_keys=False, allow_unicode=True)
    return parse_recipe(text, where, weights=list(weights))


def _with_model(spec: Any, path: Any) -> Any:
    if not isinstance(path, str):
        return spec
    return {**(spec if isinstance(spec, dict) else {}), "model": path}


def recorded_score(out: str, column: str, source: Source) -> Score | PoolScore:
    """The score that made a column: of the recipe, else as the footer of one of its files says. Raises UsageError."""
    try:
        recipe = source.recipe
        scores: list[Score | PoolScore] = [*recipe.scores, *recipe.pool_scores]
        if matches := [score for score in scores if score.columns[0] == column]:
            return matches[0]
    except MMFilterError:
        pass  # without a recipe the files themselves may tell
    for part in _parts(storage.list_files(storage.join(out, "columns", column), ".parquet")):
        from mmfilter.scores import build_score

        return build_score({part["score"]: part.get("fields") or {}}, f"column {column}")
    raise UsageError(f"nothing records how column {column} was made; run again the verb or recipe that made it")


def _parts(paths: Iterable[str]) -> Iterable[dict[str, Any]]:
    """What the readable ones of a column's files say that made them."""
    from mmfilter.plug_names import renamed
    from mmfilter.scores import SCORES
    from mmfilter.sources import read_part

    for path in paths:
        try:
            part = renamed(read_part(path), SCORES)
        except MMFilterError:
            continue
        if isinstance(part, dict) and isinstance(part.get("score"), str):
            yield part

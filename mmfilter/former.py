"""Packaged recipes that changed from one version to the next: a folder that was begun with the former one goes on so.

Else the same command, run again with a newer version, would be a conflict that nobody asked for.
"""

from typing import Any

import yaml

from . import storage
from .plugs import PoolScore
from .recipe import Recipe, packaged, recipe_yaml
from .sources import read_part

FORMER: dict[str, dict[str, dict[str, Any]]] = {"demo": {"duplicate_of": {"mode": "greedy"}}}
"""Recipe -> first column of a pool score -> fields that had another value in an earlier version."""


def former_pool_scores(recipe: Recipe, out: str) -> tuple[PoolScore, ...]:
    """The recipe's pool scores, with the former fields where a packaged recipe's columns in `out` were made with them.

    A recipe whose scores are not those of the packaged one is taken as it is.
    """
    name = str(recipe.source.get("name"))
    former = FORMER.get(name, {}) if name in packaged() else {}
    if not former or yaml.safe_load(recipe_yaml(name)[0])["scores"] != recipe.source.get("scores"):
        return recipe.pool_scores
    return tuple(_former(score, out, former.get(score.columns[0], {})) for score in recipe.pool_scores)


def _former(score: PoolScore, out: str, former: dict[str, Any]) -> PoolScore:
    made = storage.list_files(storage.join(out, "columns", score.columns[0]), ".parquet") if former else []
    fields = ((read_part(made[0]) or {}).get("fields") or {}) if made else {}
    so = bool(fields) and all(fields.get(name) == value for name, value in former.items())
    return score.model_copy(update=former) if so else score

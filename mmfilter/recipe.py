"""Recipes: which models embed the pool, which scores are computed, which rules choose."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

from .errors import UsageError, nearest
from .fields import ReadOptions, checked_captions, checked_pool_id, checked_uids, read_options
from .images import ImageLimits
from .overrides import with_weights
from .plugs import PoolScore, Rule, Score, build_plug
from .registry import Registry
from .repeat import Repeat, build_repeats
from .weights import ModelSpec
from .yaml_file import MAX_CHARS, parse_yaml

FIELDS = ("name", "paper", "about", "embed", "scores", "select", "repeat", "read")
BASE_COLUMNS = ("uid", "url", "text", "original_width", "original_height", "face_bboxes", "sha256", "key")
READ_FIELDS = ("uids", "pool_id", "captions", "max_pixels", "max_text_bytes", "avif")


@dataclass(frozen=True)
class Recipe:
    """What is computed and what is kept; never where or how wide (those are flags).

    `embed` maps a short name (`b32`) to a model; `scores` are built plugs in the recipe's order, and
    `pool_scores` those among them that look at the whole pool, after all others. `select` is None when
    the recipe only computes; `repeat` says how often what it keeps stands in the subset. `source` is the parsed
    YAML, for the record.
    """

    name: str
    embed: dict[str, ModelSpec]
    scores: tuple[Score, ...]
    select: Rule | None
    read: ReadOptions
    source: dict[str, Any] = field(repr=False)
    pool_scores: tuple[PoolScore, ...] = ()
    repeat: tuple[Repeat, ...] = ()

    def read_as(self, uids: str | None = None, pool_id: str | None = None, captions: str | None = None) -> "Recipe":
        """The recipe with another way of reading samples, in its `source` too. Raises UsageError."""
        given = {"uids": uids, "pool_id": pool_id, "captions": captions}
        given = {name: value for name, value in given.items() if value is not None}
        if not given:
            return self
        source = {**self.source, "read": {**(self.source.get("read") or {}), **given}}
        return replace(self, read=read_options(self.read, **given), source=source)

    @property
    def model_paths(self) -> dict[str, str]:
        """Name -> each model as it was found: a recipe may name a folder that stands beside its own file."""
        return {name: spec.model for name, spec in self.embed.items()}

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"recipe {self.name}"


def packaged() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(p.name[:-5] for p in files("mmfilter.recipes").iterdir() if p.name.endswith(".yaml"))


def known_recipes() -> dict[str, str]:
    """Name -> where it is, of the packaged recipes and of other packages' (entry points ``mmfilter.recipes``)."""
    return dict(sorted(_registry().table().items()))


def _registry() -> Registry:
    return Registry("recipes", {own: f"mmfilter.recipes:{own}.yaml" for own in packaged()})


def recipe_yaml(name: str) -> tuple[str, str]:
    """(the YAML of a recipe that has a name, how messages name its place). Raises UsageError with the nearest name.

    Another package's is the text of the YAML, under the entry-point group ``mmfilter.recipes``.
    """
    if name in packaged():
        return files("mmfilter.recipes").joinpath(f"{name}.yaml").read_text(encoding="utf-8"), f"recipe {name}.yaml"
    known = known_recipes()
    if name not in known:
        raise UsageError(
            f"no recipe or file is called '{name}'{nearest(name, known)} Known: {', '.join(known)} "
            "(`mmfilter recipe list` says what each does)"
        )
    return str(_registry().get(name)), f"recipe {name} ({known[name]})"


def load_recipe(name: str, weights: Sequence[str] | None = None) -> Recipe:
    """A recipe of this or another package by name, or a YAML file by path. Raises UsageError that names the place.

    `weights` are words NAME=PATH, which replace the source of a model's weights (`overrides.with_weights`).
    """
    if name in packaged() or not os.path.isfile(name):
        return parse_recipe(*recipe_yaml(name), weights=weights)
    where, folder = f"recipe {os.path.basename(name)}", os.path.dirname(os.path.abspath(name))
    try:
        with open(name, encoding="utf-8") as file:
            text = file.read(MAX_CHARS + 1)
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: {name} is not UTF-8 text; a recipe is a YAML file") from error
    except OSError as error:
        raise UsageError(f"{where}: {name} cannot be read ({error.strerror})") from error
    return parse_recipe(text, where, folder, weights)


def parse_recipe(text: str, where: str, folder: str = "", weights: Sequence[str] | None = None) -> Recipe:
    """Parse and check a recipe. Relative model paths are taken from `folder`; `weights` as of `load_recipe`."""
    source = parse_yaml(text, where)
    if not isinstance(source, dict):
        raise UsageError(f"{where}: a recipe is a mapping with the keys {', '.join(FIELDS)}")
    for key in source:
        if key not in FIELDS:
            raise UsageError(f"{where}: unknown key '{key}'{nearest(str(key), FIELDS)} Keys: {', '.join(FIELDS)}")
    if not isinstance(source.get("name"), str) or not source["name"].replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"{where}: name: give the recipe a name of letters, digits, '-' and '_'")
    embed = _models(source.get("embed") or {}, f"{where}: embed", folder)
    if weights:
        source = with_weights(source, embed, weights, where)
        embed = _models(source["embed"], f"{where}: embed", folder)
    scores = _scores(source.get("scores") or [], embed, f"{where}: scores")
    shard = tuple(score for score in scores if isinstance(score, Score))
    pool = tuple(score for score in scores if isinstance(score, PoolScore))
    read = reading(source.get("read") or {}, where)
    repeat = build_repeats(source.get("repeat") or [], f"{where}: repeat")
    if repeat and source.get("select") is None:
        raise UsageError(f"{where}: repeat: says how often what 'select' keeps is repeated; add 'select: everything'")
    return Recipe(source["name"], embed, shard, _rule(source, where), read, source, pool, repeat)


def _models(node: Any, where: str, folder: str) -> dict[str, ModelSpec]:
    if not isinstance(node, dict):
        raise UsageError(f"{where}: a mapping of short names to models, as in 'b32: {{model: ViT-B-32}}'")
    models = {}
    for name, value in node.items():
        if not str(name).isidentifier():
            raise UsageError(f"{where}.{name}: a model's short name is a word (it becomes part of column names)")
        value = {"model": value} if isinstance(value, str) else value
        models[str(name)] = _spec(value, f"{where}.{name}", folder)
    return models


def _spec(value: Any, where: str, folder: str) -> ModelSpec:
    spec: ModelSpec = build_plug(ModelSpec, value, where)
    beside = os.path.join(folder, spec.model)
    if folder and os.path.isdir(beside):
        return spec.model_copy(update={"model": beside})
    return spec


def _scores(node: Any, embed: Mapping[str, ModelSpec], where: str) -> tuple[Score | PoolScore, ...]:
    from .scores import build_score

    if not isinstance(node, list):
        raise UsageError(f"{where}: a list of one-key mappings, as in '- clip_similarity: {{model: b32}}'")
    scores = tuple(build_score(item, f"{where}[{i}]", models=list(embed)) for i, item in enumerate(node))
    taken: dict[str, int] = dict.fromkeys((*BASE_COLUMNS, "offset", "size"), -1)
    for i, score in enumerate(scores):
        for column in score.columns:
            if column in taken:
                other = "every pool has it" if taken[column] < 0 else f"scores[{taken[column]}] writes it too"
                raise UsageError(f"{where}[{i}]: column '{column}' is taken: {other}")
            taken[column] = i
    return scores


def _rule(source: Mapping[str, Any], where: str) -> Rule | None:
    from .rules import build_rule

    return None if source.get("select") is None else build_rule(source["select"], f"{where}: select")


def reading(node: Any, where: str) -> ReadOptions:
    """How a recipe's `read` says samples are read. Raises UsageError that names the place."""
    if not isinstance(node, dict):
        raise UsageError(f"{where}: read: a mapping with the keys {', '.join(READ_FIELDS)}")
    for key, value in node.items():
        if key == "derive_uids" and isinstance(value, bool):
            continue  # of an older recipe, which had to ask for it
        if key not in READ_FIELDS:
            raise UsageError(f"{where}: read.{key}: unknown key{nearest(str(key), READ_FIELDS)}")
    try:
        limits = ImageLimits(**{key: _typed(node, key, kind) for key, kind in LIMITS.items() if key in node})
        given = {name: check(node[name]) for name, check in CHECKED.items() if name in node}
        if "max_text_bytes" in node:
            given["max_text_bytes"] = _typed(node, "max_text_bytes", int)
    except UsageError as error:
        raise UsageError(f"{where}: read.{error}") from error
    return ReadOptions(limits=limits, **given)


LIMITS: dict[str, type] = {"max_pixels": int, "avif": bool}
CHECKED: dict[str, Callable[[Any], Any]] = {
    "uids": checked_uids,
    "pool_id": checked_pool_id,
    "captions": checked_captions,
}


def _typed(node: Mapping[str, Any], key: str, kind: type) -> Any:
    if type(node[key]) is not kind:
        raise UsageError(f"{key}: {node[key]!r} is not {'true or false' if kind is bool else 'a whole number'}")
    if kind is int and node[key] < 1:
        raise UsageError(f"{key}: {node[key]} is below 1")
    return node[key]

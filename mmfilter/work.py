"""What a recipe asks of each shard, as named parts (lacking.py: which of them a shard lacks)."""

import hashlib
import json
import platform
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import storage
from .errors import ConflictError, UsageError
from .fields import ReadOptions
from .model_identity import packaged_digest
from .parts import read_part
from .plug_names import named
from .plugs import Score
from .recipe import Recipe
from .scores import SCORES
from .sidecar import BASE
from .weights import ModelSpec

WHOLE = "read"
"""The part that a shard lacks if it is to be done wholly."""
PIXELS = frozenset({"image", "bytes"})
RESOLVED = "resolved"  # in a part: what the recipe does not say of a model, and the values hang on
IDENTITY = ("architecture", "preprocessing", "vocabulary", "precision")


@dataclass(frozen=True)
class Work:
    """One pass over a pool, small and picklable: it travels to every worker.

    `parts` says what each part is made from (model, weights, fields): it is written into every
    commit, and a part that is there but was made from something else is a conflict. `added` are the scores that stand
    in OUT/columns, for every shard: also for one whose tar is read.
    """

    out: str
    models: Mapping[str, ModelSpec]
    scores: tuple[Score, ...]
    read: ReadOptions
    parts: Mapping[str, Any]
    batch_size: int = 64
    threads: int = 1
    redo: bool = False
    added: frozenset[str] = frozenset()


def plan_work(
    recipe: Recipe,
    out: str,
    weights: Mapping[str, str | None],
    resolved: Mapping[str, Mapping[str, Any]] | None = None,
) -> Work:
    """The work of a recipe. `weights` maps each model to its weights' sha256, `resolved` to what else is known of it:
    architecture, preprocessing and vocabulary (`mmfilter.model_identity`), the precision that it computes in. What is
    not there, or None, is not at hand.
    """
    parts: dict[str, Any] = {"read": read_part(recipe.read)}
    for name, spec in recipe.embed.items():
        known = {**dict.fromkeys(IDENTITY), **((resolved or {}).get(name) or {})}
        parts[f"embed:{name}"] = {**_plain(spec.model_dump()), "weights": weights.get(name), RESOLVED: known}
    for score in recipe.scores:
        models = sorted({need.split(":")[1] for need in score.needs if "_emb:" in need})
        parts[score_part(score)] = {
            **named(score, SCORES),
            "fields": _fields(score),
            "models": {name: _plain(recipe.embed[name].model_dump()) for name in models},
        }
        if score.packaged:
            parts[score_part(score)][RESOLVED] = {"packaged": packaged_digest(score.packaged)}
    return Work(out, recipe.embed, recipe.scores, recipe.read, parts)


def _fields(score: Score) -> dict[str, Any]:
    """A score's fields; a file of the user's by its sha256, wherever it lies. Raises UsageError."""
    fields: dict[str, Any] = _plain(score.model_dump())
    for name, value in fields.items():
        if value in score.inputs:
            try:
                fields[name] = f"sha256:{hashlib.sha256(storage.read_bytes(value)).hexdigest()}"
            except OSError as error:
                what = f"{value}: cannot be read ({error.strerror or error})"
                raise UsageError(f"{what}; the score of '{score.columns[0]}' wants it") from error
    return fields


def _plain(value: Any) -> Any:
    """As JSON reads it back, so that a part compares equal to its record."""
    return json.loads(json.dumps(value, default=lambda v: v.__dict__ if hasattr(v, "__dict__") else repr(v)))


def score_part(score: Score) -> str:
    return f"score:{score.columns[0]}"


def reads_pixels(score: Score) -> bool:
    return bool(score.needs & PIXELS)


def looks(score: Score) -> bool:
    """Whether it keeps something of the pixels until the embeddings are there."""
    return type(score).look is not Score.look


def embedders_of(work: Work, parts: Collection[str]) -> set[str]:
    """The models that these parts have to load: to embed with, or because a score asks for the model itself."""
    needs = {need for score in work.scores if score_part(score) in parts for need in score.needs}
    asked = {need.split(":")[1] for need in needs if need.startswith("embedder:")}
    return asked | {name for name in work.models if f"embed:{name}" in parts}


def check_loaded(work: Work, name: str, loaded: Mapping[str, Any]) -> None:
    """Raise ConflictError unless a model that was loaded here (`loaded` is its part's fields) is the one that the work
    was planned with: a folder of the same name may hold another on this machine, or since.
    """
    part = work.parts[f"embed:{name}"]
    was = {"weights": part["weights"], **part[RESOLVED]}
    if others := [key for key, value in loaded.items() if was.get(key) is not None and was[key] != value]:
        raise ConflictError(
            f"model '{name}' has another {', '.join(others)} on {platform.node()} than where the work was planned; "
            "copy the same model to every node, and run again"
        )


def select_parts(work: Work, todo: list[str]) -> Work:
    """The work with only the models and scores named in `todo`."""
    models = {name: spec for name, spec in work.models.items() if f"embed:{name}" in todo}
    return replace(work, models=models, scores=tuple(s for s in work.scores if score_part(s) in todo))


def added_parts(work: Work, todo: Iterable[list[str]] = ()) -> frozenset[str]:
    """The scores that stand in OUT/columns, or will, as some shard is to get them without a pass over its tar.

    A column is in OUT/columns for all shards or for none. `todo` are lists of parts, one for each shard.
    """
    folders = set(storage.names(storage.join(work.out, "columns")))
    added = {score_part(s) for s in work.scores if s.columns[0] in folders and not reads_pixels(s)}
    for parts in todo:
        if parts and WHOLE not in parts and not needs_pass(select_parts(work, parts)):
            added.update(parts)
    return frozenset(added)


def passed(work: Work, todo: Collection[str]) -> list[str]:
    """The parts of `todo` that a pass over the tar computes; the others are added to OUT/columns after it."""
    return [part for part in todo if part not in work.added]


def needs_pass(work: Work) -> bool:
    """Whether the tars must be read: a model to run, or a score that looks at pixels."""
    return bool(work.models) or any(reads_pixels(score) for score in work.scores)


def known_need(need: str, models: Mapping[str, Any], columns: frozenset[str]) -> bool:
    """Whether a score's need can be met by the base columns, a model, the pixels or `columns`."""
    kind, _, name = need.partition(":")
    of_model = kind in ("img_emb", "txt_emb", "embedder") and name in models
    return need in BASE or need in PIXELS or need in columns or need == "threads" or of_model

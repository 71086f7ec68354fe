"""Scores: what costs a model or a look at the pixels. To add one: one file here, and one line below."""

from collections.abc import Collection
from typing import Any

from pydantic import ValidationError

from ..errors import UsageError, nearest
from ..plugs import Score
from ..registry import Registry

TABLE = {
    "caption": "mmfilter.scores.caption:Caption",
    "clip_similarity": "mmfilter.scores.clip_similarity:ClipSimilarity",
    "image_size": "mmfilter.scores.image_size:ImageSize",
    "language": "mmfilter.scores.language:Language",
    "phash": "mmfilter.scores.phash:PHash",
}

SCORES = Registry("scores", TABLE)


def build_score(node: object, where: str, models: Collection[str] | None = None) -> Score:
    """A score from a recipe's one-key mapping, ``{clip_similarity: {model: l14}}``, or from a bare name.

    `where` leads every error, e.g. ``recipe x.yaml: scores[1]``. With `models`, the names in the
    recipe's `embed`, a score that asks for another is refused. Raises UsageError.
    """
    if isinstance(node, str):
        node = {node: {}}
    if not isinstance(node, dict) or len(node) != 1:
        raise UsageError(f"{where}: a score is one name and its fields, like 'caption: {{}}'; got {node!r}")
    name, fields = next(iter(node.items()))
    kind = SCORES.get(str(name), where)
    where = f"{where}.{name}"
    if fields is not None and not isinstance(fields, dict):
        raise UsageError(f"{where}: its fields go into a mapping, like '{name}: {{}}'; got {fields!r}")
    try:
        score: Score = kind(**(fields or {}))
    except ValidationError as error:
        raise UsageError(_explain(error, kind, where)) from None
    except TypeError as error:  # a key that is not a string
        raise UsageError(f"{where}: {error}") from None
    if models is not None:
        _check_models(score, where, models)
    return score


def _explain(error: ValidationError, kind: Any, where: str) -> str:
    """The first of pydantic's complaints, with the place and the nearest field."""
    first = error.errors()[0]
    place = ".".join([where, *map(str, first["loc"])])
    if first["type"] == "extra_forbidden":
        known = list(kind.model_fields)
        hint = nearest(str(first["loc"][-1]), known)
        return f"{place}: no such field{hint} Known: {', '.join(known) or 'none'}"
    if first["type"] == "missing":
        return f"{place}: this field is required"
    return f"{place}: {first['msg']}, got {first['input']!r}"


def _check_models(score: Score, where: str, models: Collection[str]) -> None:
    for need in sorted(score.needs):
        kind, _, model = need.partition(":")
        if kind in ("img_emb", "txt_emb") and model not in models:
            known = f" It names: {', '.join(sorted(models))}" if models else " It names none"
            raise UsageError(f"{where}.model: no model '{model}' in embed{nearest(model, models)}{known}")

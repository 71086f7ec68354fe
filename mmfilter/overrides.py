"""`--weights NAME=PATH`: another source for a model of a recipe."""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .checkpoint import CONFIG
from .errors import UsageError, nearest
from .weights import HUB, PLAIN, ModelSpec


def with_weights(
    source: Mapping[str, Any], models: Mapping[str, ModelSpec], words: Sequence[str], where: str
) -> dict[str, Any]:
    """The recipe's parsed YAML, of which `models` are built, with each NAME=PATH of `given` by its absolute path.

    A file of weights is added to the model, whose tag still names its preprocessing; a folder in open_clip's layout
    replaces the model. The recipe's sha256, decoder and precision stay. Raises UsageError.
    """
    embed = dict(source.get("embed") or {})
    for name, path in named_paths(words, models, where).items():
        value = embed[name]
        embed[name] = with_path({"model": value} if isinstance(value, str) else value, name, path)
    return {**source, "embed": embed}


def named_paths(words: Sequence[str], models: Collection[str], where: str) -> dict[str, str]:
    """Model -> absolute path, of NAME=PATH words. Raises UsageError for a name that is none of the `models`."""
    paths = dict(_pairs(words, where))
    for name in paths:
        if name not in models:
            known = f"Its models: {', '.join(models)}" if models else "It has no models"
            raise UsageError(f"--weights {name}: {where} has no such model{nearest(name, models)} {known}")
    return paths


def with_path(node: Mapping[str, Any], name: str, path: str) -> dict[str, Any]:
    """A model's node with `path` in place of where its weights came from. Raises UsageError where it cannot be."""
    _check(ModelSpec.model_construct(model=str(node["model"])), name, path)
    return _replaced(node, path)


def _pairs(words: Sequence[str], where: str) -> list[tuple[str, str]]:
    """(name, absolute path) of each NAME=PATH."""
    pairs: dict[str, str] = {}
    for word in words:
        name, sign, path = word.partition("=")
        if not (sign and name and path):
            raise UsageError(f"--weights {word}: write it as NAME=PATH, where NAME is a model of {where}")
        if name in pairs:
            raise UsageError(f"--weights {name}: given twice, as {pairs[name]} and as {path}; give it once")
        pairs[name] = os.path.abspath(os.path.expanduser(path))
    return list(pairs.items())


def _check(spec: ModelSpec, name: str, path: str) -> None:
    """Raise UsageError unless `path` can be the source of that model's weights."""
    if os.path.isdir(path):
        if not os.path.isfile(os.path.join(path, CONFIG)):
            raise UsageError(f"--weights {name}={path}: no model folder (it has no {CONFIG}); give one, or a file")
    elif not os.path.isfile(path):
        raise UsageError(f"--weights {name}={path}: it is not there; give a file of weights, or a model folder")
    elif not path.endswith(PLAIN):
        raise UsageError(f"--weights {name}={path}: weights are read from {', '.join(PLAIN)} files")
    elif spec.folder or spec.model.startswith(HUB):
        raise UsageError(
            f"--weights {name}={path}: the model '{spec.model}' is a folder or a repository that brings its own "
            "weights; give a model folder in its place"
        )


def _replaced(node: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The model's node with `path` in place of where its weights came from."""
    if os.path.isdir(path):
        return {k: v for k, v in node.items() if k not in ("pretrained", "weights", "seed")} | {"model": path}
    dropped = ("pretrained", "seed") if node.get("pretrained") == "random" else ()
    return {k: v for k, v in node.items() if k not in dropped} | {"weights": path}

"""Where a model's weights are, whose they are (sha256), and what to fetch when they are not here."""

import hashlib
import os
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from . import storage
from .checkpoint import WEIGHTS, checkpoint_config, read_config, resolve_vocabulary
from .errors import COPY, ConflictError, DataError, UsageError, nearest
from .hub import fetch_hub, fetch_tag, quiet, why

DEMO = os.path.join(os.path.dirname(__file__), "models", "demo")
HUB = "hf-hub:"
PLAIN = (".safetensors", ".bin", ".pt", ".pth")  # the last three are read with weights_only


class ModelSpec(BaseModel):
    """One entry of a recipe's `embed`.

    `model` is an open_clip name (then `pretrained` is one of its tags, or ``random`` with a `seed`),
    ``hf-hub:owner/name``, a folder in open_clip's local-dir layout, or ``demo``, the packaged one.
    `weights` is a file to read in place of fetching; the tag still names its preprocessing.
    `sha256` is what the weights must hash to. `decoder` and `precision` change the embeddings a
    little and are recorded with them: see `mmfilter.preprocess` and `mmfilter.embed`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str
    pretrained: str | None = None
    weights: str | None = None
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    seed: int | None = None
    decoder: Literal["pillow", "fast"] = "pillow"
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    @model_validator(mode="after")
    def _weights_are_named(self) -> Self:
        if self.folder or self.model.startswith(HUB):
            if self.pretrained or self.weights or self.seed is not None:
                raise ValueError(f"'{self.model}' brings its own weights; drop 'pretrained', 'weights' and 'seed'")
        elif not (self.pretrained or self.weights):
            hint = nearest(self.model, ["demo"]).rstrip(".")
            raise ValueError(
                f"'{self.model}' has no weights named{hint}; add 'pretrained' (a tag), or 'random' and a seed"
            )
        if (self.pretrained == "random") != (self.seed is not None):
            raise ValueError("'pretrained: random' and 'seed' go together; random weights score nothing, they time it")
        return self

    @property
    def folder(self) -> str | None:
        """The model's folder, when it is one."""
        if self.model == "demo":
            return DEMO
        return self.model if os.path.isdir(self.model) or self.model.startswith(("/", "./", "../", "~")) else None


class Resolved(NamedTuple):
    """A model that is on this machine. `path` and `sha256` are empty for random weights."""

    name: str  # what open_clip calls it
    path: str  # the weights' file
    sha256: str
    tag: dict[str, Any]  # open_clip's entry for the tag: preprocessing and activation


def resolve(spec: ModelSpec) -> Resolved:
    """Find the weights in the local caches, or fetch them; hash them.

    Raises UsageError on an unknown name or tag, MMFilterError saying what to fetch when the weights
    are neither here nor to be had, ConflictError when they are not those of `spec.sha256`.
    """
    name, path, tag = find(spec)
    return Resolved(name, path, verify(spec, path), tag)


def verify(spec: ModelSpec, path: str) -> str:
    """The sha256 of the weights' file, "" where there is none. Raises ConflictError where the recipe wants another."""
    digest = sha256_file(path) if path else ""
    if spec.sha256 and digest != spec.sha256:
        raise ConflictError(
            f"{path or spec.model}: the weights' sha256 is {digest or 'none (random)'}, "
            f"the recipe wants {spec.sha256}. Fetch the right file, or change the recipe if these are meant "
            f"({COPY})"
        )
    return digest


def local_sha256(spec: ModelSpec) -> str | None:
    """The sha256 that `resolve` would find, without open_clip and without a network; None where that takes either.

    A tag's or a hub's weights do not change under their name; a file of the user's can.
    """
    if spec.pretrained == "random":
        return ""
    path = (
        os.path.join(os.path.expanduser(spec.folder), WEIGHTS)
        if spec.folder
        else spec.weights and os.path.expanduser(spec.weights)
    )
    return sha256_file(path) if path and os.path.isfile(path) else None


def find(spec: ModelSpec) -> tuple[str, str, dict[str, Any]]:
    """(open_clip's name, the weights' file, the tag's entry), without hashing. Raises as `resolve`."""
    if spec.folder:
        folder = os.path.expanduser(spec.folder)
        return f"local-dir:{folder}", checkpoint_config(folder).weights_path, {}
    if spec.model.startswith(HUB):
        path = fetch_hub(spec.model[len(HUB) :])
        return f"local-dir:{os.path.dirname(path)}", path, {}  # the cached snapshot: nothing is asked of the hub again
    name, tag = check_name(spec)
    if spec.pretrained == "random":
        return name, "", tag
    return name, _file(spec.weights) if spec.weights else fetch_tag(name, str(spec.pretrained), tag), tag


def check_name(spec: ModelSpec) -> tuple[str, dict[str, Any]]:
    """(open_clip's name, the tag's entry) of a model of open_clip's. Raises UsageError with the nearest name."""
    name = spec.model.replace("/", "-")
    known(name)
    return name, _tag(name, spec)


def known(name: str) -> None:
    """Raise UsageError, with the nearest name, unless open_clip has a configuration of that name."""
    import open_clip

    if name not in open_clip.list_models():
        hint = nearest(name, open_clip.list_models())
        raise UsageError(f"no model '{name}' in open_clip{hint} A folder is given by its path, e.g. ./my-model")


def _tag(name: str, spec: ModelSpec) -> dict[str, Any]:
    from open_clip import pretrained

    if spec.pretrained in (None, "random"):
        return {}
    tags = pretrained.list_pretrained_tags_by_model(name)
    tag = pretrained.get_pretrained_cfg(name, spec.pretrained)
    if not tag:
        raise UsageError(
            f"no weights '{spec.pretrained}' for {name}{nearest(str(spec.pretrained), tags)} open_clip knows: "
            f"{', '.join(tags) or 'none'}. A file of yours is named by 'weights'"
        )
    return dict(tag)


def _file(path: str) -> str:
    path = os.path.expanduser(path)
    if not path.endswith(PLAIN):
        raise UsageError(f"{path}: weights are read from {', '.join(PLAIN)} files")
    if not os.path.isfile(path):
        raise UsageError(f"{path}: no such file; it was to hold the weights")
    return path


def sha256_file(path: str) -> str:
    """Hex digest, read in chunks of 4 MiB."""
    with storage.open_read(path) as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def build(spec: ModelSpec, found: Resolved) -> tuple[Any, Any, Any]:
    """(open_clip model in fp32 on the CPU, in eval mode; its eval transform; its tokenizer).

    The tag's activation is forced: open_clip only warns that, say, `ViT-B-32` with `openai` was
    trained with QuickGELU, and then embeds with another function. Raises DataError.
    """
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    schema = ":" in found.name
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(spec.seed or 0)
        try:
            model = open_clip.create_model(
                found.name,
                pretrained=None if schema else found.path or None,
                force_quick_gelu=bool(found.tag.get("quick_gelu")),
                force_preprocess_cfg=merge_preprocess_dict({}, found.tag),
                pretrained_text=False,
                weights_only=True,
            )
        except Exception as error:  # unpickling, missing keys, shapes: open_clip wraps none of them
            raise DataError(
                f"{found.path or found.name}: not the weights of {spec.model}, or not plain tensors ({why(error)}). "
                "Pickled objects are never loaded; convert the file to safetensors"
            ) from error
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    return model.eval(), transform, _tokenizer(spec, found)


def _tokenizer(spec: ModelSpec, found: Resolved) -> Any:
    import open_clip

    if spec.model.startswith(HUB):
        return open_clip.get_tokenizer(spec.model)
    kwargs: dict[str, Any] = {}
    if spec.folder:  # open_clip would look for the vocabulary in the working directory
        folder = os.path.expanduser(spec.folder)
        text_cfg = read_config(folder)["model_cfg"]["text_cfg"]
        resolve_vocabulary(text_cfg, folder)
        kwargs = text_cfg.get("tokenizer_kwargs") or {}
    return open_clip.get_tokenizer(found.name, **kwargs)

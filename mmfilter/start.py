"""What a training begins with: a configuration, weights or none, and a vocabulary."""

import json
import os
from dataclasses import asdict
from typing import Any

from . import bpe, checkpoint, pairs
from .errors import UsageError, nearest
from .storage import read_bytes, write_atomic
from .weights import HUB, ModelSpec, find

CLIP_TOKENS = 49_408  # of CLIP's own vocabulary
DEMO = os.path.join(os.path.dirname(__file__), "models", "demo.json")
"""The demo model's configuration: 64 px, 3.6 million parameters, quick on a CPU."""


def configuration(model: str, pretrained: str = "") -> tuple[dict[str, Any], str]:
    """(`model_cfg` and `preprocess_cfg` as a new dict, the weights' path or "").

    `model` and `pretrained` are those of TrainOptions. A tag brings its preprocessing and its
    activation; weights that are not on this machine are fetched. Raises UsageError, DataError,
    and MMFilterError when weights cannot be had.
    """
    if os.path.isdir(model) or model.startswith(HUB):
        return _whole(model, pretrained)
    config = _file(DEMO if model == "demo" else model) if model.endswith(".json") or model == "demo" else _named(model)
    weights, tag = "", dict[str, Any]()
    if pretrained.endswith((".safetensors", ".bin", ".pt", ".pth")) or os.path.isfile(pretrained):
        weights = os.path.abspath(os.path.expanduser(pretrained))
        if not os.path.isfile(weights):
            raise UsageError(f"pretrained: there is no file {weights}")
    elif pretrained and (model.endswith(".json") or model == "demo"):
        raise UsageError(f"pretrained: '{model}' has no weights called '{pretrained}'; name a file of weights")
    elif pretrained:
        _, weights, tag = find(ModelSpec(model=model, pretrained=pretrained))
    return _with_tag(config, tag), weights


def _whole(model: str, pretrained: str) -> tuple[dict[str, Any], str]:
    """A folder's configuration and weights, or those of a model on the hub."""
    if pretrained:
        raise UsageError(f"pretrained: '{model}' brings its own weights; leave out '{pretrained}'")
    folder = os.path.dirname(find(ModelSpec(model=model))[1]) if model.startswith(HUB) else model
    found = checkpoint.checkpoint_config(folder)
    return {"model_cfg": found.model_cfg, "preprocess_cfg": _preprocess(found.model_cfg, found.preprocess_cfg)}, (
        found.weights_path
    )


def _file(path: str) -> dict[str, Any]:
    if not os.path.isfile(path):
        raise UsageError(f"model: there is no file {path}")
    config = json.loads(read_bytes(path))
    config = config if "model_cfg" in config else {"model_cfg": config}
    checkpoint.resolve_vocabulary(config["model_cfg"]["text_cfg"], os.path.dirname(path))
    return config


def _named(model: str) -> dict[str, Any]:
    import open_clip

    cfg = open_clip.get_model_config(model.replace("/", "-"))
    if cfg is None:
        raise UsageError(f"model: no configuration is called '{model}'{nearest(model, open_clip.list_models())}")
    return {"model_cfg": cfg}


def _with_tag(config: dict[str, Any], tag: dict[str, Any]) -> dict[str, Any]:
    """The configuration with its preprocessing complete; a tag's own goes first."""
    cfg = dict(config["model_cfg"])
    if tag.get("quick_gelu"):
        cfg["quick_gelu"] = True  # open_clip only warns of a tag whose activation is another
    said = {**config.get("preprocess_cfg", {}), **tag}
    return {"model_cfg": cfg, "preprocess_cfg": _preprocess(cfg, said)}


def _preprocess(model_cfg: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """open_clip's defaults for the model's size, under what is `said`; other keys are left out."""
    from open_clip.transform import PreprocessCfg

    defaults = asdict(PreprocessCfg(size=model_cfg["vision_cfg"].get("image_size", 224)))
    return {**defaults, **{name: value for name, value in said.items() if name in defaults}}


def merges_for(merges: int, model_cfg: dict[str, Any], weights: str) -> int:
    """How many merges are learned: `merges`, or for a model that is trained from scratch, brings no vocabulary and is
    too small for CLIP's own, as many as it has room for.
    """
    text_cfg = model_cfg["text_cfg"]
    size = int(text_cfg.get("vocab_size") or CLIP_TOKENS)
    own = "bpe_path" in (text_cfg.get("tokenizer_kwargs") or {}) or text_cfg.get("hf_tokenizer_name")
    return merges if merges or weights or own or size >= CLIP_TOKENS else max(size - bpe.EXTRA, 0)


def vocabulary(merges: int, out: str, model_cfg: dict[str, Any], source: pairs.Source) -> Any:
    """The model's tokenizer.

    Its vocabulary is learned (`merges` > 0) or taken along into `out`, and `model_cfg` made to fit it.
    """
    text_cfg = model_cfg["text_cfg"]
    kwargs = text_cfg.get("tokenizer_kwargs") or {}
    data = b""
    if merges:
        learned = bpe.learn((text for texts in source.captions() for text in texts), merges)
        data = bpe.dump(learned)
        text_cfg["vocab_size"] = bpe.vocabulary_size(learned)
    elif "bpe_path" in kwargs:
        data = read_bytes(kwargs["bpe_path"])
    if data:
        write_atomic(os.path.join(out, checkpoint.VOCABULARY), data)
        text_cfg["tokenizer_kwargs"] = {**kwargs, "bpe_path": checkpoint.VOCABULARY}
    resolved = dict(text_cfg)
    checkpoint.resolve_vocabulary(resolved, out)
    return checkpoint.tokenizer_of(resolved)

"""A model as a folder: open_clip's `local-dir:` layout, with the vocabulary beside the weights.

    open_clip_config.json          model_cfg and preprocess_cfg, as open_clip writes them
    open_clip_model.safetensors    the weights
    bpe.txt.gz                     the vocabulary, when it is the model's own

`text_cfg.tokenizer_kwargs.bpe_path` holds the file's name alone, so that a folder can be moved.
open_clip would look for that name in the working directory; here it is resolved to the folder.
"""

import copy
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from . import storage
from .errors import DataError, UsageError, check_environment, short_reason
from .json_file import demand, read_object
from .model_config import check_config as check_names
from .model_config import hf_tokenizer, vocabulary_beside

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
VOCABULARY = "bpe.txt.gz"


COPY = "copy the model's folder again"
SIDES = {"image_size?": (int, list), "width?": int, "head_width?": int, "layers?": (int, list), "patch_size?": int}
SHAPE = {
    "model_cfg": {
        "embed_dim": int,
        "vision_cfg": SIDES,
        "text_cfg": {
            "context_length?": int,
            "vocab_size?": int,
            "width?": int,
            "heads?": int,
            "layers?": int,
            "tokenizer_kwargs?": {"bpe_path?": str},
            "hf_tokenizer_name?": str,
            "hf_model_name?": str,
        },
    },
    "preprocess_cfg?": {"mean?": (list, float), "std?": (list, float), "size?": (int, list), "interpolation?": str},
}


class Checkpoint(NamedTuple):
    """What a folder holds. `model_cfg` is what open_clip's model classes take, bpe_path made absolute."""

    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    weights_path: str
    tokenizer: Any


def checkpoint_config(folder: str) -> Checkpoint:
    """Read a model folder without building the model.

    Raises UsageError when `folder` is not a model folder, DataError when its files do not fit together.
    """
    config = read_config(folder)
    text_cfg = config["model_cfg"]["text_cfg"]
    resolve_vocabulary(text_cfg, folder)
    tokenizer = tokenizer_of(text_cfg, folder)
    return Checkpoint(config["model_cfg"], config.get("preprocess_cfg", {}), _weights(folder), tokenizer)


def read_config(folder: str) -> dict[str, Any]:
    """`open_clip_config.json` as written. Raises UsageError, DataError."""
    path = os.path.join(folder, CONFIG)
    if not os.path.isfile(path):
        raise UsageError(f"{folder}: not a model folder, it has no {CONFIG}; `mmfilter train` writes one")
    config = read_object(path, COPY)
    check_config(config, path)
    check_names(config["model_cfg"], path, folder)
    return config


def check_config(config: dict[str, Any], path: str) -> None:
    """Raise DataError for what is no open_clip configuration with a `model_cfg`."""
    demand(config, SHAPE, path, f"it is no configuration of open_clip's; {COPY}")


def _weights(folder: str) -> str:
    from open_clip.factory import _find_checkpoint_in_dir  # the names and their order are open_clip's

    path = _find_checkpoint_in_dir(Path(folder))
    if path is None:
        raise DataError(f"{folder}: holds {CONFIG} but no weights; expected {WEIGHTS}")
    if not os.path.isfile(path):
        raise DataError(f"{path}: is a folder, a pipe or a link to nowhere, and no file of weights; {COPY}")
    return str(path)


def resolve_vocabulary(text_cfg: dict[str, Any], folder: str) -> None:
    """Make a relative `tokenizer_kwargs.bpe_path` absolute, in place. Raises DataError when it is not there."""
    kwargs = text_cfg.get("tokenizer_kwargs") or {}
    if "bpe_path" not in kwargs:
        return
    path = os.path.abspath(os.path.join(folder, vocabulary_beside(folder, kwargs["bpe_path"])))
    if not os.path.isfile(path):
        raise DataError(f"{path}: the model's vocabulary is missing; copy the whole model folder")
    if not os.path.getsize(path):
        raise DataError(f"{path}: is empty, and no vocabulary; {COPY}")
    text_cfg["tokenizer_kwargs"] = {**kwargs, "bpe_path": path}


def tokenizer_of(text_cfg: dict[str, Any], folder: str = "") -> Any:
    """The tokenizer that a checked and resolved `text_cfg` names: texts -> int64 (n, context_length).

    Raises DataError when the vocabulary's size is not the model's.
    """
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, SimpleTokenizer

    kwargs = dict(text_cfg.get("tokenizer_kwargs") or {})
    length = text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH)
    if text_cfg.get("hf_tokenizer_name"):
        return hf_tokenizer(text_cfg["hf_tokenizer_name"], folder, length, text_cfg.get("tokenizer_mode"), kwargs)
    try:
        tokenizer = SimpleTokenizer(context_length=length, **kwargs)
    except Exception as error:  # not gzip, not text, not a list of merges
        path = kwargs.get("bpe_path", "the tokenizer")
        raise DataError(f"{path}: is no vocabulary ({short_reason(error)}); {COPY}") from error
    wanted = text_cfg.get("vocab_size", tokenizer.vocab_size)
    if tokenizer.vocab_size > wanted:
        raise DataError(
            f"the vocabulary has {tokenizer.vocab_size} tokens, the model {wanted}: they are not one pair. A model "
            f"folder brings its own ({VOCABULARY}); `mmfilter train --vocabulary N` learns one"
        )
    return tokenizer


def load_checkpoint(folder: str, device: str = "cpu") -> tuple[Any, Any, Any]:
    """(model in fp32 and eval mode, open_clip's validation transform, tokenizer) of a model folder."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    found = checkpoint_config(folder)
    model = build_model(found.model_cfg)
    load_weights(model, found.weights_path)
    transform = image_transform_v2(PreprocessCfg(**found.preprocess_cfg), is_train=False)
    return model.eval().to(device), transform, found.tokenizer


def load_weights(model: Any, path: str) -> None:
    """Fill `model` from a weights file. Raises DataError when they are another model's."""
    from open_clip.factory import load_checkpoint as fill

    try:
        fill(model, path)
    except (RuntimeError, OSError) as error:
        check_environment(path, error)
        raise DataError(f"{path}: not the weights of this configuration ({str(error).splitlines()[0]})") from error


def save(folder: str, model: Any, config: dict[str, Any]) -> None:
    """Write `open_clip_config.json` and the weights, floats as fp16. The same weights give the same bytes."""
    import torch
    from safetensors.torch import save as pack

    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous(memory_format=torch.contiguous_format)
        for name, value in sorted(model.state_dict().items())
    }
    storage.write_atomic(os.path.join(folder, WEIGHTS), pack(tensors))
    storage.write_atomic(
        os.path.join(folder, CONFIG), (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
    )


def build_model(model_cfg: dict[str, Any]) -> Any:
    """An open_clip model with fresh weights from its configuration; draws from torch's global generator."""
    from open_clip import CLIP, CustomTextCLIP

    cfg = copy.deepcopy(model_cfg)
    custom = cfg.pop("custom_text", False) or "hf_model_name" in cfg["text_cfg"]
    if "timm_model_name" in cfg["vision_cfg"]:
        cfg["vision_cfg"]["timm_model_pretrained"] = False
    cfg["text_cfg"]["hf_model_pretrained"] = False  # its weights are filled in from the checkpoint
    return (CustomTextCLIP if custom else CLIP)(**cfg)

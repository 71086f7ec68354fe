"""What a model is beside its weights: its architecture, its preprocessing and its vocabulary, each by a sha256.

    architecture   `model_cfg`, and the activation that a tag asks for
    preprocessing  `preprocess_cfg`, or what a tag says of it
    vocabulary     the file that `tokenizer_kwargs.bpe_path` names, or the folder's tokenizer files; "" for one that
                   comes with open_clip or from a hub, which the architecture names

The same weights embed otherwise where one of these is another. How the configuration is written down (spaces, the
order of its keys, where the vocabulary lies) is nothing to it.
"""

import copy
import importlib.util
import os
from collections.abc import Collection, Mapping
from typing import Any

from .checkpoint import read_config, resolve_vocabulary
from .file_record import sha256_file
from .provenance import fingerprint
from .weights import ModelSpec, Resolved

LOCAL = "local-dir:"
TOKENIZER = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "spiece", "sentencepiece")
PREPROCESS = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")
AUTO = {"cuda": "bf16", "cpu": "fp32"}
"""Device kind -> the precision that ``auto`` comes to there."""


def identity(spec: ModelSpec, found: Resolved) -> dict[str, str]:
    """The three digests of a model that is on this machine. Raises UsageError, DataError."""
    if found.name.startswith(LOCAL):
        return of_folder(found.name.removeprefix(LOCAL))
    import open_clip

    told = {key: found.tag[key] for key in PREPROCESS if key in found.tag}
    config = open_clip.get_model_config(found.name)
    return _digests({"model_cfg": config, "preprocess_cfg": told}, "", bool(found.tag.get("quick_gelu")))


def local_identity(spec: ModelSpec) -> dict[str, str] | None:
    """`identity`, without open_clip and without a network; None where that takes either, or the folder is not there."""
    folder = os.path.expanduser(spec.folder) if spec.folder else ""
    return of_folder(folder) if folder and os.path.isdir(folder) else None


def of_folder(folder: str) -> dict[str, str]:
    """The three digests of a model folder. Raises UsageError, DataError."""
    return of_config(read_config(folder), folder)


def of_config(config: Mapping[str, Any], folder: str) -> dict[str, str]:
    """The three digests of a configuration whose vocabulary lies in `folder`. Raises DataError."""
    text_cfg = copy.deepcopy(dict(config["model_cfg"]["text_cfg"]))
    resolve_vocabulary(text_cfg, folder)
    path = (text_cfg.get("tokenizer_kwargs") or {}).get("bpe_path")
    if path:
        return _digests(config, sha256_file(path))
    files = sorted(os.listdir(folder)) if text_cfg.get("hf_tokenizer_name") and os.path.isdir(folder) else []
    held = [name for name in files if name.startswith(TOKENIZER)]
    digests = [[name, sha256_file(os.path.join(folder, name))] for name in held]
    return _digests(config, fingerprint(digests) if digests else "")


def _digests(config: Mapping[str, Any], vocabulary: str, quick_gelu: bool = False) -> dict[str, str]:
    cfg = copy.deepcopy(dict(config["model_cfg"]))
    if "bpe_path" in (cfg["text_cfg"].get("tokenizer_kwargs") or {}):
        cfg["text_cfg"]["tokenizer_kwargs"].pop("bpe_path")
    architecture = [cfg, "quick_gelu"] if quick_gelu else cfg
    return {
        "architecture": fingerprint(architecture),
        "preprocessing": fingerprint(config.get("preprocess_cfg") or {}),
        "vocabulary": vocabulary,
    }


def packaged_digest(files: Collection[tuple[str, str]]) -> str | None:
    """A digest of models that Python packages bring, each as (package, path in it); None where one is not there."""
    digests = []
    for package, path in files:
        spec = importlib.util.find_spec(package)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        found = next((file for folder in folders if os.path.isfile(file := os.path.join(folder, path))), None)
        if found is None:
            return None
        digests.append([os.path.basename(path), sha256_file(found)])
    return fingerprint(digests)


def precision_on(spec: ModelSpec, device: str) -> str:
    """What a model computes in on a device (`cuda` or `cpu`, with or without a number)."""
    return AUTO.get(device.split(":")[0], "fp32") if spec.precision == "auto" else spec.precision


def changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which of the digests differ; one that either does not know (None, not there) is taken as it was."""
    return [name for name in was if None not in (was[name], now.get(name)) and was[name] != now[name]]

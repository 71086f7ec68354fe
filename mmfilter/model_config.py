"""What a model's configuration may name: a stranger's json chooses sizes, never code, hosts or files elsewhere.

open_clip hands what a configuration says to the transformers and timm libraries, which fetch, and run, what they are
told to. So tokenizers and towers are those that open_clip's own configurations name, or plain files in the folder.
"""

import json
import os
import re
from functools import lru_cache
from typing import Any

from .errors import DataError

KWARGS = frozenset({"bpe_path", "clean", "strip_sep_token", "reduction_mask"})
"""What `tokenizer_kwargs` may say; never `trust_remote_code`."""
CLEANS = ("lower", "whitespace", "canonicalize")
MASKS = ("simple", "random", "shuffle", "syntax")
MODES = ("", "clips")
TIMM = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)?")  # a name of timm's own: no `hf-hub:`, no path
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
TOKENIZERS = frozenset(
    name + ending
    for name in ("Bert", "CLIP", "GPT2", "Gemma", "MT5", "Nllb", "PreTrained", "Roberta", "T5", "XLMRoberta")
    for ending in ("Tokenizer", "TokenizerFast")
)
"""Classes of transformers that read plain files; others un-pickle theirs."""


@lru_cache(1)
def known_names() -> dict[str, frozenset[str]]:
    """The `hf_tokenizer_name` and `hf_model_name` of open_clip's own configurations."""
    from open_clip.factory import _MODEL_CONFIGS

    texts = [config.get("text_cfg", {}) for config in _MODEL_CONFIGS.values()]
    fields = ("hf_tokenizer_name", "hf_model_name")
    return {field: frozenset(text[field] for text in texts if text.get(field)) for field in fields}


def check_config(model_cfg: Any, where: str, folder: str) -> None:
    """Raise DataError for a `model_cfg` that names what is not allowed; `folder` may hold a tokenizer of its own."""
    text, vision = (_part(model_cfg, name, where) for name in ("text_cfg", "vision_cfg"))
    _check_tokenizer(text, where, folder)
    name = text.get("hf_model_name")
    if name and not (isinstance(name, str) and name in known_names()["hf_model_name"]):
        raise _refused(where, "hf_model_name", name, "a text tower of open_clip's own configurations")
    name = vision.get("timm_model_name")
    if name and not (isinstance(name, str) and TIMM.fullmatch(name)):
        raise _refused(where, "timm_model_name", name, "a plain name of timm's, such as vit_base_patch16_siglip_224")


def _part(model_cfg: Any, name: str, where: str) -> dict[str, Any]:
    part = model_cfg.get(name) if isinstance(model_cfg, dict) else None
    if not isinstance(part, dict):
        raise DataError(f"{where}: no '{name}' in it; it is not an open_clip configuration")
    return part


def _check_tokenizer(text: dict[str, Any], where: str, folder: str) -> None:
    kwargs = text.get("tokenizer_kwargs") or {}
    if not isinstance(kwargs, dict) or set(kwargs) - KWARGS:
        named = sorted(set(kwargs) - KWARGS)[0] if isinstance(kwargs, dict) else kwargs
        raise _refused(where, "tokenizer_kwargs", named, f"{', '.join(sorted(KWARGS))}")
    for field, value, allowed in (
        ("clean", kwargs.get("clean", CLEANS[0]), CLEANS),
        ("reduction_mask", kwargs.get("reduction_mask") or MASKS[0], MASKS),
        ("tokenizer_mode", text.get("tokenizer_mode") or "", MODES),
        ("strip_sep_token", kwargs.get("strip_sep_token", False), (True, False)),
    ):
        if value not in allowed:
            raise _refused(where, field, value, ", ".join(map(str, filter(None, allowed))))
    path = kwargs.get("bpe_path", "")
    if not isinstance(path, str) or ("bpe_path" in kwargs and not _within(folder, vocabulary_beside(folder, path))):
        raise _refused(where, "bpe_path", path, "the name of a file beside it")
    name = text.get("hf_tokenizer_name")
    if not name:
        return
    if own_tokenizer(folder):
        _check_files(folder)
    elif not isinstance(name, str) or name not in known_names()["hf_tokenizer_name"]:
        raise _refused(where, "hf_tokenizer_name", name, "a tokenizer of open_clip's own configurations")


def _refused(where: str, field: str, value: Any, allowed: str) -> DataError:
    return DataError(
        f"{where}: {field} {str(value)[:200]!r} is not taken from a model's files, as it may choose what is fetched or "
        f"run. Allowed: {allowed}"
    )


def vocabulary_beside(folder: str, path: str) -> str:
    """The path of a vocabulary from a model's folder; of an absolute one from elsewhere the file of its name there.

    Older versions wrote absolute paths, and folders are moved.
    """
    name = os.path.basename(path)
    moved = os.path.isabs(path) and not _within(folder, path) and os.path.isfile(os.path.join(folder, name))
    return name if moved else path


def _within(folder: str, path: str) -> bool:
    root = os.path.realpath(folder or ".")
    return os.path.commonpath([root, os.path.realpath(os.path.join(root, path))]) == root and bool(path)


def own_tokenizer(folder: str) -> bool:
    """Whether the folder brings a tokenizer's files."""
    return bool(folder) and any(os.path.isfile(os.path.join(folder, name)) for name in TOKENIZER_FILES)


def _check_files(folder: str) -> None:
    """Raise DataError where the tokenizer's own files name code, or a class that does not read plain files."""
    for name in ("tokenizer_config.json", "config.json"):
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            continue
        try:
            with open(path, encoding="utf-8") as stream:
                said = json.load(stream)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON ({str(error)[:120]}); copy the folder again") from error
        if not isinstance(said, dict) or "auto_map" in said:
            raise _refused(path, "auto_map", "code of its own", "no auto_map")
        kind = said.get("tokenizer_class")
        if kind is not None and kind not in TOKENIZERS:
            raise _refused(path, "tokenizer_class", kind, ", ".join(sorted(TOKENIZERS)))


def hf_tokenizer(name: str, folder: str, length: int, mode: str | None, kwargs: dict[str, Any]) -> Any:
    """transformers' tokenizer for a checked configuration: the folder's own, else the one named. It runs no code."""
    from open_clip.tokenizer import HFTokenizer

    source = folder if own_tokenizer(folder) else name
    return HFTokenizer(source, context_length=length, tokenizer_mode=mode, trust_remote_code=False, **kwargs)

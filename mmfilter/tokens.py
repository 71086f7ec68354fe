"""Captions to tokens to features, without computing on padding where that changes nothing.

A causal text tower reads its features at the end-of-text token, which sees nothing to its right;
so the columns to the right of the batch's last end-of-text token can be cut off.
"""

from typing import Any

import numpy as np

MAX_CHARS = 2048
"""Characters of a caption that are tokenised: byte-pair encoding is quadratic in a word's length, and a
1 MB caption would hang a worker. 77 tokens of prose are about 350 characters."""
MAX_CACHED_WORDS = 1 << 18  # open_clip's tokenizer remembers every word it ever saw


class TextTower:
    """The text half of an open_clip model. `trims` says whether padding is cut off."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._encode = _encoder(model)
        self._tower, self._prefix = (model.text, "model.text.") if hasattr(model, "text") else (model, "model.")
        self.pool = str(getattr(self._tower, "pool_type", getattr(model, "text_pool_type", "")))
        self.eos = int(getattr(self._tower, "eos_id", getattr(model, "text_eos_id", 0)) or 0)
        self.trims = self._causal()

    def _causal(self) -> bool:
        """A causal mask, pooling at the end-of-text token, and no token of its own at the end (CoCa)."""
        own = all(hasattr(self._tower, name) for name in ("attn_mask", "positional_embedding", "token_embedding"))
        if not own or self._tower.attn_mask is None or getattr(self._tower, "cls_emb", None) is not None:
            return False
        return self.pool in ("argmax", "eos")

    def tokens(self, texts: list[str]) -> np.ndarray:
        """int64 (n, context), padded; texts longer than `MAX_CHARS` are cut, after their spaces are merged."""
        _forget(self.tokenizer)
        return np.asarray(self.tokenizer([_bounded(text) for text in texts]))

    def lengths(self, tokens: np.ndarray) -> np.ndarray:
        """int64 (n,): the columns of each row that its features depend on."""
        if not self.trims:
            return np.full(len(tokens), tokens.shape[1])
        ends = tokens.argmax(axis=1) if self.pool == "argmax" else (tokens == self.eos).argmax(axis=1)
        return ends + 1

    def __call__(self, tokens: Any) -> Any:
        """Features (n, d), not normalised, of an int64 tensor (n, length); any length where it `trims`."""
        import torch

        length = tokens.shape[1]
        if not self.trims or length == self._tower.positional_embedding.shape[0]:
            return self._encode(tokens)
        shorter = {
            self._prefix + "positional_embedding": self._tower.positional_embedding[:length],
            self._prefix + "attn_mask": self._tower.attn_mask[:length, :length],
        }
        return torch.func.functional_call(self._encode, shorter, (tokens,))


def _encoder(model: Any) -> Any:
    """`model.encode_text` as a module's forward, which is what functional_call calls."""
    from torch import nn

    class EncodeText(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: Any) -> Any:
            return self.model.encode_text(tokens)

    return EncodeText().eval()


def _bounded(text: str) -> str:
    """Lone surrogates replaced (the tokenizer encodes to UTF-8), and the length bounded."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= MAX_CHARS else " ".join(text.split())[:MAX_CHARS]


def _forget(tokenizer: Any) -> None:
    cache = getattr(tokenizer, "cache", None)
    if isinstance(cache, dict) and len(cache) > MAX_CACHED_WORDS:
        tokenizer.cache = {word: word for word in ("<start_of_text>", "<end_of_text>")}

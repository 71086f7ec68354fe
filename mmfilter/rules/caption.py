"""The caption's length."""

from typing import Self

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from ..plugs import Rule
from .masks import true_mask

WORD = r"[^\s\x1c-\x1f]+"  # str.split()'s white space is Unicode's and the four separators \x1c to \x1f
TOKEN, EOS = r"[^ \t\n\v\f\r\x00]+", r"\n"  # fastText's: what stands between these bytes, and each newline
LONG = 256  # words; patterns of thousands pass the engine's limit of size


class Caption(Rule):
    """Keep captions of so many words (`len(text.split())`) and characters (`len(text)`), bounds included.

    Source: DataComp's basic filter is `> 2` words and `> 5` characters: min_words 3, min_chars 6. Its image_based
    counts ``fasttext.tokenize(text)`` instead, `> 1`: min_tokens 2. There ASCII white space and NUL alone part words,
    and every newline is a token.
    """

    min_words: int = Field(default=0, ge=0)
    max_words: int | None = Field(default=None, ge=0)
    min_chars: int = Field(default=0, ge=0)
    max_chars: int | None = Field(default=None, ge=0)
    min_tokens: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for what, low, high in (("words", self.min_words, self.max_words), ("chars", self.min_chars, self.max_chars)):
            if high is not None and low > high:
                raise ValueError(f"no caption has 'min_{what}' {low} and 'max_{what}' {high}; swap them")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"text"})

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        text = pl.col("text").cast(pl.String)  # a shard whose captions are all null has no string type
        keep = text.is_not_null()
        if self.min_chars:
            keep &= text.str.len_chars() >= self.min_chars
        if self.max_chars is not None:
            keep &= text.str.len_chars() <= self.max_chars
        if self.min_words:
            keep &= at_least(text, self.min_words)
        if self.max_words is not None:
            keep &= ~at_least(text, self.max_words + 1)
        if self.min_tokens:
            keep &= text.str.count_matches(TOKEN) + text.str.count_matches(EOS) >= self.min_tokens
        return true_mask(table, keep)

    def describe(self) -> str:
        lows = (("words", self.min_words), ("characters", self.min_chars), ("fastText tokens", self.min_tokens))
        parts = [f"{name} >= {low}" for name, low in lows if low]
        tops = (("words", self.max_words), ("characters", self.max_chars))
        parts += [f"{name} <= {high}" for name, high in tops if high is not None]
        return ", ".join(parts) or "any caption"


def at_least(text: pl.Expr, words: int) -> pl.Expr:
    """Whether a text has so many words. A pattern stops at the last one asked for; a long one is slower."""
    if words > LONG:
        return text.str.count_matches(WORD) >= words
    pattern = WORD if words == 1 else rf"(?:{WORD}[\s\x1c-\x1f]+){{{words - 1}}}{WORD}"
    return text.str.contains(pattern)

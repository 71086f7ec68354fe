"""The pool score `token_frequency`: how rare the rarest word of a caption is."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import field_validator

from mmfilter import storage
from mmfilter.errors import DataError
from mmfilter.plugs import PoolScore, Run
from mmfilter.table import Table

from .pool import Pool
from .texts import absolute, fold, groups, new_runs, texts

LINES = 1_000_000  # tokens of a file that are in memory as such

Counts = tuple[np.ndarray, np.ndarray]
"""(m,) uint64 ascending hashes of tokens, and how often each stands (m,) int64."""


class TokenFrequency(PoolScore):
    """`rarest_token_rank` (int64, 1 = the most frequent: one more than the number of tokens that are more frequent
    than the caption's rarest) and `rarest_token_count` (int64, how often that one stands in all captions).

    Tokens are ``text.split()``, case kept, and with `bigrams` also two that follow each other, ranked together. They
    are counted over the pool, or read from `counts`, a file of a token and its count a line. One that is not there
    counts 0; so does a caption without any. ALIGN (Jia et al. 2021, arXiv 2102.05918) drops texts with a token outside
    the 100 million most frequent unigrams and bigrams of its raw data; how it made tokens of texts, and that bigrams
    count, are from memory. Tokens are told apart by 64-bit hashes: of 100 million, two share one with a probability
    of 3e-4, and then have the sum of their counts. Every worker holds 16 bytes a token that stands twice or more.
    """

    counts: str | None = None
    bigrams: bool = False

    @field_validator("counts")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        return absolute(value)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("rarest_token_rank", "rarest_token_count")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"text"})

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.counts,) if self.counts else ()

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        tasks = groups(pool.table)
        if self.counts:
            table, floor = read_counts(self.counts), 0
            known = len(table[0])
        else:
            table = fold(run, _Count(pool.table, self.bigrams), tasks, _merge, _counts({}))
            known, floor = len(table[0]), 1
            table = table[0][table[1] > 1], table[1][table[1] > 1]  # most tokens stand once: what is absent does
        parts = run(_Rarest(pool.table, self.bigrams, table, floor), tasks)
        count = np.concatenate([np.empty(0, np.int64), *parts])
        rank = 1 + len(table[1]) - np.searchsorted(np.sort(table[1]), count, "right")
        rank[count == 0] = known + 1
        return {"rarest_token_rank": rank.astype(np.int64), "rarest_token_count": count}


def tokens(text: str | None, bigrams: bool) -> list[str]:
    """A caption's words, and with `bigrams` its pairs of words, a blank between."""
    words = (text or "").split()
    return words + [f"{a} {b}" for a, b in pairwise(words)] if bigrams else words


def hashes(found: Iterable[str]) -> np.ndarray:
    """(m,) uint64: 64 bits of each token's BLAKE2b."""
    return np.frombuffer(b"".join(hashlib.blake2b(t.encode(), digest_size=8).digest() for t in found), "<u8")


def read_counts(path: str) -> Counts:
    """A file of lines ``TOKEN COUNT``, the count being the last word. Raises DataError."""
    parts: list[Counts] = []
    found: Counter[str] = Counter()
    with storage.open_read(path) as stream:
        for number, line in enumerate(stream, 1):
            words = line.decode("utf-8", "replace").rsplit(None, 1)
            if words and (len(words) < 2 or not words[1].isdecimal()):
                raise DataError(f"{path}: line {number}: {line[:80]!r} is not a token and its count")
            if words:
                found[words[0].strip()] += int(words[1])
            if len(found) == LINES:
                parts.append(_counts(found))
                found.clear()
    return _merge(_counts(found), parts)


def _counts(found: dict[str, int]) -> Counts:
    return _merge((np.empty(0, np.uint64), np.empty(0, np.int64)), [(hashes(found), np.array([*found.values()], int))])


def _merge(counts: Counts, parts: list[Counts]) -> Counts:
    """The sums by hash."""
    keys, values = (np.concatenate([counts[side], *(part[side] for part in parts)]) for side in (0, 1))
    order = np.argsort(keys)
    keys = keys[order]
    starts = np.flatnonzero(new_runs(keys))
    return keys[starts], np.add.reduceat(values[order], starts) if len(starts) else values


@dataclass(frozen=True)
class _Count:
    """What a worker does with a group first: count its tokens."""

    table: Table
    bigrams: bool

    def __call__(self, stems: list[str]) -> Counts:
        found: Counter[str] = Counter()
        for text in texts(self.table, stems):
            found.update(tokens(text, self.bigrams))
        return _counts(found)


@dataclass(frozen=True)
class _Rarest:
    """And then: the least count among each caption's tokens, `floor` being that of one not in `counts`."""

    table: Table
    bigrams: bool
    counts: Counts
    floor: int

    def __call__(self, stems: list[str]) -> np.ndarray:
        captions = [tokens(text, self.bigrams) for text in texts(self.table, stems)]
        known = list(dict.fromkeys(token for caption in captions for token in caption))
        count = dict(zip(known, self._look_up(hashes(known)).tolist(), strict=True))
        return np.array([min((count[token] for token in caption), default=0) for caption in captions], np.int64)

    def _look_up(self, keys: np.ndarray) -> np.ndarray:
        at = np.searchsorted(self.counts[0], keys)
        found = np.full(len(keys), self.floor, np.int64)
        inside = np.flatnonzero(at < len(self.counts[0]))
        hit = inside[self.counts[0][at[inside]] == keys[inside]]
        found[hit] = self.counts[1][at[hit]]
        return found

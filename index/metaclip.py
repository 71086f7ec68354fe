"""The pool score `metaclip`: how probably MetaCLIP's balancing keeps a caption."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import polars as pl
from pydantic import Field, field_validator, model_validator

from mmfilter import storage
from mmfilter.errors import UsageError
from mmfilter.plugs import PoolScore, Run
from mmfilter.table import Table

from .pool import Pool
from .texts import absolute, fold, groups, read_text

T = 20_000
SURROGATE = re.compile("[\ud800-\udfff]")
WANTED = (
    "MetaCLIP's entries are wanted there: a .json list of strings, such as the metadata.json of "
    "github.com/facebookresearch/MetaCLIP, or a .txt with one a line"
)
SPACED = str.maketrans({**{mark: f" {mark} " for mark in ",.;:?!`"}, **dict.fromkeys("\t\n\r", " ")})


class MetaCLIP(PoolScore):
    """`metaclip_probability` (float32: 1 - prod(1 - p_e) over the entries e that the caption holds, 0 for none)
    and `metaclip_matches` (int32: how many those are).

    Xu et al. 2023 (arXiv 2309.16671) and their code: the caption, blanks put around each of , . ; : ? ! ` and in
    place of tabs and newlines, holds an entry that stands in it between blanks, case kept; p_e = min(1, `t` / the
    number of captions that hold e). `entries` is a .json list or a .txt of lines. `t` is about the pool: 20,000 (the
    default) was for the 400 million of a 1.6 billion pool and 170,000 for all of CommonCrawl, and in a small pool no
    entry stands so often, so that every match is kept. `tail` sets it in any pool: the largest count for which the
    entries below make up that share of all matches or less; 0.06, by which they chose the second from the first, is
    from memory. With `language` captions of another, by the column of that name, hold nothing: theirs were English
    before they were matched. Also writes OUT/metaclip/entries.parquet: entry, count, probability.
    """

    entries: str
    t: int | None = Field(default=None, ge=1)
    tail: float | None = Field(default=None, ge=0, le=1)
    language: str | None = None

    @field_validator("entries")
    @classmethod
    def _absolute(cls, value: str) -> str | None:
        return absolute(value)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.t is not None and self.tail is not None:
            raise ValueError("give 't' or 'tail', not both: 'tail' finds 't'")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return ("metaclip_probability", "metaclip_matches")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"text", "language"} if self.language else {"text"})

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.entries,)

    @property
    def files(self) -> tuple[str, ...]:
        return ("metaclip/entries.parquet",)

    def check(self) -> None:
        if not storage.exists(self.entries):
            raise UsageError(f"{self.entries}: is not there. {WANTED}")

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        entries, tasks = read_entries(self.entries), groups(pool.table)
        counts = fold(run, _Count(pool.table, entries, self.language), tasks, _add, np.zeros(len(entries), np.int64))
        t = choose_t(counts, self.tail) if self.tail is not None else self.t or T
        probability = np.minimum(1.0, t / np.maximum(counts, 1))
        parts = run(_Chance(pool.table, entries, self.language, probability), tasks)
        chance, matches = (np.concatenate([np.empty(0), *(part[side] for part in parts)]) for side in (0, 1))
        frame = pl.DataFrame({"entry": entries, "count": counts, "probability": probability})
        with storage.open_atomic(storage.join(pool.out, self.files[0])) as stream:
            frame.write_parquet(stream)
        return {"metaclip_probability": chance.astype(np.float32), "metaclip_matches": matches.astype(np.int32)}


def read_entries(path: str) -> tuple[str, ...]:
    """The different entries of a .json list or of a .txt's lines, in order. Raises UsageError."""
    text = read_text(path, WANTED)
    found: Any = [line.strip() for line in text.split("\n")]
    if path.endswith(".json"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}: not JSON ({error}). {WANTED}") from error
    if not isinstance(found, list) or not all(_is_text(entry) for entry in found):
        raise UsageError(f"{path}: not a list of strings. {WANTED}")
    entries = tuple(dict.fromkeys(entry for entry in found if entry.strip()))
    if not entries:
        raise UsageError(f"{path}: no entry is in it. {WANTED}")
    return entries


def _is_text(value: Any) -> bool:
    """Whether it is a string that UTF-8 can hold: JSON can write half of a surrogate pair."""
    return isinstance(value, str) and not SURROGATE.search(value)


def choose_t(counts: np.ndarray, tail: float) -> int:
    """The largest of the counts below which the counts sum up to `tail` of all or less; 1 where nothing matched."""
    rising = np.sort(counts[counts > 0])
    if not len(rising):
        return 1
    below = np.concatenate([[0], np.cumsum(rising)])[np.searchsorted(rising, rising)]
    return int(rising[below <= tail * rising.sum()].max())


class Matcher:
    """Which of the entries stand in a caption: a walk over its words, each looked up with as many that follow as
    entries beginning with it have. Time hangs on the caption's length, not on the number of entries.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self.number = {entry: i for i, entry in enumerate(entries)}
        lengths: dict[str, set[int]] = {}
        for entry in entries:
            lengths.setdefault(entry.split(" ", 1)[0], set()).add(entry.count(" ") + 1)
        self.lengths = {word: sorted(found) for word, found in lengths.items()}

    def __call__(self, text: str | None) -> list[int]:
        """The entries' numbers, ascending, each once."""
        words = (text or "").translate(SPACED).split(" ")
        found = set()
        for at, word in enumerate(words):
            for length in self.lengths.get(word, ()):
                number = self.number.get(word if length == 1 else " ".join(words[at : at + length]))
                if number is not None:
                    found.add(number)
        return sorted(found)


@dataclass(frozen=True)
class _Group:
    """A group of shards, and what finds entries in it; built once in each worker."""

    table: Table
    entries: tuple[str, ...]
    language: str | None

    @cached_property
    def match(self) -> Matcher:
        return Matcher(self.entries)

    def matches(self, stems: list[str]) -> Iterator[list[int]]:
        """The entries' numbers of each caption, in order."""
        frame = self.table.read({"text", *(["language"] if self.language else [])}, stems)
        text = pl.col("text").cast(pl.String)
        if self.language:
            text = pl.when(pl.col("language").cast(pl.String) == self.language).then(text)
        return map(self.match, frame.select(text)["text"].to_list())


class _Count(_Group):
    """First: (entries' numbers, how many captions hold each), of those that some hold."""

    def __call__(self, stems: list[str]) -> tuple[np.ndarray, np.ndarray]:
        found: list[int] = []
        for numbers in self.matches(stems):
            found += numbers
        return np.unique(np.array(found, np.int64), return_counts=True)


def _add(counts: np.ndarray, parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    for numbers, found in parts:
        counts[numbers] += found
    return counts


@dataclass(frozen=True)
class _Chance(_Group):
    """Then: (probability, matches) of each caption."""

    probability: np.ndarray

    def __call__(self, stems: list[str]) -> tuple[np.ndarray, np.ndarray]:
        p = self.probability.tolist()
        found = list(self.matches(stems))
        chance = [1 - math.prod(1 - p[e] for e in numbers) for numbers in found]
        return np.array(chance, float), np.array([len(numbers) for numbers in found], np.int64)

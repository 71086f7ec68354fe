"""A small byte-pair vocabulary, learned from captions, in the file format of CLIP's own."""

import gzip
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

Pair = tuple[str, str]

HEADER = "#version: mmfilter"
EXTRA = 2 * 256 + 2
"""Tokens beside the merges: the bytes, the bytes that end a word, start and end of text."""


def learn(texts: Iterable[str], merges: int) -> list[Pair]:
    """The most frequent pair of neighbouring symbols, merged, again and again: at most `merges` pairs.

    Words are cut as open_clip's SimpleTokenizer cuts them (its regular expression, lower case, the
    last byte of a word marked ``</w>``), so that it reads the result. A pair that stands in the texts
    only once is not merged. Ties go to the pair that is first in byte order: the same texts in any
    order give the same vocabulary. Sennrich et al. 2016 (1508.07909), with the pair counts kept up to
    date instead of counted anew.
    """
    words = _words(texts)
    pairs: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for number, (symbols, count) in enumerate(words):
        for pair in itertools.pairwise(symbols):
            pairs[pair] += count
            where[pair].add(number)
    learned: list[Pair] = []
    while len(learned) < merges and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        learned.append(best)
        for number in where.pop(best):
            symbols, count = words[number]
            merged = _merge(symbols, best)
            for pair in itertools.pairwise(symbols):
                pairs[pair] -= count
            for pair in itertools.pairwise(merged):
                pairs[pair] += count
                where[pair].add(number)
            words[number] = (merged, count)
        pairs = Counter({pair: count for pair, count in pairs.items() if count > 0})
    return learned


def _words(texts: Iterable[str]) -> list[tuple[list[str], int]]:
    """(symbols, count) of each different word."""
    from open_clip.tokenizer import bytes_to_unicode

    cutter = _cutter()
    letters = bytes_to_unicode()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(cutter.pat.findall(cutter.clean_fn(text)))
    words = []
    for word in sorted(counts):
        symbols = [letters[byte] for byte in word.encode()]
        symbols[-1] += "</w>"
        words.append((symbols, counts[word]))
    return words


@lru_cache(maxsize=1)
def _cutter() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def _merge(symbols: list[str], pair: Pair) -> list[str]:
    """`symbols` with every occurrence of `pair`, from the left, made one symbol."""
    merged: list[str] = []
    position = 0
    while position < len(symbols):
        if tuple(symbols[position : position + 2]) == pair:
            merged.append(symbols[position] + symbols[position + 1])
            position += 2
        else:
            merged.append(symbols[position])
            position += 1
    return merged


def vocabulary_size(merges: list[Pair]) -> int:
    """What `text_cfg.vocab_size` has to be."""
    return EXTRA + len(merges)


def dump(merges: list[Pair]) -> bytes:
    """The vocabulary's file: gzip'd lines "left right" after a header; no time stamp, so always the same bytes.

    There is no newline at the end: SimpleTokenizer would read it as one more, empty merge.
    """
    lines = "\n".join([HEADER, *(f"{left} {right}" for left, right in merges)])
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", mtime=0, filename="") as file:
        file.write(lines.encode())
    return stream.getvalue()

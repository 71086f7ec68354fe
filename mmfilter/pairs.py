"""Image-caption pairs for training: read from shards, kept in memory as pixels, or streamed through a buffer."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, cycle, repeat
from typing import Any

import numpy as np

from .derived import SAME_UIDS
from .errors import UsageError
from .fields import ReadOptions
from .images import ImageLimits, decode
from .records import Failure, failure_of
from .samples import read_samples
from .storage import expand, identity
from .subset import Subset
from .text import valid_text
from .uids import format_uids

Keep = Callable[[str], int]
"""How often does the pair of this uid stand in an epoch? Not at all for 0 or False."""
NO_PAIR = f"no pair to train on: the shards, the subset or the hold-out leave none. {SAME_UIDS}"


@dataclass(frozen=True, slots=True)
class Pair:
    """One image and what is said of it. `pixels` (side, side, 3) uint8."""

    uid: str
    pixels: np.ndarray
    captions: tuple[str, ...]


@dataclass(slots=True)
class Source:
    """Where pairs come from: shard paths, which uids, how many px a side, and how the picture is made square.

    With `one_caption` a sample's text is all that is said of it, whatever captions its json has. With
    `options.copies` each copy that a reshard wrote of a pair is a pair, as where no subset says how often it is seen.
    `failed` maps (shard, key) of what could not be used so far to its status.
    """

    paths: list[str]
    side: int
    squash: bool = False
    keep: Keep = field(default=lambda uid: True)
    one_caption: bool = False
    options: ReadOptions = ReadOptions()
    failed: dict[tuple[str, str], str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Pair]:
        """Every pair as often as `keep` says, in the shards' order."""
        for path in self.paths:
            yield from self.shard(path)

    def shard(self, path: str) -> Iterator[Pair]:
        """The pairs of one shard."""
        for uid, image, captions in self._read(path):
            try:
                pair = Pair(uid, square(image, self.side, self.squash, self.options.limits), captions)
            except Exception as error:  # whatever a picture raises is its sample's
                self.failed[path, uid] = failure_of(uid, uid, error).status
                continue
            yield from repeat(pair, int(self.keep(uid)))

    def only(self, chosen: Keep) -> "Source":
        """Those of this source that are `chosen`, as often as that says; failures are counted together."""
        mine = self.keep
        return Source(
            self.paths,
            self.side,
            self.squash,
            lambda uid: chosen(uid) if mine(uid) else 0,
            self.one_caption,
            self.options,
            self.failed,
        )

    def captions(self) -> Iterator[tuple[str, ...]]:
        """The captions alone: no picture is decoded."""
        for path in self.paths:
            for _, _, captions in self._read(path):
                yield captions

    def _read(self, path: str) -> Iterator[tuple[str, bytes, tuple[str, ...]]]:
        for number, found in enumerate(read(path, self.one_caption, self.options)):
            if isinstance(found, Failure):
                self.failed[path, found.key or f"number {number}"] = found.status
            elif self.keep(found[0]):
                if found[2]:
                    yield found
                else:
                    self.failed[path, found[0]] = "text_empty"


def source(
    patterns: str | list[str], side: int, squash: bool, keep: Keep | None, options: ReadOptions = ReadOptions()
) -> Source:
    """Raises UsageError when no shard matches."""
    return Source(expand(patterns), side, squash, keep or (lambda uid: True), options=options)


def chosen(subset: str) -> Keep:
    """Pairs whose uid a subset file names, as often as it does. Raises DataError."""
    return Counter(format_uids(Subset.read(subset).uids)).__getitem__


def part(share: float, seed: int) -> Keep:
    """A random `share` of all pairs, decided by the uid and the seed alone, so stable under resharding."""

    def keep(uid: str) -> bool:
        digest = hashlib.blake2b(f"{seed}/{uid}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < share * 2**64

    return keep


def read(
    path: str, one_caption: bool = False, options: ReadOptions = ReadOptions()
) -> Iterator[tuple[str, bytes, tuple[str, ...]] | Failure]:
    """(uid, image file, captions) of each whole sample of a shard, and a Failure for each other one.

    The captions are the json's `captions` when it has them, unless `one_caption`; else the text. Blank ones
    are left out. Never raises on content.
    """
    for sample in read_samples(path, options):
        if isinstance(sample, Failure):
            yield sample
            continue
        told = None if one_caption else sample.meta.get("captions")
        captions = told if isinstance(told, list) and told else [sample.text]
        yield sample.uid, sample.image, tuple(valid_text(str(text)) for text in captions if str(text).strip())


def square(image: bytes, side: int, squash: bool, limits: ImageLimits = ImageLimits()) -> np.ndarray:
    """(side, side, 3) uint8, squashed or cut from the middle, bicubic. Raises images.DecodeError."""
    from PIL import Image

    picture = decode(image, limits).convert("RGB")
    box = None
    if not squash:
        short = min(picture.size)
        left, top = (picture.width - short) / 2, (picture.height - short) / 2
        box = (left, top, left + short, top + short)
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC, box=box))


def shuffled(source: Source, rng: np.random.Generator, memory: int) -> Iterator[Pair]:
    """Pairs without end, in a random order that depends on `rng` alone.

    A pool whose pixels fit into `memory` bytes is decoded once and drawn without replacement, epoch
    by epoch. A larger one is read again for each epoch, its shards in random order, through a buffer
    of that many bytes from which pairs are drawn at random. Raises UsageError on an empty source.
    """
    room = max(1, memory // (3 * source.side**2))
    held: list[Pair] = []
    for pair in source:
        held.append(pair)
        if len(held) > room:
            break
    else:
        if not held:
            raise UsageError(NO_PAIR)
        while True:
            for index in rng.permutation(len(held)):
                yield held[index]
    held.clear()
    yield from _streamed(source, rng, room)


def _streamed(source: Source, rng: np.random.Generator, room: int) -> Iterator[Pair]:
    buffer: list[Pair] = []
    while True:
        yield from _through(buffer, source, rng, room)


def _through(buffer: list[Pair], source: Source, rng: np.random.Generator, room: int) -> Iterator[Pair]:
    """One pass over the shards, in random order; `buffer` is left with up to `room` pairs that are still to come."""
    for shard in rng.permutation(len(source.paths)):
        for pair in source.shard(source.paths[shard]):
            if len(buffer) < room:
                buffer.append(pair)
                continue
            index = int(rng.integers(room))
            yield buffer[index]
            buffer[index] = pair


def scheduled(epochs: list[Source], rng: np.random.Generator, memory: int) -> Iterator[Pair]:
    """Every pair of the first source, then of the second and so on; after the last from the first again, without end.

    Each is shuffled on its own, wholly where its pixels fit into `memory` bytes, else through a buffer
    of that size. Pictures are decoded anew for each epoch. Raises UsageError when no epoch has a pair.
    """
    room = max(1, memory // (3 * epochs[0].side ** 2))
    came = 0
    for number, source in enumerate(cycle(epochs)):
        if number == len(epochs) and not came:
            raise UsageError(f"schedule: none of its subsets has a pair in these shards. {SAME_UIDS}")
        buffer: list[Pair] = []
        for pair in chain(_through(buffer, source, rng, room), _rest(buffer, rng)):
            came += 1
            yield pair


def _rest(buffer: list[Pair], rng: np.random.Generator) -> Iterator[Pair]:
    for index in rng.permutation(len(buffer)):
        yield buffer[index]


def batches(pairs: Iterator[Pair], size: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, list[str]]]:
    """(pixels (size, side, side, 3) uint8, one caption of each, at random) without end."""
    while True:
        chosen = [next(pairs) for _ in range(size)]
        captions = [pair.captions[int(rng.integers(len(pair.captions)))] for pair in chosen]
        yield np.stack([pair.pixels for pair in chosen]), captions


def describe(source: Source) -> list[dict[str, Any]]:
    """The shards' names and identities (size, mtime or etag)."""
    return [{"path": path, **identity(path)} for path in source.paths]


def counted(source: Source) -> dict[str, int]:
    """Status -> how many samples could not be used for it."""
    return dict(Counter(source.failed.values()))

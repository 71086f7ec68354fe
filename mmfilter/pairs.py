"""Image-caption pairs for training: read from shards, kept in memory as pixels, or streamed through a buffer."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import DataError, UsageError
from .storage import expand, identity, open_read

Keep = Callable[[str], bool]
"""Does a pair of this uid belong?"""


@dataclass(frozen=True, slots=True)
class Pair:
    """One image and what is said of it. `pixels` (side, side, 3) uint8."""

    uid: str
    pixels: np.ndarray
    captions: tuple[str, ...]


@dataclass(slots=True)
class Source:
    """Where pairs come from: shard paths, which uids, how many px a side, and how the picture is made square."""

    paths: list[str]
    side: int
    squash: bool = False
    keep: Keep = field(default=lambda uid: True)

    def __iter__(self) -> Iterator[Pair]:
        """Every pair once, in the shards' order. A sample that cannot be read is left out."""
        for path in self.paths:
            yield from self.shard(path)

    def shard(self, path: str) -> Iterator[Pair]:
        for uid, image, captions in read(path):
            if self.keep(uid) and captions:
                pixels = square(image, self.side, self.squash)
                if pixels is not None:
                    yield Pair(uid, pixels, captions)

    def captions(self) -> Iterator[tuple[str, ...]]:
        """The captions alone: no picture is decoded."""
        for path in self.paths:
            for uid, _, captions in read(path):
                if self.keep(uid) and captions:
                    yield captions


def source(patterns: str | list[str], side: int, squash: bool, keep: Keep | None) -> Source:
    """Raises UsageError when no shard matches."""
    return Source(expand(patterns), side, squash, keep or (lambda uid: True))


def chosen(subset: str) -> Keep:
    """Pairs whose uid a subset file (.npy of `u8,u8`) names. Raises DataError."""
    try:
        uids = np.load(open_read(subset), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{subset}: not a subset file ({error}); `mmfilter select` writes one") from error
    if uids.dtype != np.dtype("u8,u8"):
        raise DataError(f"{subset}: its dtype is {uids.dtype}, a subset's is 'u8,u8'")
    known = {f"{high:016x}{low:016x}" for high, low in uids.tolist()}
    return known.__contains__


def part(share: float, seed: int) -> Keep:
    """A random `share` of all pairs, decided by the uid and the seed alone, so stable under resharding."""

    def keep(uid: str) -> bool:
        digest = hashlib.blake2b(f"{seed}/{uid}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < share * 2**64

    return keep


def read(path: str) -> Iterator[tuple[str, bytes, tuple[str, ...]]]:
    """(uid, image file, captions) of each whole sample of a shard.

    The captions are the json's `captions` when it has them, else the text. Raises DataError when the
    shard cannot be read at all.
    """
    parts: dict[str, bytes] = {}
    last = ""
    try:
        with open_read(path) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                if key != last:
                    yield from _sample(parts)
                    parts, last = {}, key
                file = tar.extractfile(member) if member.isfile() else None
                if file is not None:
                    parts[extension.lower()] = file.read()
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{path}: cannot be read ({error}); `mmfilter inspect` says what is wrong with it") from error
    yield from _sample(parts)


def _sample(parts: dict[str, bytes]) -> Iterator[tuple[str, bytes, tuple[str, ...]]]:
    image = next((parts[name] for name in ("jpg", "jpeg", "png", "webp") if name in parts), None)
    if image is None:
        return
    meta = json.loads(parts["json"]) if "json" in parts else {}
    captions = meta.get("captions") or [parts.get("txt", b"").decode("utf-8", "replace")]
    yield str(meta.get("uid", "")), image, tuple(text for text in captions if text.strip())


def square(image: bytes, side: int, squash: bool) -> np.ndarray | None:
    """(side, side, 3) uint8, squashed or cut from the middle, bicubic; None when it cannot be decoded."""
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(image)).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
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
    stream = iter(source)
    for pair in stream:
        held.append(pair)
        if len(held) > room:
            break
    else:
        if not held:
            raise UsageError("no pair to train on: the shards, the subset or the hold-out leave none")
        while True:
            for index in rng.permutation(len(held)):
                yield held[index]
    del stream
    yield from _streamed(source, rng, room)


def _streamed(source: Source, rng: np.random.Generator, room: int) -> Iterator[Pair]:
    buffer: list[Pair] = []
    while True:
        for shard in rng.permutation(len(source.paths)):
            for pair in source.shard(source.paths[shard]):
                if len(buffer) < room:
                    buffer.append(pair)
                    continue
                index = int(rng.integers(room))
                yield buffer[index]
                buffer[index] = pair


def batches(pairs: Iterator[Pair], size: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, list[str]]]:
    """(pixels (size, side, side, 3) uint8, one caption of each, at random) without end."""
    while True:
        chosen = [next(pairs) for _ in range(size)]
        captions = [pair.captions[int(rng.integers(len(pair.captions)))] for pair in chosen]
        yield np.stack([pair.pixels for pair in chosen]), captions


def describe(source: Source) -> list[dict[str, Any]]:
    """The shards' names and identities (size, mtime or etag)."""
    return [{"path": path, **identity(path)} for path in source.paths]

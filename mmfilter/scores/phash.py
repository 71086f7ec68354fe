"""Perceptual hash: images that look alike get hashes a few bits apart."""

import functools

import numpy as np
from PIL import Image
from pydantic import Field

from ..plugs import Batch, Score

BITS = 14  # of the cosines, as integers


class PHash(Score):
    """`phash`, uint64: the signs of an image's low frequencies, `size` squared bits of it in use.

    To the bit: RGB, then L, resized to 4 size x 4 size by Pillow's LANCZOS; the DCT-II without
    normalisation, with cosines rounded to multiples of 2**-14, in integers, so that no processor's
    arithmetic moves a bit; the size x size lowest frequencies, row by row, first one highest; a bit is
    set where the coefficient is above their median (of an even count, the mean of the middle two).
    """

    size: int = Field(default=8, ge=2, le=8)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("phash",)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"image"})

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"phash": np.array([phash(image, self.size) for image in batch["image"]], dtype=np.uint64)}


def phash(image: Image.Image, size: int = 8) -> int:
    """The hash of one image in any mode, as a Python int of size * size bits."""
    side = 4 * size
    grey = image.convert("RGB").convert("L").resize((side, side), Image.Resampling.LANCZOS)
    cosines = _cosines(size)
    low = (cosines @ np.asarray(grey, dtype=np.int64) @ cosines.T).ravel()
    ordered = np.sort(low)
    middle = ordered[(low.size - 1) // 2] + ordered[low.size // 2]
    bits = np.packbits(2 * low > middle)  # the last byte is padded with zeros on its right
    return int.from_bytes(bits.tobytes(), "big") >> (-low.size % 8)


@functools.cache
def _cosines(size: int) -> np.ndarray:
    """(size, 4 size) int64: row u is cos(pi (2 x + 1) u / (8 size)) in units of 2**-14."""
    u, x = np.arange(size)[:, None], np.arange(4 * size)[None]
    return np.rint(np.cos(np.pi * (2 * x + 1) * u / (8 * size)) * (1 << BITS)).astype(np.int64)


def hamming(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Bits in which uint64 arrays of one shape differ."""
    return np.bitwise_count(np.bitwise_xor(a, b))

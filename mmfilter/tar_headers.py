"""Many tar headers at once: the blocks of `tar.header`, at a tenth of its time each."""

from collections.abc import Iterator

import numpy as np

from .tar import header
from .tar_source import BLOCK

AT_ONCE = 2048
NAME, SIZE, SUM = slice(0, 100), slice(124, 135), slice(148, 154)  # where a block holds them (POSIX.1-1988)


def headers(names: list[str], sizes: np.ndarray) -> Iterator[bytes]:
    """`tar.header(name, size)` for each of the names (n) and sizes (n,) int64, in order."""
    for at in range(0, len(names), AT_ONCE):
        some, size = names[at : at + AT_ONCE], sizes[at : at + AT_ONCE]
        if all(name.isascii() and len(name) <= 100 for name in some) and (size < 8**11).all():
            data = _blocks(some, size).tobytes()
            yield from (data[i : i + BLOCK] for i in range(0, len(data), BLOCK))
        else:
            yield from map(header, some, size.tolist())


def _blocks(names: list[str], sizes: np.ndarray) -> np.ndarray:
    """(n, 512) uint8: a plain file's header with name, size and checksum filled in."""
    blocks = np.tile(np.frombuffer(header("", 0), np.uint8), (len(names), 1))
    blocks[:, NAME] = np.array(names, "S100").view(np.uint8).reshape(-1, 100)
    blocks[:, SIZE] = _octal(sizes, 11)
    blocks[:, 148:156] = ord(" ")  # the checksum is over a field of blanks
    blocks[:, SUM] = _octal(blocks.sum(axis=1, dtype=np.int64), 6)
    blocks[:, 154] = 0
    return blocks


def _octal(values: np.ndarray, digits: int) -> np.ndarray:
    """(n, digits) uint8: the values (n,) in ASCII, zeros in front."""
    shifts = 3 * np.arange(digits - 1, -1, -1)
    return (values[:, None] >> shifts & 7).astype(np.uint8) + np.uint8(ord("0"))

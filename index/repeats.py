"""The pool scores `repeats` and `repeated_pairs`: how often a caption, an image, a pair stands in the pool."""

from typing import Any

import numpy as np
import pyarrow as pa

from mmfilter.plugs import PoolScore, Run
from mmfilter.uids import format_uids

from .exact import first_of
from .pool import Pool
from .texts import codes, grouped, hashed, there


class Repeats(PoolScore):
    """`images_of_text` (int64: how many different images, by sha256, have the sample's caption, to the letter)
    and `texts_of_image` (int64: how many different captions the sample's image has), the sample's own counted.

    Null where caption or sha256 is missing; such a row counts for no other. An empty caption is a caption.
    ALIGN (Jia et al. 2021, arXiv 2102.05918) drops captions of more than 10 images, and images of more than 1000
    captions. Both are told apart by 128-bit hashes; about 75 bytes a row are held at most.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        return ("images_of_text", "texts_of_image")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"text", "sha256"})

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        text = hashed(pool.table, ("text",), run)
        known = there(text)
        text = codes(text)  # at once: a third of the hashes' memory
        image = hashed(pool.table, ("sha256",), run)
        known &= there(image)
        image = codes(image)
        pairs = np.unique(text[known] << 32 | image[known])  # codes are below 2^31: the pool has fewer rows
        found = {}
        for column, own, part in zip(self.columns, (text, image), (pairs >> 32, pairs & (2**32 - 1)), strict=True):
            counts = np.bincount(part, minlength=int(own.max(initial=-1)) + 1)
            found[column] = pa.array(counts[own], pa.int64(), mask=~known)
        return found


class RepeatedPairs(PoolScore):
    """`repeat_of` (str): the smallest uid of those with the same url and caption; "" for that one, and for a sample
    that shares them with none or lacks one of the two.

    LAION-400M and LAION-5B (arXiv 2111.02114, 2210.08402) drop what repeats url and caption, by a Bloom filter that
    also drops a few others; this is exact, by 128-bit hashes.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        return ("repeat_of",)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"text", "url"})

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        rows, group = _shared(hashed(pool.table, ("url", "text"), run))
        uids = pool.uids
        kept = rows[first_of(group, uids["f0"][rows], uids["f1"][rows])][group]
        repeats = uids[kept] != uids[rows]  # by uid: where one stands twice, neither repeats the other
        places = np.zeros(len(uids), np.int64)
        places[rows[repeats]] = np.arange(1, int(repeats.sum()) + 1)
        names = pa.array(["", *format_uids(uids[kept[repeats]])], pa.string())
        return {"repeat_of": names.take(pa.array(places))}


def _shared(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(positions of the digests that stand more than once, the number of each one's group)."""
    order, new = grouped(keys)
    same = ~new[1:]
    shared = np.zeros(len(keys), bool)
    shared[order[1:][same]] = shared[order[:-1][same]] = True
    rows = np.flatnonzero(shared & there(keys))
    return rows, codes(keys[rows])

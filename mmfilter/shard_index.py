"""Where each sample's members lie in a tar: what a reshard needs to copy them without a decode."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import storage
from .records import Failure
from .samples import ReadOptions, Sample, read_samples
from .subset import Subset
from .uids import parse_uids

# A member's data in its tar: byte offset and bytes, crc32 of the header block before it, and its
# extension as a position in `extensions`.
MEMBER = np.dtype([("offset", "i8"), ("size", "i8"), ("check", "u4"), ("extension", "u2")])


@dataclass
class ShardIndex:
    """The well samples of one tar, in its order, and its failures.

    `identity` is `storage.identity`, None where the tar cannot be found; `read` counts every sample,
    well, failed or lost. Sample i has the uid `uids[i]` and the members `members[first[i]:first[i+1]]`.
    """

    path: str
    identity: dict[str, int | str] | None
    read: int
    uids: np.ndarray  # (n,) DTYPE
    first: np.ndarray  # (n + 1,) int64
    members: np.ndarray  # (m,) MEMBER
    extensions: tuple[str, ...]
    failures: list[Failure]


def index_shard(path: str, read: ReadOptions = ReadOptions(), wanted: Subset | None = None) -> ShardIndex:
    """Index the tar at `path`: headers, json and captions are read, the images are passed over.

    With `wanted`, only its uids are kept, so that a large pool's indexes stay as small as the subset;
    failures are kept all, since one may be why a wanted uid is missing. Never raises on content.
    """
    identity = storage.identity_or_none(path)
    samples: list[Sample] = []
    failures: list[Failure] = []
    for sample in read_samples(path, read, want_images=False):
        if isinstance(sample, Failure):
            failures.append(sample)
        else:
            samples.append(sample)
    count = len(samples) + len(failures)
    uids = parse_uids([sample.uid for sample in samples])
    if wanted is not None:
        rows = np.flatnonzero(wanted.contains(uids))
        uids, samples = uids[rows], [samples[row] for row in rows]
    first, members, extensions = _pack(samples)
    return ShardIndex(path, identity, count, uids, first, members, extensions, failures)


def _pack(samples: list[Sample]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """`first`, `members` and `extensions` of a ShardIndex."""
    codes: dict[str, int] = {}
    rows: list[tuple[Any, ...]] = []
    for sample in samples:
        for extension, offset, size, check in sample.members:
            rows.append((offset, size, check, codes.setdefault(extension, len(codes))))
    first = np.zeros(len(samples) + 1, np.int64)
    np.cumsum([len(sample.members) for sample in samples], out=first[1:])
    return first, np.array(rows, MEMBER), tuple(codes)

"""Where each sample's members lie in a tar: what a reshard needs to copy them without a decode."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import storage
from .faces import Boxes, blur_faces, face_boxes
from .images import DecodeError
from .records import Failure
from .samples import IMAGES, ReadOptions, Sample, read_samples
from .subset import Subset
from .uids import parse_uids

# A member's data in its tar: byte offset and bytes, crc32 of the header block before it, and its
# extension as a position in `extensions`; and its bytes in a new tar, others only where faces are blurred.
MEMBER = np.dtype([("offset", "i8"), ("size", "i8"), ("check", "u4"), ("extension", "u2"), ("written", "i8")])


@dataclass
class ShardIndex:
    """The well samples of one tar, in its order, and its failures.

    `identity` is `storage.identity`, None where the tar cannot be found; `read` counts every sample,
    well, failed or lost. Sample i has the uid `uids[i]` and the members `members[first[i]:first[i+1]]`.
    `boxes` maps the position of a member that is to be blurred to its faces.
    """

    path: str
    identity: dict[str, int | str] | None
    read: int
    uids: np.ndarray  # (n,) DTYPE
    first: np.ndarray  # (n + 1,) int64
    members: np.ndarray  # (m,) MEMBER
    extensions: tuple[str, ...]
    failures: list[Failure]
    boxes: dict[int, Boxes] = field(default_factory=dict)


def index_shard(
    path: str, read: ReadOptions = ReadOptions(), wanted: Subset | None = None, blur: bool = False
) -> ShardIndex:
    """Index the tar at `path`: headers, json and captions are read, the images are passed over.

    With `wanted`, only its uids are kept, so that a large pool's indexes stay as small as the subset;
    failures are kept all, since one may be why a wanted uid is missing. With `blur` the images that have
    faces are blurred here already, to know what comes out; one that cannot be is a failure. Never raises
    on content.
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
    blurred: dict[int, tuple[int, Boxes]] = {}
    if blur and samples:
        samples, blurred = _blur(path, samples, failures, read)
        uids = parse_uids([sample.uid for sample in samples])
    first, members, extensions = _pack(samples, blurred)
    boxes = {i: blurred[at][1] for i, at in enumerate(members["offset"].tolist()) if at in blurred}
    return ShardIndex(path, identity, count, uids, first, members, extensions, failures, boxes)


def _blur(
    path: str, samples: list[Sample], failures: list[Failure], read: ReadOptions
) -> tuple[list[Sample], dict[int, tuple[int, Boxes]]]:
    """(samples that can be written; offset of an image with faces -> its bytes when blurred, its boxes)."""
    well, blurred = [], {}
    with storage.open_read(path) as stream:
        for sample in samples:
            try:
                boxes = face_boxes(sample.meta)
                for extension, offset, size, _ in sample.members if boxes else ():
                    if extension in IMAGES:  # any of them, not only the one that training would read
                        stream.seek(offset)
                        blurred[offset] = (len(blur_faces(stream.read(size), boxes, read.limits)), boxes)
                well.append(sample)
            except DecodeError as error:
                failures.append(Failure(sample.key, sample.uid, error.status, str(error)))
    return well, blurred


def _pack(
    samples: list[Sample], blurred: dict[int, tuple[int, Boxes]]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """`first`, `members` and `extensions` of a ShardIndex."""
    codes: dict[str, int] = {}
    rows: list[tuple[Any, ...]] = []
    for sample in samples:
        for extension, offset, size, check in sample.members:
            written = blurred[offset][0] if offset in blurred else size
            rows.append((offset, size, check, codes.setdefault(extension, len(codes)), written))
    first = np.zeros(len(samples) + 1, np.int64)
    np.cumsum([len(sample.members) for sample in samples], out=first[1:])
    return first, np.array(rows, MEMBER), tuple(codes)

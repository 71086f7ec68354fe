"""Where each sample's members lie in a tar: what a reshard needs to copy them without a decode."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from . import storage
from .faces import Boxes, blur_faces, face_boxes
from .fields import ReadOptions
from .images import ImageLimits, to_png
from .outgoing import PNG, Keeping, Outgoing, outgoing
from .records import Failure, Sample, failure_of
from .samples import read_samples
from .subset import Subset
from .uids import parse_uids

# A member's data in its tar: byte offset and bytes, crc32 of the header block before it, and its
# extension in the new tar as a position in `extensions`; its bytes there, which are others where something is
# changed; and what that is (`outgoing`).
COPIED = [("offset", "i8"), ("size", "i8"), ("check", "u4"), ("extension", "u2"), ("written", "i8")]
MEMBER = np.dtype([*COPIED, ("change", "u1")])


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
    read_as: ReadOptions = ReadOptions()


def index_shard(
    path: str,
    read: ReadOptions = ReadOptions(),
    wanted: Subset | None = None,
    blur: bool = False,
    members: Collection[str] = (),
) -> ShardIndex:
    """Index the tar at `path`: headers, json and captions are read, the images are passed over.

    With `wanted`, only its uids are kept, so that a large pool's indexes stay as small as the subset;
    failures are kept all, since one may be why a wanted uid is missing. With `blur` the images that have
    faces are blurred here already, to know what comes out; so are images encoded as PNG that trainers do not read.
    One that cannot be is a failure. `members` are extensions that are copied beside what trainers read. Never raises
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
        samples = [samples[row] for row in rows]
    samples, planned = _planned(samples, Keeping(read, members), failures)
    samples, planned, boxes = _encoded(path, samples, planned, Encoding(failures, read.limits, blur))
    uids = parse_uids([sample.uid for sample in samples])
    first, packed, extensions = _pack(planned)
    at = {i: boxes[offset] for i, offset in enumerate(packed["offset"].tolist()) if offset in boxes}
    at = {i: found for i, found in at.items() if packed["size"][i]}  # a json made anew stands at its image's place
    return ShardIndex(path, identity, count, uids, first, packed, extensions, failures, at, read)


@dataclass(frozen=True)
class Encoding:
    """Where failures go, how large an image may be, and whether faces are blurred."""

    failures: list[Failure]
    limits: ImageLimits
    blur: bool


def _planned(
    samples: list[Sample], keeping: Keeping, failures: list[Failure]
) -> tuple[list[Sample], list[list[Outgoing]]]:
    """The samples that can be written, and what goes into the new shard of each."""
    valid, planned = [], []
    for sample in samples:
        try:
            planned.append(outgoing(sample, keeping))
            valid.append(sample)
        except Exception as error:  # whatever its json raises is the sample's
            failures.append(failure_of(sample.key, sample.uid, error))
    return valid, planned


def _encoded(
    path: str, samples: list[Sample], planned: list[list[Outgoing]], how: Encoding
) -> tuple[list[Sample], list[list[Outgoing]], dict[int, Boxes]]:
    """The samples that can be written, with the bytes of each image that is encoded anew; offset of an image with
    faces -> its boxes.
    """
    if not how.blur and all(member.written >= 0 for members in planned for member in members):
        return samples, planned, {}
    valid, done, found = [], [], {}
    with storage.open_read(path) as stream:
        for sample, members in zip(samples, planned, strict=True):
            try:
                boxes = face_boxes(sample.meta) if how.blur else ()
                sized = []
                for member in members:
                    if member.offset == sample.offset and member.size and (boxes or member.change == PNG):
                        stream.seek(member.offset)
                        data = encoded(stream.read(member.size), member.change == PNG, boxes, how.limits)
                        member = member._replace(written=len(data))
                        found.update({member.offset: boxes} if boxes else {})
                    sized.append(member)
                valid.append(sample)
                done.append(sized)
            except Exception as error:  # whatever a picture raises is its sample's
                how.failures.append(failure_of(sample.key, sample.uid, error))
    return valid, done, found


def encoded(data: bytes, png: bool, boxes: Boxes, limits: ImageLimits) -> bytes:
    """The image file as it goes into a new shard. Raises DecodeError."""
    data = to_png(data, limits) if png else data
    return blur_faces(data, boxes, limits) if boxes else data


def _pack(planned: list[list[Outgoing]]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """`first`, `members` and `extensions` of a ShardIndex."""
    codes: dict[str, int] = {}
    rows = [
        (m.offset, m.size, m.check, codes.setdefault(m.extension, len(codes)), m.written, m.change)
        for members in planned
        for m in members
    ]
    first = np.zeros(len(planned) + 1, np.int64)
    np.cumsum([len(members) for members in planned], out=first[1:])
    return first, np.array(rows, MEMBER), tuple(codes)
